//! What connections and sessions have met at a target.
//!
//! A target that refused or did not answer is tried last for a while (`tcp_target_retry`, `udp_target_retry`); then one
//! connection, and only one, finds out.

use std::{
    fmt::Display,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use super::millis;

/// Interval of log messages about failures of the same target.
const SAY_AGAIN: Duration = Duration::from_secs(60);

/// What was found of one target; up by default. Times are the daemon's uptime in milliseconds.
#[derive(Debug, Default)]
pub(super) struct Passive {
    /// Until when the target is tried last; 0 when it is up.
    down_until: AtomicU64,
    /// Milliseconds for which it is down after a failure.
    retry: AtomicU64,
    /// When it failed last.
    failed_at: AtomicU64,
    /// Before which its failures are not spoken of again.
    quiet_until: AtomicU64,
    /// True if the log has called it down.
    said_down: AtomicBool,
    /// Failures since the daemon's start.
    failures: AtomicU64,
    /// When the first failure came after the target was reached last.
    failing_since: AtomicU64,
    /// The cause of the last failure.
    cause: Mutex<Box<str>>,
}

/// The finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Finding {
    /// It was reached the last time, or never tried.
    Up,
    /// It failed, and it is time that one connection tries again: see [`Passive::claim`].
    Due,
    /// It failed not long ago.
    Down,
}

impl Passive {
    pub(super) fn finding(&self, now: Duration) -> Finding {
        match self.down_until.load(Ordering::Relaxed) {
            0 => Finding::Up,
            until if until <= millis(now) => Finding::Due,
            _ => Finding::Down,
        }
    }

    /// Takes the one try that is due at `now`; false when somebody else has it.
    pub(super) fn claim(&self, now: Duration) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        if until == 0 {
            // Somebody has reached it meanwhile.
            return true;
        }
        let next = millis(now).saturating_add(self.retry.load(Ordering::Relaxed)).max(1);
        until <= millis(now)
            && self.down_until.compare_exchange(until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// The try told nothing: it is due again at `now`.
    pub(super) fn unclaim(&self, now: Duration) {
        if self.down_until.load(Ordering::Relaxed) != 0 {
            self.down_until.store(millis(now).max(1), Ordering::Relaxed);
        }
    }

    /// The target could not be reached at `now`; returns whether the log should say so.
    pub(super) fn failed(&self, now: Duration, retry: Duration) -> bool {
        self.retry.store(millis(retry), Ordering::Relaxed);
        self.failures.fetch_add(1, Ordering::Relaxed);
        if self.down_until.load(Ordering::Relaxed) == 0 {
            self.failing_since.store(millis(now), Ordering::Relaxed);
        }
        self.failed_at.store(millis(now), Ordering::Relaxed);
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

    pub(super) fn failed_because(&self, cause: &impl Display) {
        *self.cause.lock().unwrap_or_else(PoisonError::into_inner) = cause.to_string().into();
    }

    /// Failures since the daemon's start.
    pub(super) fn failures(&self) -> u64 {
        self.failures.load(Ordering::Relaxed)
    }

    /// Since when the target has failed, and the cause of its last failure; `None` when it was reached the last time.
    pub(super) fn failing(&self) -> Option<(Duration, Box<str>)> {
        let since = Duration::from_millis(self.failing_since.load(Ordering::Relaxed));
        let cause = || self.cause.lock().unwrap_or_else(PoisonError::into_inner).clone();
        (self.down_until.load(Ordering::Relaxed) != 0).then(|| (since, cause()))
    }

    /// The target was reached; returns whether the log should say so.
    pub(super) fn reached(&self) -> bool {
        // Read first: this runs for every connection, and a store would bounce the cache line between workers.
        if self.down_until.load(Ordering::Relaxed) == 0 {
            return false;
        }
        self.down_until.store(0, Ordering::Relaxed);
        self.said_down.swap(false, Ordering::Relaxed)
    }

    /// Something that began at `since` shows that it can be reached; later failures stand.
    pub(super) fn refuted(&self, since: Duration) -> bool {
        self.failed_at.load(Ordering::Relaxed) <= millis(since) && self.reached()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_target_is_tried_again_by_one() {
        let passive = Passive::default();
        let at = Duration::from_secs;
        assert_eq!(passive.finding(at(0)), Finding::Up);
        passive.failed(at(5), at(10));
        assert_eq!(passive.finding(at(14)), Finding::Down);
        assert_eq!(passive.finding(at(15)), Finding::Due);
        assert!(passive.claim(at(15)));
        assert!(!passive.claim(at(15)), "the try is taken");
        assert_eq!(passive.finding(at(16)), Finding::Down, "for the others");
        assert_eq!(passive.finding(at(25)), Finding::Due, "the one that tried never told");
        assert!(passive.claim(at(25)));
        passive.unclaim(at(26));
        assert_eq!(passive.finding(at(26)), Finding::Due, "the try came to nothing");
        passive.reached();
        assert_eq!(passive.finding(at(26)), Finding::Up);
        assert!(passive.claim(at(26)), "up needs no claim");
        assert_eq!(passive.finding(at(26)), Finding::Up, "and stays up");
    }

    #[test]
    fn a_failure_is_refuted_by_what_began_after_it() {
        let passive = Passive::default();
        let at = Duration::from_secs;
        passive.failed(at(5), at(10));
        assert!(!passive.refuted(at(4)), "it began before");
        assert_eq!(passive.finding(at(6)), Finding::Down);
        assert!(passive.refuted(at(6)), "the log has called it down");
        assert_eq!(passive.finding(at(6)), Finding::Up);
    }

    #[test]
    fn a_flapping_target_is_spoken_of_seldom() {
        let passive = Passive::default();
        let mut said = (0, 0);
        for second in 0..120 {
            said.0 += u32::from(passive.failed(Duration::from_secs(second), Duration::from_secs(1)));
            said.1 += u32::from(passive.reached());
        }
        assert_eq!(said, (2, 2));
        assert!(!passive.reached(), "it was up already");
    }
}
