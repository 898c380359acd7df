//! The session that gives way when there is no room for another one.
//!
//! Invariants kept here:
//!
//! - Every session that has a route holds a permit of `udp_max_connections`, that of its listener if it has its own.
//! - What has proved the least gives way, the oldest first, and of the rule (or default target) that has the most of it:
//!   a flood from forged addresses pays for itself, and costs no new client its chance.
//! - Where nothing is unproven, the rule with the most sessions gives way: none takes another one's share. A part of its
//!   share is each rule's for sessions that have yet to prove something, so that they have the time for it.

use std::{
    collections::{BTreeMap, VecDeque},
    sync::Arc,
    time::Duration,
};

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

/// Time since its answer after which a session of one question has done what it was for.
const DONE: Duration = Duration::from_secs(1);
/// Time without a datagram after which a session that only took turns may give way.
const QUIET: Duration = Duration::from_secs(5);
/// Sessions looked at for one that is quiet, for each new session.
const LOOKS: usize = 32;
/// Unproven sessions looked through for one at a certain target.
const LOOKED_THROUGH: usize = 256;
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
    rules: BTreeMap<ShareOf, Share>,
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
        self.0.values().flat_map(|admission| admission.rules.values().filter_map(|share| share.limited.as_ref()))
    }

    /// Returns the session of `share` that gives way to another one, of those of which `at` is true.
    pub(super) fn least_proven_of(
        &mut self,
        share: &ShareOf,
        at: &dyn Fn(&Session) -> bool,
        table: &Table,
        now: Duration,
    ) -> Option<SessionId> {
        let mut shares = self.0.values_mut().filter_map(|admission| admission.rules.get_mut(share));
        shares.find_map(|share| {
            share.sweep(table);
            share.least_proven_at(at, table, now)
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

/// The sessions of one rule, or of the default target of one listener. The queues are kept lazily: sessions that are over, or no longer belong there, are skipped.
#[derive(Debug, Default)]
struct Share {
    sessions: usize,
    /// Sessions that have proved nothing, the oldest first.
    unproven: VecDeque<SessionId>,
    /// Sessions of no protocol in particular that were answered, in the order of their first answer.
    answered: VecDeque<SessionId>,
    /// Sessions that have proved something, in no order.
    proven: VecDeque<SessionId>,
    /// The rule as of its latest session, if it or one of its targets has a limit.
    limited: Option<Arc<UdpRoute>>,
    /// Questions until `unproven` is gone through for those that have proved something since, or are over.
    until_sweep: usize,
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
        let share = self.rules.entry(route.share.clone()).or_default();
        share.sessions += 1;
        share.limited = Some(route).filter(|route| route.is_limited()).cloned();
        share.unproven.push_back(id);
        share.tidy(table);
    }

    fn left(&mut self, session: &Session) {
        let Some(route) = session.route() else { return };
        if let Some(share) = self.rules.get_mut(&route.share) {
            share.sessions = share.sessions.saturating_sub(1);
            if share.sessions == 0 {
                self.rules.remove(&route.share);
            }
        }
    }

    fn answered(&mut self, id: SessionId, session: &Session, table: &Table) {
        let Some(route) = session.route() else { return };
        if let Some(share) = self.rules.get_mut(&route.share) {
            share.answered.push_back(id);
            share.tidy(table);
        }
    }

    /// Returns the session that gives way to a new one of `own`.
    pub(super) fn gives_way_to(&mut self, own: &ShareOf, table: &Table, now: Duration) -> Option<SessionId> {
        self.rules.values_mut().for_each(|share| share.sweep(table));
        let all: usize = self.rules.values().map(|share| share.sessions).sum();
        let part = (all / self.rules.len().max(1) / UNPROVEN_PART).max(1);
        let (of_own, unproven) = self.rules.get(own).map_or((0, 0), |share| (share.sessions, share.unproven.len()));
        // Whoever is flooded gives way, with what the others have beside it left alone.
        let flooded = self.most_unproven().filter(|(rule, most)| rule != own && *most > part.max(unproven + 1));
        let least = flooded.and_then(|(rule, _)| self.rules.get_mut(&rule)?.unproven(table, now));
        if least.is_some() {
            return least;
        }
        if unproven >= part {
            let least = self.rules.get_mut(own)?.unproven(table, now);
            if least.is_some() {
                return least;
            }
        }
        let largest = self.largest().filter(|(_, sessions)| *sessions > of_own);
        let Some((largest, sessions)) = largest else {
            return self.rules.get_mut(own)?.least_proven(table, now);
        };
        let share = self.rules.get_mut(&largest)?;
        let least = share.least_proven(table, now);
        let over = sessions > of_own + 1;
        // What a rule holds beyond its share it holds until somebody else needs it.
        let least = least.or_else(|| if over { share.beyond_share(table, now) } else { None });
        least.or_else(|| self.rules.get_mut(own)?.least_proven(table, now))
    }

    /// Returns a session that gives way to whatever another worker needs room for.
    pub(super) fn least_proven(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        self.rules.values_mut().for_each(|share| share.sweep(table));
        let (flooded, _) = self.most_unproven()?;
        let least = self.rules.get_mut(&flooded)?.unproven(table, now);
        least.or_else(|| {
            let (largest, _) = self.largest()?;
            self.rules.get_mut(&largest)?.least_proven(table, now)
        })
    }

    /// The rule with the most sessions that have proved nothing.
    fn most_unproven(&self) -> Option<(ShareOf, usize)> {
        let (rule, share) = self.rules.iter().max_by_key(|(_, share)| share.unproven.len())?;
        Some((rule.clone(), share.unproven.len()))
    }

    /// The rule with the most sessions. There are few rules, and this is asked for only where there is no room.
    fn largest(&self) -> Option<(ShareOf, usize)> {
        let (rule, share) = self.rules.iter().max_by_key(|(_, share)| share.sessions)?;
        Some((rule.clone(), share.sessions))
    }
}

impl Share {
    /// A session of one question that was answered; or the oldest whose client has proved nothing; or one that only took
    /// turns and is quiet.
    fn least_proven(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        self.unproven(table, now).or_else(|| self.quietest(&|_| true, table, Rank::Turns, QUIET, now))
    }

    /// The same of those of which `at` is true, as far as a look at some of them tells.
    fn least_proven_at(&mut self, at: &dyn Fn(&Session) -> bool, table: &Table, now: Duration) -> Option<SessionId> {
        let is_there = |id: &SessionId| table.get(*id).is_some_and(at);
        let done = if self.answered.front().is_none_or(is_there) { self.done(table, now) } else { None };
        let unproven =
            |id: &SessionId| table.get(*id).is_some_and(|session| session.rank() == Rank::Unproven && at(session));
        done.or_else(|| {
            let first = self.unproven.iter().take(LOOKED_THROUGH).position(unproven)?;
            self.unproven.remove(first)
        })
        .or_else(|| self.quietest(at, table, Rank::Turns, QUIET, now))
    }

    /// A session of one question that was answered; or the oldest whose client has proved nothing.
    fn unproven(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        self.done(table, now).or_else(|| self.oldest(table))
    }

    /// Keeps `unproven` close to what it says, at a few looks for each question.
    fn sweep(&mut self, table: &Table) {
        if let Some(left) = self.until_sweep.checked_sub(1) {
            self.until_sweep = left;
            return;
        }
        let proven = &mut self.proven;
        self.unproven.retain(|id| match table.get(*id) {
            Some(session) if session.rank() == Rank::Unproven => true,
            Some(_) => {
                proven.push_back(*id);
                false
            }
            None => false,
        });
        self.until_sweep = self.unproven.len() / 8;
    }

    /// A session of a rule that has more than its share, whatever its client has proved.
    fn beyond_share(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        let mut quietest = |most| self.quietest(&|_| true, table, most, Duration::ZERO, now);
        quietest(Rank::Turns).or_else(|| quietest(Rank::Secret))
    }

    fn done(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        while let Some(id) = self.answered.front().copied() {
            let one_question = table.get(id).filter(|session| session.evidence.is_one_question());
            match one_question {
                Some(session) if session.last_seen.saturating_add(DONE) > now => return None,
                Some(_) => return self.answered.pop_front(),
                None => drop(self.answered.pop_front()),
            }
        }
        None
    }

    fn oldest(&mut self, table: &Table) -> Option<SessionId> {
        while let Some(id) = self.unproven.pop_front() {
            match table.get(id) {
                Some(session) if session.rank() == Rank::Unproven => return Some(id),
                Some(_) => self.proven.push_back(id),
                None => {}
            }
        }
        None
    }

    /// The one of the next few that has been quiet for the longest, and at least for `quiet`, of those that have proved no
    /// more than `most`.
    fn quietest(
        &mut self,
        at: &dyn Fn(&Session) -> bool,
        table: &Table,
        most: Rank,
        quiet: Duration,
        now: Duration,
    ) -> Option<SessionId> {
        let mut quietest = None;
        for _ in 0..self.proven.len().min(LOOKS) {
            let Some(id) = self.proven.pop_front() else { break };
            let Some(session) = table.get(id) else { continue };
            self.proven.push_back(id);
            if session.rank() <= most && session.last_seen.saturating_add(quiet) <= now && at(session) {
                quietest = quietest.into_iter().chain([(session.last_seen, id)]).min();
            }
        }
        quietest.map(|(_, id)| id)
    }

    /// Forgets entries of sessions that are over when they are the majority.
    fn tidy(&mut self, table: &Table) {
        for queue in [&mut self.unproven, &mut self.answered, &mut self.proven] {
            if queue.len() > 2 * self.sessions + 64 {
                queue.retain(|id| table.get(*id).is_some());
            }
        }
    }
}
