//! Carries out what the session core commands: sockets, sends, logs, counters.

mod steer;

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, UdpSocket},
    ops::Range,
    os::fd::OwnedFd,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    Plane, Shared,
    adopted::End,
    session::{Command, Flow, FlowLine, Notice, OpenError, Output, SessionId, Sessions, Started},
    steering::{Retries, Steering},
    worker::{Lookups, listener_token, session_token},
};
use crate::{
    config::model::AccessLogFormat,
    log::{Access, Ended},
    metrics::{DatagramDrop, SessionEnd},
    net::{
        self,
        poller::Poller,
        udp::{self, Message, Received, Sender, Sent},
    },
    offload::{NotSteered, Steered, Usage},
};

/// How long the port of a session that ended in the middle is given to nobody else.
const CLOSING: Duration = Duration::from_secs(3);
/// Ports kept so at most; beyond that the oldest is free at once.
const MOST_CLOSING: usize = 256;

/// How many buffers to ask for at once. Asking for more than there is costs the kernel a vain look; what is left is told
/// of again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Appetite {
    /// Several came at once the last time.
    burst: bool,
    /// Times that one came alone.
    quiet: u8,
}

impl Appetite {
    /// One, now and then two to find out whether there is more, and `most` while there is.
    pub(super) fn ask(self, most: usize) -> usize {
        match (self.burst, self.quiet % 8) {
            (true, _) => most,
            (false, 0) => 2,
            (false, _) => 1,
        }
    }

    pub(super) fn got(&mut self, filled: usize) {
        self.burst = filled > 1;
        self.quiet = self.quiet.wrapping_add(1);
    }
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    address: SocketAddr,
    socket: UdpSocket,
    appetite: Appetite,
}

impl Listener {
    /// Its socket, and how much to ask it for.
    pub(super) fn source(&mut self) -> (&UdpSocket, &mut Appetite) {
        (&self.socket, &mut self.appetite)
    }
}

/// A session's socket towards its backend.
#[derive(Debug)]
struct Upstream {
    generation: u32,
    socket: OwnedFd,
    v6: bool,
    appetite: Appetite,
    steering: Steering,
    /// What the kernel had forwarded when it gave the session back.
    steered: Usage,
    /// It was taken over from an earlier daemon.
    adopted: Option<End>,
    format: AccessLogFormat,
    access: Option<Access>,
}

impl Upstream {
    /// The backend, once the session has started.
    fn backend(&self) -> Option<SocketAddr> {
        self.access.as_ref().map(|access| access.destination)
    }
}

/// The sessions of a worker with everything outside of them.
#[derive(Debug)]
pub(super) struct Relay {
    shared: Arc<Shared>,
    format: AccessLogFormat,
    sessions: Sessions,
    poller: Arc<Poller>,
    lookups: Lookups,
    /// By number; a number is used again after its socket was closed with all its sessions.
    listeners: Vec<Option<Listener>>,
    /// By the sessions' place.
    upstreams: Vec<Option<Upstream>>,
    sender: Sender,
    /// Sockets of sessions that ended in the middle, and until when they stay open.
    closing: VecDeque<(Duration, OwnedFd)>,
    /// Sessions that the kernel may take later.
    retries: Retries,
    /// Those of an earlier daemon whose clients' socket is not there yet.
    left: Vec<Steered>,
    /// How many of them were taken over.
    taken_over: usize,
    output: Output,
    sent: Sums,
    now: Duration,
}

/// Datagrams and bytes sent on since the counters were told. Workers share those, and would fight for them.
#[derive(Debug, Default)]
struct Sums {
    up: (u64, u64),
    down: (u64, u64),
}

