//! The sessions of a worker with everything outside of them: sockets, the kernel plane, logs, counters.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::Duration,
};

use super::{
    ingress::Ingress,
    kernel_flow::{KernelFlow, Retries},
    lookups::Lookups,
    sockets::{Appetite, Listener, Losses, Upstream, kernel_flow, open_upstream, open_upstream_mut},
    token::Token,
};
use crate::{
    config::model::Transport,
    limit::DrainedListeners,
    log::AccessLines,
    metrics::{DatagramDrop, SessionEnd},
    net::{
        poller::Poller,
        udp::{self, Received, Sender},
    },
    offload::{NotSteered, Offload, Steered},
    route::Selection,
    udp::{
        Shared, Snapshot,
        core::{Flow, FlowLine, Forwarded, Output, SessionId, Sessions},
        handed::TakenOver,
        own::LocalAddresses,
    },
};

/// Time for which the port of a session that ended in the middle is given to nobody else.
pub(super) const CLOSING: Duration = Duration::from_secs(3);
/// Ports kept so at most; beyond that the oldest is free at once.
pub(super) const MOST_CLOSING: usize = 256;

/// The sessions of a worker with everything outside of them.
#[derive(Debug)]
pub(super) struct Relay {
    /// Number of the worker.
    pub(super) worker: u32,
    pub(super) shared: Arc<Shared>,
    pub(super) lines: AccessLines,
    snapshot: Arc<Snapshot>,
    pub(super) sessions: Sessions,
    pub(super) poller: Arc<Poller>,
    pub(super) lookups: Lookups,
    /// By number; a number is used again after its socket was closed with all its sessions.
    pub(super) listeners: Vec<Option<Listener>>,
    /// By the sessions' slots.
    pub(super) upstreams: Vec<Option<Upstream>>,
    pub(super) sender: Sender,
    /// Sockets of sessions that ended in the middle, and until when they stay open.
    pub(super) closing: VecDeque<(Duration, OwnedFd)>,
    /// Sessions that the kernel may take later.
    pub(super) retries: Retries,
    /// Sessions to inherit whose clients' socket is not there yet.
    pub(super) heirless: Vec<Steered>,
    /// Other workers may still be inheriting: what arrives here for them waits in the sockets.
    pub(super) inheriting: bool,
    /// Number of sessions inherited.
    pub(super) inherited: usize,
    /// What a predecessor has handed over, until its clients' sockets are there.
    pub(super) handed: TakenOver,
    /// Number of its sessions that go on, and that do not.
    pub(super) taken: (usize, usize),
    /// Addresses of this machine.
    pub(super) locals: LocalAddresses,
    ingress: Ingress,
    pub(super) output: Output,
    pub(super) sent: Sums,
    /// The slot of the next session whose accounts are told.
    pub(super) told_up_to: usize,
    pub(super) now: Duration,
}

/// Datagrams and bytes sent since the counters were updated. Workers share those, and would contend for them.
#[derive(Debug, Default)]
pub(super) struct Sums {
    pub(super) up: (u64, u64),
    pub(super) down: (u64, u64),
}

impl Relay {
    pub(super) fn new(
        worker: u32,
        (shared, snapshot): (Arc<Shared>, Arc<Snapshot>),
        poller: Arc<Poller>,
        lookups: Lookups,
        ingress: Ingress,
    ) -> Self {
        let (affinity, bans) = (Arc::clone(&shared.affinity), Arc::clone(&shared.bans));
        let sessions = Sessions::new(Arc::clone(&snapshot), affinity, bans, Shared::seed());
        Self {
            worker,
            now: shared.uptime(),
            shared,
            lines: snapshot.access_lines,
            snapshot,
            sessions,
            poller,
            lookups,
            listeners: Vec::new(),
            upstreams: Vec::new(),
            sender: Sender::new(),
            closing: VecDeque::new(),
            retries: Retries::default(),
            heirless: Vec::new(),
            inheriting: false,
            inherited: 0,
            handed: TakenOver::new(),
            taken: (0, 0),
            locals: LocalAddresses::default(),
            ingress,
            output: Output::default(),
            sent: Sums::default(),
            told_up_to: 0,
        }
    }

    /// Reads the clock; everything up to the next call happens at this time.
    pub(super) fn clock(&mut self) {
        self.now = self.shared.uptime();
    }

    /// The time read last.
    pub(super) fn now(&self) -> Duration {
        self.now
    }

    /// Returns whether something will be due, whatever arrives.
    pub(super) fn has_deadlines(&self) -> bool {
        !self.sessions.is_empty() || !self.closing.is_empty()
    }

