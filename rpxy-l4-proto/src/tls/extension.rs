//! The bodies of the two extensions that routing reads. Lengths must fit exactly, and a server name must be one that
//! can be compared and logged as it stands; otherwise there is no name, and the server behind may say what it thinks.

use std::ops::Range;

use crate::reader::Reader;

/// Extension type `server_name` (RFC 6066 section 3).
pub(super) const SERVER_NAME: u16 = 0;
/// Extension type `application_layer_protocol_negotiation` (RFC 7301 section 3.1).
pub(super) const ALPN: u16 = 16;

/// Name type `host_name` (RFC 6066 section 3).
const HOST_NAME: u8 = 0;
/// The longest host name, in bytes: what DNS can carry (RFC 1035 section 2.3.4).
const MAX_HOST_NAME: usize = 255;

/// Range of the host name in a `ServerNameList`; `None` when there is none that can be compared.
pub(super) fn host_name(body: &[u8]) -> Option<Range<usize>> {
    let mut list = list(body)?;
    let mut host_name = None;
    let mut types = [false; 256];
    while !list.is_empty() {
        let name_type = list.u8()?;
        // RFC 6066 section 3: names of later types begin with a two-byte length as well.
        let name = list.vec16()?;
        // RFC 6066 section 3: no more than one name of a type.
        let seen = types.get_mut(usize::from(name_type))?;
        if std::mem::replace(seen, true) {
            return None;
        }
        if name_type == HOST_NAME {
            if name.is_empty() || name.len() > MAX_HOST_NAME || !name.iter().all(u8::is_ascii_graphic) {
                return None;
            }
            let end = body.len().saturating_sub(list.rest().len());
            host_name = Some(end.saturating_sub(name.len())..end);
        }
    }
    host_name
}

/// Range of the names in a `ProtocolNameList`, each behind a one-byte length; `None` when it is malformed.
pub(super) fn protocol_names(body: &[u8]) -> Option<Range<usize>> {
    let mut list = list(body)?;
    let start = body.len().saturating_sub(list.rest().len());
    while !list.is_empty() {
        // RFC 7301 section 3.1: empty names are not allowed.
        list.vec8().filter(|name| !name.is_empty())?;
    }
    Some(start..body.len())
}

/// The inside of a non-empty two-byte-length list that fills the whole body.
fn list(body: &[u8]) -> Option<Reader<'_>> {
    let mut reader = Reader::new(body);
    let list = reader.vec16().filter(|list| !list.is_empty())?;
    reader.is_empty().then(|| Reader::new(list))
}
