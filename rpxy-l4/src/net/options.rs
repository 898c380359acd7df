//! Socket options that neither socket2 nor rustix sets.
#![expect(unsafe_code, reason = "setsockopt(2) with options that have no safe wrapper")]

use std::{ffi::c_int, io, ops::RangeInclusive, os::fd::AsRawFd};

use socket2::Socket;

/// `include/uapi/linux/in.h`, since Linux 6.3; libc has no name for it.
const IP_LOCAL_PORT_RANGE: c_int = 51;

/// Has the address that a datagram was sent to come with it.
pub(super) fn set_packet_info(socket: &Socket, v6: bool) -> io::Result<()> {
    let (level, name) =
        if v6 { (libc::IPPROTO_IPV6, libc::IPV6_RECVPKTINFO) } else { (libc::IPPROTO_IP, libc::IP_PKTINFO) };
    switch_on(socket, level, name)
}

/// Has several datagrams of one peer come as one buffer.
pub(super) fn set_gro(socket: &Socket) -> io::Result<()> {
    switch_on(socket, libc::SOL_UDP, libc::UDP_GRO)
}

/// Has the number of datagrams come for which there was no room.
pub(super) fn set_drop_count(socket: &Socket) -> io::Result<()> {
    switch_on(socket, libc::SOL_SOCKET, libc::SO_RXQ_OVFL)
}

/// Binding to an address takes no port, which connect(2) then finds: the same one can serve several peers. For both
/// families.
pub(super) fn set_bind_address_no_port(socket: &Socket) -> io::Result<()> {
    switch_on(socket, libc::IPPROTO_IP, libc::IP_BIND_ADDRESS_NO_PORT)
}

/// Limits the ports that connect(2) looks at, within `net.ipv4.ip_local_port_range`. For both families.
pub(super) fn set_local_ports(socket: &Socket, ports: &RangeInclusive<u16>) -> io::Result<()> {
    // The upper bound is in the upper half.
    let range = u32::from(*ports.end()) << 16 | u32::from(*ports.start());
    set(socket, libc::IPPROTO_IP, IP_LOCAL_PORT_RANGE, range.cast_signed())
}

fn switch_on(socket: &Socket, level: c_int, name: c_int) -> io::Result<()> {
    set(socket, level, name, 1)
}

fn set(socket: &Socket, level: c_int, name: c_int, value: c_int) -> io::Result<()> {
    // An int is four bytes on every Linux.
    let len: libc::socklen_t = 4;
    // SAFETY: the descriptor is open as long as `socket` lives, and the value is an int of the length given.
    let result = unsafe { libc::setsockopt(socket.as_raw_fd(), level, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}
