//! The session that gives way when there is no room for another one.
//!
//! Invariants kept here:
//!
//! - Every session that has a route holds a permit of `udp_max_connections`, that of its listener if it has its own.
//! - What has proved the least gives way, the oldest first, and of the rule (or default target) that has the most of it:
//!   a flood from forged addresses pays for itself, and costs no new client its chance.
//! - Where nothing is unproven, the rule with the most sessions gives way: none takes another one's share. A part of its
//!   share is each rule's for sessions that have yet to prove something, so that they have the time for it.

mod share;
mod shares;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use shares::Shares;

use super::{
    Flow, SessionId,
    evidence::Rank,
    state::Session,
    table::{Members, Table},
};
use crate::{
    config::model::LimitOf,
    limit::ConnPermit,
    route::{Datagrams, ShareOf, UdpRoute},
    udp::{Listener, SessionLimit},
};

/// The part of a rule's share, as a divisor, that unproven sessions have for themselves.
const UNPROVEN_PART: usize = 4;
/// Sessions of one client socket at most; the oldest gives way. Each costs every datagram of that socket a look.
pub(super) const MAX_OF_FLOW: usize = 128;

/// Permits of sessions, and the order in which they give way: for each limit by itself.
#[derive(Debug, Default)]
pub(super) struct Admissions(BTreeMap<LimitOf, Admission>);

/// The sessions under one limit.
#[derive(Debug, Default)]
pub(super) struct Admission {
    limit: SessionLimit,
    rules: Shares,
}

impl Admissions {
    /// Other limits are in effect, one for each of `listeners`. Sessions count by the limit that they began under.
    pub(super) fn set_limits(&mut self, listeners: &[Arc<Listener>]) {
        self.0.retain(|_, admission| !admission.rules.is_empty());
        for listener in listeners {
            let admission = self.0.entry(listener.sessions.of.clone()).or_default();
            admission.limit = listener.sessions.clone();
        }
    }

    /// The sessions under the limit of `of`.
    pub(super) fn of(&mut self, of: &LimitOf) -> Option<&mut Admission> {
        self.0.get_mut(of)
    }

    /// Returns whether a limit of a rule, or of one of its targets, is reached to one part in `part`.
    pub(super) fn rules_are_filled(&self, part: u32) -> bool {
        self.limited().any(|route| {
            let targets = route.group.endpoints().iter();
            let of_rule = route.max_connections.is_some_and(|most| route.connections.count() >= most.get() / part);
            of_rule || targets.into_iter().any(|endpoint| endpoint.is_filled(part))
        })
    }

    /// The rules with limits that another worker waits for room in.
    pub(super) fn rules_that_owe_room(&self) -> Vec<Arc<UdpRoute>> {
        self.limited().filter(|route| route.connections.is_wanted()).cloned().collect()
    }

    fn limited(&self) -> impl Iterator<Item = &Arc<UdpRoute>> {
        self.0.values().flat_map(|admission| admission.rules.limited())
    }

    /// Returns the session of `share` that gives way to another one, of those of which `at` is true.
    pub(super) fn least_proven_of(
        &mut self,
        share: &ShareOf,
        at: &dyn Fn(&Session) -> bool,
        table: &Table,
        now: Duration,
    ) -> Option<SessionId> {
        self.0.values_mut().find_map(|admission| {
            admission.rules.change(share, |share| {
                share.sweep(table);
                share.least_proven_at(at, table, now)
            })?
        })
    }

    /// Whose limits there are.
    pub(super) fn limits(&self) -> Vec<LimitOf> {
        self.0.keys().cloned().collect()
    }

    /// Returns whether one of the limits is reached to one part in `part`.
    pub(super) fn are_filled(&self, part: u32) -> bool {
        self.0.values().any(|admission| admission.limit.active.count() >= admission.limit.most / part)
    }

    /// A session was added to the table.
    pub(super) fn entered(&mut self, id: SessionId, table: &Table) {
        let Some(session) = table.get(id) else { return };
        if let Some(admission) = self.0.get_mut(&session.limit_of) {
            admission.entered(id, session, table);
        }
    }

    /// A session was removed from the table.
    pub(super) fn left(&mut self, session: &Session) {
        if let Some(admission) = self.0.get_mut(&session.limit_of) {
            admission.left(session);
        }
    }

