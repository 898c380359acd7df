//! Carries out a rewrite: which bytes are written, in which order, and what the kernel is told about it.
//!
//! The first write is the one that the kernel may refuse for want of memory; nothing has changed then, and the packet
//! can be passed. When a later one is refused, the packet is neither old nor new and must be dropped.

#[cfg(test)]
mod tests;

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::tcp::TcpHdr;
use network_types::udp::UdpHdr;
use rpxy_l4_common::map::Family;
pub use rpxy_l4_common::rewrite::Failed;
use rpxy_l4_common::rewrite::Rewrite;
use rpxy_l4_common::tcp::segment::Segment;
use rpxy_l4_common::tcp::translate::Change;

/// A packet that lies in memory (XDP).
pub trait Frame {
    /// Writes at an offset from the start. Returns `None` if that is not within the packet.
    fn write<const N: usize>(&self, offset: usize, value: [u8; N]) -> Option<()>;
}

/// A packet of which the kernel keeps more than its bytes (TC).
pub trait Skb {
    /// Writes at an offset from the start. With `summed`, a checksum that the network card made over the whole packet
    /// follows; without, the caller writes something else that makes up for it.
    fn store<const N: usize>(&self, offset: usize, value: [u8; N], summed: bool) -> Option<()>;
    /// Changes the UDP checksum at an offset, where there is one, by what became of the words that it covers: those of
    /// the pseudo-header (`addresses`), or others. Knows when the checksum is not complete yet.
    fn change_checksum(&self, offset: usize, change: u32, addresses: bool) -> Option<()>;
    /// Adds to a checksum that the network card made over the whole packet, if there is one.
    fn add_to_sum(&self, change: u32);
}

/// Writes all fields as they are.
#[inline(always)]
pub fn frame<F: Frame>(frame: &F, rewrite: &Rewrite<'_>) -> Result<(), Failed> {
    let Rewrite { l3, l4, source, destination, .. } = *rewrite;
    // Last things first: when they are within the packet, all is.
    frame.write(l4 + offset_of!(UdpHdr, check), rewrite.udp_checksum.to_be_bytes()).ok_or(Failed::Untouched)?;
    frame.write(l4 + offset_of!(UdpHdr, src), ports(rewrite)).ok_or(Failed::Halfway)?;
    match rewrite.family {
        Family::V4 => {
            frame.write(l3 + offset_of!(Ipv4Hdr, ttl), [rewrite.ttl]).ok_or(Failed::Halfway)?;
            frame.write(l3 + offset_of!(Ipv4Hdr, check), rewrite.ip_checksum.to_be_bytes()).ok_or(Failed::Halfway)?;
            frame.write(l3 + offset_of!(Ipv4Hdr, src_addr), addresses_v4(rewrite)).ok_or(Failed::Halfway)
        }
        Family::V6 => {
            frame.write(l3 + offset_of!(Ipv6Hdr, hop_limit), [rewrite.ttl]).ok_or(Failed::Halfway)?;
            frame.write(l3 + offset_of!(Ipv6Hdr, src_addr), source.address).ok_or(Failed::Halfway)?;
            frame.write(l3 + offset_of!(Ipv6Hdr, dst_addr), destination.address).ok_or(Failed::Halfway)
        }
    }
}

/// Writes all fields; the UDP checksum by its change, because a sender on this machine has left it to the card.
///
/// The sum of the card covers the packet from the IP header on. In IPv4 the header checksum makes up for addresses and
/// TTL, and the kernel subtracts what the UDP checksum changes by. In IPv6 nothing makes up for the addresses but the
/// UDP checksum, yet older kernels subtract all the same (there is `BPF_F_IPV6` since 6.16): that is put right here.
#[inline(always)]
pub fn skb<S: Skb>(skb: &S, rewrite: &Rewrite<'_>) -> Result<(), Failed> {
    let Rewrite { l3, l4, source, destination, .. } = *rewrite;
    // Without a UDP checksum nothing makes up for the ports.
    let without_checksum = rewrite.udp_checksum == 0;
    skb.store(l4 + offset_of!(UdpHdr, src), ports(rewrite), without_checksum).ok_or(Failed::Untouched)?;
    match rewrite.family {
        Family::V4 => {
            skb.store(l3 + offset_of!(Ipv4Hdr, src_addr), addresses_v4(rewrite), false).ok_or(Failed::Halfway)?;
            skb.store(l3 + offset_of!(Ipv4Hdr, ttl), [rewrite.ttl], false).ok_or(Failed::Halfway)?;
            skb.store(l3 + offset_of!(Ipv4Hdr, check), rewrite.ip_checksum.to_be_bytes(), false)
                .ok_or(Failed::Halfway)?;
        }
        Family::V6 => {
            skb.store(l3 + offset_of!(Ipv6Hdr, src_addr), source.address, false).ok_or(Failed::Halfway)?;
            skb.store(l3 + offset_of!(Ipv6Hdr, dst_addr), destination.address, false).ok_or(Failed::Halfway)?;
            skb.store(l3 + offset_of!(Ipv6Hdr, hop_limit), [rewrite.ttl], true).ok_or(Failed::Halfway)?;
        }
    }
    let at = l4 + offset_of!(UdpHdr, check);
    skb.change_checksum(at, rewrite.address_change, true).ok_or(Failed::Halfway)?;
    skb.change_checksum(at, rewrite.port_change, false).ok_or(Failed::Halfway)?;
    if matches!(rewrite.family, Family::V6) {
        skb.add_to_sum(rewrite.address_change);
    }
    Ok(())
}

/// Changes the checksum of a segment that was translated; TCP always has one. In IPv6, see [`skb`].
#[inline(always)]
pub fn checksum<S: Skb>(skb: &S, segment: &Segment<'_>, change: Change) -> Result<(), Failed> {
    checksum_at(skb, segment.l4 + offset_of!(TcpHdr, check), segment.family, change)
}

/// Changes a checksum at an offset that covers a pseudo-header in IPv6. See [`skb`] for the rest.
#[inline(always)]
pub fn checksum_at<S: Skb>(skb: &S, at: usize, family: Family, change: Change) -> Result<(), Failed> {
    skb.change_checksum(at, change.of_addresses(), true).ok_or(Failed::Halfway)?;
    skb.change_checksum(at, change.of_words(), false).ok_or(Failed::Halfway)?;
    if matches!(family, Family::V6) {
        skb.add_to_sum(change.of_addresses());
    }
    Ok(())
}

/// Both ports, as they stand side by side.
#[inline(always)]
fn ports(rewrite: &Rewrite<'_>) -> [u8; 4] {
    let ([a, b], [c, d]) = (rewrite.source.port(), rewrite.destination.port());
    [a, b, c, d]
}

/// Both IPv4 addresses, as they stand side by side.
#[inline(always)]
fn addresses_v4(rewrite: &Rewrite<'_>) -> [u8; 8] {
    let ([a, b, c, d, ..], [e, f, g, h, ..]) = (rewrite.source.address, rewrite.destination.address);
    [a, b, c, d, e, f, g, h]
}
