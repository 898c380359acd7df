//! The sessions of one worker, without IO: datagrams, answers, time and configurations go in, commands come out.
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

mod command;
mod flows;
mod held;
mod ids;
mod open;
mod place;
mod quic;
mod restore;
mod state;
#[cfg(test)]
mod tests;
mod wireguard;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    net::SocketAddr,
    ops::Range,
    sync::Arc,
    time::Duration,
};

pub use command::{Command, Notice, OpenError, Output, Started};
pub use flows::FlowLine;
use held::Budget;
use place::Arrival;
pub use restore::Left;
use slab::Slab;
use state::{Session, Stage};

use super::{Plane, affinity::Affinity};
use crate::{
    limit::{Bans, Gauge, Prefixes},
    metrics::{DatagramDrop, SessionEnd},
    net::udp::Local,
};

/// How long a ClientHello may take to arrive (a client repeats itself after 1 s, RFC 9002 section 6.2.2).
const HELLO_TIMEOUT: Duration = Duration::from_secs(2);
/// How long the first addresses of a name may take.
const RESOLVE_TIMEOUT: Duration = Duration::from_secs(5);
/// A target that has not refused for so long is up, although it may never answer: some protocols go one way only. More
/// than the time in which a neighbour that is gone is noticed (`mcast_solicit` and `retrans_time`, 3 s).
const NOT_REFUSED: Duration = Duration::from_secs(5);
/// Sessions of one client socket at most; the oldest gives way. Each costs every datagram of that socket a look.
const MAX_OF_FLOW: usize = 128;
/// Flows without a complete ClientHello at most; the oldest gives way.
const MAX_UNDECIDED: usize = 1024;

/// The client's end of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The listening socket, numbered by the worker.
    pub listener: u32,
    /// The client.
    pub client: SocketAddr,
    /// The address that it used, where the socket has several.
    pub local: Option<Local>,
}

/// A session of one worker; never used again for another one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SessionId {
    /// Its place.
    pub index: u32,
    /// Which one in that place.
    pub generation: u32,
}

/// The sessions of one client socket.
#[derive(Debug)]
struct Members {
    /// The one that a datagram was last known to be of, or the youngest.
    latest: SessionId,
    /// Those before it, in order; most client sockets have none.
    earlier: Vec<SessionId>,
}

/// All sessions of one worker.
#[derive(Debug)]
pub struct Sessions {
    plane: Arc<Plane>,
    affinity: Arc<Affinity>,
    active: Arc<Gauge>,
    bans: Arc<Bans>,
    slab: Slab<Session>,
    flows: HashMap<Flow, Members>,
    /// Times at which a session has to be looked at; lazily kept, so that traffic does not move them.
    deadlines: BinaryHeap<Reverse<(Duration, SessionId)>>,
    /// Without a complete hello, oldest first; those that are over are skipped.
    undecided: VecDeque<SessionId>,
    undecided_now: usize,
    /// Not known to have a client that receives, oldest first; lazily kept as well.
    unconfirmed: VecDeque<SessionId>,
    /// Answered sessions of protocols that show nothing, which have been passed over once.
    quiet: Vec<SessionId>,
    quiet_again: Duration,
    /// For what waits for a hello.
    budget: Budget,
    /// For what waits for a socket.
    opening_budget: Budget,
    arrivals: Prefixes,
    generation: u32,
    entropy: u64,
}

impl Members {
    fn all(&self) -> impl Iterator<Item = SessionId> + '_ {
        std::iter::once(self.latest).chain(self.earlier.iter().rev().copied())
    }

    fn is_single(&self) -> bool {
        self.earlier.is_empty()
    }
}

impl Sessions {
    /// None yet. `seed` feeds the random choices of balancing.
    #[must_use]
    pub fn new(plane: Arc<Plane>, affinity: Arc<Affinity>, active: Arc<Gauge>, bans: Arc<Bans>, seed: u64) -> Self {
        Self {
            plane,
            affinity,
            active,
            bans,
            slab: Slab::new(),
            flows: HashMap::new(),
            deadlines: BinaryHeap::new(),
            undecided: VecDeque::new(),
            undecided_now: 0,
            unconfirmed: VecDeque::new(),
            quiet: Vec::new(),
            quiet_again: Duration::ZERO,
            budget: Budget::default(),
            opening_budget: Budget::default(),
            arrivals: Prefixes::new(seed),
            generation: 0,
            entropy: seed,
        }
    }

    /// Lets go of all that the affinity table holds for sessions.
    pub fn forget_ids(&mut self, now: Duration) {
        for (_, state) in &self.slab {
            self.release_ids(state, now);
        }
    }

