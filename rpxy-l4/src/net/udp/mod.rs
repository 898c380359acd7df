//! UDP sockets: made with the options that the data path relies on, received from and sent to in batches.
//!
//! Datagrams of one peer that the kernel hands over as one buffer (UDP_GRO) stay one buffer, and leave as one
//! (UDP_SEGMENT), so that most of the cost is paid once for up to 64 of them.

mod address;
mod control;
mod header;
mod receive;
mod send;

use std::{
    io,
    net::{IpAddr, SocketAddr},
    os::fd::{AsFd, OwnedFd},
    sync::OnceLock,
};

pub(crate) use receive::{Received, Receiver};
pub(crate) use send::{Message, Runs, Sender, Sent};
use serde::{Deserialize, Serialize};
use socket2::{Domain, Protocol, Socket, Type};

/// Receive and send buffer asked for on listening sockets, in bytes: they are shared by all clients of a worker. The
/// kernel cuts it to `net.core.rmem_max` and `wmem_max` unless the daemon has CAP_NET_ADMIN.
pub(crate) const LISTENER_BUFFER: u32 = 4 << 20;

/// Receive buffer asked for towards a backend, in bytes: room for what one QUIC server sends at once. Taken only as far
/// as it is filled. Threads that open sessions have no CAP_NET_ADMIN, so that the kernel cuts it to `rmem_max`.
const CONNECTED_BUFFER: u32 = 1 << 20;

/// The local address that a client has used, which replies have to leave from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub(crate) struct Local {
    /// The address.
    pub address: IpAddr,
    /// Interface index where the address alone does not tell it (IPv6 link-local), otherwise 0.
    pub interface: u32,
}

/// A UDP socket on `address` that shares its port with the daemon's other workers, with a receive buffer of so many bytes as
/// far as the kernel allows. With `free_bind`, the address need not be one of this machine (yet).
pub(crate) fn listener(address: SocketAddr, free_bind: bool, buffer: u32) -> io::Result<std::net::UdpSocket> {
    let socket = udp_socket(address)?;
    super::set_free_bind(&socket, address, free_bind)?;
    socket.set_reuse_port(true)?;
    prepare(&socket, address, buffer)?;
    socket.bind(&address.into())?;
    Ok(socket.into())
}

/// The same of a socket that somebody else has bound to `address`.
pub(crate) fn listener_of(socket: OwnedFd, address: SocketAddr, buffer: u32) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::from(socket);
    socket.set_nonblocking(true)?;
    prepare(&socket, address, buffer)?;
    Ok(socket.into())
}

/// Has a listening socket tell all that is needed of a datagram, and gives it room.
fn prepare(socket: &Socket, address: SocketAddr, buffer: u32) -> io::Result<()> {
    control::ask_for_tos(socket, address.is_ipv6())?;
    if address.ip().is_unspecified() {
        control::ask_for_local_address(socket, address.is_ipv6())?;
    }
    control::ask_for_gro(socket);
    control::ask_for_drops(socket);
    set_receive_buffer(socket, buffer);
    // Without it the socket still works.
    drop(socket.set_send_buffer_size(bytes(LISTENER_BUFFER)));
    Ok(())
}

/// Fails when another process uses `address`, although listeners share ports; see [`super::tcp_port_is_free`].
pub(crate) fn port_is_free(address: SocketAddr, free_bind: bool) -> io::Result<()> {
    let socket = udp_socket(address)?;
    super::set_free_bind(&socket, address, free_bind)?;
    socket.bind(&address.into())
}

/// A socket of its own towards the backend at `address`. Its local port is shared with nobody: neither SO_REUSEADDR nor
/// SO_REUSEPORT is set, so that replies can only be this session's.
pub(crate) fn connected(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    connect(None, address)
}

/// The same from a given address and port, which must be free.
pub(crate) fn connected_from(local: SocketAddr, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    connect(Some(local), address)
}

fn connect(local: Option<SocketAddr>, address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP));
    let socket = socket.map_err(|error| super::family::explain(error, address))?;
    control::ask_for_tos(&socket, address.is_ipv6())?;
    if address.is_ipv4() {
        // The kernel filters by reverse path for IPv4 only, and here not all that it should; see `udp::io::ingress`.
        control::ask_for_local_address(&socket, false)?;
    }
    control::ask_for_gro(&socket);
    control::ask_for_drops(&socket);
    set_receive_buffer(&socket, CONNECTED_BUFFER);
    if let Some(local) = local {
        socket.bind(&local.into())?;
    }
    socket.connect(&address.into()).map_err(|error| super::family::explain(error, address))?;
    Ok(socket.into())
}

/// Returns whether an error of a connected socket says that its target cannot be reached: nobody listens there, or the
/// way is closed (ICMP, or this machine's own routes). Taken as evidence against the target, never as the session's
/// end.
#[must_use]
pub(crate) fn is_unreachable(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(
            Errno::CONNREFUSED
                | Errno::HOSTUNREACH
                | Errno::NETUNREACH
                | Errno::HOSTDOWN
                | Errno::NETDOWN
                | Errno::ACCESS
                | Errno::AFNOSUPPORT
        )
    )
}

/// Returns whether a router has told that a datagram was larger than the path takes (ICMP).
#[must_use]
pub(crate) fn is_too_big(error: &io::Error) -> bool {
    error.raw_os_error() == Some(rustix::io::Errno::MSGSIZE.raw_os_error())
}

/// Returns whether connecting failed for want of a local port or address: autobinding reports the former as EAGAIN
/// (`inet_autobind`).
#[must_use]
pub(crate) fn is_out_of_ports(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::AddrNotAvailable | io::ErrorKind::AddrInUse)
}

fn udp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM.nonblocking(), Some(Protocol::UDP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Sets the receive buffer of a socket as far as the kernel allows. A larger one rides out bursts.
pub(crate) fn set_receive_buffer(socket: &impl AsFd, size: u32) {
    use rustix::net::sockopt::{
        set_socket_recv_buffer_size, set_socket_recv_buffer_size_force, socket_recv_buffer_size,
    };
    if set_socket_recv_buffer_size_force(socket, bytes(size)).is_ok() {
        return;
    }
    // The kernel doubles it for its own needs (socket(7)).
    let held = || socket_recv_buffer_size(socket).unwrap_or_default() / 2;
    let largest = bytes(largest_receive_buffer());
    // What a thread with more rights has set would be cut.
    if bytes(size) <= largest || held() < largest {
        let _cut = set_socket_recv_buffer_size(socket, bytes(size));
    }
}

/// `net.core.rmem_max` at the first call, in bytes; 0 where it cannot be read.
pub(crate) fn largest_receive_buffer() -> u32 {
    static LARGEST: OnceLock<u32> = OnceLock::new();
    let read = || std::fs::read_to_string("/proc/sys/net/core/rmem_max").ok()?.trim().parse().ok();
    *LARGEST.get_or_init(|| read().unwrap_or_default())
}

/// The receive buffer in bytes that a socket gets when it asks for `size`; `None` when that cannot be found out.
#[must_use]
pub(crate) fn receive_buffer_given(size: u32) -> Option<u32> {
    let socket = Socket::new(Domain::IPV4, Type::DGRAM, Some(Protocol::UDP)).ok()?;
    set_receive_buffer(&socket, size);
    // The kernel doubles it for its own needs (socket(7)).
    u32::try_from(socket.recv_buffer_size().ok()? / 2).ok()
}

fn bytes(size: u32) -> usize {
    usize::try_from(size).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests;
