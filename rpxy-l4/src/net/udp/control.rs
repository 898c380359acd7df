//! Ancillary data (cmsg(3)) of datagrams: the local address, the type of service, how a buffer is cut into datagrams, and how
//! many the kernel had no room for.
//!
//! The type of service of IPv4 and the traffic class of IPv6 are one byte: DSCP (RFC 2474) and ECN (RFC 3168).

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
};

use socket2::Socket;

use super::Local;
use crate::net::options;

/// Room for all that this module reads or writes of one message: at most 112 and 88 bytes on 64-bit machines.
const ROOM: usize = 128;
/// `struct cmsghdr`: a length of the machine's word size, level and type.
const HEADER: usize = size_of::<libc::cmsghdr>();
const WORD: usize = size_of::<usize>();

/// Asks that the type of service comes with every datagram.
pub(super) fn ask_for_tos(socket: &Socket, v6: bool) -> io::Result<()> {
    if v6 { socket.set_recv_tclass_v6(true) } else { socket.set_recv_tos_v4(true) }
}

/// Asks that the address a datagram was sent to comes with it, and the interface that it arrived by.
pub(super) fn ask_for_local_address(socket: &Socket, v6: bool) -> io::Result<()> {
    options::set_packet_info(socket, v6)
}

/// Lets the kernel hand over several datagrams of one peer as one buffer. Kernels before 5.0 cannot, and then do not.
pub(super) fn ask_for_gro(socket: &Socket) {
    drop(options::set_gro(socket));
}

/// Asks to be told how many datagrams a socket had no room for.
pub(super) fn ask_for_drops(socket: &Socket) {
    drop(options::set_drop_count(socket));
}

/// Ancillary data of one message, aligned as the kernel wants it.
#[derive(Debug, Clone, Copy)]
#[repr(C, align(8))]
pub(super) struct Control(pub(super) [u8; ROOM]);

/// Control messages of a datagram.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Told {
    pub(super) local: Option<Local>,
    /// Index of the interface that it arrived by; 0 where that is not asked for.
    pub(super) ingress: u32,
    pub(super) tos: u8,
    /// Length of the datagrams in the buffer but the last; `None` when it holds one.
    pub(super) segment: Option<u16>,
    /// Datagrams that the socket had no room for since it was made; `None` while that is none.
    pub(super) lost: Option<u32>,
}

impl Control {
    pub(super) const EMPTY: Self = Self([0; ROOM]);
    pub(super) const ROOM: usize = ROOM;

    /// Reads the first `len` bytes; what is not understood is passed over.
    pub(super) fn read(&self, len: usize) -> Told {
        let mut told = Told::default();
        let mut rest = self.0.get(..len).unwrap_or(&self.0);
        while let Some((message, after)) = split(rest) {
            told.note(&message);
            rest = after;
        }
        told
    }

