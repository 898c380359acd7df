//! What is known of a target beyond one configuration: connections it has, and when it last could not be reached.
//!
//! Health is passive. A target that refused or did not answer is tried last for `tcp_target_retry`; then one
//! connection finds out. State is kept by target across reloads.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use crate::config::model::{Host, Target};

/// State of one target, shared by all groups that name it.
#[derive(Debug, Default)]
pub struct Health {
    active: AtomicU32,
    /// Milliseconds on the daemon's clock until which the target is tried last.
    down_until: AtomicU64,
}

impl Health {
    /// Connections to the target now.
    #[must_use]
    pub fn active(&self) -> u32 {
        self.active.load(Ordering::Relaxed)
    }

    /// Whether the target may be tried in its turn at `now` (time since the daemon's start).
    #[must_use]
    pub fn is_up(&self, now: Duration) -> bool {
        let until = self.down_until.load(Ordering::Relaxed);
        until == 0 || until <= millis(now)
    }

    /// The target could not be reached at `now`; returns whether this is news.
    pub fn failed(&self, now: Duration, retry: Duration) -> bool {
        let until = millis(now.saturating_add(retry)).max(1);
        self.down_until.swap(until, Ordering::Relaxed) == 0
    }

    /// The target was reached; returns whether this is news.
    pub fn reached(&self) -> bool {
        // Read first: this runs for every connection, and a store would bounce the cache line between workers.
        self.down_until.load(Ordering::Relaxed) != 0 && self.down_until.swap(0, Ordering::Relaxed) != 0
    }
}

/// Counts a connection to a target until dropped.
#[derive(Debug)]
pub struct Busy {
    health: Arc<Health>,
}

impl Busy {
    /// One more connection to the target.
    #[must_use]
    pub fn new(health: &Arc<Health>) -> Self {
        health.active.fetch_add(1, Ordering::Relaxed);
        Self { health: Arc::clone(health) }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.health.active.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The states of all targets in use, so that a reload finds them again.
#[derive(Debug, Default)]
pub struct Targets {
    states: Mutex<HashMap<(Host, u16), Weak<Health>>>,
}

impl Targets {
    /// The state of `target`, the old one where it is still in use.
    #[must_use]
    pub fn health(&self, target: &Target) -> Arc<Health> {
        let mut states = self.states.lock().unwrap_or_else(PoisonError::into_inner);
        let key = (target.host.clone(), target.port);
        if let Some(known) = states.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        states.retain(|_, state| state.strong_count() > 0);
        let fresh = Arc::new(Health::default());
        states.insert(key, Arc::downgrade(&fresh));
        fresh
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_target_is_down_for_the_retry_interval_and_news_only_once() {
        let health = Health::default();
        let at = Duration::from_secs;
        assert!(health.is_up(at(0)));
        assert!(!health.reached(), "it was up all along");
        assert!(health.failed(at(5), at(10)));
        assert!(!health.failed(at(6), at(10)), "still down, no news");
        assert!(!health.is_up(at(15)));
        assert!(health.is_up(at(16)));
        assert!(health.reached());
        assert!(!health.reached());
        assert!(health.is_up(at(7)));
    }

    #[test]
    fn state_is_found_again_while_in_use() {
        let targets = Targets::default();
        let target =
            |port| Target { host: Host::Name("a".into()), port, weight: std::num::NonZeroU16::MIN, backup: false };
        let first = targets.health(&target(1));
        let busy = Busy::new(&first);
        assert!(Arc::ptr_eq(&first, &targets.health(&Target { backup: true, ..target(1) })));
        assert!(!Arc::ptr_eq(&first, &targets.health(&target(2))));
        assert_eq!(first.active(), 1);
        drop(busy);
        assert_eq!(first.active(), 0);
    }
}
