//! Sockets and descriptors: the options that the data path relies on, set in one place.

mod address;
mod channel;
mod dial;
mod family;
mod options;
mod passed;
mod peer_groups;
pub(crate) mod poller;
mod queue;
pub(crate) mod repair;
pub(crate) mod udp;
pub(crate) mod unix;

use std::{
    io,
    net::{Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    num::NonZeroU16,
    os::fd::OwnedFd,
    sync::OnceLock,
    time::Duration,
};

pub(crate) use address::Address;
pub(crate) use channel::Channel;
#[cfg(test)]
pub(crate) use dial::tcp_connecting;
pub(crate) use dial::{Dial, ephemeral_ports, is_connected_to_itself, is_source};
pub(crate) use passed::{PassedSocket, take_passed};
pub(crate) use queue::undelivered;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};

use crate::config::model::ListenAddress;

/// First probe of a silent connection. NAT gateways commonly forget one after some minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(60);
/// Between further probes.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(15);
/// Unanswered probes until the connection counts as dead: two minutes of silence in all.
const KEEPALIVE_RETRIES: u32 = 4;

/// A TCP listening socket that shares its port with the daemon's other workers. With `free_bind`, the address need not be
/// one of this machine (yet).
///
/// Options set here are inherited by the connections it accepts (`inet_csk_clone_lock`), which saves the system calls
/// for each of them.
pub(crate) fn tcp_listener(address: SocketAddr, backlog: u32, free_bind: bool) -> io::Result<std::net::TcpListener> {
    let socket = tcp_socket(address)?;
    set_free_bind(&socket, address, free_bind)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    set_inherited(&socket)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Options that connections inherit from the socket that accepts them.
fn set_inherited(socket: &Socket) -> io::Result<()> {
    socket.set_tcp_nodelay(true)?;
    socket.set_tcp_keepalive(&keepalive())
}

/// A socket that listens for streams.
#[derive(Debug)]
pub(crate) enum Bound {
    /// Of TCP.
    Tcp(std::net::TcpListener),
    /// A unix socket.
    Unix(std::os::unix::net::UnixListener),
}

impl Bound {
    /// A listening socket of TCP that somebody else has opened, with the options of [`tcp_listener`].
    pub(crate) fn tcp_of(socket: OwnedFd, backlog: u32) -> io::Result<Self> {
        let socket = Socket::from(socket);
        set_inherited(&socket)?;
        Self::prepare(&socket, backlog)?;
        Ok(Self::Tcp(socket.into()))
    }

    /// A listening unix socket that somebody else has opened.
    pub(crate) fn unix_of(socket: OwnedFd, backlog: u32) -> io::Result<Self> {
        let socket = Socket::from(socket);
        Self::prepare(&socket, backlog)?;
        Ok(Self::Unix(OwnedFd::from(socket).into()))
    }

    fn prepare(socket: &Socket, backlog: u32) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        set_backlog(socket, backlog)
    }
}

/// Changes the length of the accept queue of a socket that listens already.
pub(crate) fn set_backlog(listener: &impl std::os::fd::AsFd, backlog: u32) -> io::Result<()> {
    SockRef::from(listener).listen(i32::try_from(backlog).unwrap_or(i32::MAX))
}

/// Fails when another process listens on `address`, although listeners share ports: SO_REUSEPORT would let a second
/// daemon of the same user take half of the connections.
pub(crate) fn tcp_port_is_free(address: SocketAddr, free_bind: bool) -> io::Result<()> {
    let socket = tcp_socket(address)?;
    set_free_bind(&socket, address, free_bind)?;
    // Connections of a daemon that has just ended may still be in TIME_WAIT; a listening socket refuses all the same.
    socket.set_reuse_address(true)?;
    socket.bind(&address.into())
}

/// Has a socket be bound to an address that is not there (ip(7), `IP_FREEBIND`).
fn set_free_bind(socket: &Socket, address: SocketAddr, free_bind: bool) -> io::Result<()> {
    match address {
        _ if !free_bind => Ok(()),
        SocketAddr::V4(_) => socket.set_freebind_v4(true),
        SocketAddr::V6(_) => socket.set_freebind_v6(true),
    }
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    Ok(socket)
}

