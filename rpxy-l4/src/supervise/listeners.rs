//! The listening sockets: a plan is bound completely before anything changes, then applied.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc};

use anyhow::{Context, Result, bail};
use tokio::sync::oneshot;

use super::worker::{ListenCommand, Worker};
use crate::{
    config::model::{Config, Transport},
    net,
    offload::Steered,
    udp::{self, Control},
};

/// A listening socket; the same one before and after a reload.
type Key = (Transport, SocketAddr);

/// What a configuration wants of a listening socket.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wanted {
    /// Name of its listener.
    listener: Arc<str>,
    /// Accept-queue length; 0 for UDP, which has none.
    backlog: u32,
    /// Other processes may have the same port.
    share: bool,
    /// The address need not be there.
    free_bind: bool,
}

/// The listening sockets of a configuration.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Sockets(BTreeMap<Key, Wanted>);

impl Sockets {
    /// The sockets that `config` asks for; none of a transport whose traffic would have nowhere to go.
    ///
    /// # Errors
    ///
    /// An interface is not there, or two listeners have the same socket.
    pub(super) fn new(config: &Config) -> Result<Self> {
        let mut sockets = BTreeMap::new();
        for listener in config.listeners() {
            for (transport, address, port) in listener.sockets() {
                let socket =
                    net::socket_address(address, port).with_context(|| format!("cannot listen on {address}:{port}"))?;
                let backlog = if transport == Transport::Tcp { listener.tcp.backlog } else { 0 };
                let (share, free_bind) = (listener.listen.reuse_port, listener.listen.free_bind);
                let wanted = Wanted { listener: Arc::clone(&listener.name), backlog, share, free_bind };
                if let Some(other) = sockets.insert((transport, socket), wanted) {
                    let (one, other) = (&listener.name, other.listener);
                    bail!("the listeners {other} and {one} cannot both listen on {socket} ({transport})");
                }
            }
        }
        Ok(Self(sockets))
    }

    /// The addresses of `transport` with the names of their listeners.
    pub(super) fn of(&self, transport: Transport) -> impl Iterator<Item = (SocketAddr, &str)> {
        let of_it = self.0.iter().filter(move |((of, _), _)| *of == transport);
        of_it.map(|((_, address), wanted)| (*address, &*wanted.listener))
    }
}

/// The listening sockets of all workers.
#[derive(Debug)]
pub(super) struct Listeners {
    workers: Vec<Worker>,
    udp_workers: Vec<udp::Worker>,
    held: Sockets,
}

/// Changes whose sockets are bound already.
#[derive(Debug)]
pub(super) struct Plan {
    wanted: Sockets,
    open: Vec<(SocketAddr, Bound)>,
    backlog: Vec<(SocketAddr, u32)>,
    close: Vec<Key>,
}

/// One socket for each worker.
#[derive(Debug)]
enum Bound {
    Tcp(Vec<std::net::TcpListener>),
    Udp(Vec<std::net::UdpSocket>),
}

impl Listeners {
    /// No sockets yet.
    pub(super) fn new(workers: Vec<Worker>, udp_workers: Vec<udp::Worker>) -> Self {
        Self { workers, udp_workers, held: Sockets::default() }
    }

    /// Binds what `wanted` needs beyond what is open. On failure nothing has changed.
    pub(super) fn plan(&self, wanted: Sockets) -> Result<Plan> {
        let failed = |(transport, address): &Key| format!("cannot listen on {address} ({transport})");
        let (mut new, mut backlog) = (Vec::new(), Vec::new());
        for (key, want) in &wanted.0 {
            match self.held.0.get(key) {
                Some(held) if held.backlog == want.backlog => {}
                Some(_) => backlog.push((key.1, want.backlog)),
                None => new.push((key, want)),
            }
        }
        // All before any is bound: those of one port, on several addresses, would be in each other's way.
        for (key, want) in new.iter().filter(|(key, want)| !want.share && !self.has_port(key)) {
            probe(**key, want.free_bind).map_err(explain).with_context(|| failed(key))?;
        }
        let bind = |(key, want): (&Key, &Wanted)| {
            let bound = self.bind(*key, want).map_err(explain).with_context(|| failed(key))?;
            Ok((key.1, bound))
        };
        let open = new.into_iter().map(bind).collect::<Result<_>>()?;
        let close = self.held.0.keys().filter(|key| !wanted.0.contains_key(key)).copied().collect();
        Ok(Plan { wanted, open, backlog, close })
    }

    /// Returns whether our own sockets have the same port (the wildcard address before, a single one now): they are in the
    /// way of a probe, but not of sharing.
    fn has_port(&self, (transport, address): &Key) -> bool {
        self.held.0.keys().any(|(held_transport, held)| {
            held_transport == transport && held.port() == address.port() && held.is_ipv4() == address.is_ipv4()
        })
    }

