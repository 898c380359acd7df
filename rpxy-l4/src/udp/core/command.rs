//! Commands of the session core to the worker that runs it, and the result of a buffer of datagrams.

use std::{net::SocketAddr, ops::Range, sync::Arc, time::Duration};

use rpxy_l4_proto::quic::ConnectionId;

use super::{Flow, SessionId};
use crate::{
    config::model::LimitOf,
    limit::ConnLimit,
    log::Detail,
    metrics::{Carried, DatagramDrop, EchState, SessionEnd},
    resolve::Lookup,
    route::{Datagrams, UdpRoute},
};

/// Something to be done, in order.
#[derive(Debug)]
pub(crate) enum Command {
    /// Connect a socket to `address`, and answer with `handle_opened` or `handle_open_failed`.
    Open {
        /// The session that waits for it.
        session: SessionId,
        /// The backend.
        address: SocketAddr,
    },
    /// Wait for the first addresses that `lookup` finds, and answer with `handle_resolved`.
    Resolve {
        /// The session that waits for it.
        session: SessionId,
        /// What its target is found by.
        lookup: Lookup,
    },
    /// Send a datagram that had to wait to the session's backend.
    Send {
        /// The session.
        session: SessionId,
        /// The payload.
        datagram: Box<[u8]>,
        /// Type of service.
        tos: u8,
    },
    /// Send a datagram of our own to a client.
    Reply {
        /// The client's end.
        flow: Flow,
        /// The payload.
        datagram: Box<[u8]>,
    },
    /// The session has a backend: log it.
    Started(Box<Started>),
    /// The session is over: log it and close its socket.
    Ended {
        /// The session.
        session: SessionId,
        /// The reason.
        end: SessionEnd,
        /// Payload bytes from the client.
        bytes_up: u64,
        /// Payload bytes from the backend.
        bytes_down: u64,
        /// Time to the first answer; `None` if there was none, or an earlier process had it.
        first_answer: Option<Duration>,
    },
    /// From now on the kernel may steer this session's datagrams.
    InstallFlow {
        /// The session.
        session: SessionId,
        /// The connection ID of the client's short headers, or the index in its WireGuard messages. Others have to come to
        /// the daemon, which learns them.
        cid: Option<ConnectionId>,
    },
    /// The client of a session that the kernel steers goes on with another connection ID or index.
    UpdateFlow {
        /// The session.
        session: SessionId,
        /// The new one.
        cid: ConnectionId,
    },
    /// From now on all of its datagrams have to come to the daemon.
    RevokeFlow {
        /// The session.
        session: SessionId,
    },
    /// A message for the system log.
    Log(Notice),
}

/// A session with a backend, for the access log.
#[derive(Debug)]
pub(crate) struct Started {
    /// The session.
    pub session: SessionId,
    /// The client's end.
    pub flow: Flow,
    /// What it carries.
    pub carries: Datagrams,
    /// The target, as the file writes it.
    pub target: Arc<str>,
    /// The backend.
    pub destination: SocketAddr,
    /// What only the JSON form shows.
    pub detail: Option<Box<Detail>>,
    /// It in the accounts of its rule and target.
    pub carried: Option<Carried>,
    /// How long ago a predecessor began it, where one did.
    pub resumed: Option<Duration>,
}

/// Messages for the system log. The worker limits how often the first four are told.
#[derive(Debug)]
pub(crate) enum Notice {
    /// As many sessions as allowed.
    TooMany {
        /// The limit.
        max: u32,
        /// The listener whose own it is; `None` for all that say none.
        of: LimitOf,
        /// Who has them.
        active: Arc<ConnLimit>,
    },
    /// A rule has as many as it may.
    RuleFull {
        /// The rule.
        rule: Arc<str>,
        /// Its limit.
        max: u32,
    },
    /// No local port is left towards this target.
    NoPort {
        /// The target, and what the kernel said.
        what: String,
    },
    /// Descriptors or memory ran out.
    Shortage(std::io::Error),
    /// A target is down.
    Down(String),
    /// A target is back.
    Up(String),
}

/// The result of one buffer of datagrams: what to do, what to forward, what was discarded.
#[derive(Debug, Default)]
pub(crate) struct Output {
    /// To be done first, in order.
    pub commands: std::collections::VecDeque<Command>,
    /// Then to be sent on: parts of the buffer, each one or more whole datagrams.
    pub forward: Vec<(SessionId, Range<usize>)>,
    /// Datagrams that were discarded, by reason.
    pub dropped: Vec<(DatagramDrop, u32)>,
    /// Flows that were turned away, for the access log.
    pub refused: Vec<RefusedFlow>,
    /// States of hellos at rules with keys for Encrypted Client Hello.
    pub hellos: Vec<EchState>,
}

impl Output {
    /// Counts discarded datagrams.
    pub(super) fn discard(&mut self, reason: DatagramDrop, count: usize) {
        let count = u32::try_from(count).unwrap_or(u32::MAX);
        if count == 0 {
            return;
        }
        match self.dropped.iter_mut().find(|(known, _)| *known == reason) {
            Some((_, known)) => *known = known.saturating_add(count),
            None => self.dropped.push((reason, count)),
        }
    }

    /// Counts discarded datagrams of a flow that is turned away, and has it logged.
    pub(super) fn refuse(
        &mut self,
        flow: &Flow,
        carries: Datagrams,
        server_name: Option<&str>,
        reason: DatagramDrop,
        count: usize,
    ) {
        self.discard(reason, count);
        // The datagrams of a buffer are of one flow.
        let again = self.refused.last().is_some_and(|last| (last.reason, last.flow) == (reason, *flow));
        if count > 0 && !again && reason.is_refusal() {
            let server_name = server_name.map(Into::into);
            self.refused.push(RefusedFlow { flow: *flow, carries, reason, server_name });
        }
    }

    /// The same for a flow of a rule, which has an account of it.
    pub(super) fn refuse_of(
        &mut self,
        route: &UdpRoute,
        flow: &Flow,
        server_name: Option<&str>,
        reason: DatagramDrop,
        count: usize,
    ) {
        route.account.refused_session(reason);
        self.refuse(flow, route.carries, server_name, reason, count);
    }

    /// Adds a part to be sent on, to the one before where it continues that.
    pub(super) fn forward(&mut self, session: SessionId, part: Range<usize>) {
        match self.forward.last_mut() {
            Some((last, range)) if *last == session && range.end == part.start => range.end = part.end,
            _ => self.forward.push((session, part)),
        }
    }
}

/// A flow that was turned away.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct RefusedFlow {
    /// The client's end.
    pub flow: Flow,
    /// What it carries, as far as it was recognised.
    pub carries: Datagrams,
    /// The reason.
    pub reason: DatagramDrop,
    /// The name that the client asked for.
    pub server_name: Option<Box<str>>,
}

/// The reason why a socket towards a backend cannot be opened.
#[derive(Debug)]
pub(crate) enum OpenError {
    /// No local port is left.
    NoPort(std::io::Error),
    /// Descriptors or memory ran out.
    Shortage(std::io::Error),
    /// The backend cannot be reached from here.
    Unreachable(std::io::Error),
}
