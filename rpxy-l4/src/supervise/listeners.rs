//! The listening sockets: a plan is bound completely before anything changes, then applied.

use std::{collections::BTreeMap, fmt, io, net::SocketAddr};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::worker::{ListenCommand, Worker};
use crate::{
    config::model::Config,
    net,
    offload::Steered,
    udp::{self, Control},
};

/// Transport protocol of a listening socket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Transport {
    Tcp,
    Udp,
}

impl fmt::Display for Transport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tcp => "TCP",
            Self::Udp => "UDP",
        })
    }
}

/// A listening socket; the same one before and after a reload.
type Key = (Transport, SocketAddr);

/// Accept-queue length by socket; 0 for UDP, which has none.
pub(super) type Wanted = BTreeMap<Key, u32>;

/// Transports that have a destination.
#[derive(Debug, Clone, Copy)]
pub(super) struct Served {
    pub(super) tcp: bool,
    pub(super) udp: bool,
}

/// The listening sockets of all workers.
#[derive(Debug)]
pub(super) struct Listeners {
    workers: Vec<Worker>,
    udp_workers: Vec<udp::Worker>,
    held: Wanted,
}

/// Changes whose sockets are bound already.
#[derive(Debug)]
pub(super) struct Plan {
    open: Vec<(Key, u32, Sockets)>,
    backlog: Vec<(Key, u32)>,
    close: Vec<Key>,
}

/// One socket for each worker.
#[derive(Debug)]
enum Sockets {
    Tcp(Vec<std::net::TcpListener>),
    Udp(Vec<std::net::UdpSocket>),
}

/// The sockets that `config` asks for; none of a transport whose traffic would have nowhere to go.
pub(super) fn wanted(config: &Config, served: Served) -> Result<Wanted> {
    let mut wanted = Wanted::new();
    if !served.tcp && !served.udp {
        return Ok(wanted);
    }
    for address in &config.listen.addresses {
        for port in &config.listen.ports {
            let socket =
                net::socket_address(address, *port).with_context(|| format!("cannot listen on {address}:{port}"))?;
            if served.tcp {
                wanted.insert((Transport::Tcp, socket), config.tcp.backlog);
            }
            if served.udp {
                wanted.insert((Transport::Udp, socket), 0);
            }
        }
    }
    Ok(wanted)
}

impl Listeners {
    /// No sockets yet.
    pub(super) fn new(workers: Vec<Worker>, udp_workers: Vec<udp::Worker>) -> Self {
        Self { workers, udp_workers, held: Wanted::new() }
    }

    /// Binds what `wanted` needs beyond what is open. On failure nothing has changed.
    pub(super) fn plan(&self, wanted: &Wanted, share: bool) -> Result<Plan> {
        let mut plan = Plan { open: Vec::new(), backlog: Vec::new(), close: Vec::new() };
        for (key, backlog) in wanted {
            match self.held.get(key) {
                Some(held) if held == backlog => {}
                Some(_) => plan.backlog.push((*key, *backlog)),
                None => {
                    let (transport, address) = key;
                    let sockets = self
                        .bind(*key, *backlog, share)
                        .with_context(|| format!("cannot listen on {address} ({transport})"))?;
                    plan.open.push((*key, *backlog, sockets));
                }
            }
        }
        plan.close = self.held.keys().filter(|key| !wanted.contains_key(key)).copied().collect();
        Ok(plan)
    }

    fn bind(&self, (transport, address): Key, backlog: u32, share: bool) -> Result<Sockets> {
        // Our own sockets on the same port (the wildcard address before, a single one now) are in the way of the probe,
        // but not of sharing.
        let same = |(held_transport, held): &Key| {
            *held_transport == transport && held.port() == address.port() && held.is_ipv4() == address.is_ipv4()
        };
        let probe = !share && !self.held.keys().any(same);
        match transport {
            Transport::Tcp => {
                if probe {
                    net::tcp_port_is_free(address).map_err(explain)?;
                }
                let bind = |_| net::tcp_listener(address, backlog).map_err(explain);
                Ok(Sockets::Tcp(self.workers.iter().map(bind).collect::<Result<_>>()?))
            }
            Transport::Udp => {
                if probe {
                    net::udp::port_is_free(address).map_err(explain)?;
                }
                let bind = |_| net::udp::listener(address).map_err(explain);
                Ok(Sockets::Udp(self.udp_workers.iter().map(bind).collect::<Result<_>>()?))
            }
        }
    }

    /// Hands the sockets of `plan` to the workers and closes what is no longer wanted.
    pub(super) fn apply(&mut self, plan: Plan) {
        for ((transport, address), backlog, sockets) in plan.open {
            match sockets {
                Sockets::Tcp(sockets) => {
                    for (worker, socket) in self.workers.iter().zip(sockets) {
                        worker.tell(ListenCommand::Listen(address, socket));
                    }
                }
                Sockets::Udp(sockets) => {
                    for (worker, socket) in self.udp_workers.iter().zip(sockets) {
                        worker.tell(Control::Listen(address, socket));
                    }
                }
            }
            self.held.insert((transport, address), backlog);
        }
        for (key, backlog) in plan.backlog {
            for worker in &self.workers {
                worker.tell(ListenCommand::Backlog(key.1, backlog));
            }
            self.held.insert(key, backlog);
        }
        for key in plan.close {
            drop(self.close(key));
        }
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
        let held: Vec<Key> = self.held.keys().filter(|(transport, _)| *transport == Transport::Tcp).copied().collect();
        held.into_iter().flat_map(|key| self.close(key)).collect()
    }

    fn close(&mut self, (transport, address): Key) -> Vec<oneshot::Receiver<()>> {
        self.held.remove(&(transport, address));
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

    /// The addresses that are open for `transport`.
    pub(super) fn addresses(&self, transport: Transport) -> impl Iterator<Item = &SocketAddr> {
        self.held.keys().filter(move |(held, _)| *held == transport).map(|(_, address)| address)
    }

    /// Number of sockets.
    pub(super) fn sockets(&self) -> u64 {
        u64::try_from(self.held.len() * self.workers.len()).unwrap_or(u64::MAX)
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }
}

fn explain(error: io::Error) -> anyhow::Error {
    let remedies = [
        (
            io::ErrorKind::AddrInUse,
            "another process listens there; stop it, or set reuse_port = true to share the port",
        ),
        (io::ErrorKind::AddrNotAvailable, "this machine does not have the address"),
        (io::ErrorKind::PermissionDenied, "ports below 1024 need CAP_NET_BIND_SERVICE"),
    ];
    let Some((_, remedy)) = remedies.into_iter().find(|(kind, _)| *kind == error.kind()) else { return error.into() };
    anyhow::Error::new(error).context(remedy)
}
