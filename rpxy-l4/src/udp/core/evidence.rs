//! What the client of a session has shown of itself.
//!
//! A source address of UDP is a claim. An answer shows that the backend is there, and nothing about the client. Only what
//! an answer on this very session can have told, and the client repeats, proves that it receives: a connection ID that
//! the backend stated, an index that it chose. Where a protocol has no such thing, taking turns is all that there is.

use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Turns after which a client of a protocol without secrets is believed to receive.
const ENOUGH_TURNS: u8 = 3;

/// Rank of a session when another one needs its place. Ordered: the least gives way first.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Rank {
    /// Its client has shown nothing.
    Unproven,
    /// Its client and its backend have taken turns.
    Turns,
    /// Its client has repeated a secret of its backend.
    Secret,
}

/// Evidence gathered by one session.
#[derive(Debug, Clone, Copy, Default, Serialize, Deserialize)]
pub(crate) struct Evidence {
    secret: bool,
    /// Times that the client spoke after the backend had.
    turns: u8,
    /// The backend has spoken last.
    answered_last: bool,
    /// When the backend spoke first.
    answered: Option<Duration>,
}

impl Evidence {
    /// The backend has sent a datagram; returns whether it was the first.
    pub(super) fn answered(&mut self, now: Duration) -> bool {
        self.answered_last = true;
        let first = self.answered.is_none();
        self.answered.get_or_insert(now);
        first
    }

    /// As another process gets it, whose clock has another beginning: `answered` is how long ago that was.
    pub(super) fn handed(self, now: Duration) -> Self {
        Self { answered: self.answered.map(|since| now.saturating_sub(since)), ..self }
    }

    /// As another process has handed it over.
    pub(super) fn taken_over(self, now: Duration) -> Self {
        self.handed(now)
    }

    /// The client has sent a datagram.
    pub(super) fn asked(&mut self) {
        if std::mem::take(&mut self.answered_last) {
            self.turns = self.turns.saturating_add(1);
        }
    }

    /// The client has repeated what only an answer on this session can have told it; returns whether for the first time.
    pub(super) fn repeated_secret(&mut self) -> bool {
        !std::mem::replace(&mut self.secret, true)
    }

    /// The kernel has forwarded so many turns: answers alone are none.
    pub(super) fn was_steered(&mut self, turns: u64) {
        self.turns = self.turns.max(u8::try_from(turns).unwrap_or(u8::MAX));
    }

    /// The kernel did so for an earlier daemon, whose counters are gone.
    pub(super) fn was_inherited(&mut self) {
        self.turns = self.turns.max(ENOUGH_TURNS);
    }

    /// How long after `since` the backend spoke first. `None` where this process did not see it: it knows then no more than
    /// that it was by the time it began.
    pub(super) fn first_answer_after(&self, since: Duration) -> Option<Duration> {
        self.answered?.checked_sub(since).filter(|time| !time.is_zero())
    }

    pub(super) fn is_answered(&self) -> bool {
        self.answered.is_some()
    }

    /// Returns whether the client has not come back since the first answer.
    pub(super) fn is_one_question(&self) -> bool {
        self.answered.is_some() && self.turns == 0 && !self.secret
    }

    /// The rank of a session whose protocol is `without_secret`, or not.
    pub(super) fn rank(&self, without_secret: bool) -> Rank {
        if self.secret {
            Rank::Secret
        } else if without_secret && self.turns >= ENOUGH_TURNS {
            Rank::Turns
        } else {
            Rank::Unproven
        }
    }
}
