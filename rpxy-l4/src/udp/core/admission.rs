//! Which session gives way when there is no room for another one.
//!
//! Invariants kept here: a session holds a permit of `udp_max_connections` from its route on; what has proved the least
//! gives way, the oldest first.

use std::{collections::VecDeque, sync::Arc, time::Duration};

use super::{
    Flow, SessionId,
    state::Session,
    table::{Members, Table},
};
use crate::{
    limit::{ConnLimit, ConnPermit},
    route::Datagrams,
};

/// How long a session must have been quiet to make room for a new one.
const QUIET: Duration = Duration::from_secs(5);
/// How soon the quiet ones are looked through again.
const QUIET_AGAIN: Duration = Duration::from_millis(10);
/// Sessions of one client socket at most; the oldest gives way. Each costs every datagram of that socket a look.
pub(super) const MAX_OF_FLOW: usize = 128;

/// Permits of sessions, and the order in which they give way.
#[derive(Debug)]
pub(super) struct Admission {
    /// Shared by all workers.
    active: Arc<ConnLimit>,
    /// Not known to have a client that receives, oldest first; lazily kept.
    unconfirmed: VecDeque<SessionId>,
    /// Answered sessions of protocols that show nothing, which have been passed over once.
    quiet: Vec<SessionId>,
    quiet_again: Duration,
}

impl Admission {
    pub(super) fn new(active: Arc<ConnLimit>) -> Self {
        Self { active, unconfirmed: VecDeque::new(), quiet: Vec::new(), quiet_again: Duration::ZERO }
    }

    /// The limit that all workers share.
    pub(super) fn limit(&self) -> &Arc<ConnLimit> {
        &self.active
    }

    pub(super) fn acquire(&self, max: u32) -> Option<ConnPermit> {
        self.active.acquire(max)
    }

    /// Asks other workers to end a session.
    pub(super) fn ask_others(&self) {
        // The client will ask again.
        self.active.want();
    }

    /// Returns whether another worker waits for room that is not there. A request that finds room is done with; one that
    /// does not ends with [`Admission::granted`].
    pub(super) fn owes_room(&self, max: u32) -> bool {
        if !self.active.is_wanted() {
            return false;
        }
        let full = self.active.count() >= max;
        if !full {
            self.granted();
        }
        full
    }

    /// A request of another worker was granted, or has to be made again.
    pub(super) fn granted(&self) {
        self.active.give();
    }

    /// A session has a backend.
    pub(super) fn opened(&mut self, session: SessionId, table: &Table) {
        self.unconfirmed.push_back(session);
        if self.unconfirmed.len() > 2 * table.len() + 64 {
            self.unconfirmed.retain(|id| table.get(*id).is_some_and(|state| !state.confirmed));
        }
    }

    /// Returns the session of a crowded flow that gives way to one more.
    pub(super) fn crowded_out(flow: &Flow, table: &Table) -> Option<SessionId> {
        let earlier = table.members(flow).map(Members::earlier).filter(|earlier| earlier.len() + 1 >= MAX_OF_FLOW)?;
        let unconfirmed = |id: &&SessionId| table.get(**id).is_some_and(|state| !state.confirmed);
        earlier.iter().find(unconfirmed).or(earlier.first()).copied()
    }

    /// Returns a session that is worth less than a new one: the oldest whose client has never shown that it receives, or,
    /// since most protocols show nothing, the one that has been quiet for the longest.
    pub(super) fn least_proven(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        while let Some(oldest) = self.unconfirmed.pop_front() {
            let Some(state) = table.get(oldest).filter(|state| !state.confirmed) else { continue };
            if state.carries() == Datagrams::Any && state.answered {
                self.quiet.push(oldest);
                continue;
            }
            return Some(oldest);
        }
        self.quietest(table, now)
    }

    /// Of those whose protocol shows nothing. Finding it costs a look at each, so that it is not done for every datagram.
    fn quietest(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        if now < self.quiet_again {
            return None;
        }
        self.quiet_again = now.saturating_add(QUIET_AGAIN);
        let seen = |id: &SessionId| table.get(*id).map(|state: &Session| state.last_seen);
        self.quiet.retain(|id| seen(id).is_some());
        let quiet = |id: &SessionId| seen(id).filter(|seen| seen.saturating_add(QUIET) <= now);
        self.quiet.iter().filter_map(|id| Some((quiet(id)?, *id))).min().map(|(_, id)| id)
    }
}
