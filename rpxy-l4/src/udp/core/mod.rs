//! The sessions of one worker, without IO: datagrams, answers, time and snapshots go in, commands come out.
//!
//! A session is what one client socket exchanges with one backend over an upstream socket of its own. Usually a client
//! socket has one; several when it opens QUIC connections to several names, or tunnels to several WireGuard servers.
//!
//! Invariants, which the simulation in `tests` holds against thousands of interleavings:
//!
//! - An answer goes to the client socket whose session owns the upstream socket that it came from.
//! - Nothing is sent before a decision, and then everything that was held, in the order of arrival.
//! - Whatever is held or remembered is bounded; at each bound it is said what gives way.
//! - Every session that was started ends once.
//!
//! Time is the daemon's uptime and always an argument; randomness is a seed given at the start.

mod admission;
mod backends;
mod begin;
mod classify;
mod command;
mod deadlines;
mod decryption;
mod doubt;
mod ech;
mod evidence;
mod failed;
mod few;
mod flow_line;
mod handed;
mod held;
mod hello;
mod identity;
mod ids;
mod inherit;
#[cfg(any(test, feature = "properties"))]
mod made_up;
mod moves;
mod open;
mod overload;
#[cfg(any(test, feature = "properties"))]
mod packets;
#[cfg(any(test, feature = "properties"))]
mod properties;
mod quic;
mod rebind;
mod rehearse;
mod state;
mod steering;
mod table;
#[cfg(test)]
mod tests;
mod undecided;
mod upkeep;
mod wireguard;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use admission::Admissions;
use backends::NamedBackends;
pub(crate) use backends::TargetAddresses;
use classify::Arrival;
pub(crate) use command::{Command, Notice, OpenError, Output, RefusedFlow, Started};
use deadlines::Deadlines;
pub(crate) use flow_line::FlowLine;
pub(crate) use handed::HandedSession;
use held::Budget;
use identity::Identity;
use ids::Ids;
pub(crate) use inherit::Inherited;
use overload::Overload;
#[cfg(any(test, feature = "properties"))]
pub use properties::udp_core;
pub(crate) use rehearse::Rehearsed;
use state::{Session, Stage};
use table::Table;
use undecided::UndecidedQueue;
pub(crate) use upkeep::Forwarded;

use super::{
    Listener, Snapshot,
    affinity::{Affinity, SHORTEST},
};
use crate::{
    limit::{Bans, ConnLimit, DrainedListeners, Prefixes},
    metrics::{DatagramDrop, SessionEnd},
    net::udp::Local,
    route::{Datagrams, Random},
};

/// A target that has not refused for so long is up, although it may never answer: some protocols go one way only. More
/// than the time in which a neighbour that is gone is noticed (`mcast_solicit` and `retrans_time`, 3 s).
const NOT_REFUSED: Duration = Duration::from_secs(5);

/// The client's end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Flow {
    /// The listening socket, numbered by the worker.
    pub listener: u32,
    /// The client.
    pub client: SocketAddr,
    /// The address that it used, where the socket has several.
    pub local: Option<Local>,
}

/// A session of one worker; never reused for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct SessionId {
    /// Its slot.
    pub index: u32,
    /// Tells it from earlier ones in that slot.
    pub generation: u32,
}

/// All sessions of one worker.
///
/// It orchestrates; each part of the state has an owner, which keeps its invariants.
#[derive(Debug)]
pub(crate) struct Sessions {
    snapshot: Arc<Snapshot>,
    /// The listeners of sockets, by their number.
    sockets: Vec<Arc<Listener>>,
    bans: Arc<Bans>,
    table: Table,
    deadlines: Deadlines,
    undecided: UndecidedQueue,
    admissions: Admissions,
    identity: Identity,
    /// For what waits for a socket.
    opening_budget: Budget,
    /// For what waits for the rest of a later hello.
    handshake_budget: Budget,
    /// Decrypted connections that gather such a hello.
    gathering: Arc<ConnLimit>,
    /// Where names of targets lead to.
    named: NamedBackends,
    /// Sessions that begin by a known ID.
    arrivals: Prefixes,
    /// Sessions that begin with nothing that speaks for them.
    overload: Overload,
    /// Hellos of Encrypted Client Hello that did not open.
    failed_hellos: Prefixes,
    /// Where an operator wants no new sessions.
    drained: Arc<DrainedListeners>,
    random: Random,
    /// The slot up to which sessions that the kernel steers were asked about.
    refreshed: usize,
    /// When they may be asked about before a datagram again.
    refresh_again: Duration,
    /// When rules with limits are looked at again.
    look_again: Duration,
    /// The slot up to which the names of sessions' targets were looked at.
    compared: usize,
}

