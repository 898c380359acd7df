//! State of a target beyond one configuration: its connections, what they have met there, what checks have found, and what
//! the operator says.
//!
//! Each kind of state has an owner: [`Passive`] what connections find out, [`Missed`] the same of the addresses of a service, [`Checked`] what checks do, [`Administrative`]
//! what the operator says at run time. [`State`] is what balancing makes of them. State is kept by target across reloads.

mod administrative;
mod checked;
mod missed;
mod passive;
mod report;
mod targets;

use std::{
    num::NonZeroU32,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

pub(crate) use administrative::Administrative;
pub(crate) use checked::{Checked, Standing};
use missed::Missed;
use passive::{Finding, Passive};
pub(crate) use targets::{CheckedTarget, DownTarget, Targets};

/// Precision of the time of the last answer, in milliseconds: workers share it, and would contend for it.
const HEARING: u64 = 50;

/// State of one target, shared by all groups that name it. Times are the daemon's uptime in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Health {
    active: AtomicU32,
    passive: Passive,
    missed: Missed,
    administrative: Administrative,
    /// When it answered anybody last, to within [`HEARING`]; 0 when it never did.
    heard: AtomicU64,
    /// Sessions whose answers the kernel forwards, so that nobody hears them.
    unheard: AtomicU32,
}

/// Eligibility of a target.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum State {
    /// It was reached the last time, or never tried.
    Up,
    /// It failed, and it is time that one connection tries again: see [`Health::claim`].
    Due,
    /// It failed not long ago: it is tried last.
    Down,
    /// Not to be tried at all: the operator has taken it out of service.
    Drained,
}

impl Health {
    /// Connections to the target now, those being established included.
    #[must_use]
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// What the operator says of the target.
    #[must_use]
    pub(crate) fn administrative(&self) -> &Administrative {
        &self.administrative
    }

    /// Of a service, the addresses that could not be reached.
    #[must_use]
    pub(crate) fn missed(&self) -> &Missed {
        &self.missed
    }

    /// The state at `now` (time since the daemon's start).
    #[must_use]
    pub(crate) fn state(&self, now: Duration) -> State {
        if self.administrative().drained_since().is_some() {
            return State::Drained;
        }
        match self.passive.finding(now) {
            Finding::Up => State::Up,
            Finding::Due => State::Due,
            Finding::Down => State::Down,
        }
    }

    /// Returns whether it was reached the last time, or never tried.
    #[cfg(test)]
    pub(crate) fn is_up(&self) -> bool {
        self.state(Duration::ZERO) == State::Up
    }

    /// Takes the one try that is due at `now`; false when somebody else has it.
    #[must_use]
    pub(crate) fn claim(&self, now: Duration) -> bool {
        self.passive.claim(now)
    }

    /// The try told nothing of the target, for want of something on our side: it is due again at `now`.
    pub(crate) fn unclaim(&self, now: Duration) {
        self.passive.unclaim(now);
    }

    /// The target could not be reached at `now`; returns whether the log should say so.
    pub(crate) fn failed(&self, now: Duration, retry: Duration) -> bool {
        self.passive.failed(now, retry)
    }

    /// The cause of a failure, for who asks; see [`Health::failed`].
    pub(crate) fn failed_because(&self, cause: &impl std::fmt::Display) {
        self.passive.failed_because(cause);
    }

    /// The target was reached; returns whether the log should say so.
    pub(crate) fn reached(&self) -> bool {
        self.passive.reached()
    }

    /// A check that began at `since` has passed: what connections have met before is refuted. Returns whether the log
    /// should say so.
    pub(crate) fn refuted(&self, since: Duration) -> bool {
        self.passive.refuted(since)
    }

    /// The target has answered somebody at `now`; returns whether the log should say that it is back.
    pub(crate) fn answered(&self, now: Duration) -> bool {
        let (heard, now) = (self.heard.load(Ordering::Relaxed), millis(now));
        if now >= heard.saturating_add(HEARING) {
            self.heard.store(now, Ordering::Relaxed);
        }
        self.reached()
    }

