//! The version 2 header, binary (section 2.2).

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

use super::{Addresses, DecodeError, Header, Stop, Tlvs, Version};
use crate::reader::Reader;

pub(super) const SIGNATURE: [u8; 12] = *b"\r\n\r\n\0\r\nQUIT\n";
/// Signature, version and command, family and transport, length, in bytes.
pub(super) const FIXED: usize = 16;

/// Version 2 in the high nibble, the command `LOCAL` or `PROXY` in the low one.
pub(super) const V2_LOCAL: u8 = 0x20;
pub(super) const V2_PROXY: u8 = 0x21;

/// Address families, the high nibble of byte 13.
pub(super) const AF_UNSPEC: u8 = 0x0;
pub(super) const AF_INET: u8 = 0x1;
pub(super) const AF_INET6: u8 = 0x2;
const AF_UNIX: u8 = 0x3;
/// Transports, the low nibble of byte 13.
const UNSPEC: u8 = 0x0;
pub(super) const STREAM: u8 = 0x1;
pub(super) const DGRAM: u8 = 0x2;

/// The address block of `AF_UNIX`, in bytes: two paths.
const UNIX_ADDRESSES: usize = 216;

pub(super) fn decode(stream: &[u8]) -> Result<(Header, usize), Stop> {
    Stop::unless_starts_with(stream, &SIGNATURE, DecodeError::NoSignature)?;
    let mut fixed = Reader::new(stream.get(SIGNATURE.len()..).unwrap_or_default());

    let local = match fixed.u8().ok_or(Stop::Short)? {
        V2_LOCAL => true,
        V2_PROXY => false,
        0x22..=0x2f => return Err(Stop::Wrong(DecodeError::Command)),
        _ => return Err(Stop::Wrong(DecodeError::Version)),
    };
    let family = fixed.u8().ok_or(Stop::Short)?;
    // Section 2.2: with LOCAL the receiver discards the whole block, the family included.
    let layout = if local { None } else { Some(Layout::of(family).ok_or(Stop::Wrong(DecodeError::Family))?) };
    let length = usize::from(fixed.u16().ok_or(Stop::Short)?);
    if layout.as_ref().is_some_and(|layout| length < layout.addresses) {
        return Err(Stop::Wrong(DecodeError::TooShort));
    }

    let len = FIXED.saturating_add(length);
    let bytes = stream.get(..len).ok_or(Stop::Short)?;
    let header = match layout {
        None => Header { version: Version::V2, addresses: Addresses::Local, tlvs: Tlvs::default() },
        Some(layout) => {
            let tlvs_at = FIXED.saturating_add(layout.addresses);
            let addresses = layout.read(bytes.get(FIXED..tlvs_at).unwrap_or_default());
            Header { version: Version::V2, addresses, tlvs: Tlvs::decode(bytes, tlvs_at).map_err(Stop::Wrong)? }
        }
    };
    Ok((header, len))
}

/// Layout of the address block of a family and transport.
struct Layout {
    family: u8,
    transport: u8,
    /// The length of the address block in bytes.
    addresses: usize,
}

impl Layout {
    fn of(byte: u8) -> Option<Self> {
        let (family, transport) = (byte >> 4, byte & 0x0f);
        let addresses = match family {
            AF_UNSPEC => 0,
            AF_INET => 12,
            AF_INET6 => 36,
            AF_UNIX => UNIX_ADDRESSES,
            _ => return None,
        };
        matches!(transport, UNSPEC | STREAM | DGRAM).then_some(Self { family, transport, addresses })
    }

    /// The addresses in `block`, which has the length of this layout.
    fn read(&self, block: &[u8]) -> Addresses {
        let mut block = Reader::new(block);
        let pair = match self.family {
            AF_INET => inet(&mut block),
            AF_INET6 => inet6(&mut block),
            _ => None,
        };
        match (pair, self.transport) {
            (Some((source, destination)), STREAM) => Addresses::Stream { source, destination },
            (Some((source, destination)), DGRAM) => Addresses::Datagram { source, destination },
            _ => Addresses::Unknown,
        }
    }
}

fn inet(block: &mut Reader<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let source: [u8; 4] = *block.take(4)?.first_chunk()?;
    let destination: [u8; 4] = *block.take(4)?.first_chunk()?;
    let ports = (block.u16()?, block.u16()?);
    Some(((Ipv4Addr::from(source), ports.0).into(), (Ipv4Addr::from(destination), ports.1).into()))
}

fn inet6(block: &mut Reader<'_>) -> Option<(SocketAddr, SocketAddr)> {
    let source: [u8; 16] = *block.take(16)?.first_chunk()?;
    let destination: [u8; 16] = *block.take(16)?.first_chunk()?;
    let ports = (block.u16()?, block.u16()?);
    Some(((Ipv6Addr::from(source), ports.0).into(), (Ipv6Addr::from(destination), ports.1).into()))
}