impl Sessions {
    /// An empty set of sessions. `seed` feeds the random choices of balancing.
    #[must_use]
    pub(crate) fn new(snapshot: Arc<Snapshot>, affinity: Arc<Affinity>, bans: Arc<Bans>, seed: u64) -> Self {
        Self {
            snapshot,
            sockets: Vec::new(),
            bans,
            table: Table::default(),
            deadlines: Deadlines::default(),
            undecided: UndecidedQueue::default(),
            admissions: Admissions::default(),
            identity: Identity::new(affinity),
            opening_budget: Budget::default(),
            handshake_budget: Budget::default(),
            gathering: Arc::default(),
            named: NamedBackends::default(),
            arrivals: Prefixes::new(seed),
            overload: Overload::default(),
            failed_hellos: Prefixes::new(!seed),
            drained: Arc::default(),
            random: Random::new(seed),
            refreshed: 0,
            refresh_again: Duration::ZERO,
            look_again: Duration::ZERO,
            compared: 0,
        }
    }

    /// Gives back all that the affinity table remembers for sessions.
    pub(crate) fn forget_ids(&mut self, now: Duration) {
        for (_, state) in self.table.iter() {
            self.identity.release(state, true, now);
        }
    }

    /// An empty set under the same configuration, whose session IDs continue where those of `self` end.
    #[must_use]
    pub(crate) fn successor(&mut self) -> Self {
        let (snapshot, affinity) = (Arc::clone(&self.snapshot), Arc::clone(self.identity.affinity()));
        let mut fresh = Self::new(snapshot, affinity, Arc::clone(&self.bans), self.random.next());
        fresh.table = self.table.successor();
        fresh.sockets = std::mem::take(&mut self.sockets);
        fresh.drained = Arc::clone(&self.drained);
        fresh.admissions.set_limits(&fresh.sockets);
        fresh
    }

    /// Takes datagrams of a client: `bytes` holds one after the other, each `segment` long but the last.
    pub(crate) fn handle_datagrams(
        &mut self,
        flow: &Flow,
        bytes: &[u8],
        segment: usize,
        tos: u8,
        now: Duration,
        out: &mut Output,
    ) {
        let (first, segment) = (out.forward.len(), segment.max(1));
        if let Some(session) = self.all_alike(flow) {
            out.forward(session, 0..bytes.len());
        } else if let Some(reason) = self.refuses(flow) {
            // Sessions of such a client have been ended, so all that comes is new.
            let count = bytes.len().div_ceil(segment).max(1);
            out.refuse(flow, Datagrams::Any, None, reason, count);
        } else {
            let mut start = 0_usize;
            loop {
                let end = start.saturating_add(segment).min(bytes.len());
                let datagram = bytes.get(start..end).unwrap_or_default();
                if let Some(session) = self.assign(Arrival { flow, datagram, tos, now }, out) {
                    out.forward(session, start..end);
                }
                start = end;
                if start >= bytes.len() {
                    break;
                }
            }
        }
        for index in first..out.forward.len() {
            let Some((session, part)) = out.forward.get(index) else { break };
            let (session, len) = (*session, part.len());
            self.note_up(session, len, now, out);
        }
    }

