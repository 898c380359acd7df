//! When sessions have to be looked at.
//!
//! Kept lazily, so that traffic moves nothing: a session may have several entries, and entries outlive their session.
//! Invariant kept here: there are at most four entries for each session, and a few.

use std::{cmp::Reverse, collections::BinaryHeap, time::Duration};

use super::{SessionId, table::Table};

/// Times at which sessions are due, the earliest first.
#[derive(Debug, Default)]
pub(super) struct Deadlines(BinaryHeap<Reverse<(Duration, SessionId)>>);

impl Deadlines {
    /// Entries beyond four for each session.
    const SPARE: usize = 64;

    /// Has a session looked at by `at`; never, for `None`.
    pub(super) fn add(&mut self, at: Option<Duration>, session: SessionId, table: &Table) {
        let Some(at) = at else { return };
        if self.0.len() > 4 * table.len() + Self::SPARE {
            self.rebuild(table);
        }
        self.0.push(Reverse((at, session)));
    }

    /// Forgets everything but the next deadline of each session.
    pub(super) fn rebuild(&mut self, table: &Table) {
        self.0.clear();
        self.0.extend(table.iter().filter_map(|(id, session)| Some(Reverse((session.deadline()?, id)))));
    }

    /// Takes the next entry that is due at `now`.
    pub(super) fn pop_due(&mut self, now: Duration) -> Option<SessionId> {
        let Reverse((at, session)) = self.0.peek().copied()?;
        if at > now {
            return None;
        }
        self.0.pop();
        Some(session)
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }
}
