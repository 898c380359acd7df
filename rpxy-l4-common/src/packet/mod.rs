//! Reads the headers of a packet: Ethernet, up to two VLAN tags, IPv4 or IPv6, UDP.
//!
//! It errs towards [`Pass`]: whatever is not plain UDP in one piece, with length fields that agree, is left to the
//! kernel, which knows more.

mod pass;
#[cfg(test)]
mod tests;

pub use pass::Pass;

use crate::bytes::{Bytes, Span};
use crate::map::{Family, FlowKey};

/// Length of an Ethernet header without tags, in bytes.
pub const ETHERNET_LEN: usize = 14;
/// Length of a VLAN tag, in bytes.
pub const VLAN_LEN: usize = 4;
/// VLAN tags that are read over; with more a packet is passed.
pub const MAX_VLAN_TAGS: u8 = 2;
/// Length of an IPv4 header without options, in bytes.
pub const IPV4_LEN: usize = 20;
/// Length of an IPv6 header without extensions, in bytes.
pub const IPV6_LEN: usize = 40;
/// Length of a UDP header, in bytes.
pub const UDP_LEN: usize = 8;

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
/// IEEE 802.1Q and 802.1ad.
const ETHERTYPE_VLAN: [u16; 2] = [0x8100, 0x88a8];
/// The bit of an Ethernet address that tells a group, broadcast included, from a station.
const GROUP: u8 = 1;
/// "More fragments" and the fragment offset (RFC 791 section 3.1).
const FRAGMENT: u16 = 0x3fff;

const PROTOCOL_ICMP: u8 = 1;
const PROTOCOL_UDP: u8 = 17;
const PROTOCOL_ICMPV6: u8 = 58;

/// What a packet begins with.
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
    /// Where the IP header begins, in bytes.
    pub l3: usize,
    /// Where the UDP header begins, in bytes.
    pub l4: usize,
    /// The UDP payload.
    pub payload: Span,
    /// Length of the IP packet with its header, in bytes.
    pub ip_len: usize,
    /// Sender and receiver, as `FLOWS` knows them.
    pub key: &'k FlowKey,
}

/// Reads the headers of a packet. Addresses and ports go straight to `key`, whose place the caller provides: as part of
/// a value that is handed on they would be copied byte by byte, and the stack of a program has 512 bytes.
#[inline(always)]
pub fn parse<'k, B: Bytes>(bytes: &B, link: Link, key: &'k mut FlowKey) -> Result<Packet<'k>, Pass> {
    match link {
        Link::Ethernet => ethernet(bytes, key),
        Link::Bare => {
            let [version] = bytes.read(0).ok_or(Pass::Truncated)?;
            match version >> 4 {
                4 => ipv4(bytes, 0, 0, key),
                6 => ipv6(bytes, 0, 0, key),
                _ => Err(Pass::NotIp),
            }
        }
    }
}

#[inline(always)]
fn ethernet<'k, B: Bytes>(bytes: &B, key: &'k mut FlowKey) -> Result<Packet<'k>, Pass> {
    let [destination, .., high, low] = bytes.read::<ETHERNET_LEN>(0).ok_or(Pass::Truncated)?;
    if destination & GROUP != 0 {
        return Err(Pass::LinkGroup);
    }
    let mut ethertype = u16::from_be_bytes([high, low]);
    let mut l3 = ETHERNET_LEN;
    let mut vlan_tags = 0;
    for _ in 0..MAX_VLAN_TAGS {
        if ETHERTYPE_VLAN.contains(&ethertype) {
            let [_, _, high, low] = bytes.read::<VLAN_LEN>(l3).ok_or(Pass::Truncated)?;
            ethertype = u16::from_be_bytes([high, low]);
            l3 += VLAN_LEN;
            vlan_tags += 1;
        }
    }
    match ethertype {
        ETHERTYPE_IPV4 => ipv4(bytes, l3, vlan_tags, key),
        ETHERTYPE_IPV6 => ipv6(bytes, l3, vlan_tags, key),
        _ if ETHERTYPE_VLAN.contains(&ethertype) => Err(Pass::VlanDepth),
        _ => Err(Pass::NotIp),
    }
}