/// Has the kernel notice when the peer of a long-lived connection is gone. Four system calls, so not for every
/// connection to a backend; accepted ones inherit it from the listening socket.
pub(crate) fn keep_alive(socket: &impl std::os::fd::AsFd) {
    // Without it the connection still works, only a dead peer goes unnoticed.
    drop(SockRef::from(socket).set_tcp_keepalive(&keepalive()));
}

/// Closing this socket sends a reset instead of an orderly end.
pub(crate) fn reset_on_close(socket: &impl std::os::fd::AsFd) {
    // Failing to pass on a reset as a reset still closes the connection.
    drop(SockRef::from(socket).set_linger(Some(Duration::ZERO)));
}

fn keepalive() -> TcpKeepalive {
    TcpKeepalive::new().with_time(KEEPALIVE_IDLE).with_interval(KEEPALIVE_INTERVAL).with_retries(KEEPALIVE_RETRIES)
}

/// Reads what this module asks the kernel for once, before there are threads that may not open files.
pub(crate) fn read_settings() {
    ephemeral_ports();
    any_can_be_bound(false);
    udp::largest_receive_buffer();
}

/// Returns whether an address is one of this machine; its port does not matter. Where that cannot be found out it is not.
pub(crate) fn is_local(address: SocketAddr) -> bool {
    let address = match address {
        SocketAddr::V4(v4) => SocketAddrV4::new(*v4.ip(), 0).into(),
        SocketAddr::V6(v6) => match v6.ip().to_ipv4_mapped() {
            Some(v4) => SocketAddrV4::new(v4, 0).into(),
            None => SocketAddr::from(SocketAddrV6::new(*v6.ip(), 0, 0, v6.scope_id())),
        },
    };
    if address.ip().is_loopback() {
        return true;
    }
    let Ok(socket) = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP)) else { return false };
    if !any_can_be_bound(address.is_ipv6()) {
        return socket.bind(&address.into()).is_ok();
    }
    // Towards an address of this machine the kernel takes that same address as source, unless it is a secondary one.
    let towards = SocketAddr::new(address.ip(), 9);
    let source = socket.connect(&towards.into()).and_then(|()| socket.local_addr());
    source.is_ok_and(|source| source.as_socket().is_some_and(|source| source.ip() == address.ip()))
}

/// `net.ipv4.ip_nonlocal_bind` or that of IPv6 at the first call: sockets can be bound to what is not there.
fn any_can_be_bound(v6: bool) -> bool {
    static SWITCHES: OnceLock<[bool; 2]> = OnceLock::new();
    let read = |family: &str| {
        let path = format!("/proc/sys/net/{family}/ip_nonlocal_bind");
        std::fs::read_to_string(path).is_ok_and(|text| text.trim() == "1")
    };
    let [of_v4, of_v6] = *SWITCHES.get_or_init(|| [read("ipv4"), read("ipv6")]);
    if v6 { of_v6 } else { of_v4 }
}

/// The socket address of a configured address and port; looks up the zone of a link-local address.
pub(crate) fn socket_address(address: &ListenAddress, port: NonZeroU16) -> io::Result<SocketAddr> {
    Ok(match address {
        ListenAddress::V4(address) => SocketAddrV4::new(*address, port.get()).into(),
        ListenAddress::V6 { address, zone } => {
            let zone = zone.as_deref().map(|zone| zone_index(*address, zone)).transpose()?;
            SocketAddrV6::new(*address, port.get(), 0, zone.unwrap_or(0)).into()
        }
    })
}

/// The socket address of a link-local address on the interface `zone`.
///
/// # Errors
///
/// There is no such interface now.
pub(crate) fn link_local(address: Ipv6Addr, zone: &str, port: u16) -> io::Result<SocketAddr> {
    Ok(SocketAddrV6::new(address, port, 0, zone_index(address, zone)?).into())
}

