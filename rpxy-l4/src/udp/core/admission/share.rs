//! The sessions of one rule, in the order in which they give way.

use std::{collections::VecDeque, time::Duration};

use super::super::{SessionId, evidence::Rank, state::Session, table::Table};

/// Time since its answer after which a session of one question has done what it was for.
const DONE: Duration = Duration::from_secs(1);
/// Time without a datagram after which a session that only took turns may give way.
const QUIET: Duration = Duration::from_secs(5);
/// Sessions looked at for one that is quiet, for each new session.
const LOOKS: usize = 32;
/// Unproven sessions looked through for one at a certain target.
const LOOKED_THROUGH: usize = 256;

/// The sessions of one rule, or of the default target of one listener. The queues are kept lazily: sessions that are over, or
/// no longer belong there, are skipped.
#[derive(Debug, Default)]
pub(super) struct Share {
    pub(super) sessions: usize,
    /// Sessions that have proved nothing, the oldest first.
    unproven: VecDeque<SessionId>,
    /// Sessions of no protocol in particular that were answered, in the order of their first answer.
    answered: VecDeque<SessionId>,
    /// Sessions that have proved something, in no order.
    proven: VecDeque<SessionId>,
    /// Questions until `unproven` is gone through for those that have proved something since, or are over.
    until_sweep: usize,
}

impl Share {
    /// A session begins.
    pub(super) fn entered(&mut self, id: SessionId, table: &Table) {
        self.sessions += 1;
        self.unproven.push_back(id);
        self.tidy(table);
    }

    /// One of its sessions was answered for the first time.
    pub(super) fn answered(&mut self, id: SessionId, table: &Table) {
        self.answered.push_back(id);
        self.tidy(table);
    }

    /// Sessions that have proved nothing, at most.
    pub(super) fn most_unproven(&self) -> usize {
        self.unproven.len()
    }

    /// A session of one question that was answered; or the oldest whose client has proved nothing; or one that only took
    /// turns and is quiet.
    pub(super) fn least_proven(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        self.unproven(table, now).or_else(|| self.quietest(&|_| true, table, Rank::Turns, QUIET, now))
    }

    /// The same of those of which `at` is true, as far as a look at some of them tells.
    pub(super) fn least_proven_at(
        &mut self,
        at: &dyn Fn(&Session) -> bool,
        table: &Table,
        now: Duration,
    ) -> Option<SessionId> {
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
    pub(super) fn unproven(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
        self.done(table, now).or_else(|| self.oldest(table))
    }

    /// Keeps `unproven` close to what it says, at a few looks for each question.
    pub(super) fn sweep(&mut self, table: &Table) {
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
    pub(super) fn beyond_share(&mut self, table: &Table, now: Duration) -> Option<SessionId> {
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
