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

mod backend;
mod command;
mod decryption;
mod ech;
mod failed;
mod flows;
mod held;
mod hello;
mod ids;
mod learn;
mod open;
mod place;
mod quic;
mod restore;
mod room;
mod state;
mod table;
#[cfg(test)]
mod tests;
mod upkeep;
mod wireguard;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap, VecDeque},
    net::SocketAddr,
    sync::Arc,
    time::Duration,
};

pub use command::{Command, Notice, OpenError, Output, Started};
pub use flows::FlowLine;
use held::Budget;
use ids::Ids;
use place::Arrival;
pub use restore::Left;
use slab::Slab;
use state::Session;
use table::{id, place};

use super::{Snapshot, affinity::Affinity};
use crate::{
    limit::{Bans, ConnLimit, Prefixes},
    metrics::DatagramDrop,
    net::udp::Local,
    route::Random,
};

/// A target that has not refused for so long is up, although it may never answer: some protocols go one way only. More
/// than the time in which a neighbour that is gone is noticed (`mcast_solicit` and `retrans_time`, 3 s).
const NOT_REFUSED: Duration = Duration::from_secs(5);

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
    snapshot: Arc<Snapshot>,
    affinity: Arc<Affinity>,
    active: Arc<ConnLimit>,
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
    /// For what waits for the rest of a later hello.
    handshake_budget: Budget,
    /// Decrypted connections that gather such a hello.
    gathering: Arc<ConnLimit>,
    arrivals: Prefixes,
    /// Hellos of Encrypted Client Hello that did not open.
    failed_hellos: Prefixes,
    generation: u32,
    random: Random,
}

impl Sessions {
    /// None yet. `seed` feeds the random choices of balancing.
    #[must_use]
    pub fn new(
        snapshot: Arc<Snapshot>,
        affinity: Arc<Affinity>,
        active: Arc<ConnLimit>,
        bans: Arc<Bans>,
        seed: u64,
    ) -> Self {
        Self {
            snapshot,
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
            handshake_budget: Budget::default(),
            gathering: Arc::default(),
            arrivals: Prefixes::new(seed),
            failed_hellos: Prefixes::new(!seed),
            generation: 0,
            random: Random::new(seed),
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
        let (snapshot, affinity) = (Arc::clone(&self.snapshot), Arc::clone(&self.affinity));
        let (active, bans) = (Arc::clone(&self.active), Arc::clone(&self.bans));
        let fresh = Self::new(snapshot, affinity, active, bans, self.random.next());
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
        if !matches!(state.ids, Ids::None) {
            for datagram in datagrams(bytes, segment) {
                self.learn_from_answer(session, datagram, now, out);
            }
        }
        if first {
            self.first_answer(session, out);
        }
        Some(flow)
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

    /// Bytes of datagrams that wait for a hello or for a socket.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        self.budget.used() + self.opening_budget.used() + self.handshake_budget.used()
    }

    /// The client's end of a session.
    #[must_use]
    pub fn flow(&self, session: SessionId) -> Option<&Flow> {
        self.get(session).map(|state| &state.flow)
    }

    /// Which datagrams of a session the kernel may steer, as bits of `rpxy_l4_common::map::kind`.
    #[must_use]
    pub fn steerable(&self, session: SessionId) -> Option<u8> {
        Some(self.snapshot.routes.steerable(self.carries(session)?))
    }

    /// By what rule a session goes, as a later daemon finds it.
    #[must_use]
    pub fn mark(&self, session: SessionId) -> Option<u16> {
        self.get(session)?.route().map(|route| route.mark())
    }

    /// The session that all datagrams of a flow go to without being looked at.
    fn all_alike(&self, flow: &Flow) -> Option<SessionId> {
        let routes = &self.snapshot.routes;
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
        self.steer(session, out);
    }

    /// Lets the kernel steer a session that has been answered, unless it could not tell whose the datagrams are.
    fn steer(&mut self, session: SessionId, out: &mut Output) {
        let Some(state) = self.get(session) else { return };
        // Short headers of two sessions of one socket look alike to the kernel.
        let single = self.flows.get(&state.flow).is_some_and(Members::is_single);
        let cid = state.ids.current();
        // Answered with a cookie only.
        let unknown = matches!(state.ids, Ids::WireGuard(_)) && cid.is_none();
        if single
            && !unknown
            && !state.steered
            && let Some(state) = self.get_mut(session)
        {
            state.steered = true;
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

    /// A uniform number for balancing; not for secrets.
    fn random(&self) -> u64 {
        self.random.next()
    }
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
