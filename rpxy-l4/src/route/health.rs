//! State of a target beyond one configuration: its connections, and the last time that it could not be reached.
//!
//! Health is passive. A target that refused or did not answer is tried last for `tcp_target_retry`; then one
//! connection, and only one, finds out. State is kept by target across reloads.

use std::{
    num::{NonZeroU16, NonZeroU32},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::ShareOf;
use crate::{
    config::model::{Host, Target},
    limit::{ConnLimit, WeakMap},
    metrics::Accounts,
};

/// Interval of log messages about failures of the same target.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Precision of the time of the last answer, in milliseconds: workers share it, and would contend for it.
const HEARING: u64 = 50;

/// State of one target, shared by all groups that name it. Times are the daemon's uptime in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Health {
    active: AtomicU32,
    /// Until when the target is tried last; 0 when it is up.
    down_until: AtomicU64,
    /// Milliseconds for which it is down after a failure.
    retry: AtomicU64,
    /// Before which its failures are not spoken of again.
    quiet_until: AtomicU64,
    /// True if the log has called it down.
    said_down: AtomicBool,
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
    /// It failed not long ago.
    Down,
}

impl Health {
    /// Connections to the target now, those being established included.
    #[must_use]
    pub(crate) fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// The state at `now` (time since the daemon's start).
    #[must_use]
    pub(crate) fn state(&self, now: Duration) -> State {
        match self.down_until.load(Ordering::Relaxed) {
            0 => State::Up,
            until if until <= millis(now) => State::Due,
            _ => State::Down,
        }
    }

    /// Returns whether it was reached the last time, or never tried.
    #[cfg(test)]
    pub(crate) fn is_up(&self) -> bool {
        self.down_until.load(Ordering::Relaxed) == 0
    }

    /// Takes the one try that is due at `now`; false when somebody else has it.
    #[must_use]
    pub(crate) fn claim(&self, now: Duration) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        if until == 0 {
            // Somebody has reached it meanwhile.
            return true;
        }
        let next = millis(now).saturating_add(self.retry.load(Ordering::Relaxed)).max(1);
        until <= millis(now)
            && self.down_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The try told nothing of the target, for want of something on our side: it is due again at `now`.
    pub(crate) fn unclaim(&self, now: Duration) {
        if self.down_until.load(Ordering::Relaxed) != 0 {
            self.down_until.store(millis(now).max(1), Ordering::Relaxed);
        }
    }

    /// The target could not be reached at `now`; returns whether the log should say so.
    pub(crate) fn failed(&self, now: Duration, retry: Duration) -> bool {
        self.retry.store(millis(retry), Ordering::Relaxed);
        self.down_until.store(millis(now.saturating_add(retry)).max(1), Ordering::Relaxed);
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        let speak = quiet_until <= millis(now)
            && self
                .quiet_until
                .compare_exchange(quiet_until, millis(now + SAY_AGAIN), Ordering::Relaxed, Ordering::Relaxed)
                .is_ok();
        if speak {
            self.said_down.store(true, Ordering::Relaxed);
        }
        speak
    }

    /// The target was reached; returns whether the log should say so.
    pub(crate) fn reached(&self) -> bool {
        // Read first: this runs for every connection, and a store would bounce the cache line between workers.
        if self.down_until.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.down_until.store(0, Ordering::Relaxed);
        self.said_down.swap(false, Ordering::Relaxed)
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

/// The states of all targets and rules in use, so that a reload finds them again.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    states: Mutex<WeakMap<(Host, u16), Health>>,
    /// Connections by name of the rule; `None` is the default targets.
    rules: Mutex<WeakMap<ShareOf, ConnLimit>>,
    accounts: Arc<Accounts>,
}

impl Targets {
    /// None yet; what they carry is told to `accounts`.
    #[must_use]
    pub(crate) fn new(accounts: &Arc<Accounts>) -> Self {
        Self { accounts: Arc::clone(accounts), ..Self::default() }
    }

    /// What rules and targets carry.
    #[must_use]
    pub(crate) fn accounts(&self) -> &Accounts {
        &self.accounts
    }

    /// The state of `target`, the old one where it is still in use.
    #[must_use]
    pub(crate) fn health(&self, target: &Target) -> Arc<Health> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        states.get_or_insert_with((target.host.clone(), target.port), Health::default)
    }