    pub(super) fn listener(&mut self, number: u32) -> Option<&mut Listener> {
        self.listeners.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    /// A session's socket, and how much to ask it for.
    pub(super) fn upstream(&mut self, session: SessionId) -> Option<(&OwnedFd, &mut Appetite)> {
        open_upstream_mut(&mut self.upstreams, session).map(|upstream| (&upstream.socket, &mut upstream.appetite))
    }

    /// A batch of a listening socket was read, after which there may be more.
    pub(super) fn read(&mut self, listener: u32, may_have_more: bool) {
        let now = self.now;
        let Some(held) = self.listener(listener) else { return };
        if !may_have_more {
            held.backlog = None;
        } else if let Some(since) = held.backlog {
            self.sessions.handle_backlog(since, now);
        } else {
            held.backlog = Some(now);
        }
    }

    /// Receives on another socket from now on.
    pub(super) fn listen(&mut self, address: SocketAddr, socket: UdpSocket) -> io::Result<()> {
        let slot = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        let number = u32::try_from(slot).unwrap_or(u32::MAX);
        if !self.inheriting {
            self.poller.add(&socket, Token::listener(number))?;
        }
        let serves = Arc::clone(self.snapshot.at(address));
        let listener = Some(Listener {
            address,
            name: Arc::clone(&serves.name),
            socket,
            appetite: Appetite::default(),
            losses: Losses::default(),
            backlog: None,
            // Whoever has bound the socket has set it.
            receive_buffer: serves.receive_buffer,
            started: self.shared.metrics.of_listener(&serves.name, Transport::Udp),
        });
        match self.listeners.get_mut(slot) {
            Some(free) => *free = listener,
            None => self.listeners.push(listener),
        }
        self.sessions.handle_listening(number, serves);
        self.shared.ports.listen(address.port());
        self.inherit_for(number, address);
        self.take_over_for(number, address);
        Ok(())
    }

    /// Closes the sockets of `address`; their sessions end, since nothing else can answer their clients.
    pub(super) fn close(&mut self, address: SocketAddr) {
        let is_it = |held: &Option<Listener>| held.as_ref().is_some_and(|held| held.address == address);
        // Sockets that were passed on may be several.
        while let Some(slot) = self.listeners.iter().position(is_it) {
            let number = u32::try_from(slot).ok();
            self.with_core(|sessions, now, out| sessions.handle_closed(number, SessionEnd::Withdrawn, now, out));
            self.shared.ports.close(address.port());
            let Some(held) = self.listeners.get_mut(slot) else { return };
            if let Some(held) = held.take() {
                // One that was passed on stays open, and would be told of for ever.
                drop(self.poller.remove(&held.socket));
            }
        }
    }

    /// Another configuration is in effect.
    pub(super) fn reload(&mut self, snapshot: Arc<Snapshot>) {
        self.lines = snapshot.access_lines;
        let mut serve = |held: &mut Option<Listener>| {
            let Some(held) = held else { return Arc::clone(&snapshot.nowhere) };
            let serves = Arc::clone(snapshot.at(held.address));
            held.set_receive_buffer(serves.receive_buffer);
            held.name = Arc::clone(&serves.name);
            held.started = self.shared.metrics.of_listener(&serves.name, Transport::Udp);
            serves
        };
        let listeners = self.listeners.iter_mut().map(&mut serve).collect();
        self.snapshot = Arc::clone(&snapshot);
        self.with_core(|sessions, now, out| sessions.handle_snapshot(snapshot, listeners, now, out));
    }

    /// Ends expired sessions.
    pub(super) fn timeout(&mut self) {
        while self.closing.pop_front_if(|(until, _)| *until <= self.now).is_some() {}
        let (offload, now) = (Arc::clone(&self.shared.offload), self.now);
        let upstreams = &self.upstreams;
        let steered = |session| forwarded(upstreams, &*offload, session, now);
        let mut output = std::mem::take(&mut self.output);
        self.sessions.handle_timeout(now, steered, &mut output);
        self.finish(output);
        self.tell_accounts();
        let (upstreams, sessions) = (&mut self.upstreams, &mut self.sessions);
        self.retries.run(offload.changes(), |session| {
            let kernel = &mut open_upstream_mut(upstreams, session)?.kernel;
            kernel.retry(&*offload);
            sessions.handle_installed(session, matches!(kernel, KernelFlow::Installed(_)));
            kernel.reason().filter(|reason| reason.is_temporary())
        });
    }

    /// The first lookup of a session's name has ended.
    pub(super) fn resolved(&mut self, session: SessionId) {
        self.with_core(|sessions, now, out| sessions.handle_resolved(session, now, out));
    }

    /// Other networks are banned.
    pub(super) fn bans(&mut self) {
        self.with_core(Sessions::handle_bans);
    }

    /// A target has gone down.
    pub(super) fn fallen(&mut self) {
        self.with_core(Sessions::handle_fallen);
    }

    /// Lets no new sessions begin at these listeners.
    pub(super) fn drain(&mut self, drained: Arc<DrainedListeners>) {
        self.sessions.set_drained(drained);
    }

    /// An operator ends a session; returns whether there is such a session.
    pub(super) fn close_session(&mut self, session: SessionId) -> bool {
        self.with_core(|sessions, now, out| sessions.handle_close(session, now, out))
    }

    /// Lines about `limit` sessions at most, of those that are selected.
    pub(super) fn flows(&self, limit: usize, selection: &Selection) -> Vec<FlowLine> {
        let line = |(listener, mut line): (u32, FlowLine)| {
            let session = line.session;
            let held = usize::try_from(listener).ok().and_then(|slot| self.listeners.get(slot)?.as_ref());
            line.listener = held.map(|held| held.address);
            match kernel_flow(&self.upstreams, session) {
                Some(KernelFlow::Installed(_)) => line.plane = "kernel",
                Some(kernel) => line.reason = kernel.reason().map(NotSteered::name),
                None => {}
            }
            if let Some(usage) =
                kernel_flow(&self.upstreams, session).and_then(|kernel| kernel.usage(&*self.shared.offload))
            {
                line.bytes_up += usage.bytes_up;
                line.bytes_down += usage.bytes_down;
                line.idle = usage.idle.map_or(line.idle, |idle| idle.min(line.idle));
                line.reason = usage.asymmetric.then_some("asymmetric").or(line.reason);
            }
            line
        };
        self.sessions.flow_lines(limit, selection, self.now).map(line).collect()
    }

    pub(super) fn end_all(&mut self, end: SessionEnd) {
        self.with_core(|sessions, now, out| sessions.handle_closed(None, end, now, out));
    }

    /// Forgets all sessions, whose state cannot be trusted any more.
    pub(super) fn reset(&mut self) {
        let open: Vec<SessionId> = (0_u32..)
            .zip(&self.upstreams)
            .filter_map(|(index, held)| Some(SessionId { index, generation: held.as_ref()?.generation }))
            .collect();
        for session in open {
            self.ended(session, SessionEnd::InternalError, (0, 0), None);
        }
        self.output = Output::default();
        let (sessions, now) = (&mut self.sessions, self.now);
        // IDs must not stay for ever; should that fail as well, they do.
        let _failed = catch_unwind(AssertUnwindSafe(|| sessions.forget_ids(now)));
        self.sessions = self.sessions.successor();
    }

    /// Gives datagrams of a client to the core, and what has to be sent on to `forward`.
    pub(super) fn datagrams(
        &mut self,
        flow: &Flow,
        got: &Received<'_>,
        mut forward: impl FnMut(SessionId, Range<usize>),
    ) {
        if self.is_elsewhere(flow, got) {
            return;
        }
        let (upstreams, offload, now) = (&self.upstreams, &self.shared.offload, self.now);
        self.sessions.before_datagrams(now, |session| forwarded(upstreams, &**offload, session, now));
        self.with_core(|sessions, now, out| {
            sessions.handle_datagrams(flow, got.bytes, got.segment, got.tos, now, out);
        });
        for (session, range) in self.output.forward.drain(..) {
            forward(session, range);
        }
    }

    /// Gives datagrams of a backend to the core; returns the client's end that they go to.
    pub(super) fn answers(&mut self, session: SessionId, got: &Received<'_>) -> Option<Flow> {
        if !self.takes_from(session, got.ingress) {
            self.count_drop(DatagramDrop::OtherInterface, got.bytes.len().div_ceil(got.segment).max(1));
            return None;
        }
        self.with_core(|sessions, now, out| sessions.handle_answers(session, got.bytes, got.segment, now, out))
    }

    /// Returns whether answers of a session may arrive by `interface`.
    fn takes_from(&mut self, session: SessionId, interface: u32) -> bool {
        let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) else { return true };
        if upstream.ingress != interface {
            let way = if upstream.ingress == 0 { None } else { upstream.way(interface) };
            if way.is_some_and(|way| !self.ingress.takes(way, self.now)) {
                return false;
            }
            upstream.ingress = interface;
        }
        true
    }