    /// The backend of a session has answered for the first time.
    pub(super) fn answered(&mut self, id: SessionId, table: &Table) {
        let Some(session) = table.get(id).filter(|session| session.carries() == Datagrams::Any) else { return };
        if let Some(admission) = self.0.get_mut(&session.limit_of) {
            admission.answered(id, session, table);
        }
    }

    /// Returns the session of a crowded flow that gives way to one more.
    pub(super) fn crowded_out(flow: &Flow, table: &Table) -> Option<SessionId> {
        let earlier = table.members(flow).map(Members::earlier).filter(|earlier| earlier.len() + 1 >= MAX_OF_FLOW)?;
        let unproven = |id: &&SessionId| table.get(**id).is_some_and(|state| state.rank() == Rank::Unproven);
        earlier.iter().find(unproven).or(earlier.first()).copied()
    }
}

impl Admission {
    /// The limit.
    pub(super) fn limit(&self) -> &SessionLimit {
        &self.limit
    }

    pub(super) fn acquire(&self) -> Option<ConnPermit> {
        self.limit.active.acquire(self.limit.most)
    }

    /// Asks other workers to end a session.
    pub(super) fn ask_others(&self) {
        // The client will ask again.
        self.limit.active.want();
    }

    /// Returns whether another worker waits for room that is not there. A request that finds room is done with; one that
    /// does not ends with [`Admission::granted`].
    pub(super) fn owes_room(&self) -> bool {
        if !self.limit.active.is_wanted() {
            return false;
        }
        let full = self.limit.active.count() >= self.limit.most;
        if !full {
            self.granted();
        }
        full
    }

    /// A request of another worker was granted, or has to be made again.
    pub(super) fn granted(&self) {
        self.limit.active.give();
    }

    fn entered(&mut self, id: SessionId, session: &Session, table: &Table) {
        let Some(route) = session.route() else { return };
        self.rules.entered(id, route, table);
    }

    fn left(&mut self, session: &Session) {
        let Some(route) = session.route() else { return };
        self.rules.left(&route.share);
    }

    fn answered(&mut self, id: SessionId, session: &Session, table: &Table) {
        let Some(route) = session.route() else { return };
        self.rules.change(&route.share, |share| share.answered(id, table));
    }

    /// Returns the session that gives way to a new one of `own`.
    pub(super) fn gives_way_to(&mut self, own: &ShareOf, table: &Table, now: Duration) -> Option<SessionId> {
        self.rules.change(own, |share| share.sweep(table));
        let part = (self.rules.equal_share() / UNPROVEN_PART).max(1);
        let (of_own, unproven) = self.rules.get(own).map_or((0, 0), |share| (share.sessions, share.most_unproven()));
        // Whoever is flooded gives way, with what the others have beside it left alone.
        let flooded = self.rules.most_unproven(table);
        let flooded = flooded.filter(|(rule, most)| rule != own && *most > part.max(unproven + 1));
        let least = flooded.and_then(|(rule, _)| self.rules.change(&rule, |share| share.unproven(table, now))?);
        if least.is_some() {
            return least;
        }
        if unproven >= part {
            let least = self.rules.change(own, |share| share.unproven(table, now)).flatten();
            if least.is_some() {
                return least;
            }
        }
        let largest = self.rules.largest().filter(|(_, sessions)| *sessions > of_own);
        let least = largest.and_then(|(largest, sessions)| {
            let over = sessions > of_own + 1;
            self.rules.change(&largest, |share| {
                let least = share.least_proven(table, now);
                // What a rule holds beyond its share it holds until somebody else needs it.
                least.or_else(|| if over { share.beyond_share(table, now) } else { None })
            })?
        });
        least.or_else(|| self.rules.change(own, |share| share.least_proven(table, now))?)
    }

    /// Returns a session that gives way to whatever another worker needs room for.
    pub(super) fn least_proven(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        let (flooded, _) = self.rules.most_unproven(table)?;
        let least = self.rules.change(&flooded, |share| share.unproven(table, now)).flatten();
        least.or_else(|| {
            let (largest, _) = self.rules.largest()?;
            self.rules.change(&largest, |share| share.least_proven(table, now))?
        })
    }
}