    /// Returns whether it has answered anybody after `since`, or may have done so unheard.
    #[must_use]
    pub(crate) fn may_have_answered(&self, since: Duration) -> bool {
        self.heard.load(Ordering::Relaxed) > millis(since) || self.unheard.load(Ordering::Relaxed) > 0
    }
}

/// Counts a connection to a target until dropped.
#[derive(Debug)]
pub(crate) struct Busy {
    health: Arc<Health>,
    unheard: bool,
}

impl Busy {
    /// One more connection to the target.
    #[must_use]
    pub(crate) fn new(health: &Arc<Health>) -> Self {
        health.active.fetch_add(1, Ordering::Relaxed);
        Self { health: Arc::clone(health), unheard: false }
    }

    /// One more connection to the target, unless it has `most` already.
    #[must_use]
    pub(crate) fn within(health: &Arc<Health>, most: Option<NonZeroU32>) -> Option<Self> {
        let busy = Self::new(health);
        // Workers race here; adding first keeps the bound exact without a loop.
        most.is_none_or(|most| health.active() <= most.get()).then_some(busy)
    }

    /// Returns whether it counts for the target of `health`.
    #[must_use]
    pub(crate) fn is_of(&self, health: &Arc<Health>) -> bool {
        Arc::ptr_eq(&self.health, health)
    }

    /// The target has answered at `now`; returns whether the log should say that it is back.
    pub(crate) fn answered(&self, now: Duration) -> bool {
        self.health.answered(now)
    }

    /// Returns whether the kernel forwards the answers of the target.
    #[must_use]
    pub(crate) fn is_unheard(&self) -> bool {
        self.unheard
    }

    /// From now on the kernel forwards the answers of the target, or does so no longer.
    pub(crate) fn set_unheard(&mut self, unheard: bool) {
        match (std::mem::replace(&mut self.unheard, unheard), unheard) {
            (false, true) => drop(self.health.unheard.fetch_add(1, Ordering::Relaxed)),
            (true, false) => drop(self.health.unheard.fetch_sub(1, Ordering::Relaxed)),
            (false, false) | (true, true) => {}
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.set_unheard(false);
        self.health.active.fetch_sub(1, Ordering::Relaxed);
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_has_the_last_word() {
        let health = Health::default();
        let at = Duration::from_secs;
        assert_eq!(health.state(at(0)), State::Up);
        health.administrative().drain(at(1));
        assert_eq!(health.state(at(2)), State::Drained, "it could be reached");
        health.failed(at(3), at(10));
        assert_eq!(health.state(at(4)), State::Drained, "it could not");
        health.administrative().up();
        assert_eq!(health.state(at(5)), State::Down, "what connections find out goes on meanwhile");
    }

    #[test]
    fn connections_to_a_target_are_bounded_where_it_has_a_limit() {
        let health = Arc::new(Health::default());
        let two = NonZeroU32::new(2);
        let mut held: Vec<_> = (0..2).map(|_| Busy::within(&health, two).unwrap()).collect();
        assert!(Busy::within(&health, two).is_none());
        assert_eq!(health.active(), 2, "one that found no room does not count");
        held.extend(Busy::within(&health, None));
        assert_eq!(held.len(), 3, "for a rule that has no limit for it");
    }

    #[test]
    fn a_target_that_answers_somebody_is_not_silent() {
        let health = Arc::new(Health::default());
        let at = Duration::from_secs;
        assert!(!health.may_have_answered(at(1)), "never");
        assert!(!health.answered(at(5)), "it was up");
        assert!(health.may_have_answered(at(4)) && !health.may_have_answered(at(5)));
        let mut busy = Busy::new(&health);
        busy.set_unheard(true);
        busy.set_unheard(true);
        assert!(health.may_have_answered(at(9)), "answers that the kernel forwards");
        drop(busy);
        assert!(!health.may_have_answered(at(9)));
        health.failed(at(10), at(10));
        assert!(health.answered(at(11)), "the log has called it down");
        assert_eq!(health.state(at(11)), State::Up);
    }
}
