//! What a router says about a packet that is too big for the way (RFC 1191, RFC 8201): who sent it has to learn it.
//!
//! On a spliced connection that is the end behind the other leg. The packet that the router quotes is translated back, with its
//! numbers, or that end would not believe it (RFC 5927). The size stays, for packets have the same on both legs. Whoever is told
//! checks it, so that nothing here ends a connection or counts as a sign of life.

use core::mem::offset_of;

use network_types::ip::{IpProto, Ipv4Hdr, Ipv6Hdr};

use super::counter::TcpCounter;
use super::decide::TcpMaps;
use super::flow::{TcpFlow, state};
use super::translate::{Change, Packet};
use crate::bytes::Bytes;
use crate::decide::Arrival;
use crate::map::{Family, FlowKey, Socket};
use crate::rewrite::Failed;
use crate::rewrite::checksum::{difference, fold, sum_ipv4, sum_ipv6, update};

/// Where an IP header stands behind an Ethernet header without tags, and the type of what follows.
const L3: usize = 14;
const ETHER_TYPE: usize = 12;
const IPV4: [u8; 2] = [0x08, 0x00];
const IPV6: [u8; 2] = [0x86, 0xdd];
/// Length of the ICMP header before the quoted packet.
const ICMP: usize = 8;
const TCP: u8 = IpProto::Tcp as u8;
/// Bits of the offset of a fragment.
const FRAGMENT: u16 = 0x1fff;

/// A message about a packet of a spliced connection.
#[derive(Debug, Clone, Copy)]
pub struct TooBig<F> {
    /// Version of the IP headers, of the message and of the quoted packet.
    pub family: Family,
    /// Offset of the ICMP header, in bytes.
    pub l4: usize,
    ttl: u8,
    ip_checksum: u16,
    outer: Ends,
    quoted_checksum: u16,
    sequence: u32,
    /// The entry of who was to receive the quoted packet.
    pub flow: F,
}

/// Sender and receiver.
#[derive(Debug, Clone, Copy)]
struct Ends {
    source: [u8; 16],
    destination: [u8; 16],
}

impl<F> TooBig<F> {
    /// Length of an IP header, which has no options here.
    #[inline(always)]
    const fn header(&self) -> usize {
        header(self.family)
    }
}

#[inline(always)]
const fn header(family: Family) -> usize {
    match family {
        Family::V4 => Ipv4Hdr::LEN,
        Family::V6 => Ipv6Hdr::LEN,
    }
}

/// What an IP header says.
struct Quoted {
    ttl: u8,
    checksum: u16,
    ends: Ends,
}

/// Finds the connection that a message is about, which [`super::segment::parse`] has found to be
/// [`TooBig`](crate::packet::Pass::TooBig). What is not forwarded goes to the network stack.
#[inline(always)]
pub fn find<M: TcpMaps, B: Bytes>(
    maps: &M,
    bytes: &B,
    arrival: Arrival,
    key: &mut FlowKey,
) -> Result<TooBig<M::Flow>, Option<TcpCounter>> {
    let family = match bytes.read(ETHER_TYPE).ok_or(None)? {
        IPV4 => Family::V4,
        IPV6 => Family::V6,
        _ => return Err(None),
    };
    let l4 = L3 + header(family);
    let quoted_at = l4 + ICMP;
    let (outer, quoted) = match family {
        Family::V4 => (ipv4(bytes, L3, IpProto::Icmp as u8).ok_or(None)?, ipv4(bytes, quoted_at, TCP).ok_or(None)?),
        Family::V6 => (ipv6(bytes, L3, IpProto::Ipv6Icmp as u8).ok_or(None)?, ipv6(bytes, quoted_at, TCP).ok_or(None)?),
    };
    // Who receives it has sent the quoted packet.
    if outer.ends.destination != quoted.ends.source {
        return Err(None);
    }
    let [a, b, c, d, e, f, g, h]: [u8; 8] = bytes.read(quoted_at + header(family)).ok_or(None)?;
    key.source = Socket::new(quoted.ends.destination, [c, d], family);
    key.destination = Socket::new(quoted.ends.source, [a, b], family);
    let flow = maps.flow(key).ok_or(None)?;
    if !maps.is_whole(key, &flow) || !matches!(flow.state, state::LIVE | state::ENDING) {
        return Err(None);
    }
    if flow.source.family() != family as u8 || flow.destination.family() != family as u8 {
        return Err(Some(TcpCounter::Family));
    }
    if flow.ingress != arrival.interface {
        return Err(Some(TcpCounter::OtherInterface));
    }
    if outer.ttl <= 1 {
        return Err(Some(TcpCounter::Ttl));
    }
    if arrival.vlan_aside {
        return Err(Some(TcpCounter::VlanTagged));
    }
    let Quoted { ttl, checksum: ip_checksum, ends: outer } = outer;
    let sequence = u32::from_be_bytes([e, f, g, h]);
    Ok(TooBig { family, l4, ttl, ip_checksum, outer, quoted_checksum: quoted.checksum, sequence, flow })
}

