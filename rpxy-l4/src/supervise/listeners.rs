//! Which sockets listen: a plan is bound completely before anything changes, then applied.

use std::{collections::BTreeMap, io, net::SocketAddr};

use anyhow::{Context, Result};
use tokio::sync::oneshot;

use super::worker::{Command, Worker};
use crate::{config::model::Config, net};

/// Accept-queue length by address.
pub(super) type Wanted = BTreeMap<SocketAddr, u32>;

/// The listening sockets of all workers.
#[derive(Debug)]
pub(super) struct Listeners {
    workers: Vec<Worker>,
    held: Wanted,
}

/// Changes whose sockets are bound already.
#[derive(Debug)]
pub(super) struct Plan {
    open: Vec<(SocketAddr, u32, Vec<std::net::TcpListener>)>,
    backlog: Vec<(SocketAddr, u32)>,
    close: Vec<SocketAddr>,
}

/// The addresses that `config` asks for; none when no TCP connection would have anywhere to go.
pub(super) fn wanted(config: &Config, has_destination: bool) -> Result<Wanted> {
    let mut wanted = Wanted::new();
    if !has_destination {
        return Ok(wanted);
    }
    for address in &config.listen.addresses {
        for port in &config.listen.ports {
            let socket =
                net::socket_address(address, *port).with_context(|| format!("cannot listen on {address}:{port}"))?;
            wanted.insert(socket, config.tcp.backlog);
        }
    }
    Ok(wanted)
}

impl Listeners {
    /// No sockets yet.
    pub(super) fn new(workers: Vec<Worker>) -> Self {
        Self { workers, held: Wanted::new() }
    }

    /// Binds what `wanted` needs beyond what is open. On failure nothing has changed.
    pub(super) fn plan(&self, wanted: &Wanted, share: bool) -> Result<Plan> {
        let mut plan = Plan { open: Vec::new(), backlog: Vec::new(), close: Vec::new() };
        for (address, backlog) in wanted {
            match self.held.get(address) {
                Some(held) if held == backlog => {}
                Some(_) => plan.backlog.push((*address, *backlog)),
                None => {
                    let sockets =
                        self.bind(*address, *backlog, share).with_context(|| format!("cannot listen on {address}"))?;
                    plan.open.push((*address, *backlog, sockets));
                }
            }
        }
        plan.close = self.held.keys().filter(|address| !wanted.contains_key(address)).copied().collect();
        Ok(plan)
    }

    fn bind(&self, address: SocketAddr, backlog: u32, share: bool) -> Result<Vec<std::net::TcpListener>> {
        // Our own sockets on the same port (the wildcard address before, a single one now) are in the way of the probe,
        // but not of sharing.
        let ours = self.held.keys().any(|held| held.port() == address.port() && held.is_ipv4() == address.is_ipv4());
        if !share && !ours {
            net::tcp_port_is_free(address).map_err(explain)?;
        }
        self.workers.iter().map(|_| net::tcp_listener(address, backlog).map_err(explain)).collect()
    }

    /// Hands the sockets of `plan` to the workers and closes what is no longer wanted.
    pub(super) fn apply(&mut self, plan: Plan) {
        for (address, backlog, sockets) in plan.open {
            for (worker, socket) in self.workers.iter().zip(sockets) {
                worker.tell(Command::Listen(address, socket));
            }
            self.held.insert(address, backlog);
        }
        for (address, backlog) in plan.backlog {
            for worker in &self.workers {
                worker.tell(Command::Backlog(address, backlog));
            }
            self.held.insert(address, backlog);
        }
        for address in plan.close {
            drop(self.close(address));
        }
    }

    /// Closes all sockets; connections go on. The receivers end when what waited on a socket was accepted.
    pub(super) fn close_all(&mut self) -> Vec<oneshot::Receiver<()>> {
        let held: Vec<SocketAddr> = self.held.keys().copied().collect();
        held.into_iter().flat_map(|address| self.close(address)).collect()
    }

    fn close(&mut self, address: SocketAddr) -> Vec<oneshot::Receiver<()>> {
        self.held.remove(&address);
        let close = |worker: &Worker| {
            let (closed, closing) = oneshot::channel();
            worker.tell(Command::Close(address, closed));
            closing
        };
        self.workers.iter().map(close).collect()
    }

    /// Ends the workers and every connection that is left.
    pub(super) fn stop(&mut self) {
        for worker in &mut self.workers {
            worker.stop();
        }
        self.workers.clear();
    }

    /// The addresses that are open.
    pub(super) fn addresses(&self) -> impl Iterator<Item = &SocketAddr> {
        self.held.keys()
    }

    /// How many workers there are.
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
