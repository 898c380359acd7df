//! Reads the headers of a packet: Ethernet, up to two VLAN tags, IPv4 or IPv6, UDP. TCP is in [`crate::tcp`].
//!
//! It errs towards [`Pass`]: whatever is not plain UDP in one piece, with length fields that agree, is left to the
//! kernel, which knows more.

#[macro_use]
pub(crate) mod field;
mod pass;
#[cfg(test)]
mod tests;

pub use pass::Pass;

use network_types::eth::{EthHdr, EtherType};
use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};
use network_types::udp::UdpHdr;
use network_types::vlan::VlanHdr;

use crate::bytes::{Bytes, Span};
use crate::map::{Family, FlowKey};

/// VLAN tags that are read over; with more a packet is passed.
pub const MAX_VLAN_TAGS: u8 = 2;

/// The bit of an Ethernet address that tells a group, broadcast included, from a station.
const GROUP: u8 = 1;
/// "More fragments" and the fragment offset (RFC 791 section 3.1).
const FRAGMENT: u16 = 0x3fff;

/// The header that a packet begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Link {
    /// An Ethernet header.
    Ethernet,
    /// The IP header: tun and ppp devices, for example.
    Bare,
}

/// A UDP datagram in one IP packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Packet<'k> {
    /// Version of the IP header.
    pub family: Family,
    /// VLAN tags between the Ethernet and the IP header: 0 to [`MAX_VLAN_TAGS`].
    pub vlan_tags: u8,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Checksum of the IPv4 header; 0 for IPv6, which has none.
    pub ip_checksum: u16,
    /// Checksum of the datagram, 0 for none. Only the sum of the pseudo-header where the kernel has left the rest to
    /// the network card.
    pub udp_checksum: u16,
    /// Offset of the IP header, in bytes.
    pub l3: usize,
    /// Offset of the UDP header, in bytes.
    pub l4: usize,
    /// Receiver on the link; zeros where packets have no Ethernet header.
    pub station: [u8; 6],
    /// The UDP payload.
    pub payload: Span,
    /// Length of the IP packet with its header, in bytes.
    pub ip_len: usize,
    /// Sender and receiver, as in `FLOWS`.
    pub key: &'k FlowKey,
}

/// Reads the headers of a packet. Addresses and ports go straight to `key`, which the caller provides: as part of a
/// returned value they would be copied byte by byte, and the stack of a program has 512 bytes.
#[inline(always)]
pub fn parse<'k, B: Bytes>(bytes: &B, link: Link, key: &'k mut FlowKey) -> Result<Packet<'k>, Pass> {
    let ip = ip(bytes, link, IpProto::Udp as u8, key)?;
    udp(bytes, ip, key)
}

/// Reads what stands before the header of a transport protocol. Addresses go to `key`.
#[inline(always)]
pub(crate) fn ip<B: Bytes>(bytes: &B, link: Link, protocol: u8, key: &mut FlowKey) -> Result<Ip, Pass> {
    match link {
        Link::Ethernet => ethernet(bytes, protocol, key),
        Link::Bare => {
            let [version] = bytes.read(0).ok_or(Pass::Truncated)?;
            match version >> 4 {
                4 => ipv4(bytes, BARE, protocol, key),
                6 => ipv6(bytes, BARE, protocol, key),
                _ => Err(Pass::NotIp),
            }
        }
    }
}

