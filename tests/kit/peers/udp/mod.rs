//! UDP servers and client sockets that keep datagrams as datagrams.
//!
//! Everything gives up after [`PATIENCE`](crate::process::PATIENCE), so that a lost datagram fails a test instead of
//! hanging it.

mod client;
mod server;

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

pub use self::{client::UdpClient, server::UdpServer};
use crate::{socket, topology::Host};

/// Longest payload of a UDP datagram over IPv4.
pub const LONGEST: usize = 65_507;

/// A datagram as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Address of the sender.
    pub source: SocketAddr,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// The unspecified address of the family of `address`.
pub fn unspecified(address: SocketAddr) -> SocketAddr {
    if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// Binds a UDP socket of `host`, with a buffer for bursts. IPv6 sockets are v6-only.
///
/// # Errors
///
/// When the address is taken or not of this host.
pub fn bind(host: &Host, address: SocketAddr) -> io::Result<UdpSocket> {
    const BUFFER: usize = 4 << 20;
    host.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Past the machine's limit where the privilege is there; a smaller one only makes a burst lossy.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            socket.set_recv_buffer_size(BUFFER)?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    })
}

/// Returns true when a socket of `host` is bound to UDP port `port`.
pub fn is_bound(host: &Host, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    socket::table_has(host, "udp", |line| {
        line.split_ascii_whitespace().nth(1).is_some_and(|local| local.ends_with(&wanted))
    })
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    loop {
        match socket.recv_from(buffer) {
            Ok((count, source)) => {
                return Ok(Datagram { source, bytes: buffer.get(..count).unwrap_or_default().to_vec() });
            }
            // A socket with a time limit is not resumed after the process was stopped (signal(7)).
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
}