    /// Takes datagrams of a session's backend; returns the client's end that they have to go to.
    pub(crate) fn handle_answers(
        &mut self,
        session: SessionId,
        bytes: &[u8],
        segment: usize,
        now: Duration,
        out: &mut Output,
    ) -> Option<Flow> {
        let state = self.table.get_mut(session)?;
        state.last_seen = now;
        state.bytes_down += bytes.len() as u64;
        let flow = state.flow;
        let first = state.evidence.answered(now);
        let returns = state.doubt.answered();
        if let Stage::Open(reached) = &state.stage
            && reached.busy.answered(now)
            && let Some(endpoint) = reached.route.group.endpoint(reached.target)
        {
            out.commands.push_back(Command::Log(Notice::Up(endpoint.target.to_string())));
        }
        if first
            && let Stage::Open(reached) = &state.stage
            && let Some(endpoint) = reached.route.group.endpoint(reached.target)
        {
            endpoint.reached_at(reached.address);
            endpoint.account.answered(now.saturating_sub(reached.since));
        }
        let mut changed = false;
        if !matches!(state.ids, Ids::None) {
            for datagram in datagrams(bytes, segment) {
                changed |= self.identity.learn_from_answer(state, datagram, now);
            }
        }
        if changed {
            self.steer_by_current(session, out);
        }
        if first {
            self.admissions.answered(session, &self.table);
        }
        if first || returns {
            self.steer(session, out);
        }
        // Long headers tell what IDs the server has, if any.
        if (first || bytes.first().is_some_and(|byte| byte & 0x80 != 0)) && !self.table.is_alone(session) {
            self.steer_again(&flow, out);
        }
        Some(flow)
    }

    /// The queue of a listening socket has not been read to its end since `since`.
    pub(crate) fn handle_backlog(&mut self, since: Duration, now: Duration) {
        self.overload.stands(since, now);
    }