    /// Writes what a datagram shall leave with, and returns how many bytes that takes.
    pub(super) fn write(&mut self, v6: bool, local: Option<Local>, tos: u8, segment: Option<u16>) -> usize {
        let mut at = 0;
        match local.map(|local| (local.address, local.interface)) {
            Some((IpAddr::V4(address), _)) => {
                // in_pktinfo: ipi_ifindex, ipi_spec_dst, ipi_addr (ip(7)). The routes choose the interface.
                let mut info = [0; 12];
                let (_index, rest) = info.split_at_mut(4);
                rest.split_at_mut(4).0.copy_from_slice(&address.octets());
                at = self.put(at, libc::IPPROTO_IP, libc::IP_PKTINFO, &info);
            }
            Some((IpAddr::V6(address), interface)) => {
                // in6_pktinfo: ipi6_addr, ipi6_ifindex (ipv6(7)).
                let mut info = [0; 20];
                let (ip, index) = info.split_at_mut(16);
                ip.copy_from_slice(&address.octets());
                index.copy_from_slice(&interface.to_ne_bytes());
                at = self.put(at, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
            }
            None => {}
        }
        if tos != 0 {
            let value = i32::from(tos).to_ne_bytes();
            let (level, kind) =
                if v6 { (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) } else { (libc::IPPROTO_IP, libc::IP_TOS) };
            at = self.put(at, level, kind, &value);
        }
        if let Some(segment) = segment {
            at = self.put(at, libc::SOL_UDP, libc::UDP_SEGMENT, &segment.to_ne_bytes());
        }
        at
    }

    /// Appends a message at `at` and returns where the next one goes (CMSG_SPACE). The room suffices for one of each.
    fn put(&mut self, at: usize, level: i32, kind: i32, data: &[u8]) -> usize {
        let len = HEADER + data.len();
        let space = len.next_multiple_of(WORD);
        let Some(room) = self.0.get_mut(at..at + space) else { return at };
        let (header, body) = room.split_at_mut(HEADER);
        let (length, rest) = header.split_at_mut(WORD);
        length.copy_from_slice(&len.to_ne_bytes());
        let (level_at, kind_at) = rest.split_at_mut(4);
        level_at.copy_from_slice(&level.to_ne_bytes());
        kind_at.copy_from_slice(&kind.to_ne_bytes());
        let (data_at, padding) = body.split_at_mut(data.len());
        data_at.copy_from_slice(data);
        padding.fill(0);
        at + space
    }
}

impl Told {
    fn note(&mut self, message: &Part<'_>) {
        let Part { level, kind, data } = *message;
        match (level, kind) {
            (libc::IPPROTO_IP, libc::IP_PKTINFO) => {
                // ipi_spec_dst: for a broadcast the interface's own address, which alone can be a source.
                let address = data.get(4..).and_then(|rest| rest.first_chunk::<4>());
                self.local = address.map(|ip| Local { address: Ipv4Addr::from(*ip).into(), interface: 0 });
                self.ingress = data.first_chunk().map_or(0, |index| u32::from_ne_bytes(*index));
            }
            (libc::IPPROTO_IPV6, libc::IPV6_PKTINFO) => {
                let parts =
                    data.split_first_chunk::<16>().and_then(|(ip, rest)| Some((*ip, *rest.first_chunk::<4>()?)));
                self.local = parts.and_then(|(ip, index)| local_v6(ip.into(), u32::from_ne_bytes(index)));
                self.ingress = parts.map_or(0, |(_, index)| u32::from_ne_bytes(index));
            }
            (libc::IPPROTO_IP, libc::IP_TOS) | (libc::IPPROTO_IPV6, libc::IPV6_TCLASS) => {
                // One byte for IPv4, an int for IPv6.
                let byte = match data.first_chunk::<4>() {
                    Some(int) => i32::from_ne_bytes(*int).to_le_bytes()[0],
                    None => data.first().copied().unwrap_or_default(),
                };
                self.tos = byte;
            }
            (libc::SOL_SOCKET, libc::SO_RXQ_OVFL) => {
                self.lost = data.first_chunk::<4>().map(|count| u32::from_ne_bytes(*count));
            }
            (libc::SOL_UDP, libc::UDP_GRO) => {
                let size = data.first_chunk::<4>().map(|int| i32::from_ne_bytes(*int));
                self.segment = size.and_then(|size| u16::try_from(size).ok()).filter(|size| *size > 0);
            }
            _ => {}
        }
    }
}

/// A multicast address cannot be a source: the kernel then chooses one.
fn local_v6(address: Ipv6Addr, interface: u32) -> Option<Local> {
    let link_local = address.is_unicast_link_local();
    (!address.is_multicast())
        .then_some(Local { address: address.into(), interface: if link_local { interface } else { 0 } })
}

/// One message of ancillary data.
struct Part<'a> {
    level: i32,
    kind: i32,
    data: &'a [u8],
}

