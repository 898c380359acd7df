//! Sockets towards backends, and the addresses and ports of this machine that they come from.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    ops::RangeInclusive,
    sync::OnceLock,
};

use socket2::{Domain, Protocol, Socket, Type};

use super::{family, options, repair};

/// A TCP socket that is about to be connected to a backend.
#[derive(Debug)]
pub(crate) struct Dial {
    socket: Socket,
    to: SocketAddr,
}

impl Dial {
    /// A socket for a connection to `to`.
    pub(crate) fn new(to: SocketAddr) -> io::Result<Self> {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM.nonblocking(), Some(Protocol::TCP));
        let socket = socket.map_err(|error| family::explain(error, to))?;
        socket.set_tcp_nodelay(true)?;
        Ok(Self { socket, to })
    }

    /// Has the connection come from `source`, an address of the backend's family.
    ///
    /// # Errors
    ///
    /// AddrNotAvailable: this machine does not have it.
    pub(crate) fn set_source(&self, source: IpAddr) -> io::Result<()> {
        options::set_bind_address_no_port(&self.socket)?;
        self.socket.bind(&SocketAddr::new(source, 0).into())
    }

    /// Has the connection come from one of these ports.
    ///
    /// # Errors
    ///
    /// The kernel cannot do that: it is older than Linux 6.3.
    pub(crate) fn set_ports(&self, ports: &RangeInclusive<u16>) -> io::Result<()> {
        options::set_local_ports(&self.socket, ports)
    }

    /// Has the connection come from `source` and `port`, which others may take until it begins; `None` is the address that leads
    /// there. Returns both.
    ///
    /// # Errors
    ///
    /// The kernel cannot do that: it is older than Linux 6.3. AddrNotAvailable: this machine does not have the address.
    pub(crate) fn choose(&self, source: Option<IpAddr>, port: u16) -> io::Result<SocketAddr> {
        self.set_ports(&(port..=port))?;
        let source = source.map_or_else(|| source_towards(self.to), Ok)?;
        self.set_source(source)?;
        Ok(SocketAddr::new(source, port))
    }

    /// Has the connection come from `source` and from a port that it has from now on; `None` is the address that leads
    /// there. Returns both.
    ///
    /// # Errors
    ///
    /// AddrInUse: there is no free port.
    pub(crate) fn bind(&self, source: Option<IpAddr>) -> io::Result<SocketAddr> {
        let source = source.map_or_else(|| source_towards(self.to), Ok)?;
        self.socket.bind(&SocketAddr::new(source, 0).into())?;
        self.socket.local_addr()?.as_socket().ok_or_else(|| io::ErrorKind::AddrNotAvailable.into())
    }

    /// Limits its segments, both ways, as far as the kernel knows such a limit.
    pub(crate) fn set_segment(&self, bytes: u32) {
        drop(repair::set_segment(&self.socket, bytes));
    }

    /// Begins to connect.
    ///
    /// # Errors
    ///
    /// AddrNotAvailable: there is no free port, or no address, towards the backend.
    pub(crate) fn connect(self) -> io::Result<std::net::TcpStream> {
        match self.socket.connect(&self.to.into()) {
            Ok(()) => {}
            Err(error) if error.raw_os_error() == Some(rustix::io::Errno::INPROGRESS.raw_os_error()) => {}
            Err(error) => return Err(family::explain(error, self.to)),
        }
        Ok(self.socket.into())
    }
}

/// The address of this machine that packets to `to` come from. Nothing is sent.
fn source_towards(to: SocketAddr) -> io::Result<IpAddr> {
    let any = if to.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let socket = std::net::UdpSocket::bind((any, 0))?;
    socket.connect(to)?;
    Ok(socket.local_addr()?.ip())
}

/// A connection to `to` that is being established, from whatever address and port the kernel chooses.
#[cfg(test)]
pub(crate) fn tcp_connecting(to: SocketAddr) -> io::Result<std::net::TcpStream> {
    Dial::new(to)?.connect()
}

/// Returns whether sockets can be bound to `address`, so that connections can come from it.
pub(crate) fn is_source(address: IpAddr) -> bool {
    std::net::UdpSocket::bind((address, 0)).is_ok()
}

/// Returns whether `stream`, connected to `peer`, is connected to itself. That happens when nobody listens on a local
/// port of the ephemeral range and the kernel picks that very port for our end (simultaneous open, RFC 9293 section
/// 3.5).
pub(crate) fn is_connected_to_itself(stream: &tokio::net::TcpStream, peer: SocketAddr) -> bool {
    // Only ports that the kernel picks for clients can be met like this; asking costs a system call.
    ephemeral_ports().contains(&peer.port()) && stream.local_addr().is_ok_and(|local| local == peer)
}

/// `net.ipv4.ip_local_port_range` at the first call. It holds for IPv6 as well.
pub(crate) fn ephemeral_ports() -> &'static RangeInclusive<u16> {
    static PORTS: OnceLock<RangeInclusive<u16>> = OnceLock::new();
    PORTS.get_or_init(|| {
        let text = std::fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
        let mut ports = text.split_whitespace().map_while(|port| port.parse().ok());
        match (ports.next(), ports.next()) {
            (Some(low), Some(high)) => low..=high,
            // Not told: it could be any that needs no privilege.
            _ => 1024..=u16::MAX,
        }
    })
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn a_connection_comes_from_the_address_and_ports_that_it_is_given() {
        for (source, listening) in [
            (IpAddr::from([127, 0, 0, 9]), IpAddr::from(Ipv4Addr::LOCALHOST)),
            (Ipv6Addr::LOCALHOST.into(), Ipv6Addr::LOCALHOST.into()),
        ] {
            let listener = std::net::TcpListener::bind((listening, 0)).unwrap();
            let dial = Dial::new(listener.local_addr().unwrap()).unwrap();
            dial.set_source(source).unwrap();
            let low = *ephemeral_ports().start();
            let ports = low..=low + 99;
            let limited = dial.set_ports(&ports).is_ok();
            let stream = dial.connect().unwrap();
            let local = stream.local_addr().unwrap();
            assert_eq!(local.ip(), source);
            assert!(!limited || ports.contains(&local.port()), "{local}");
        }
        let dial = Dial::new(SocketAddr::from((Ipv4Addr::LOCALHOST, 9))).unwrap();
        let error = dial.set_source(IpAddr::from([192, 0, 2, 77])).unwrap_err();
        assert!(error.kind() == io::ErrorKind::AddrNotAvailable && !is_source([192, 0, 2, 77].into()));
    }

    #[test]
    fn ports_of_a_range_that_is_full_are_not_looked_for_elsewhere() {
        let listener = std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let to = listener.local_addr().unwrap();
        let low = *ephemeral_ports().start();
        let dial = || {
            let dial = Dial::new(to).unwrap();
            dial.set_source(IpAddr::from([127, 0, 0, 10])).unwrap();
            dial.set_ports(&(low..=low + 1)).map(|()| dial)
        };
        let Ok(first) = dial() else { return };
        let _held = [first.connect().unwrap(), dial().unwrap().connect().unwrap()];
        assert_eq!(dial().unwrap().connect().unwrap_err().kind(), io::ErrorKind::AddrNotAvailable);
    }
}