    /// Returns whether there is no session.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.table.len() == 0
    }

    /// Number of sessions, undecided ones included.
    #[must_use]
    pub(crate) fn len(&self) -> usize {
        self.table.len()
    }

    /// Bytes of datagrams that wait for a hello or for a socket.
    #[cfg(any(test, feature = "properties"))]
    fn held_bytes(&self) -> usize {
        self.undecided.held_bytes() + self.opening_budget.used() + self.handshake_budget.used()
    }

    /// The client's end of a session.
    #[must_use]
    pub(crate) fn flow(&self, session: SessionId) -> Option<&Flow> {
        self.table.get(session).map(|state| &state.flow)
    }

    /// Returns whether a client's end has sessions here.
    #[must_use]
    pub(crate) fn knows(&self, flow: &Flow) -> bool {
        self.table.members(flow).is_some()
    }

    /// The datagrams of a session that the kernel may steer, as bits of `rpxy_l4_common::map::kind`.
    #[must_use]
    pub(crate) fn steerable(&self, session: SessionId) -> Option<u8> {
        let state = self.table.get(session)?;
        let by_id = state.ids.current().is_some_and(|id| id.len() >= SHORTEST);
        Some(self.at(&state.flow).routes.steerable(state.carries(), by_id))
    }

    /// The rule of a session, as a later daemon finds it.
    #[must_use]
    pub(crate) fn mark(&self, session: SessionId) -> Option<u16> {
        self.table.get(session)?.route().map(|route| route.mark())
    }

    /// Adds a session, which becomes its flow's latest.
    fn insert(&mut self, state: Session, now: Duration, out: &mut Output) -> SessionId {
        if let Some(oldest) = Admissions::crowded_out(&state.flow, &self.table) {
            self.end(oldest, SessionEnd::Evicted, DatagramDrop::Overflow, now, out);
        }
        let (flow, deadline, undecided) = (state.flow, state.deadline(), state.is_undecided());
        let session = self.table.insert(state);
        self.admissions.entered(session, &self.table);
        self.steer_again(&flow, out);
        self.deadlines.add(deadline, session, &self.table);
        if undecided {
            self.undecided.add(session, &self.table);
        }
        session
    }

    /// Ends a session; the datagrams that it holds are discarded for `reason`.
    fn end(&mut self, session: SessionId, end: SessionEnd, reason: DatagramDrop, now: Duration, out: &mut Output) {
        let Some(mut state) = self.table.remove(session) else { return };
        self.admissions.left(&state);
        let (flow, carries) = (state.flow, state.carries());
        if let Some(held) = state.held().map(|(held, _)| held.len()) {
            match end {
                SessionEnd::Withdrawn
                | SessionEnd::Admin
                | SessionEnd::TargetDown
                | SessionEnd::Drained
                | SessionEnd::Moved
                | SessionEnd::InternalError => {
                    out.discard(reason, held);
                }
                SessionEnd::Idle
                | SessionEnd::Refused
                | SessionEnd::Evicted
                | SessionEnd::Banned
                | SessionEnd::Denied
                | SessionEnd::EchInvalid => match state.route() {
                    Some(route) => out.refuse_of(route, &flow, None, reason, held),
                    None => out.refuse(&flow, carries, None, reason, held),
                },
            }
        }
        if state.is_undecided() {
            self.undecided.removed();
        }
        out.discard(reason, state.ids.waiting());
        // What leads to a backend that is gone leads nowhere; and a session that was closed is not to come back.
        let lingers = !matches!(end, SessionEnd::Moved | SessionEnd::TargetDown | SessionEnd::Admin);
        self.identity.release(&state, lingers, now);
        if state.unsteer() {
            out.commands.push_back(Command::RevokeFlow { session });
        }
        if let Some(reached) = state.reached() {
            let (bytes_up, bytes_down) = (state.bytes_up, state.bytes_down);
            let first_answer = state.evidence.first_answer_after(reached.since);
            out.commands.push_back(Command::Ended { session, end, bytes_up, bytes_down, first_answer });
        }
        self.steer_again(&state.flow, out);
    }

    /// The listener that a flow arrives at.
    fn at(&self, flow: &Flow) -> &Arc<Listener> {
        at(&self.sockets, &self.snapshot, flow)
    }

    /// Time for which the target of a session is tried last after it has failed.
    fn retry_of(&self, session: SessionId) -> Duration {
        self.table.get(session).map_or(Duration::ZERO, |state| self.at(&state.flow).target_retry)
    }

    /// Why the client of a flow may not begin anything, if that is so.
    fn refuses(&self, flow: &Flow) -> Option<DatagramDrop> {
        let client = flow.client.ip();
        if self.bans.refuses(client) {
            Some(DatagramDrop::Banned)
        } else if self.at(flow).access.refuses(client) {
            Some(DatagramDrop::Denied)
        } else {
            None
        }
    }

    /// The session that all datagrams of a flow go to without being looked at.
    fn all_alike(&self, flow: &Flow) -> Option<SessionId> {
        let routes = &self.at(flow).routes;
        if routes.has_quic() || routes.has_wireguard() {
            return None;
        }
        let members = self.table.members(flow)?;
        let open = self.table.get(members.latest()).is_some_and(Session::is_open);
        (open && members.is_single()).then_some(members.latest())
    }

    fn note_up(&mut self, session: SessionId, len: usize, now: Duration, out: &mut Output) {
        let Some(state) = self.table.get_mut(session) else { return };
        state.last_seen = now;
        state.bytes_up += len as u64;
        state.evidence.asked();
        state.doubt.asked(now);
        // What begins with a handshake is answered, or the target is not up.
        let one_way = !state.evidence.is_answered() && state.carries() == Datagrams::Any;
        if one_way && now >= state.born.saturating_add(NOT_REFUSED) {
            self.target_is_up(session, out);
        }
    }

    /// A session's target has shown that it is there.
    fn target_is_up(&self, session: SessionId, out: &mut Output) {
        if let Some(reached) = self.table.get(session).and_then(Session::reached)
            && let Some(endpoint) = reached.route.group.endpoint(reached.target)
            && endpoint.health.reached()
        {
            out.commands.push_back(Command::Log(Notice::Up(endpoint.target.to_string())));
        }
    }

    /// A uniform number for balancing; not for secrets.
    fn random(&self) -> u64 {
        self.random.next()
    }
}

/// The listener that a flow arrives at.
fn at<'s>(sockets: &'s [Arc<Listener>], snapshot: &'s Snapshot, flow: &Flow) -> &'s Arc<Listener> {
    let socket = usize::try_from(flow.listener).ok().and_then(|slot| sockets.get(slot));
    socket.unwrap_or(&snapshot.nowhere)
}

/// Cuts a buffer into its datagrams; an empty buffer is one empty datagram.
fn datagrams(bytes: &[u8], segment: usize) -> impl Iterator<Item = &[u8]> {
    let segment = segment.max(1);
    let count = bytes.len().div_ceil(segment).max(1);
    (0..count).map(move |index| {
        let start = index * segment;
        bytes.get(start..start.saturating_add(segment).min(bytes.len())).unwrap_or_default()
    })
}