#[inline(always)]
fn ipv4<B: Bytes>(bytes: &B, at: usize, protocol: u8) -> Option<Quoted> {
    let header: [u8; Ipv4Hdr::LEN] = bytes.read(at)?;
    let is_plain = byte!(header: Ipv4Hdr, vihl) == 0x45 && word!(header: Ipv4Hdr, frags) & FRAGMENT == 0;
    if !is_plain || byte!(header: Ipv4Hdr, proto) != protocol {
        return None;
    }
    let field = |address: [u8; 4]| {
        let [a, b, c, d] = address;
        [a, b, c, d, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]
    };
    let ends = Ends {
        source: field(bytes!(header: Ipv4Hdr, src_addr)),
        destination: field(bytes!(header: Ipv4Hdr, dst_addr)),
    };
    Some(Quoted { ttl: byte!(header: Ipv4Hdr, ttl), checksum: word!(header: Ipv4Hdr, check), ends })
}

#[inline(always)]
fn ipv6<B: Bytes>(bytes: &B, at: usize, protocol: u8) -> Option<Quoted> {
    let header: [u8; Ipv6Hdr::LEN] = bytes.read(at)?;
    if byte!(header: Ipv6Hdr, vcf) >> 4 != 6 || byte!(header: Ipv6Hdr, next_hdr) != protocol {
        return None;
    }
    let ends = Ends { source: bytes!(header: Ipv6Hdr, src_addr), destination: bytes!(header: Ipv6Hdr, dst_addr) };
    Some(Quoted { ttl: byte!(header: Ipv6Hdr, hop_limit), checksum: 0, ends })
}

/// Translates a message, all but its checksum: it comes from this machine, as the end knows it.
#[inline(always)]
pub fn translate<P: Packet, F>(packet: &mut P, message: &TooBig<F>, flow: &TcpFlow) -> Result<Change, Failed> {
    let TooBig { family, l4, ttl, ip_checksum, outer, quoted_checksum, sequence, .. } = message;
    let quoted = l4 + ICMP;
    let tcp = quoted + message.header();
    let new_sequence = sequence.wrapping_add(flow.acknowledgement);
    let ([a, b], [c, d], [e, f, g, h]) = (flow.destination.port(), flow.source.port(), new_sequence.to_be_bytes());
    packet.write(tcp, [a, b, c, d, e, f, g, h]).ok_or(Failed::Untouched)?;
    let words = |number: u32| (number >> 16) + (number & 0xffff);
    let of_sequence = difference(words(*sequence), words(new_sequence));
    let of_numbers = fold(u32::from(flow.port_change) + u32::from(of_sequence));
    let ttl_after = ttl.saturating_sub(1);
    let (addresses, words) = match family {
        Family::V4 => {
            let before = sum_ipv4(&outer.source) + sum_ipv4(&outer.destination);
            let after = sum_ipv4(&flow.source.address) + sum_ipv4(&flow.destination.address);
            let of_addresses = difference(before, after);
            let of_ttl = difference(u32::from(*ttl) << 8, u32::from(ttl_after) << 8);
            let checksum = update(update(*ip_checksum, of_addresses), of_ttl);
            write_v4(packet, L3, &flow.source, &flow.destination, checksum).ok_or(Failed::Halfway)?;
            packet.write(L3 + offset_of!(Ipv4Hdr, ttl), [ttl_after]).ok_or(Failed::Halfway)?;
            let checksum = update(*quoted_checksum, flow.address_change);
            write_v4(packet, quoted, &flow.destination, &flow.source, checksum).ok_or(Failed::Halfway)?;
            // The checksum in the quoted header makes up for its addresses; ICMP has no pseudo-header.
            (0, of_numbers)
        }
        Family::V6 => {
            let before = sum_ipv6(&outer.source) + sum_ipv6(&outer.destination);
            let after = sum_ipv6(&flow.source.address) + sum_ipv6(&flow.destination.address);
            write_v6(packet, L3, &flow.source, &flow.destination).ok_or(Failed::Halfway)?;
            packet.write_uncovered(L3 + offset_of!(Ipv6Hdr, hop_limit), ttl_after).ok_or(Failed::Halfway)?;
            write_v6(packet, quoted, &flow.destination, &flow.source).ok_or(Failed::Halfway)?;
            (difference(before, after), fold(u32::from(of_numbers) + u32::from(flow.address_change)))
        }
    };
    Ok(Change { addresses, words })
}

#[inline(always)]
fn write_v4<P: Packet>(packet: &mut P, at: usize, source: &Socket, destination: &Socket, checksum: u16) -> Option<()> {
    let ([a, b, c, d, ..], [e, f, g, h, ..]) = (source.address, destination.address);
    packet.write(at + offset_of!(Ipv4Hdr, src_addr), [a, b, c, d, e, f, g, h])?;
    packet.write(at + offset_of!(Ipv4Hdr, check), checksum.to_be_bytes())
}

#[inline(always)]
fn write_v6<P: Packet>(packet: &mut P, at: usize, source: &Socket, destination: &Socket) -> Option<()> {
    packet.write(at + offset_of!(Ipv6Hdr, src_addr), source.address)?;
    packet.write(at + offset_of!(Ipv6Hdr, dst_addr), destination.address)
}