#[inline(always)]
fn ethernet<B: Bytes>(bytes: &B, protocol: u8, key: &mut FlowKey) -> Result<Ip, Pass> {
    const IPV4: u16 = u16::from_be(EtherType::Ipv4 as u16);
    const IPV6: u16 = u16::from_be(EtherType::Ipv6 as u16);
    const VLAN: u16 = u16::from_be(EtherType::Ieee8021q as u16);
    const OUTER_VLAN: u16 = u16::from_be(EtherType::Ieee8021ad as u16);

    let header: [u8; EthHdr::LEN] = bytes.read(0).ok_or(Pass::Truncated)?;
    let station: [u8; 6] = bytes!(header: EthHdr, dst_addr);
    if station[0] & GROUP != 0 {
        return Err(Pass::LinkGroup);
    }
    let mut ether_type = word!(header: EthHdr, ether_type);
    let mut l3 = EthHdr::LEN;
    let mut vlan_tags = 0;
    for _ in 0..MAX_VLAN_TAGS {
        if matches!(ether_type, VLAN | OUTER_VLAN) {
            let tag: [u8; VlanHdr::LEN] = bytes.read(l3).ok_or(Pass::Truncated)?;
            ether_type = word!(tag: VlanHdr, ether_type);
            l3 += VlanHdr::LEN;
            vlan_tags += 1;
        }
    }
    let before = Before { station, vlan_tags, l3 };
    match ether_type {
        IPV4 => ipv4(bytes, before, protocol, key),
        IPV6 => ipv6(bytes, before, protocol, key),
        VLAN | OUTER_VLAN => Err(Pass::VlanDepth),
        _ => Err(Pass::NotIp),
    }
}

/// What stands before the IP header.
#[derive(Clone, Copy)]
pub(crate) struct Before {
    pub(crate) station: [u8; 6],
    pub(crate) vlan_tags: u8,
    pub(crate) l3: usize,
}

/// Nothing.
const BARE: Before = Before { station: [0; 6], vlan_tags: 0, l3: 0 };

#[inline(always)]
fn ipv4<B: Bytes>(bytes: &B, before: Before, protocol: u8, key: &mut FlowKey) -> Result<Ip, Pass> {
    const ICMP: u8 = IpProto::Icmp as u8;

    let header: [u8; Ipv4Hdr::LEN] = bytes.read(before.l3).ok_or(Pass::Truncated)?;
    let version_ihl = byte!(header: Ipv4Hdr, vihl);
    if version_ihl >> 4 != 4 {
        return Err(Pass::IpVersion);
    }
    match byte!(header: Ipv4Hdr, proto) {
        other if other == protocol => {}
        ICMP if version_ihl & 0xf == 5 => return Err(icmp(bytes, before.l3 + Ipv4Hdr::LEN, [3, 4])),
        ICMP => return Err(Pass::Icmp),
        _ => return Err(Pass::OtherTransport),
    }
    match version_ihl & 0xf {
        5 => {}
        6.. => return Err(Pass::IpOptions),
        _ => return Err(Pass::IpHeaderLength),
    }
    if word!(header: Ipv4Hdr, frags) & FRAGMENT != 0 {
        return Err(Pass::Fragment);
    }
    key.source.address = in_first_four(bytes!(header: Ipv4Hdr, src_addr));
    key.destination.address = in_first_four(bytes!(header: Ipv4Hdr, dst_addr));
    let ttl = byte!(header: Ipv4Hdr, ttl);
    Ok(Ip {
        family: Family::V4,
        before,
        ttl,
        checksum: word!(header: Ipv4Hdr, check),
        header_len: Ipv4Hdr::LEN,
        len: usize::from(word!(header: Ipv4Hdr, tot_len)),
    })
}

