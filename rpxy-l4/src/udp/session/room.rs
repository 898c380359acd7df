//! Which session gives way when there is no room for another one.

use std::time::Duration;

use super::{Command, Flow, Notice, Output, SessionId, Sessions};
use crate::{
    limit::ConnPermit,
    metrics::{DatagramDrop, SessionEnd},
    route::Datagrams,
};

/// How long a session must have been quiet to make room for a new one.
const QUIET: Duration = Duration::from_secs(5);
/// How soon the quiet ones are looked through again.
const QUIET_AGAIN: Duration = Duration::from_millis(10);
/// Sessions of one client socket at most; the oldest gives way. Each costs every datagram of that socket a look.
pub(super) const MAX_OF_FLOW: usize = 128;

impl Sessions {
    /// One client socket must not make its own datagrams ever more expensive.
    pub(super) fn make_room_in(&mut self, flow: &Flow, now: Duration, out: &mut Output) {
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

    /// Room for one more session. Where there is none, one whose client has never shown that it receives gives way:
    /// so forged addresses cannot keep real clients out.
    pub(super) fn admit(&mut self, now: Duration, out: &mut Output) -> Option<ConnPermit> {
        let max = self.snapshot.settings.max_connections.get();
        if let Some(permit) = self.active.acquire(max) {
            return Some(permit);
        }
        out.commands.push_back(Command::Say(Notice::TooMany { max }));
        if self.evict(now, out) {
            // A lowered limit may still be exceeded.
            return self.active.acquire(max);
        }
        // Another worker may have one; the client will ask again.
        self.active.want();
        None
    }

    /// Makes the room that other workers have asked for, as far as there is any.
    pub(super) fn make_wanted_room(&mut self, now: Duration, out: &mut Output) {
        while self.active.is_wanted() {
            if self.active.count() < self.snapshot.settings.max_connections.get() || !self.evict(now, out) {
                // There is room by now, or whoever asked has to ask again.
                self.active.give();
                return;
            }
            self.active.give();
        }
    }

    /// Ends a session that is worth less than a new one: the oldest whose client has never shown that it receives, or,
    /// since most protocols show nothing, the one that has been quiet for the longest.
    fn evict(&mut self, now: Duration, out: &mut Output) -> bool {
        while let Some(oldest) = self.unconfirmed.pop_front() {
            let Some(state) = self.get(oldest).filter(|state| !state.confirmed) else { continue };
            if self.carries(oldest) == Some(Datagrams::Any) && state.answered {
                self.quiet.push(oldest);
                continue;
            }
            self.end(oldest, SessionEnd::Evicted, DatagramDrop::TooMany, now, out);
            return true;
        }
        self.evict_quiet(now, out)
    }

    /// Of those whose protocol shows nothing. To find it costs a look at each, so that is not done for every datagram.
    fn evict_quiet(&mut self, now: Duration, out: &mut Output) -> bool {
        if now < self.quiet_again {
            return false;
        }
        self.quiet_again = now.saturating_add(QUIET_AGAIN);
        let slab = &self.slab;
        let seen = |id: &SessionId| {
            let state = slab.get(super::place(*id)).filter(|state| state.generation == id.generation)?;
            Some(state.last_seen)
        };
        self.quiet.retain(|id| seen(id).is_some());
        let quiet = |id: &SessionId| seen(id).filter(|seen| seen.saturating_add(QUIET) <= now);
        let longest = self.quiet.iter().filter_map(|id| Some((quiet(id)?, *id))).min();
        let Some((_, session)) = longest else { return false };
        self.end(session, SessionEnd::Evicted, DatagramDrop::TooMany, now, out);
        true
    }

    /// Entries of sessions that are over or confirmed go when they are the majority.
    pub(super) fn tidy_unconfirmed(&mut self) {
        if self.unconfirmed.len() > 2 * self.slab.len() + 64 {
            let slab = &self.slab;
            let live = |id: &SessionId| {
                slab.get(super::place(*id)).is_some_and(|state| state.generation == id.generation && !state.confirmed)
            };
            self.unconfirmed.retain(live);
        }
    }
}
