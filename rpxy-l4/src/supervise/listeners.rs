//! The listening sockets: a plan is bound completely before anything changes, then applied.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Result, bail};
use tokio::{sync::oneshot, time::timeout};

use super::{
    hand_over::{OfListener, OfWorker},
    passed::Passed,
    sockets::{self, BoundAll, Key, Sockets, Wanted},
    worker::{ListenCommand, Worker},
};
use crate::{
    config::model::Transport,
    id::Id,
    limit::DrainedListeners,
    net::{Address, unix::PublicListener},
    offload::Steered,
    tcp::ConnectionKey,
    udp::{self, Control, SessionId, TakenOver},
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
    /// Sockets that the service manager has opened.
    passed: Passed,
    /// Listeners without sockets of TCP: an operator wants no new connections.
    drained: DrainedListeners,
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
    /// Sockets that were passed on and are not served any more, in words.
    pub(super) unserved: Vec<String>,
}

impl Listeners {
    /// No sockets yet but those that were passed on, which nobody serves so far.
    pub(super) fn new(workers: Vec<Worker>, udp_workers: Vec<udp::Worker>, passed: Passed) -> Self {
        Self {
            workers,
            udp_workers,
            held: Sockets::default(),
            files: BTreeMap::new(),
            passed,
            drained: DrainedListeners::default(),
            closing: Vec::new(),
        }
    }

    /// Binds what `wanted` needs beyond what is open; nothing for TCP where that is drained. On failure nothing has changed.
    pub(super) fn plan(&self, mut wanted: Sockets) -> Result<Plan> {
        let unserved = self.passed.unserved(&wanted);
        wanted.0.retain(|(transport, _), want| *transport == Transport::Udp || !self.drained.contains(&want.listener));
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
        let is_ours = |key: &Key, want: &Wanted| self.held.has_port_of(key) || self.passed.has(key, want);
        if let Some(reason) = new.iter().find_map(|(key, want)| self.passed.in_the_way(key, want)) {
            bail!("{reason}");
        }
        for (key, want) in new.iter().filter(|(key, want)| !want.share && !is_ours(key, want)) {
            sockets::probe(key, want).map_err(|error| failed(key, error))?;
        }
        let bind = |(key, want): (&Key, &_)| {
            let count = self.workers.len();
            let bound = self.passed.bind(key, want, count).unwrap_or_else(|| sockets::bind(key, want, count));
            Ok((key.1.clone(), bound.map_err(|error| failed(key, error))?))
        };
        let open = new.into_iter().map(bind).collect::<Result<_>>()?;
        let close = self.held.0.keys().filter(|key| !wanted.0.contains_key(key)).cloned().collect();
        Ok(Plan { wanted, open, backlog, close, unserved })
    }

    /// Hands the sockets of `plan` to the workers and closes what is no longer wanted.
    pub(super) fn apply(&mut self, plan: Plan) {
        for (address, bound) in plan.open {
            match bound {
                BoundAll::Tcp(sockets, file) => {
                    for (worker, socket) in sockets {
                        if let Some(worker) = self.workers.get(worker) {
                            worker.tell(ListenCommand::Listen(address.clone(), socket));
                        }
                    }
                    self.files.extend(file.map(|file| (address, file)));
                }
                BoundAll::Udp(sockets) => {
                    for (worker, socket) in sockets {
                        if let Some((worker, address)) = self.udp_workers.get(worker).zip(address.ip()) {
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
        self.admit_others(&plan.wanted);
        self.held = plan.wanted;
    }

    /// Lets others connect at the unix sockets that stay, where `wanted` says so.
    fn admit_others(&self, wanted: &Sockets) {
        for ((_, address), want) in &wanted.0 {
            let held = self.held.0.get(&(Transport::Tcp, address.clone())).and_then(|held| held.unix.as_ref());
            let (Some(held), Some(unix), Some(file)) = (held, &want.unix, self.files.get(address)) else { continue };
            if held != unix
                && let Err(error) = file.admit(unix.mode, unix.group)
            {
                tracing::warn!("listen_unix: {} is open to the same clients as before: {error}", unix.path.display());
            }
        }
    }

    /// What the service manager has opened, for a successor.
    pub(super) fn passed_sockets(&self) -> io::Result<Vec<OfListener>> {
        self.passed.to_hand_over()
    }

    /// A predecessor is one no more: its files are this daemon's, and what of its sockets is not used is closed.
    pub(super) fn settle(&mut self) {
        self.files.values_mut().for_each(PublicListener::own);
        self.passed.settle();
    }

    /// A successor has everything but the TCP connections: UDP ends here, and the files of sockets stay.
    pub(super) fn leave(&mut self) {
        self.files.values_mut().for_each(PublicListener::leave);
        self.tell_udp(|| Control::Leave);
        self.udp_workers.clear();
    }

    /// Divides what a predecessor's workers have handed over among those of UDP, as their sockets are.
    pub(super) fn take_over(&self, handed: Vec<OfWorker>) {
        let count = self.udp_workers.len().max(1);
        let mut parts: Vec<TakenOver> = self.udp_workers.iter().map(|_| TakenOver::new()).collect();
        for (worker, what, socket) in handed {
            if let Some(part) = parts.get_mut(worker % count) {
                part.push((what, socket));
            }
        }
        for (worker, part) in self.udp_workers.iter().zip(parts) {
            worker.tell(Control::TakeOver(part));
        }
    }

    /// Tells one UDP worker.
    pub(super) fn tell_udp_worker(&self, worker: usize, control: Control) {
        if let Some(worker) = self.udp_workers.get(worker) {
            worker.tell(control);
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
    pub(super) fn close_one(&self, id: Id, reply: oneshot::Sender<bool>) {
        let Id { transport, worker, slot, serial } = id;
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
        self.close_tcp_of(|_| true)
    }

    /// Closes the sockets of TCP of listeners that are drained, until [`Listeners::undrain`]; connections go on.
    pub(super) fn drain(&mut self, drained: DrainedListeners) {
        let closing = self.close_tcp_of(|listener| drained.contains(listener));
        self.closing.extend(closing);
        self.tell_drained(drained);
    }

    /// Opens the sockets of TCP again that `wanted` asks for, of all listeners but those that are `drained` yet. On failure
    /// it stays as it was.
    pub(super) async fn undrain(&mut self, wanted: Sockets, drained: DrainedListeners) -> Result<()> {
        for closed in self.closing.drain(..) {
            // Ends with an error, which is the sender being dropped.
            drop(timeout(CLOSING, closed).await);
        }
        let before = std::mem::replace(&mut self.drained, drained.clone());
        let plan = self.plan(wanted).inspect_err(|_| self.drained = before)?;
        self.apply(plan);
        self.tell_drained(drained);
        Ok(())
    }

    fn tell_drained(&mut self, drained: DrainedListeners) {
        let told = Arc::new(drained.clone());
        self.drained = drained;
        self.tell_udp(|| Control::Drain(Arc::clone(&told)));
    }

    fn close_tcp_of(&mut self, is_meant: impl Fn(&str) -> bool) -> Vec<oneshot::Receiver<()>> {
        let is_it = |(transport, _): &Key, want: &Wanted| *transport == Transport::Tcp && is_meant(&want.listener);
        let held = self.held.0.iter().filter(|(key, want)| is_it(key, want)).map(|(key, _)| key.clone());
        let held: Vec<Key> = held.collect();
        held.iter().flat_map(|key| self.close(key)).collect()
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
