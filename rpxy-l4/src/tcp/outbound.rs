//! The PROXY header in front of what a backend receives.

use std::net::SocketAddr;

use bytes::BytesMut;
use rpxy_l4_proto::proxy_protocol::{Addresses, Tlvs, encode_v1, encode_v1_unknown, encode_v2};
use tokio::net::TcpStream;

use super::{Origin, is_unnamed, relay::Preamble};
use crate::{config::model::ProxyVersion, metrics::Outcome};

/// The header of a connection between these addresses; `None` for a client without an address.
pub(super) fn header(version: ProxyVersion, addresses: Option<(SocketAddr, SocketAddr)>, tlvs: &Tlvs) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(108);
    match (version, addresses) {
        (ProxyVersion::V1, Some((source, destination))) => encode_v1(source, destination, &mut bytes),
        (ProxyVersion::V1, None) => encode_v1_unknown(&mut bytes),
        (ProxyVersion::V2, Some((source, destination))) => {
            encode_v2(&Addresses::Stream { source, destination }, tlvs, &mut bytes);
        }
        (ProxyVersion::V2, None) => encode_v2(&Addresses::Local, tlvs, &mut bytes),
    }
    bytes
}

/// The preamble of the connection from `origin`: a header, if its rule sends one, and the bytes `received` so far. TLVs
/// of the inbound header go on in v2; v1 has no room for them.
pub(super) fn preamble(
    version: Option<ProxyVersion>,
    origin: &Origin,
    client: &TcpStream,
    tlvs: &Tlvs,
    received: BytesMut,
) -> Result<Preamble, Outcome> {
    let Some(version) = version else { return Ok(Preamble { bytes: received.freeze(), ..Preamble::default() }) };
    let addresses = match origin.destination {
        // Whoever came by a unix socket has no address, and did not come to one.
        None if is_unnamed(origin.source) => None,
        Some(told) => Some((origin.source, told)),
        None => Some((origin.source, client.local_addr().map_err(|_gone| Outcome::ClientGone)?)),
    };
    let mut bytes = header(version, addresses, tlvs);
    let header = bytes.len();
    bytes.extend_from_slice(&received);
    Ok(Preamble { bytes: bytes.into(), header, sent: 0 })
}