    /// The connections of a rule, on all its listeners, or of the default targets of one.
    #[must_use]
    pub(crate) fn of_rule(&self, rule: ShareOf) -> Arc<ConnLimit> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.get_or_insert_with(rule, ConnLimit::default)
    }

    /// The targets in use that are down at `now`, in order.
    #[must_use]
    pub(crate) fn down(&self, now: Duration) -> Vec<DownTarget> {
        let states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let mut down: Vec<DownTarget> = states
            .iter()
            .filter_map(|((host, port), health)| {
                if health.state(now) == State::Up {
                    return None;
                }
                let target = Target {
                    host: host.clone(),
                    port: *port,
                    weight: NonZeroU16::MIN,
                    backup: false,
                    down: false,
                    max_connections: None,
                };
                Some(DownTarget { target: target.to_string(), active: health.active() })
            })
            .collect();
        down.sort_by(|a, b| a.target.cmp(&b.target));
        down
    }
}

/// A target that could not be reached the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DownTarget {
    /// As in the file.
    pub target: String,
    /// Connections that it has all the same.
    pub active: u32,
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_target_is_tried_again_by_one() {
        let health = Health::default();
        let at = Duration::from_secs;
        assert_eq!(health.state(at(0)), State::Up);
        health.failed(at(5), at(10));
        assert_eq!(health.state(at(14)), State::Down);
        assert_eq!(health.state(at(15)), State::Due);
        assert!(health.claim(at(15)));
        assert!(!health.claim(at(15)), "the try is taken");
        assert_eq!(health.state(at(16)), State::Down, "for the others");
        assert_eq!(health.state(at(25)), State::Due, "the one that tried never told");
        assert!(health.claim(at(25)));
        health.unclaim(at(26));
        assert_eq!(health.state(at(26)), State::Due, "the try came to nothing");
        health.reached();
        assert_eq!(health.state(at(26)), State::Up);
        assert!(health.claim(at(26)), "up needs no claim");
        assert_eq!(health.state(at(26)), State::Up, "and stays up");
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
    fn a_flapping_target_is_spoken_of_seldom() {
        let health = Health::default();
        let mut said = (0, 0);
        for second in 0..120 {
            said.0 += u32::from(health.failed(Duration::from_secs(second), Duration::from_secs(1)));
            said.1 += u32::from(health.reached());
        }
        assert_eq!(said, (2, 2));
        assert!(!health.reached(), "it was up already");
    }

    #[test]
    fn targets_that_are_down_are_listed_while_in_use() {
        let targets = Targets::default();
        let health: Vec<_> = ["b", "a", "c"]
            .map(|name| Host::Name(name.into()))
            .map(|host| {
                targets.health(&Target {
                    host,
                    port: 1,
                    weight: NonZeroU16::MIN,
                    backup: false,
                    down: false,
                    max_connections: None,
                })
            })
            .into();
        let at = Duration::from_secs;
        let down = |now| targets.down(at(now)).into_iter().map(|down| down.target).collect::<Vec<_>>();
        health[0].failed(at(5), at(10));
        health[1].failed(at(5), at(10));
        assert_eq!(down(6), ["a:1", "b:1"]);
        assert_eq!(down(20), ["a:1", "b:1"], "nobody has tried again yet");
        health[1].reached();
        let busy = Busy::new(&health[0]);
        assert_eq!(targets.down(at(20)), [DownTarget { target: "b:1".to_owned(), active: 1 }]);
        drop((busy, health));
        assert!(down(20).is_empty(), "in use no more");
    }

    #[test]
    fn state_is_found_again_while_in_use() {
        let targets = Targets::default();
        let target = |port| Target {
            host: Host::Name("a".into()),
            port,
            weight: NonZeroU16::MIN,
            backup: false,
            down: false,
            max_connections: None,
        };
        let first = targets.health(&target(1));
        let busy = Busy::new(&first);
        assert!(Arc::ptr_eq(&first, &targets.health(&Target { backup: true, ..target(1) })));
        assert!(!Arc::ptr_eq(&first, &targets.health(&target(2))));
        assert_eq!(first.active(), 1);
        drop(busy);
        assert_eq!(first.active(), 0);
    }
}