fn zone_index(address: Ipv6Addr, zone: &str) -> io::Result<u32> {
    if let Ok(index) = zone.parse() {
        return Ok(index);
    }
    let any = Socket::new(Domain::IPV6, Type::DGRAM, None)?;
    rustix::net::netdevice::name_to_index(&any, zone).map_err(|error| {
        io::Error::new(io::Error::from(error).kind(), format!("no interface {zone} for {address}%{zone}"))
    })
}

/// Raises the limit on open files to the hard limit and returns it; `None` means unlimited.
#[must_use]
pub(crate) fn raise_open_files_limit() -> Option<u64> {
    let limit = getrlimit(Resource::Nofile);
    // Raising the soft limit up to the hard one is always allowed; were it not, the old value holds and is returned.
    match setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, maximum: limit.maximum }) {
        Ok(()) => limit.maximum,
        Err(_refused) => limit.current,
    }
}

/// The limit on open files in force; `None` means unlimited.
#[must_use]
pub(crate) fn open_files_limit() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// The number of open files; `None` where the kernel does not tell.
#[must_use]
pub(crate) fn open_files() -> Option<u64> {
    // Linux tells it as the directory's size since 6.2; reading the directory takes long where there are many.
    if let Some(told) = std::fs::metadata("/proc/self/fd").ok().map(|of| of.len()).filter(|told| *told > 0) {
        return Some(told);
    }
    let files = std::fs::read_dir("/proc/self/fd").ok()?;
    // One of them is that of the directory.
    u64::try_from(files.count().saturating_sub(1)).ok()
}

/// The longest accept queue that the kernel gives (`net.core.somaxconn`); `None` when it does not say.
#[must_use]
pub(crate) fn longest_backlog() -> Option<u32> {
    std::fs::read_to_string("/proc/sys/net/core/somaxconn").ok()?.trim().parse().ok()
}

/// Returns whether `error` means that this process or machine ran out of something that comes back.
#[must_use]
pub(crate) fn is_exhaustion(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM | Errno::NOSPC)
    )
}

/// Returns whether an error of `accept(2)` is about the one connection that it would have returned.
#[must_use]
pub(crate) fn is_of_one_connection(error: &io::Error) -> bool {
    use rustix::io::Errno;
    matches!(
        error.raw_os_error().map(Errno::from_raw_os_error),
        Some(
            Errno::CONNABORTED
                | Errno::INTR
                | Errno::PROTO
                | Errno::PERM
                | Errno::NETDOWN
                | Errno::NOPROTOOPT
                | Errno::HOSTDOWN
                | Errno::NONET
                | Errno::HOSTUNREACH
                | Errno::OPNOTSUPP
                | Errno::NETUNREACH
        )
    )
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    #[test]
    fn a_port_that_somebody_listens_on_is_not_free_although_it_could_be_shared() {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let first = tcp_listener(any, 16, false).unwrap();
        let address = first.local_addr().unwrap();
        assert_eq!(tcp_port_is_free(address, false).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let second = tcp_listener(address, 16, false).unwrap();
        drop((first, second));
        tcp_port_is_free(address, false).unwrap();
    }

    #[test]
    fn accepted_connections_inherit_what_the_listener_was_given() {
        let listener = tcp_listener(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)), 16, false).unwrap();
        listener.set_nonblocking(false).unwrap();
        let client = tcp_connecting(listener.local_addr().unwrap()).unwrap();
        let (accepted, _) = listener.accept().unwrap();
        keep_alive(&client);
        for socket in [SockRef::from(&accepted), SockRef::from(&client)] {
            assert!(socket.tcp_nodelay().unwrap());
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), KEEPALIVE_IDLE);
        }
    }

    #[test]
    fn an_unknown_zone_is_named_in_the_error() {
        let address = ListenAddress::V6 { address: "fe80::1".parse().unwrap(), zone: Some("nosuch0".into()) };
        let error = socket_address(&address, NonZeroU16::new(1).unwrap()).unwrap_err();
        assert!(error.to_string().contains("nosuch0"), "{error}");
    }
}