    fn bind(&self, (transport, address): Key, want: &Wanted) -> io::Result<Bound> {
        Ok(match transport {
            Transport::Tcp => {
                let bind = |_| net::tcp_listener(address, want.backlog, want.free_bind);
                Bound::Tcp(self.workers.iter().map(bind).collect::<io::Result<_>>()?)
            }
            Transport::Udp => {
                let bind = |_| net::udp::listener(address, want.free_bind);
                Bound::Udp(self.udp_workers.iter().map(bind).collect::<io::Result<_>>()?)
            }
        })
    }

    /// Hands the sockets of `plan` to the workers and closes what is no longer wanted.
    pub(super) fn apply(&mut self, plan: Plan) {
        for (address, bound) in plan.open {
            match bound {
                Bound::Tcp(sockets) => {
                    for (worker, socket) in self.workers.iter().zip(sockets) {
                        worker.tell(ListenCommand::Listen(address, socket));
                    }
                }
                Bound::Udp(sockets) => {
                    for (worker, socket) in self.udp_workers.iter().zip(sockets) {
                        worker.tell(Control::Listen(address, socket));
                    }
                }
            }
        }
        for (address, backlog) in plan.backlog {
            for worker in &self.workers {
                worker.tell(ListenCommand::Backlog(address, backlog));
            }
        }
        for key in plan.close {
            drop(self.close(key));
        }
        self.held = plan.wanted;
    }

    /// Tells every UDP worker.
    pub(super) fn tell_udp(&self, control: impl Fn() -> Control) {
        for worker in &self.udp_workers {
            worker.tell(control());
        }
    }

    /// Divides the sessions of an earlier daemon among the UDP workers, which must not have their sockets yet.
    pub(super) fn hand_out_inherited(&self, inherited: Vec<Steered>) {
        let mut parts = vec![Vec::new(); self.udp_workers.len()];
        let count = parts.len().max(1);
        for (index, flow) in inherited.into_iter().enumerate() {
            if let Some(part) = parts.get_mut(index % count) {
                part.push(flow);
            }
        }
        for (worker, part) in self.udp_workers.iter().zip(parts) {
            worker.tell(Control::Inherit(part));
        }
    }

    /// Asks every UDP worker something. A receiver whose worker is gone ends with an error.
    pub(super) fn ask_udp<T>(&self, control: impl Fn(oneshot::Sender<T>) -> Control) -> Vec<oneshot::Receiver<T>> {
        let ask = |worker: &udp::Worker| {
            let (reply, told) = oneshot::channel();
            worker.tell(control(reply));
            told
        };
        self.udp_workers.iter().map(ask).collect()
    }

    /// Closes the TCP sockets; connections go on. The receivers end when what waited on a socket was accepted. UDP is
    /// served until the end: it has no connections that could be waited for.
    pub(super) fn close_tcp(&mut self) -> Vec<oneshot::Receiver<()>> {
        let held: Vec<Key> =
            self.held.0.keys().filter(|(transport, _)| *transport == Transport::Tcp).copied().collect();
        held.into_iter().flat_map(|key| self.close(key)).collect()
    }

    fn close(&mut self, (transport, address): Key) -> Vec<oneshot::Receiver<()>> {
        self.held.0.remove(&(transport, address));
        let pairs = || std::iter::repeat_with(oneshot::channel);
        match transport {
            Transport::Tcp => {
                let close = |(worker, (closed, closing)): (&Worker, _)| {
                    worker.tell(ListenCommand::Close(address, closed));
                    closing
                };
                self.workers.iter().zip(pairs()).map(close).collect()
            }
            Transport::Udp => {
                let close = |(worker, (closed, closing)): (&udp::Worker, _)| {
                    worker.tell(Control::Close(address, closed));
                    closing
                };
                self.udp_workers.iter().zip(pairs()).map(close).collect()
            }
        }
    }

    /// Ends the workers and every connection that is left.
    pub(super) fn stop(&mut self) {
        for worker in &mut self.workers {
            worker.stop();
        }
        self.udp_workers.clear();
        self.workers.clear();
    }

    /// The addresses that are open for `transport`, with the names of their listeners.
    pub(super) fn addresses(&self, transport: Transport) -> impl Iterator<Item = (SocketAddr, &str)> {
        self.held.of(transport)
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }
}

/// Fails if somebody else has the port.
fn probe((transport, address): Key, free_bind: bool) -> io::Result<()> {
    match transport {
        Transport::Tcp => net::tcp_port_is_free(address, free_bind),
        Transport::Udp => net::udp::port_is_free(address, free_bind),
    }
}

fn explain(error: io::Error) -> anyhow::Error {
    let remedies = [
        (
            io::ErrorKind::AddrInUse,
            "another process listens there; stop it, or set reuse_port = true to share the port",
        ),
        (
            io::ErrorKind::AddrNotAvailable,
            "this machine does not have the address; set free_bind = true to listen on it before it comes",
        ),
        (io::ErrorKind::PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE"),
    ];
    let Some((_, remedy)) = remedies.into_iter().find(|(kind, _)| *kind == error.kind()) else { return error.into() };
    anyhow::Error::new(error).context(remedy)
}
