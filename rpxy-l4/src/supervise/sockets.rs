//! The listening sockets that a configuration asks for, and how each of them is bound.

use std::{collections::BTreeMap, io, net::SocketAddr, num::NonZeroU32, sync::Arc};

use anyhow::{Context, Result, bail};

use crate::{
    config::model::{Config, Transport, UnixListen},
    net::{self, Address, unix::PublicListener},
};

/// A listening socket; the same one before and after a reload.
pub(super) type Key = (Transport, Address);

/// What a configuration wants of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Name of its listener.
    pub(super) listener: Arc<str>,
    /// Accept-queue length; 0 for UDP, which has none.
    pub(super) backlog: u32,
    /// Receive buffer of UDP, in bytes.
    pub(super) receive_buffer: u32,
    /// Other processes may have the same port.
    pub(super) share: bool,
    /// The address need not be there.
    free_bind: bool,
    /// The file of a unix socket.
    pub(super) unix: Option<UnixListen>,
}

/// The listening sockets of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sockets(pub(super) BTreeMap<Key, Wanted>);

/// A bound socket, as often as workers have it, with the number of the worker.
#[derive(Debug)]
pub(super) enum BoundAll {
    /// With its file, if it is a unix socket of the daemon's own.
    Tcp(Vec<(usize, net::Bound)>, Option<PublicListener>),
    Udp(Vec<(usize, std::net::UdpSocket)>),
}

impl Sockets {
    /// The sockets that `config` asks for; none of a transport whose traffic would have nowhere to go.
    ///
    /// # Errors
    ///
    /// An interface is not there, or two listeners have the same socket.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let mut sockets = BTreeMap::new();
        for listener in config.listeners() {
            let (listen, name) = (&listener.listen, &listener.name);
            let wanted = |backlog, unix| Wanted {
                listener: Arc::clone(name),
                backlog,
                receive_buffer: listener.udp.receive_buffer.map_or(net::udp::LISTENER_BUFFER, NonZeroU32::get),
                share: listen.reuse_port,
                free_bind: listen.free_bind,
                unix,
            };
            for (transport, address, port) in listener.sockets() {
                let socket =
                    net::socket_address(address, port).with_context(|| format!("cannot listen on {address}:{port}"))?;
                let backlog = if transport == Transport::Tcp { listener.tcp.backlog } else { 0 };
                if let Some(other) = sockets.insert((transport, socket.into()), wanted(backlog, None)) {
                    let other = other.listener;
                    bail!("the listeners {other} and {name} cannot both listen on {socket} ({transport})");
                }
            }
            if let Some(unix) = listen.unix.as_ref().filter(|_| listener.serves(Transport::Tcp)) {
                let key = (Transport::Tcp, Address::Unix(Arc::clone(&unix.path)));
                sockets.insert(key, wanted(listener.tcp.backlog, Some(unix.clone())));
            }
        }
        Ok(Self(sockets))
    }

    /// The addresses of TCP with the names of their listeners.
    pub(super) fn tcp(&self) -> Vec<(Address, &str)> {
        self.of(Transport::Tcp).map(|(address, name)| (address.clone(), name)).collect()
    }

    /// The addresses of UDP with the names of their listeners.
    pub(super) fn udp(&self) -> Vec<(SocketAddr, &str)> {
        self.of(Transport::Udp).filter_map(|(address, name)| Some((address.ip()?, name))).collect()
    }

    /// The addresses of `transport` with the names of their listeners.
    pub(super) fn of(&self, transport: Transport) -> impl Iterator<Item = (&Address, &str)> {
        let of_it = self.0.iter().filter(move |((of, _), _)| *of == transport);
        of_it.map(|((_, address), wanted)| (address, &*wanted.listener))
    }

    /// Returns whether a socket has the port of `key`, of the same family (the wildcard address before, a single one now):
    /// it is in the way of a probe, but not of sharing.
    pub(super) fn has_port_of(&self, (transport, address): &Key) -> bool {
        let Some(address) = address.ip() else { return false };
        self.of(*transport)
            .filter_map(|(held, _)| held.ip())
            .any(|held| held.port() == address.port() && held.is_ipv4() == address.is_ipv4())
    }
}

/// Fails if somebody else has the port.
pub(super) fn probe((transport, address): &Key, want: &Wanted) -> io::Result<()> {
    match (transport, address) {
        (Transport::Tcp, Address::Ip(address)) => net::tcp_port_is_free(*address, want.free_bind),
        (Transport::Udp, Address::Ip(address)) => net::udp::port_is_free(*address, want.free_bind),
        // Binding tells.
        (_, Address::Unix(_)) => Ok(()),
    }
}

/// Binds a socket for each of so many workers.
pub(super) fn bind((transport, address): &Key, want: &Wanted, workers: usize) -> io::Result<BoundAll> {
    let Wanted { backlog, receive_buffer, free_bind, .. } = *want;
    if let (Address::Unix(path), Some(UnixListen { mode, group, .. })) = (address, &want.unix) {
        let file = PublicListener::bind(path, *mode, *group, backlog)?;
        let share = |worker| Ok((worker, net::Bound::Unix(file.share()?)));
        let sockets = (0..workers).map(share).collect::<io::Result<_>>()?;
        return Ok(BoundAll::Tcp(sockets, Some(file)));
    }
    let Some(address) = address.ip() else { return Err(io::ErrorKind::InvalidInput.into()) };
    Ok(match transport {
        Transport::Tcp => {
            let bind = |worker| Ok((worker, net::Bound::Tcp(net::tcp_listener(address, backlog, free_bind)?)));
            BoundAll::Tcp((0..workers).map(bind).collect::<io::Result<_>>()?, None)
        }
        Transport::Udp => {
            let bind = |worker| Ok((worker, net::udp::listener(address, free_bind, receive_buffer)?));
            BoundAll::Udp((0..workers).map(bind).collect::<io::Result<_>>()?)
        }
    })
}

/// An error of either with what to do about it.
pub(super) fn explain(error: io::Error, (_, address): &Key) -> anyhow::Error {
    let of_path = matches!(address, Address::Unix(_));
    let remedies = [
        (
            io::ErrorKind::AddrInUse,
            false,
            "another process listens there; stop it, or set reuse_port = true to share the port",
        ),
        (
            io::ErrorKind::AddrNotAvailable,
            false,
            "this machine does not have the address; set free_bind = true to listen on it before it comes",
        ),
        (io::ErrorKind::PermissionDenied, false, "ports below 1024 need CAP_NET_BIND_SERVICE"),
        (io::ErrorKind::NotFound, true, "its directory does not exist; create it"),
        (
            io::ErrorKind::PermissionDenied,
            true,
            "permission denied; choose a directory that the daemon's user owns, and a group that it belongs to",
        ),
    ];
    let found = remedies.into_iter().find(|(kind, path, _)| *kind == error.kind() && *path == of_path);
    let Some((.., remedy)) = found else { return error.into() };
    anyhow::Error::new(error).context(remedy)
}
