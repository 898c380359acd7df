//! Long headers of any version (RFC 8999), and the rest of the first byte in versions 1 and 2.

use super::varint;
use crate::reader::Reader;

/// The form bit of the first byte, set in long headers (RFC 8999 section 5.1).
const LONG: u8 = 0x80;

/// A version whose packets are read here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Version {
    /// Version 1 (RFC 9000 section 15).
    V1,
    /// Version 2 (RFC 9369 section 3.1).
    V2,
}

impl Version {
    /// `None` for a version that is not read here, that of Version Negotiation packets (0) among them.
    #[must_use]
    pub const fn from_wire(version: u32) -> Option<Self> {
        match version {
            0x0000_0001 => Some(Self::V1),
            0x6b33_43cf => Some(Self::V2),
            _ => None,
        }
    }

    /// The version field.
    #[must_use]
    pub const fn wire(self) -> u32 {
        match self {
            Self::V1 => 0x0000_0001,
            Self::V2 => 0x6b33_43cf,
        }
    }
}

/// The start of a packet with a long header, of any version (RFC 8999 section 5.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LongHeader<'a> {
    /// The first byte; all but its highest bit depend on the version.
    pub first: u8,
    /// The version field; 0 is a Version Negotiation packet (RFC 8999 section 6).
    pub version: u32,
    /// Destination Connection ID, 0 to 255 bytes.
    pub dcid: &'a [u8],
    /// Source Connection ID, 0 to 255 bytes.
    pub scid: &'a [u8],
}

/// Builds the Version Negotiation packet that answers a client's packet, with the versions that are read here (RFC 9000
/// section 17.2.1). `random` fills the bits that mean nothing.
///
/// It is at most 23 bytes and the client's connection IDs long, so that it is never larger than a datagram that may begin
/// a connection.
#[must_use]
pub fn version_negotiation(client: &LongHeader<'_>, random: u64) -> Box<[u8]> {
    let [random, ..] = random.to_be_bytes();
    let id = |id: &[u8]| [&[u8::try_from(id.len()).unwrap_or(u8::MAX)], id].concat();
    let versions = [Version::V1, Version::V2].map(|version| version.wire().to_be_bytes()).concat();
    // The fixed bit is set for those who tell QUIC from other protocols by it.
    let start = [LONG | 0x40 | random, 0, 0, 0, 0];
    [&start[..], &id(client.scid), &id(client.dcid), &versions].concat().into()
}

impl<'a> LongHeader<'a> {
    /// Reads the start of a datagram; `None` for a short header, and where a connection ID passes the end.
    #[must_use]
    pub fn parse(datagram: &'a [u8]) -> Option<Self> {
        Self::read(&mut Reader::new(datagram))
    }

    pub(super) fn read(reader: &mut Reader<'a>) -> Option<Self> {
        let first = reader.u8().filter(|first| first & LONG != 0)?;
        let version = u32::from(reader.u16()?) << 16 | u32::from(reader.u16()?);
        Some(Self { first, version, dcid: reader.vec8()?, scid: reader.vec8()? })
    }
}

/// The type of a long header packet of version 1 or 2 (RFC 9000 section 17.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LongType {
    /// The first flights of both sides, which carry their hellos.
    Initial,
    /// Early data of a client.
    ZeroRtt,
    /// The rest of the handshake.
    Handshake,
    /// A server's request to begin anew with a token.
    Retry,
}

impl LongType {
    /// The type that the first byte tells. The bits are never protected (RFC 9001 section 5.4.1).
    pub(super) const fn of(version: Version, first: u8) -> Self {
        let bits = match version {
            Version::V1 => first >> 4 & 3,
            // RFC 9369 section 3.2: the types of version 1, each one up, and Retry is 0.
            Version::V2 => (first >> 4 & 3).wrapping_sub(1) & 3,
        };
        match bits {
            0 => Self::Initial,
            1 => Self::ZeroRtt,
            2 => Self::Handshake,
            _ => Self::Retry,
        }
    }
}

/// Reads the fields behind the connection IDs of a packet other than Retry: the token, and the length of the rest.
///
/// RFC 9000 section 17.2.2: only Initial packets have a token field.
pub(super) fn token_and_length<'a>(typ: LongType, reader: &mut Reader<'a>) -> Option<(&'a [u8], usize)> {
    let token = if typ == LongType::Initial { varint::read_vec(reader)? } else { &[] };
    let length = usize::try_from(varint::read(reader)?).ok()?;
    Some((token, length))
}
