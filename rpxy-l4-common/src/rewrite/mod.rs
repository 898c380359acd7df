//! The fields of a packet that change when it is steered: addresses, ports, TTL and the checksums over them. Traffic
//! class and ECN stay as they are.

pub mod checksum;
#[cfg(test)]
mod tests;

use core::mem::offset_of;

use network_types::ip::{Ipv4Hdr, Ipv6Hdr};
use network_types::udp::UdpHdr;

use checksum::{difference, kernel_sum, sum_ipv4, sum_ipv6, update};

use crate::map::{Family, Flow, Socket};
use crate::packet::Packet;

/// The state of a packet after a rewrite that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failed {
    /// It is unchanged.
    Untouched,
    /// It is partly rewritten.
    Halfway,
}

/// The new values of all fields that change.
///
/// XDP and the host write them as they are. TC writes all but the UDP checksum, for which the kernel has to know what
/// changed: `bpf_l4_csum_replace(skb, at, 0, address_change, BPF_F_PSEUDO_HDR | BPF_F_MARK_MANGLED_0)`,
/// then the same with `port_change` and without `BPF_F_PSEUDO_HDR`. With `BPF_F_MARK_MANGLED_0` a zero checksum stays
/// zero and none becomes zero; both calls need it, or the second one takes the 0 of the first for no checksum.
#[derive(Debug, Clone, Copy)]
pub struct Rewrite<'a> {
    /// Version of the IP header.
    pub family: Family,
    /// TTL or hop limit.
    pub ttl: u8,
    /// Checksum of the IPv4 header; 0 for IPv6.
    pub ip_checksum: u16,
    /// Checksum of the datagram, where all of it was there before; 0 when there was none.
    pub udp_checksum: u16,
    /// Change of the UDP checksum by the addresses, for `bpf_l4_csum_replace` (see [`checksum::kernel_sum`]).
    pub address_change: u32,
    /// Change of the UDP checksum by the ports, likewise.
    pub port_change: u32,
    /// Offset of the IP header, in bytes.
    pub l3: usize,
    /// Offset of the UDP header, in bytes.
    pub l4: usize,
    /// New sender, from the entry of the flow.
    pub source: &'a Socket,
    /// New receiver, likewise.
    pub destination: &'a Socket,
}

impl<'a> Rewrite<'a> {
    /// Computes the new values for a packet of a flow. The addresses of both are of one family.
    #[inline(always)]
    #[must_use]
    pub fn new(packet: &Packet<'_>, flow: &'a Flow) -> Self {
        let key = packet.key;
        let ttl = packet.ttl.saturating_sub(1);
        // Not a function chosen by family: the programs know no calls through pointers.
        let addresses = match packet.family {
            Family::V4 => difference(
                sum_ipv4(&key.source.address) + sum_ipv4(&key.destination.address),
                sum_ipv4(&flow.source.address) + sum_ipv4(&flow.destination.address),
            ),
            Family::V6 => difference(
                sum_ipv6(&key.source.address) + sum_ipv6(&key.destination.address),
                sum_ipv6(&flow.source.address) + sum_ipv6(&flow.destination.address),
            ),
        };
        let ports =
            difference(port(&key.source) + port(&key.destination), port(&flow.source) + port(&flow.destination));
        let ip_checksum = match packet.family {
            Family::V4 => {
                // The TTL is the upper half of its word; the protocol beside it stays.
                let ttl = difference(u32::from(packet.ttl) << 8, u32::from(ttl) << 8);
                update(update(packet.ip_checksum, addresses), ttl)
            }
            Family::V6 => 0,
        };
        Self {
            family: packet.family,
            ttl,
            ip_checksum,
            udp_checksum: udp_checksum(packet.udp_checksum, addresses, ports),
            address_change: kernel_sum(addresses),
            port_change: kernel_sum(ports),
            l3: packet.l3,
            l4: packet.l4,
            source: &flow.source,
            destination: &flow.destination,
        }
    }

    /// Writes the new values into the packet. Writes nothing and returns `None` if the headers are incomplete.
    pub fn apply(&self, bytes: &mut [u8]) -> Option<()> {
        let headers = bytes.get_mut(self.l3..self.l4 + UdpHdr::LEN)?;
        let (ip, udp_header) = headers.split_at_mut_checked(self.l4 - self.l3)?;
        match self.family {
            Family::V4 => {
                put(ip, offset_of!(Ipv4Hdr, src_addr), *self.source.address.first_chunk::<4>()?)?;
                put(ip, offset_of!(Ipv4Hdr, dst_addr), *self.destination.address.first_chunk::<4>()?)?;
                put(ip, offset_of!(Ipv4Hdr, ttl), [self.ttl])?;
                put(ip, offset_of!(Ipv4Hdr, check), self.ip_checksum.to_be_bytes())?;
            }
            Family::V6 => {
                put(ip, offset_of!(Ipv6Hdr, src_addr), self.source.address)?;
                put(ip, offset_of!(Ipv6Hdr, dst_addr), self.destination.address)?;
                put(ip, offset_of!(Ipv6Hdr, hop_limit), [self.ttl])?;
            }
        }
        put(udp_header, offset_of!(UdpHdr, src), self.source.port())?;
        put(udp_header, offset_of!(UdpHdr, dst), self.destination.port())?;
        put(udp_header, offset_of!(UdpHdr, check), self.udp_checksum.to_be_bytes())
    }
}

/// 0 means none and stays; a result of 0 is sent as its complement, which is the same number (RFC 768).
#[inline(always)]
const fn udp_checksum(old: u16, addresses: u16, ports: u16) -> u16 {
    if old == 0 {
        return 0;
    }
    match update(update(old, addresses), ports) {
        0 => 0xffff,
        checksum => checksum,
    }
}

#[inline(always)]
const fn port(socket: &Socket) -> u32 {
    u16::from_be_bytes(socket.port()) as u32
}

fn put<const N: usize>(bytes: &mut [u8], offset: usize, value: [u8; N]) -> Option<()> {
    *bytes.get_mut(offset..)?.first_chunk_mut()? = value;
    Some(())
}