/// The first message and what is behind it.
fn split(bytes: &[u8]) -> Option<(Part<'_>, &[u8])> {
    let (len, rest) = bytes.split_first_chunk::<WORD>()?;
    let len = usize::from_ne_bytes(*len);
    let (level, rest) = rest.split_first_chunk::<4>()?;
    let (kind, _) = rest.split_first_chunk::<4>()?;
    let data = bytes.get(HEADER..len)?;
    let part = Part { level: i32::from_ne_bytes(*level), kind: i32::from_ne_bytes(*kind), data };
    Some((part, bytes.get(len.next_multiple_of(WORD)..).unwrap_or_default()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn local(text: &str, interface: u32) -> Option<Local> {
        Some(Local { address: text.parse().unwrap(), interface })
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rows = [
            ("nothing", false, None, 0, None),
            ("IPv4 address", false, local("192.0.2.1", 0), 0, None),
            ("IPv6 address", true, local("2001:db8::1", 0), 0, None),
            ("link-local address", true, local("fe80::1", 3), 0, None),
            ("everything, IPv4", false, local("192.0.2.1", 0), 0xb9, Some(1200)),
            ("everything, IPv6", true, local("fe80::1", 3), 0xff, Some(65_000)),
        ];
        for (row, v6, local, tos, segment) in rows {
            let mut control = Control([0xaa; ROOM]);
            let len = control.write(v6, local, tos, segment);
            assert!(len <= 88, "{row}: {len}");
            let told = control.read(len);
            // UDP_SEGMENT goes out, UDP_GRO comes in.
            assert_eq!((told.local, told.tos, told.segment), (local, tos, None), "{row}");
        }
    }

    #[test]
    fn a_type_of_service_is_read_whole_in_either_form() {
        let mut control = Control::EMPTY;
        let len = control.put(0, libc::IPPROTO_IP, libc::IP_TOS, &[0b1011_1001]);
        assert_eq!(control.read(len).tos, 0b1011_1001);
        let len = control.put(0, libc::IPPROTO_IPV6, libc::IPV6_TCLASS, &0b1011_1010_i32.to_ne_bytes());
        assert_eq!(control.read(len).tos, 0b1011_1010);
    }

    #[test]
    fn the_interface_of_arrival_is_told_in_either_form() {
        let mut control = Control::EMPTY;
        let v4 = [&7_u32.to_ne_bytes()[..], &[192, 0, 2, 1], &[192, 0, 2, 1]].concat();
        let len = control.put(0, libc::IPPROTO_IP, libc::IP_PKTINFO, &v4);
        assert_eq!((control.read(len).ingress, control.read(len).local), (7, local("192.0.2.1", 0)));
        let address = "2001:db8::1".parse::<Ipv6Addr>().unwrap();
        let v6 = [&address.octets()[..], &9_u32.to_ne_bytes()].concat();
        let len = control.put(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &v6);
        assert_eq!((control.read(len).ingress, control.read(len).local), (9, local("2001:db8::1", 0)));
    }

    #[test]
    fn segments_and_sources_that_cannot_be_are_left_out() {
        let mut control = Control::EMPTY;
        let len = control.put(0, libc::SOL_UDP, libc::UDP_GRO, &1350_i32.to_ne_bytes());
        assert_eq!(control.read(len).segment, Some(1350));
        let len = control.put(0, libc::SOL_UDP, libc::UDP_GRO, &0_i32.to_ne_bytes());
        assert_eq!(control.read(len).segment, None);
        let mut info = [0; 20];
        info[0] = 0xff;
        let len = control.put(0, libc::IPPROTO_IPV6, libc::IPV6_PKTINFO, &info);
        assert_eq!(control.read(len).local, None, "multicast");
    }

    #[test]
    fn truncated_or_wild_data_is_passed_over() {
        let mut control = Control::EMPTY;
        let full = control.write(true, local("fe80::1", 3), 3, Some(9));
        for len in 0..full {
            let _told = control.read(len);
        }
        assert_eq!(Control([0xff; ROOM]).read(ROOM), Told::default());
        assert_eq!(Control([0; ROOM]).read(ROOM), Told::default());
    }
}