#[inline(always)]
fn ipv6<B: Bytes>(bytes: &B, before: Before, protocol: u8, key: &mut FlowKey) -> Result<Ip, Pass> {
    const ICMP: u8 = IpProto::Ipv6Icmp as u8;
    const FRAGMENT: u8 = IpProto::Ipv6Frag as u8;
    // The extension headers of the IANA registry behind which UDP may stand in the clear.
    const HOP_BY_HOP: u8 = IpProto::HopOpt as u8;
    const ROUTING: u8 = IpProto::Ipv6Route as u8;
    const AUTHENTICATION: u8 = IpProto::Ah as u8;
    const DESTINATION: u8 = IpProto::Ipv6Opts as u8;
    const MOBILITY: u8 = IpProto::MobilityHeader as u8;
    const HIP: u8 = IpProto::Hip as u8;
    const SHIM6: u8 = IpProto::Shim6 as u8;

    let header: [u8; Ipv6Hdr::LEN] = bytes.read(before.l3).ok_or(Pass::Truncated)?;
    let version = byte!(header: Ipv6Hdr, vcf);
    if version >> 4 != 6 {
        return Err(Pass::IpVersion);
    }
    match byte!(header: Ipv6Hdr, next_hdr) {
        other if other == protocol => {}
        ICMP => return Err(icmp(bytes, before.l3 + Ipv6Hdr::LEN, [2, 0])),
        FRAGMENT => return Err(Pass::Fragment),
        HOP_BY_HOP | ROUTING | AUTHENTICATION | DESTINATION | MOBILITY | HIP | SHIM6 => {
            return Err(Pass::ExtensionHeader);
        }
        _ => return Err(Pass::OtherTransport),
    }
    key.source.address = bytes!(header: Ipv6Hdr, src_addr);
    key.destination.address = bytes!(header: Ipv6Hdr, dst_addr);
    let hop_limit = byte!(header: Ipv6Hdr, hop_limit);
    Ok(Ip {
        family: Family::V6,
        before,
        ttl: hop_limit,
        checksum: 0,
        header_len: Ipv6Hdr::LEN,
        len: Ipv6Hdr::LEN + usize::from(word!(header: Ipv6Hdr, payload_len)),
    })
}

/// Tells ICMP of this type and code, by which routers say that a packet is too big (RFC 792, RFC 4443 section 3.2), from
/// other.
#[inline(always)]
fn icmp<B: Bytes>(bytes: &B, offset: usize, too_big: [u8; 2]) -> Pass {
    if bytes.read(offset) == Some(too_big) { Pass::TooBig } else { Pass::Icmp }
}

/// The fields that both versions have.
#[derive(Clone, Copy)]
pub(crate) struct Ip {
    pub(crate) family: Family,
    pub(crate) before: Before,
    pub(crate) ttl: u8,
    pub(crate) checksum: u16,
    pub(crate) header_len: usize,
    /// Length of the whole packet.
    pub(crate) len: usize,
}

/// An IPv4 address in the field of both families. In one piece: see [`crate::map::Socket::end`].
#[inline(always)]
fn in_first_four(address: [u8; 4]) -> [u8; 16] {
    let mut field = [0; 16];
    field.first_chunk_mut().into_iter().for_each(|first| *first = address);
    field
}

#[inline(always)]
fn udp<'k, B: Bytes>(bytes: &B, ip: Ip, key: &'k mut FlowKey) -> Result<Packet<'k>, Pass> {
    let Ip { family, before: Before { station, vlan_tags, l3 }, ttl, checksum, header_len, len: ip_len } = ip;
    if ip_len < header_len + UdpHdr::LEN {
        return Err(Pass::IpLength);
    }
    // Longer is legal: short Ethernet frames are padded.
    if !bytes.reaches(l3 + ip_len) {
        return Err(Pass::Truncated);
    }
    let l4 = l3 + header_len;
    let header: [u8; UdpHdr::LEN] = bytes.read(l4).ok_or(Pass::Truncated)?;
    if usize::from(word!(header: UdpHdr, len)) != ip_len - header_len {
        return Err(Pass::TransportLength);
    }
    let udp_checksum = word!(header: UdpHdr, check);
    // A receiver has to discard it, unless it knows better (RFC 8200 section 8.1, RFC 6935).
    if matches!(family, Family::V6) && udp_checksum == 0 {
        return Err(Pass::NoChecksum);
    }
    let ([source_0, source_1], [destination_0, destination_1]) =
        (bytes!(header: UdpHdr, src), bytes!(header: UdpHdr, dst));
    key.source.end = u32::from_ne_bytes([source_0, source_1, family as u8, 0]);
    key.destination.end = u32::from_ne_bytes([destination_0, destination_1, family as u8, 0]);
    Ok(Packet {
        family,
        vlan_tags,
        ttl,
        ip_checksum: checksum,
        udp_checksum,
        l3,
        l4,
        station,
        payload: Span { offset: l4 + UdpHdr::LEN, len: ip_len - header_len - UdpHdr::LEN },
        ip_len,
        key,
    })
}