    /// A session's socket reported an error.
    pub(super) fn failed(&mut self, session: SessionId, error: &io::Error) {
        tracing::trace!("{session:?}: {error}");
        if udp::is_unreachable(error) {
            self.with_core(|sessions, now, out| sessions.handle_refused(session, error, now, out));
        } else if udp::is_too_big(error)
            && let Some(upstream) = open_upstream(&self.upstreams, session)
        {
            // Datagrams that pass through here are fragmented by the kernel, which has taken note.
            upstream.kernel.path_changed(&*self.shared.offload);
        }
    }

    /// Has the core do something, then carries out what it commands.
    pub(super) fn with_core<T>(&mut self, action: impl FnOnce(&mut Sessions, Duration, &mut Output) -> T) -> T {
        let mut output = std::mem::take(&mut self.output);
        let result = action(&mut self.sessions, self.now, &mut output);
        self.finish(output);
        result
    }

    /// Carries out what the core commands. Sending may find out something that the core has to know, with an output of
    /// its own.
    fn finish(&mut self, mut output: Output) {
        self.carry_out(&mut output);
        self.output = output;
    }
}

/// What the kernel has forwarded for a session.
fn forwarded(
    upstreams: &[Option<Upstream>],
    offload: &dyn Offload,
    session: SessionId,
    now: Duration,
) -> Option<Forwarded> {
    let usage = open_upstream(upstreams, session)?.kernel.usage(offload)?;
    Some(Forwarded { last: now.saturating_sub(usage.idle?), turns: usage.turns })
}