#[inline(always)]
fn ipv4<'k, B: Bytes>(bytes: &B, l3: usize, vlan_tags: u8, key: &'k mut FlowKey) -> Result<Packet<'k>, Pass> {
    let header: [u8; IPV4_LEN] = bytes.read(l3).ok_or(Pass::Truncated)?;
    let [version_ihl, _, len_0, len_1, _, _, fragment_0, fragment_1, ttl, protocol, sum_0, sum_1, rest @ ..] = header;
    if version_ihl >> 4 != 4 {
        return Err(Pass::IpVersion);
    }
    match protocol {
        PROTOCOL_UDP => {}
        PROTOCOL_ICMP => return Err(Pass::Icmp),
        _ => return Err(Pass::NotUdp),
    }
    match version_ihl & 0xf {
        5 => {}
        6.. => return Err(Pass::IpOptions),
        _ => return Err(Pass::IpHeaderLength),
    }
    if u16::from_be_bytes([fragment_0, fragment_1]) & FRAGMENT != 0 {
        return Err(Pass::Fragment);
    }
    let (source, rest) = rest.split_first_chunk().ok_or(Pass::Truncated)?;
    key.source.address = in_first_four(*source);
    key.destination.address = in_first_four(*rest.first_chunk().ok_or(Pass::Truncated)?);
    let ip = Ip {
        family: Family::V4,
        vlan_tags,
        ttl,
        checksum: u16::from_be_bytes([sum_0, sum_1]),
        l3,
        header_len: IPV4_LEN,
        len: usize::from(u16::from_be_bytes([len_0, len_1])),
    };
    udp(bytes, ip, key)
}

#[inline(always)]
fn ipv6<'k, B: Bytes>(bytes: &B, l3: usize, vlan_tags: u8, key: &'k mut FlowKey) -> Result<Packet<'k>, Pass> {
    let header: [u8; IPV6_LEN] = bytes.read(l3).ok_or(Pass::Truncated)?;
    let [version, _, _, _, len_0, len_1, next_header, hop_limit, addresses @ ..] = header;
    if version >> 4 != 6 {
        return Err(Pass::IpVersion);
    }
    match next_header {
        PROTOCOL_UDP => {}
        PROTOCOL_ICMPV6 => return Err(Pass::Icmp),
        44 => return Err(Pass::Fragment),
        // Hop-by-hop options, routing, authentication, destination options, mobility, HIP, Shim6: the extension headers
        // of the IANA registry behind which UDP may stand in the clear.
        0 | 43 | 51 | 60 | 135 | 139 | 140 => return Err(Pass::ExtensionHeader),
        _ => return Err(Pass::NotUdp),
    }
    let (source, destination) = addresses.split_first_chunk().ok_or(Pass::Truncated)?;
    key.source.address = *source;
    key.destination.address = *destination.first_chunk().ok_or(Pass::Truncated)?;
    let ip = Ip {
        family: Family::V6,
        vlan_tags,
        ttl: hop_limit,
        checksum: 0,
        l3,
        header_len: IPV6_LEN,
        len: IPV6_LEN + usize::from(u16::from_be_bytes([len_0, len_1])),
    };
    udp(bytes, ip, key)
}

/// What both versions say of a packet that carries UDP.
#[derive(Clone, Copy)]
struct Ip {
    family: Family,
    vlan_tags: u8,
    ttl: u8,
    checksum: u16,
    l3: usize,
    header_len: usize,
    len: usize,
}

/// An IPv4 address as it stands in the field of both families. In one piece: see [`crate::map::Socket::end`].
#[inline(always)]
fn in_first_four(address: [u8; 4]) -> [u8; 16] {
    let mut field = [0; 16];
    field.first_chunk_mut().into_iter().for_each(|first| *first = address);
    field
}

#[inline(always)]
fn udp<'k, B: Bytes>(bytes: &B, ip: Ip, key: &'k mut FlowKey) -> Result<Packet<'k>, Pass> {
    let Ip { family, vlan_tags, ttl, checksum, l3, header_len, len: ip_len } = ip;
    if ip_len < header_len + UDP_LEN {
        return Err(Pass::IpLength);
    }
    // Longer is legal: short Ethernet frames are padded.
    if !bytes.reaches(l3 + ip_len) {
        return Err(Pass::Truncated);
    }
    let l4 = l3 + header_len;
    let [source_0, source_1, destination_0, destination_1, len_0, len_1, sum_0, sum_1] =
        bytes.read(l4).ok_or(Pass::Truncated)?;
    if usize::from(u16::from_be_bytes([len_0, len_1])) != ip_len - header_len {
        return Err(Pass::UdpLength);
    }
    let udp_checksum = u16::from_be_bytes([sum_0, sum_1]);
    // A receiver has to discard it, unless it knows better (RFC 8200 section 8.1, RFC 6935).
    if matches!(family, Family::V6) && udp_checksum == 0 {
        return Err(Pass::NoChecksum);
    }
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
        payload: Span { offset: l4 + UDP_LEN, len: ip_len - header_len - UDP_LEN },
        ip_len,
        key,
    })
}
