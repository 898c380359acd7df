//! Connections whose ClientHello is not complete: nobody has proved anything, and each holds datagrams.
//!
//! Invariants kept here: at most [`UndecidedQueue::MOST`] connections and [`Budget`] bytes wait, and the oldest gives way.

use std::collections::VecDeque;

use super::{
    SessionId,
    held::{Budget, Held},
    table::Table,
};

/// Undecided sessions, the oldest first.
#[derive(Debug, Default)]
pub(super) struct UndecidedQueue {
    /// Those that are decided or over are skipped.
    queue: VecDeque<SessionId>,
    now: usize,
    budget: Budget,
}

impl UndecidedQueue {
    /// Connections without a complete hello.
    pub(super) const MOST: usize = 1024;

    /// Returns an empty hold for the datagrams of one more connection.
    pub(super) fn hold(&self) -> Held {
        Held::new(&self.budget)
    }

    /// Returns whether one more connection with a datagram of `len` bytes fits.
    pub(super) fn has_room(&self, len: usize) -> bool {
        self.now < Self::MOST && self.budget.has_room(len)
    }

    pub(super) fn add(&mut self, session: SessionId, table: &Table) {
        if self.queue.len() > 2 * Self::MOST {
            self.queue.retain(|id| table.get(*id).is_some_and(super::state::Session::is_undecided));
        }
        self.now += 1;
        self.queue.push_back(session);
    }

    /// An undecided session was removed from the table.
    pub(super) fn removed(&mut self) {
        self.now -= 1;
    }

    /// Takes the oldest off the queue, for it to be ended.
    pub(super) fn pop_oldest(&mut self, table: &Table) -> Option<SessionId> {
        while let Some(oldest) = self.queue.pop_front() {
            if table.get(oldest).is_some_and(super::state::Session::is_undecided) {
                return Some(oldest);
            }
        }
        None
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.now
    }

    #[cfg(any(test, feature = "properties"))]
    pub(super) fn held_bytes(&self) -> usize {
        self.budget.used()
    }
}
