//! Reads the headers of a TCP segment.

use core::mem::offset_of;

use network_types::ip::IpProto;
use network_types::tcp::TcpHdr;

use crate::bytes::{Bytes, Span};
use crate::map::{Family, FlowKey};
use crate::packet::{Before, Ip, Link, Pass, ip};

/// Control bits, as they stand in the second byte behind the data offset (RFC 9293 section 3.1).
pub mod flag {
    /// No more data from the sender.
    pub const FIN: u8 = 1;
    /// Synchronises sequence numbers.
    pub const SYN: u8 = 2;
    /// Resets the connection.
    pub const RST: u8 = 4;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 16;
}

/// A TCP segment in one IP packet, or several of one connection in a buffer of the kernel.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'k> {
    /// Version of the IP header.
    pub family: Family,
    /// VLAN tags between the Ethernet and the IP header.
    pub vlan_tags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Checksum of the IPv4 header; 0 for IPv6, which has none.
    pub ip_checksum: u16,
    /// Offset of the IP header, in bytes.
    pub l3: usize,
    /// Offset of the TCP header, in bytes.
    pub l4: usize,
    /// Receiver on the link; zeros where packets have no Ethernet header.
    pub station: [u8; 6],
    /// Sequence number.
    pub sequence: u32,
    /// Acknowledgement number; counts only with [`flag::ACK`].
    pub acknowledgement: u32,
    /// The bytes with data offset and control bits, which stay as they are.
    pub control: [u8; 2],
    /// Window, not scaled.
    pub window: u16,
    /// Checksum. Only the sum of the pseudo-header where the kernel has left the rest to the network card.
    pub checksum: u16,
    /// The options, with their padding: 0 to 40 bytes.
    pub options: Span,
    /// Length of the payload, in bytes.
    pub payload_len: usize,
    /// Sender and receiver, as they arrived.
    pub key: &'k FlowKey,
}

impl Segment<'_> {
    /// Returns the control bits of [`flag`].
    #[inline(always)]
    #[must_use]
    pub const fn flags(&self) -> u8 {
        let [_offset, flags] = self.control;
        flags
    }

    /// Returns true if all of these control bits are set.
    #[inline(always)]
    #[must_use]
    pub const fn has(&self, flags: u8) -> bool {
        self.flags() & flags == flags
    }

    /// Returns the numbers that it takes in the sequence: payload, and one each for SYN and FIN.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "no packet is that long")]
    pub const fn sequence_len(&self) -> u32 {
        self.payload_len as u32 + self.has(flag::SYN) as u32 + self.has(flag::FIN) as u32
    }
}

/// Reads the headers of a packet that carries TCP. Addresses and ports go to `key`, as in [`crate::packet::parse`].
///
/// Whatever is not one plain segment with lengths that agree is left to the network stack.
#[inline(always)]
pub fn parse<'k, B: Bytes>(bytes: &B, link: Link, key: &'k mut FlowKey) -> Result<Segment<'k>, Pass> {
    const CONTROL: usize = offset_of!(TcpHdr, _bitfield_1);

    let ip = ip(bytes, link, IpProto::Tcp as u8, key)?;
    let Ip { family, before: Before { station, vlan_tags, l3 }, ttl, checksum: ip_checksum, header_len, len } = ip;
    if len < header_len + TcpHdr::LEN {
        return Err(Pass::IpLength);
    }
    if !bytes.reaches(l3 + len) {
        return Err(Pass::Truncated);
    }
    let l4 = l3 + header_len;
    let header: [u8; TcpHdr::LEN] = bytes.read(l4).ok_or(Pass::Truncated)?;
    let control = [header[CONTROL], header[CONTROL + 1]];
    let data = usize::from(control[0] >> 4) * 4;
    if data < TcpHdr::LEN || data > len - header_len {
        return Err(Pass::TransportLength);
    }
    let ([source_0, source_1], [destination_0, destination_1]) =
        (bytes!(header: TcpHdr, source), bytes!(header: TcpHdr, dest));
    key.source.end = u32::from_ne_bytes([source_0, source_1, family as u8, 0]);
    key.destination.end = u32::from_ne_bytes([destination_0, destination_1, family as u8, 0]);
    Ok(Segment {
        family,
        vlan_tags,
        ttl,
        ip_checksum,
        l3,
        l4,
        station,
        sequence: u32::from_be_bytes(bytes!(header: TcpHdr, seq)),
        acknowledgement: u32::from_be_bytes(bytes!(header: TcpHdr, ack_seq)),
        control,
        window: word!(header: TcpHdr, window),
        checksum: word!(header: TcpHdr, check),
        options: Span { offset: l4 + TcpHdr::LEN, len: data - TcpHdr::LEN },
        payload_len: len - header_len - data,
        key,
    })
}