    /// No sessions under the same configuration. IDs of sessions go on from where they were.
    #[must_use]
    pub fn anew(&self) -> Self {
        let (plane, affinity) = (Arc::clone(&self.plane), Arc::clone(&self.affinity));
        let (active, bans) = (Arc::clone(&self.active), Arc::clone(&self.bans));
        let fresh = Self::new(plane, affinity, active, bans, self.entropy);
        Self { generation: self.generation, ..fresh }
    }

    /// Takes datagrams of a client: `bytes` holds one after the other, each `segment` long but the last.
    pub fn handle_datagrams(
        &mut self,
        flow: &Flow,
        bytes: &[u8],
        segment: usize,
        ecn: u8,
        now: Duration,
        out: &mut Output,
    ) {
        let first = out.forward.len();
        if let Some(session) = self.all_alike(flow) {
            out.forward(session, 0..bytes.len());
        } else if self.bans.refuses(flow.client.ip()) {
            // Sessions of a banned client have been ended, so all that comes is new.
            out.drop(DatagramDrop::Banned, bytes.len().div_ceil(segment.max(1)).max(1));
        } else {
            let mut start = 0_usize;
            loop {
                let end = start.saturating_add(segment).min(bytes.len());
                let datagram = bytes.get(start..end).unwrap_or_default();
                if let Some(session) = self.place(Arrival { flow, datagram, ecn, now }, out) {
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
    pub fn handle_answers(
        &mut self,
        session: SessionId,
        bytes: &[u8],
        segment: usize,
        now: Duration,
        out: &mut Output,
    ) -> Option<Flow> {
        let state = self.get_mut(session)?;
        state.last_seen = now;
        state.bytes_down += bytes.len() as u64;
        let flow = state.flow;
        let first = !std::mem::replace(&mut state.answered, true);
        self.learn_from_answers(session, bytes, segment, now, out);
        if first {
            self.first_answer(session, out);
        }
        Some(flow)
    }

    /// Does what is due at `now`. `steered` tells when the kernel last forwarded something for a session that it steers.
    pub fn handle_timeout(&mut self, now: Duration, steered: impl Fn(SessionId) -> Option<Duration>, out: &mut Output) {
        self.make_wanted_room(now, out);
        while let Some(Reverse((at, session))) = self.deadlines.peek().copied() {
            if at > now {
                return;
            }
            self.deadlines.pop();
            let Some(state) = self.get_mut(session) else { continue };
            if let Some(seen) = state.steered.then(|| steered(session)).flatten() {
                state.last_seen = state.last_seen.max(seen);
            }
            match state.deadline() {
                None => {}
                Some(at) if at > now => self.deadlines.push(Reverse((at, session))),
                Some(_) => match state.stage {
                    Stage::Undecided(_) => self.end(session, SessionEnd::Idle, DatagramDrop::Incomplete, now, out),
                    Stage::Opening(_) => self.end(session, SessionEnd::Idle, DatagramDrop::Unreachable, now, out),
                    Stage::Open(_) => self.end(session, SessionEnd::Idle, DatagramDrop::Unreachable, now, out),
                },
            }
        }
    }

    /// When [`Sessions::handle_timeout`] has something to do next, if nothing else happens.
    #[must_use]
    pub fn next_timeout(&self) -> Option<Duration> {
        self.deadlines.peek().map(|Reverse((at, _))| *at)
    }

    /// Goes on under another configuration: sessions whose rule and target are in it stay, others end.
    pub fn handle_plane(&mut self, plane: Arc<Plane>, now: Duration, out: &mut Output) {
        self.plane = plane;
        let ids: Vec<SessionId> = self.slab.iter().map(|(index, state)| id(index, state.generation)).collect();
        self.deadlines.clear();
        for session in ids {
            if !self.adopt(session) {
                self.end(session, SessionEnd::Withdrawn, DatagramDrop::Unreachable, now, out);
                continue;
            }
            let Some(state) = self.get(session) else { continue };
            let (steered, cid) = (state.steered, state.ids.quic().and_then(|ids| ids.current));
            if let Some(at) = state.deadline() {
                self.deadlines.push(Reverse((at, session)));
            }
            if steered {
                // Which datagrams may be steered depends on the rules.
                out.commands.push_back(Command::RevokeFlow { session });
                out.commands.push_back(Command::InstallFlow { session, cid });
            }
        }
    }

    /// Ends all sessions of a listening socket, or all that there are.
    pub fn handle_closed(&mut self, listener: Option<u32>, end: SessionEnd, now: Duration, out: &mut Output) {
        let of_it = |state: &Session| listener.is_none_or(|listener| state.flow.listener == listener);
        for session in self.those(of_it) {
            self.end(session, end, DatagramDrop::Unreachable, now, out);
        }
    }

    /// Ends the sessions of clients that are banned now.
    pub fn handle_bans(&mut self, now: Duration, out: &mut Output) {
        let bans = Arc::clone(&self.bans);
        for session in self.those(|state| bans.refuses(state.flow.client.ip())) {
            self.end(session, SessionEnd::Banned, DatagramDrop::Banned, now, out);
        }
    }

    fn those(&self, wanted: impl Fn(&Session) -> bool) -> Vec<SessionId> {
        let wanted = self.slab.iter().filter(|(_, state)| wanted(state));
        wanted.map(|(index, state)| id(index, state.generation)).collect()
    }

    /// Whether there is no session.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.slab.is_empty()
    }

    /// How many sessions there are, undecided ones included.
    #[must_use]
    pub fn len(&self) -> usize {
        self.slab.len()
    }

    /// Bytes that are held for sessions without a socket.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.budget.used() + self.opening_budget.used()
    }

    /// The client's end of a session.
    #[must_use]
    pub fn flow(&self, session: SessionId) -> Option<&Flow> {
        self.get(session).map(|state| &state.flow)
    }

    /// Which datagrams of a session the kernel may steer, as bits of `rpxy_l4_common::map::kind`.
    #[must_use]
    pub fn steerable(&self, session: SessionId) -> Option<u8> {
        Some(self.plane.routes.steerable(self.carries(session)?))
    }

    /// By what rule a session goes, as a later daemon finds it.
    #[must_use]
    pub fn mark(&self, session: SessionId) -> Option<u16> {
        self.get(session)?.route().map(|route| route.mark())
    }

    /// The session that all datagrams of a flow go to without being looked at.
    fn all_alike(&self, flow: &Flow) -> Option<SessionId> {
        let routes = &self.plane.routes;
        if routes.has_quic() || routes.has_wireguard() {
            return None;
        }
        let members = self.flows.get(flow)?;
        let open = self.get(members.latest).is_some_and(Session::is_open);
        (open && members.is_single()).then_some(members.latest)
    }

    fn note_up(&mut self, session: SessionId, len: usize, now: Duration, out: &mut Output) {
        let Some(state) = self.get_mut(session) else { return };
        state.last_seen = now;
        state.bytes_up += len as u64;
        if !state.answered && now >= state.born.saturating_add(NOT_REFUSED) {
            self.target_is_up(session, out);
        }
    }

    /// The backend has shown that it is there.
    fn first_answer(&mut self, session: SessionId, out: &mut Output) {
        self.target_is_up(session, out);
        let Some(state) = self.get(session) else { return };
        // Short headers of two sessions of one socket look alike to the kernel.
        let single = self.flows.get(&state.flow).is_some_and(Members::is_single);
        if single && let Some(state) = self.get_mut(session) {
            state.steered = true;
            let cid = state.ids.quic().and_then(|ids| ids.current);
            out.commands.push_back(Command::InstallFlow { session, cid });
        }
    }

    /// A session's target is where it should be.
    fn target_is_up(&self, session: SessionId, out: &mut Output) {
        if let Some(reached) = self.get(session).and_then(Session::reached)
            && let Some(endpoint) = reached.route.group.endpoint(reached.target)
            && endpoint.health.reached()
        {
            out.commands.push_back(Command::Say(Notice::Up(endpoint.target.to_string())));
        }
    }

    /// Adds a session, which becomes its flow's latest.
    fn insert(&mut self, mut state: Session, now: Duration, out: &mut Output) -> SessionId {
        self.make_room_in(&state.flow, now, out);
        self.generation = self.generation.wrapping_add(1);
        state.generation = self.generation;
        let (flow, deadline, undecided) = (state.flow, state.deadline(), matches!(state.stage, Stage::Undecided(_)));
        let session = id(self.slab.insert(state), self.generation);
        match self.flows.get_mut(&flow) {
            Some(members) => {
                let before = std::mem::replace(&mut members.latest, session);
                members.earlier.push(before);
                self.unsteer(&flow, out);
            }
            None => drop(self.flows.insert(flow, Members { latest: session, earlier: Vec::new() })),
        }
        self.expect(deadline, session);
        if undecided {
            self.undecided_now += 1;
            self.undecided.push_back(session);
        }
        session
    }

    /// Has a session looked at. Entries of sessions that are over go when they are the majority.
    fn expect(&mut self, at: Option<Duration>, session: SessionId) {
        let Some(at) = at else { return };
        if self.deadlines.len() > 4 * self.slab.len() + 64 {
            self.deadlines.clear();
            let all =
                self.slab.iter().filter_map(|(index, state)| Some((state.deadline()?, id(index, state.generation))));
            self.deadlines.extend(all.map(Reverse));
        }
        self.deadlines.push(Reverse((at, session)));
    }

    /// One client socket must not make its own datagrams ever more expensive.
    fn make_room_in(&mut self, flow: &Flow, now: Duration, out: &mut Output) {
        let Some(members) = self.flows.get(flow) else { return };
        if members.earlier.len() + 1 < MAX_OF_FLOW {
            return;
        }
        let unconfirmed = |id: &&SessionId| self.get(**id).is_some_and(|state| !state.confirmed);
        let oldest = members.earlier.iter().find(unconfirmed).or(members.earlier.first()).copied();
        if let Some(oldest) = oldest {
            self.end(oldest, SessionEnd::Evicted, DatagramDrop::Overflow, now, out);
        }
    }

    /// The kernel cannot tell the sessions of one client socket apart.
    fn unsteer(&mut self, flow: &Flow, out: &mut Output) {
        let Some(members) = self.flows.get(flow) else { return };
        let ids: Vec<SessionId> = members.all().collect();
        for session in ids {
            if self.get_mut(session).is_some_and(|state| std::mem::take(&mut state.steered)) {
                out.commands.push_back(Command::RevokeFlow { session });
            }
        }
    }

    /// Ends a session; what it holds is dropped for `reason`.
    fn end(&mut self, session: SessionId, end: SessionEnd, reason: DatagramDrop, now: Duration, out: &mut Output) {
        if self.get(session).is_none() {
            return;
        }
        let mut state = self.slab.remove(place(session));
        let undecided = matches!(state.stage, Stage::Undecided(_));
        if let Some((held, _)) = state.held() {
            let budget = if undecided { &mut self.budget } else { &mut self.opening_budget };
            let count = held.take(budget).len();
            out.drop(reason, count);
        }
        if undecided {
            self.undecided_now -= 1;
        }
        self.leave_flow(&state.flow, session);
        self.release_ids(&state, now);
        if state.steered {
            out.commands.push_back(Command::RevokeFlow { session });
        }
        if state.is_open() {
            let (bytes_up, bytes_down) = (state.bytes_up, state.bytes_down);
            out.commands.push_back(Command::Ended { session, end, bytes_up, bytes_down });
        }
    }

    fn leave_flow(&mut self, flow: &Flow, session: SessionId) {
        let Some(members) = self.flows.get_mut(flow) else { return };
        if members.latest != session {
            members.earlier.retain(|earlier| *earlier != session);
        } else if let Some(before) = members.earlier.pop() {
            members.latest = before;
        } else {
            self.flows.remove(flow);
        }
    }

    fn get(&self, session: SessionId) -> Option<&Session> {
        self.slab.get(place(session)).filter(|state| state.generation == session.generation)
    }

    fn get_mut(&mut self, session: SessionId) -> Option<&mut Session> {
        self.slab.get_mut(place(session)).filter(|state| state.generation == session.generation)
    }

    /// A uniform number for balancing; not for secrets (splitmix64).
    fn random(&mut self) -> u64 {
        self.entropy = self.entropy.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.entropy;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }
}

impl Session {
    /// When it has to be looked at; `None` is never.
    fn deadline(&self) -> Option<Duration> {
        let (from, limit) = match &self.stage {
            Stage::Undecided(_) => (self.born, Some(HELLO_TIMEOUT)),
            Stage::Opening(_) => (self.born, Some(RESOLVE_TIMEOUT)),
            Stage::Open(reached) => (self.last_seen, reached.route.idle),
        };
        limit.map(|limit| from.saturating_add(limit))
    }
}

fn place(session: SessionId) -> usize {
    usize::try_from(session.index).unwrap_or(usize::MAX)
}

/// The limits on sessions are 32 bits wide.
fn id(index: usize, generation: u32) -> SessionId {
    SessionId { index: u32::try_from(index).unwrap_or(u32::MAX), generation }
}

/// Cuts a buffer into its datagrams; an empty buffer is one empty datagram.
fn datagrams(bytes: &[u8], segment: usize) -> impl Iterator<Item = (Range<usize>, &[u8])> {
    let segment = segment.max(1);
    let count = bytes.len().div_ceil(segment).max(1);
    (0..count).map(move |index| {
        let start = index * segment;
        let range = start..start.saturating_add(segment).min(bytes.len());
        (range.clone(), bytes.get(range).unwrap_or_default())
    })
}