impl Relay {
    pub(super) fn new(shared: Arc<Shared>, plane: Arc<Plane>, poller: Arc<Poller>, lookups: Lookups) -> Self {
        let format = plane.access_log_format;
        let sessions = Sessions::new(
            plane,
            Arc::clone(&shared.affinity),
            Arc::clone(&shared.active),
            Arc::clone(&shared.bans),
            Shared::seed(),
        );
        Self {
            now: shared.uptime(),
            shared,
            format,
            sessions,
            poller,
            lookups,
            listeners: Vec::new(),
            upstreams: Vec::new(),
            sender: Sender::new(),
            closing: VecDeque::new(),
            retries: Retries::default(),
            left: Vec::new(),
            taken_over: 0,
            output: Output::default(),
            sent: Sums::default(),
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

    pub(super) fn has_sessions(&self) -> bool {
        !self.sessions.is_empty()
    }

    pub(super) fn listener(&mut self, number: u32) -> Option<&mut Listener> {
        self.listeners.get_mut(usize::try_from(number).ok()?)?.as_mut()
    }

    /// A session's socket, and how much to ask it for.
    pub(super) fn upstream(&mut self, session: SessionId) -> Option<(&OwnedFd, &mut Appetite)> {
        open_upstream_mut(&mut self.upstreams, session).map(|upstream| (&upstream.socket, &mut upstream.appetite))
    }

    /// Receives on another socket from now on.
    pub(super) fn listen(&mut self, address: SocketAddr, socket: UdpSocket) -> io::Result<()> {
        let place = self.listeners.iter().position(Option::is_none).unwrap_or(self.listeners.len());
        let number = u32::try_from(place).unwrap_or(u32::MAX);
        self.poller.add(&socket, listener_token(number))?;
        let listener = Some(Listener { address, socket, appetite: Appetite::default() });
        match self.listeners.get_mut(place) {
            Some(free) => *free = listener,
            None => self.listeners.push(listener),
        }
        self.adopt_left(number, address);
        Ok(())
    }

    /// Closes the socket of `address`; its sessions end, since nothing else can answer their clients.
    pub(super) fn close(&mut self, address: SocketAddr) {
        let is_it = |held: &Option<Listener>| held.as_ref().is_some_and(|held| held.address == address);
        let Some(place) = self.listeners.iter().position(is_it) else { return };
        let number = u32::try_from(place).ok();
        self.with_core(|sessions, now, out| sessions.handle_closed(number, SessionEnd::Withdrawn, now, out));
        if let Some(held) = self.listeners.get_mut(place) {
            *held = None;
        }
    }

    /// Another configuration is in effect.
    pub(super) fn adopt(&mut self, plane: Arc<Plane>) {
        self.format = plane.access_log_format;
        self.with_core(|sessions, now, out| sessions.handle_plane(plane, now, out));
    }

    /// Looks which sessions are over.
    pub(super) fn timeout(&mut self) {
        while self.closing.pop_front_if(|(until, _)| *until <= self.now).is_some() {}
        let (upstreams, offload, now) =
            (std::mem::take(&mut self.upstreams), Arc::clone(&self.shared.offload), self.now);
        let steered = |session| {
            let idle = open_upstream(&upstreams, session)?.steering.idle(&*offload)?;
            Some(now.saturating_sub(idle))
        };
        let mut output = std::mem::take(&mut self.output);
        self.sessions.handle_timeout(now, steered, &mut output);
        self.upstreams = upstreams;
        self.carry_out(&mut output);
        self.output = output;
        let upstreams = &mut self.upstreams;
        self.retries.run(offload.changes(), |session| {
            let steering = &mut open_upstream_mut(upstreams, session)?.steering;
            steering.retry(&*offload);
            steering.reason().filter(|reason| reason.may_pass())
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

    /// What there is to tell of the first `limit` sessions.
    pub(super) fn flows(&self, limit: usize) -> Vec<FlowLine> {
        let told = |(session, listener, mut line): (SessionId, u32, FlowLine)| {
            let held = usize::try_from(listener).ok().and_then(|place| self.listeners.get(place)?.as_ref());
            line.listener = held.map(|held| held.address);
            match session_steering(&self.upstreams, session) {
                Some(Steering::Installed(_)) => line.plane = "kernel",
                Some(steering) => line.reason = steering.reason().map(NotSteered::name),
                None => {}
            }
            if let Some(usage) =
                session_steering(&self.upstreams, session).and_then(|steering| steering.usage(&*self.shared.offload))
            {
                line.bytes_up += usage.bytes_up;
                line.bytes_down += usage.bytes_down;
                line.idle = usage.idle.map_or(line.idle, |idle| idle.min(line.idle));
            }
            line
        };
        self.sessions.flow_lines(limit, self.now).map(told).collect()
    }

    pub(super) fn end_all(&mut self, end: SessionEnd) {
        self.with_core(|sessions, now, out| sessions.handle_closed(None, end, now, out));
    }

    /// Forgets all sessions, whose state cannot be trusted any more.
    pub(super) fn begin_anew(&mut self) {
        let open: Vec<SessionId> = (0_u32..)
            .zip(&self.upstreams)
            .filter_map(|(index, held)| Some(SessionId { index, generation: held.as_ref()?.generation }))
            .collect();
        for session in open {
            self.ended(session, SessionEnd::InternalError, 0, 0);
        }
        self.output = Output::default();
        let (sessions, now) = (&mut self.sessions, self.now);
        // IDs must not stay for ever; should that fail as well, they do.
        let _failed = catch_unwind(AssertUnwindSafe(|| sessions.forget_ids(now)));
        self.sessions = self.sessions.anew();
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
        let mut output = std::mem::take(&mut self.output);
        self.sessions.handle_datagrams(flow, got.bytes, got.segment, got.ecn, self.now, &mut output);
        self.carry_out(&mut output);
        for (session, range) in output.forward.drain(..) {
            forward(session, range);
        }
        self.output = output;
    }

    /// Tells the core of answers; the client's end that they go to.
    pub(super) fn answers(&mut self, session: SessionId, got: &Received<'_>) -> Option<Flow> {
        let mut output = std::mem::take(&mut self.output);
        let flow = self.sessions.handle_answers(session, got.bytes, got.segment, self.now, &mut output);
        self.carry_out(&mut output);
        self.output = output;
        flow
    }

    /// A session's socket reported an error.
    pub(super) fn failed(&mut self, session: SessionId, error: &io::Error) {
        tracing::trace!("{session:?}: {error}");
        if udp::is_unreachable(error) {
            self.with_core(|sessions, now, out| sessions.handle_refused(session, error, now, out));
        } else if udp::is_too_big(error)
            && let Some(upstream) = self.open_upstream(session)
        {
            // Datagrams that pass through here are fragmented by the kernel, which has taken note.
            upstream.steering.path_changed(&*self.shared.offload);
        }
    }

    /// Sends datagrams to a session's backend.
    pub(super) fn send_up(&mut self, session: SessionId, messages: &[Message<'_>]) {
        let mut sent = self.try_send_up(session, messages);
        // What an earlier datagram met is told to a later one, which is then not sent (sock_error() in
        // sock_alloc_send_pskb()): once more, unless the session has turned to another backend.
        if let Some(error) = sent.error.take_if(|error| udp::is_unreachable(error)) {
            let tried_all = sent.datagrams == 0;
            self.failed(session, &error);
            if tried_all && self.open_upstream(session).is_some() {
                sent = self.try_send_up(session, messages);
            }
        }
        self.count_drop(DatagramDrop::NotSentUp, sent.refused);
        self.sent.up.0 += sent.datagrams as u64;
        self.sent.up.1 += sent.bytes as u64;
    }

    fn try_send_up(&mut self, session: SessionId, messages: &[Message<'_>]) -> Sent {
        let all = messages.iter().map(|message| message.count).sum();
        match open_upstream(&self.upstreams, session) {
            Some(upstream) => self.sender.send(&upstream.socket, upstream.v6, messages),
            None => Sent { refused: all, ..Sent::default() },
        }
    }

    /// Sends answers to clients of one listening socket.
    pub(super) fn send_down(&mut self, listener: u32, messages: &[Message<'_>]) {
        let Some(Some(held)) = usize::try_from(listener).ok().and_then(|place| self.listeners.get(place)) else {
            return;
        };
        let sent = self.sender.send(&held.socket, held.address.is_ipv6(), messages);
        if let Some(error) = &sent.error {
            tracing::trace!("answers on {}: {error}", held.address);
        }
        self.count_drop(DatagramDrop::NotSentDown, sent.refused);
        self.sent.down.0 += sent.datagrams as u64;
        self.sent.down.1 += sent.bytes as u64;
    }

    /// Tells the counters what was sent.
    pub(super) fn count_sent(&mut self) {
        let Sums { up, down } = std::mem::take(&mut self.sent);
        let counters = self.shared.metrics.udp();
        if up.0 > 0 {
            counters.sent_up(up.0, up.1);
        }
        if down.0 > 0 {
            counters.sent_down(down.0, down.1);
        }
    }

    pub(super) fn count_drop(&self, reason: DatagramDrop, count: usize) {
        if count > 0 {
            self.shared.metrics.udp().dropped(reason, count as u64);
        }
    }

    fn with_core(&mut self, action: impl FnOnce(&mut Sessions, Duration, &mut Output)) {
        let mut output = std::mem::take(&mut self.output);
        action(&mut self.sessions, self.now, &mut output);
        self.carry_out(&mut output);
        self.output = output;
    }

    /// Does what the core wants, in order; what comes of it may make it want more.
    fn carry_out(&mut self, output: &mut Output) {
        while let Some(command) = output.commands.pop_front() {
            self.obey(command, output);
        }
        for (reason, count) in output.dropped.drain(..) {
            self.shared.metrics.udp().dropped(reason, u64::from(count));
        }
    }

    fn obey(&mut self, command: Command, output: &mut Output) {
        match command {
            Command::Open { session, address } => match self.open(session, address) {
                Ok(()) => self.sessions.handle_opened(session, self.now, output),
                Err(error) => self.sessions.handle_open_failed(session, open_error(error), self.now, output),
            },
            Command::Resolve { session, name } => self.lookups.begin(session, name),
            Command::Send { session, datagram, ecn } => {
                self.send_up(session, &[Message::new(None, None, ecn, &datagram, datagram.len())]);
            }
            Command::Started(started) => self.started(*started),
            Command::Ended { session, end, bytes_up, bytes_down } => self.ended(session, end, bytes_up, bytes_down),
            Command::InstallFlow { session, cid } => self.install(session, cid),
            Command::UpdateFlow { session, cid } => {
                if let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) {
                    upstream.steering.update(&*self.shared.offload, cid);
                }
            }
            Command::RevokeFlow { session } => self.revoke(session),
            Command::Say(notice) => self.say(notice),
        }
    }

    fn open(&mut self, session: SessionId, address: SocketAddr) -> io::Result<()> {
        let socket = udp::connected(address)?;
        if socket.local_addr().is_ok_and(|own| own == address) {
            // Nobody listens there, and the kernel has picked that very port for us.
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if self.is_ours(address, &socket) {
            return Err(io::Error::new(
                io::ErrorKind::ConnectionRefused,
                "it is an address that this daemon listens on",
            ));
        }
        self.hold(session, address, socket)
    }

    /// Keeps the socket of a session.
    fn hold(&mut self, session: SessionId, address: SocketAddr, socket: UdpSocket) -> io::Result<()> {
        self.poller.add(&socket, session_token(session))?;
        let place = usize::try_from(session.index).unwrap_or(usize::MAX);
        if self.upstreams.len() <= place {
            self.upstreams.resize_with(place + 1, || None);
        }
        if let Some(free) = self.upstreams.get_mut(place) {
            *free = Some(Upstream {
                generation: session.generation,
                socket: socket.into(),
                v6: address.is_ipv6(),
                appetite: Appetite::default(),
                steering: Steering::Unasked,
                steered: Usage::default(),
                adopted: None,
                format: self.format,
                access: None,
            });
        }
        Ok(())
    }

    /// A datagram to ourselves would come back as a new client's, for ever.
    fn is_ours(&self, address: SocketAddr, socket: &UdpSocket) -> bool {
        let mut same_port = self.listeners.iter().flatten().filter(|held| held.address.port() == address.port());
        same_port.any(|held| {
            let wildcard = held.address.ip().is_unspecified() && held.address.is_ipv4() == address.is_ipv4();
            // Towards an address of this machine the kernel takes that same address as source.
            let here = || address.ip().is_loopback() || socket.local_addr().is_ok_and(|own| own.ip() == address.ip());
            held.address.ip() == address.ip() || (wildcard && here())
        })
    }

    fn started(&mut self, started: Started) {
        self.shared.metrics.udp().started();
        let Started { session, flow, carries, destination, detail } = started;
        let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) else { return };
        let access = Access { proto: carries.name(), source: flow.client, destination, since: Instant::now(), detail };
        self.shared.access.start(upstream.format, &access);
        upstream.access = Some(access);
    }

    fn ended(&mut self, session: SessionId, end: SessionEnd, bytes_up: u64, bytes_down: u64) {
        self.shared.metrics.udp().ended(end);
        let place = usize::try_from(session.index).unwrap_or(usize::MAX);
        let Some(held) = self.upstreams.get_mut(place) else { return };
        let Some(upstream) = held.take_if(|upstream| upstream.generation == session.generation) else { return };
        if let Some(end) = &upstream.adopted {
            self.shared.adopted.remove(end);
        }
        let now = self.now;
        if let Some(access) = &upstream.access {
            let duration = access.since.elapsed();
            let Usage { bytes_up: steered_up, bytes_down: steered_down, .. } = upstream.steered;
            let (bytes_up, bytes_down) = (bytes_up + steered_up, bytes_down + steered_down);
            let ended = Ended { bytes_up, bytes_down, reason: end.name(), duration };
            self.shared.access.finish(upstream.format, access, &ended);
        }
        // Its backend may have more to say: nobody else shall get its port before that has come and gone.
        if end != SessionEnd::Idle && self.poller.remove(&upstream.socket).is_ok() {
            if self.closing.len() >= MOST_CLOSING {
                self.closing.pop_front();
            }
            self.closing.push_back((now.saturating_add(CLOSING), upstream.socket));
        }
    }

    fn say(&self, notice: Notice) {
        let now = Instant::now();
        match notice {
            Notice::TooMany { max } => {
                if let Some(withheld) = self.shared.said_too_many.speak(now) {
                    tracing::warn!(
                        "udp_max_connections ({max}) reached: new sessions take the place of unanswered ones, or none \
                         ({withheld} more not shown)"
                    );
                }
            }
            Notice::NoPort { what } => {
                if let Some(withheld) = self.shared.said_no_port.speak(now) {
                    tracing::warn!(
                        "no local port or address to reach {what}; widen net.ipv4.ip_local_port_range or add targets \
                         ({withheld} more not shown)"
                    );
                }
            }
            Notice::Shortage(error) => {
                if let Some(withheld) = self.shared.said_shortage.speak(now) {
                    tracing::warn!(
                        "no new UDP sessions: {error}; raise the limit on open files (LimitNOFILE=, ulimit -n) or lower \
                         udp_max_connections ({withheld} more not shown)"
                    );
                }
            }
            Notice::Down(text) => tracing::warn!("{text}"),
            Notice::Up(target) => tracing::info!("{target} can be reached again"),
        }
    }

    fn open_upstream(&self, session: SessionId) -> Option<&Upstream> {
        open_upstream(&self.upstreams, session)
    }
}

fn session_steering(upstreams: &[Option<Upstream>], session: SessionId) -> Option<&Steering> {
    open_upstream(upstreams, session).map(|upstream| &upstream.steering)
}

fn open_upstream(upstreams: &[Option<Upstream>], session: SessionId) -> Option<&Upstream> {
    let held = upstreams.get(usize::try_from(session.index).ok()?)?.as_ref();
    held.filter(|upstream| upstream.generation == session.generation)
}

fn open_upstream_mut(upstreams: &mut [Option<Upstream>], session: SessionId) -> Option<&mut Upstream> {
    let held = upstreams.get_mut(usize::try_from(session.index).ok()?)?.as_mut();
    held.filter(|upstream| upstream.generation == session.generation)
}

fn open_error(error: io::Error) -> OpenError {
    if net::is_exhaustion(&error) {
        OpenError::Shortage(error)
    } else if udp::is_out_of_ports(&error) {
        OpenError::NoPort(error)
    } else {
        OpenError::Unreachable(error)
    }
}
