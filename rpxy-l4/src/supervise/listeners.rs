//! The listening sockets: a plan is bound completely before anything changes, then applied.

use std::{collections::BTreeMap, net::SocketAddr, time::Duration};

use anyhow::Result;
use tokio::{sync::oneshot, time::timeout};

use super::{
    sockets::{self, BoundAll, Key, Sockets},
    worker::{ListenCommand, Worker},
};
use crate::{
    admin,
    config::model::Transport,
    net::{Address, unix::PublicListener},
    offload::Steered,
    tcp::ConnectionKey,
    udp::{self, Control, SessionId},
};

/// Wait for the sockets of drained listeners to be closed before they are opened again.
const CLOSING: Duration = Duration::from_secs(1);

/// The listening sockets of all workers.
#[derive(Debug)]
pub(super) struct Listeners {
    workers: Vec<Worker>,
    udp_workers: Vec<udp::Worker>,
    held: Sockets,
    /// Unix sockets, whose files go when these are dropped.
    files: BTreeMap<Address, PublicListener>,
    /// No sockets of TCP: an operator wants no new connections.
    drained: bool,
    /// Sockets that are being closed for that.
    closing: Vec<oneshot::Receiver<()>>,
}

/// Changes whose sockets are bound already.
#[derive(Debug)]
pub(super) struct Plan {
    wanted: Sockets,
    open: Vec<(Address, BoundAll)>,
    backlog: Vec<(Address, u32)>,
    close: Vec<Key>,
}

impl Listeners {
    /// No sockets yet.
    pub(super) fn new(workers: Vec<Worker>, udp_workers: Vec<udp::Worker>) -> Self {
        Self {
            workers,
            udp_workers,
            held: Sockets::default(),
            files: BTreeMap::new(),
            drained: false,
            closing: Vec::new(),
        }
    }

    /// Binds what `wanted` needs beyond what is open; nothing for TCP while that is drained. On failure nothing has changed.
    pub(super) fn plan(&self, mut wanted: Sockets) -> Result<Plan> {
        if self.drained {
            wanted.0.retain(|(transport, _), _| *transport == Transport::Udp);
        }
        let failed =
            |key: &Key, error| sockets::explain(error, key).context(format!("cannot listen on {} ({})", key.1, key.0));
        let (mut new, mut backlog) = (Vec::new(), Vec::new());
        for (key, want) in &wanted.0 {
            match self.held.0.get(key) {
                Some(held) if held.backlog == want.backlog => {}
                Some(_) => backlog.push((key.1.clone(), want.backlog)),
                None => new.push((key, want)),
            }
        }
        // All before any is bound: those of one port, on several addresses, would be in each other's way.
        for (key, want) in new.iter().filter(|(key, want)| !want.share && !self.held.has_port_of(key)) {
            sockets::probe(key, want).map_err(|error| failed(key, error))?;
        }
        let bind = |(key, want): (&Key, &_)| {
            let bound = sockets::bind(key, want, self.workers.len()).map_err(|error| failed(key, error))?;
            Ok((key.1.clone(), bound))
        };
        let open = new.into_iter().map(bind).collect::<Result<_>>()?;
        let close = self.held.0.keys().filter(|key| !wanted.0.contains_key(key)).cloned().collect();
        Ok(Plan { wanted, open, backlog, close })
    }

