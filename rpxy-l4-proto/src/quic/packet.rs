//! Takes a datagram apart into its coalesced packets (RFC 9000 section 12.2). It errs towards fewer packets: behind one
//! that cannot be read, nothing tells where the next one starts.

use std::ops::Range;

use super::{
    ConnectionId, LongType, Version,
    header::{LongHeader, token_and_length},
};
use crate::reader::Reader;

/// The Retry Integrity Tag, in bytes (RFC 9000 section 17.2.5).
const RETRY_TAG: usize = 16;

/// One packet with a long header, of version 1 or 2, still protected.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LongPacket<'a> {
    /// The version of this packet; packets of one datagram may differ in it (RFC 9368 section 2.3).
    pub version: Version,
    /// The packet type.
    pub typ: LongType,
    /// Destination Connection ID.
    pub dcid: ConnectionId,
    /// Source Connection ID.
    pub scid: ConnectionId,
    /// The token of an Initial or Retry packet; empty in others, and in Initial packets of clients that have none.
    pub token: &'a [u8],
    /// From the first byte of the header to the end of what its Length field covers.
    pub(super) bytes: &'a [u8],
    /// Offset of the Packet Number field in `bytes`.
    pub(super) packet_number_at: usize,
    /// Offset of `bytes` in the datagram.
    start: usize,
}

impl<'a> LongPacket<'a> {
    /// The whole packet: header and protected payload.
    #[must_use]
    pub const fn bytes(&self) -> &'a [u8] {
        self.bytes
    }

    /// The bytes of the datagram that are the packet.
    #[must_use]
    pub const fn range(&self) -> Range<usize> {
        self.start..self.start.saturating_add(self.bytes.len())
    }

    fn read(datagram: &'a [u8], start: usize) -> Option<Self> {
        let rest = datagram.get(start..)?;
        let mut reader = Reader::new(rest);
        let header = LongHeader::read(&mut reader)?;
        let version = Version::from_wire(header.version)?;
        let typ = LongType::of(version, header.first);
        // RFC 9000 section 17.2: a packet with a longer ID is not of these versions.
        let (dcid, scid) = (ConnectionId::new(header.dcid)?, ConnectionId::new(header.scid)?);
        let (token, packet_number_at, len) = if typ == LongType::Retry {
            // No Length field: a Retry packet fills the rest of the datagram.
            let token_len = reader.rest().len().checked_sub(RETRY_TAG)?;
            (reader.take(token_len)?, rest.len(), rest.len())
        } else {
            let (token, length) = token_and_length(typ, &mut reader)?;
            let at = rest.len().checked_sub(reader.rest().len())?;
            (token, at, at.checked_add(length)?)
        };
        Some(Self { version, typ, dcid, scid, token, bytes: rest.get(..len)?, packet_number_at, start })
    }
}

/// The packets with long headers at the start of a datagram.
///
/// The list ends at a short header, at an unknown version and at anything malformed. Packets with another Destination
/// Connection ID than the first one are passed over (RFC 9000 section 12.2).
#[must_use]
pub const fn packets(datagram: &[u8]) -> Packets<'_> {
    Packets { datagram, at: 0, dcid: None }
}

/// See [`packets`].
#[derive(Debug, Clone)]
pub struct Packets<'a> {
    datagram: &'a [u8],
    at: usize,
    /// That of the first packet.
    dcid: Option<ConnectionId>,
}

impl<'a> Iterator for Packets<'a> {
    type Item = LongPacket<'a>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            let Some(packet) = LongPacket::read(self.datagram, self.at) else {
                self.at = self.datagram.len();
                return None;
            };
            self.at = packet.range().end;
            if *self.dcid.get_or_insert(packet.dcid) == packet.dcid {
                return Some(packet);
            }
        }
    }
}