    /// Hands the sockets of `plan` to the workers and closes what is no longer wanted.
    pub(super) fn apply(&mut self, plan: Plan) {
        for (address, bound) in plan.open {
            match bound {
                BoundAll::Tcp(sockets, file) => {
                    for (worker, socket) in self.workers.iter().zip(sockets) {
                        worker.tell(ListenCommand::Listen(address.clone(), socket));
                    }
                    self.files.extend(file.map(|file| (address, file)));
                }
                BoundAll::Udp(sockets) => {
                    for (worker, socket) in self.udp_workers.iter().zip(sockets) {
                        if let Some(address) = address.ip() {
                            worker.tell(Control::Listen(address, socket));
                        }
                    }
                }
            }
        }
        for (address, backlog) in plan.backlog {
            for worker in &self.workers {
                worker.tell(ListenCommand::Backlog(address.clone(), backlog));
            }
        }
        for key in plan.close {
            drop(self.close(&key));
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

    /// The same for the TCP workers.
    pub(super) fn ask_tcp<T>(
        &self,
        command: impl Fn(oneshot::Sender<T>) -> ListenCommand,
    ) -> Vec<oneshot::Receiver<T>> {
        let ask = |worker: &Worker| {
            let (reply, told) = oneshot::channel();
            worker.tell(command(reply));
            told
        };
        self.workers.iter().map(ask).collect()
    }

    /// Has a worker close a connection or session, and tell `reply` whether there was one. The sender is dropped if there
    /// is no such worker.
    pub(super) fn close_one(&self, id: admin::Id, reply: oneshot::Sender<bool>) {
        let admin::Id { transport, worker, slot, serial } = id;
        let worker = usize::try_from(worker).unwrap_or(usize::MAX);
        match transport {
            Transport::Tcp => {
                if let Some(worker) = self.workers.get(worker) {
                    worker.tell(ListenCommand::CloseConnection(reply, ConnectionKey { slot, serial }));
                }
            }
            Transport::Udp => {
                if let Some(worker) = self.udp_workers.get(worker) {
                    worker.tell(Control::CloseSession(reply, SessionId { index: slot, generation: serial }));
                }
            }
        }
    }

    /// Closes the TCP sockets; connections go on. The receivers end when what waited on a socket was accepted. UDP is
    /// served until the end: it has no connections that could be waited for.
    pub(super) fn close_tcp(&mut self) -> Vec<oneshot::Receiver<()>> {
        let held: Vec<Key> =
            self.held.0.keys().filter(|(transport, _)| *transport == Transport::Tcp).cloned().collect();
        held.iter().flat_map(|key| self.close(key)).collect()
    }

    /// Closes the sockets of TCP until [`Listeners::undrain`]; connections go on.
    pub(super) fn drain(&mut self) {
        self.drained = true;
        self.closing = self.close_tcp();
    }

    /// Opens the sockets of TCP again that `wanted` asks for. On failure it stays drained.
    pub(super) async fn undrain(&mut self, wanted: Sockets) -> Result<()> {
        for closed in self.closing.drain(..) {
            // Ends with an error, which is the sender being dropped.
            drop(timeout(CLOSING, closed).await);
        }
        self.drained = false;
        let plan = self.plan(wanted).inspect_err(|_| self.drained = true)?;
        self.apply(plan);
        Ok(())
    }

    fn close(&mut self, key: &Key) -> Vec<oneshot::Receiver<()>> {
        let (transport, address) = key;
        self.held.0.remove(key);
        self.files.remove(address);
        let pairs = || std::iter::repeat_with(oneshot::channel);
        match (transport, address.ip()) {
            (Transport::Udp, Some(address)) => {
                let close = |(worker, (closed, closing)): (&udp::Worker, _)| {
                    worker.tell(Control::Close(address, closed));
                    closing
                };
                self.udp_workers.iter().zip(pairs()).map(close).collect()
            }
            (Transport::Tcp | Transport::Udp, _) => {
                let close = |(worker, (closed, closing)): (&Worker, _)| {
                    worker.tell(ListenCommand::Close(address.clone(), closed));
                    closing
                };
                self.workers.iter().zip(pairs()).map(close).collect()
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
    pub(super) fn addresses(&self, transport: Transport) -> impl Iterator<Item = (&Address, &str)> {
        self.held.of(transport)
    }

    /// The addresses of UDP, likewise.
    pub(super) fn udp_addresses(&self) -> Vec<(SocketAddr, &str)> {
        self.held.udp()
    }

    /// Number of sockets.
    pub(super) fn sockets(&self) -> u64 {
        u64::try_from(self.held.0.len() * self.workers.len()).unwrap_or(u64::MAX)
    }

    /// Number of workers.
    pub(super) fn workers(&self) -> usize {
        self.workers.len()
    }
}
