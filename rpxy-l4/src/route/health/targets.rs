//! The states of all targets in use, so that a reload finds them again.

use std::{
    collections::HashMap,
    num::NonZeroU16,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use super::{Health, State};
use crate::config::model::{Host, Target};

type Key = (Host, u16);

/// The states of all targets in use of one transport.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    states: Mutex<HashMap<Key, Weak<Health>>>,
}

/// A target that could not be reached the last time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DownTarget {
    /// As in the file.
    pub target: String,
    /// Connections that it has all the same.
    pub active: u32,
}

impl Targets {
    /// The state of `target`, the old one where it is still in use.
    #[must_use]
    pub(crate) fn health(&self, target: &Target) -> Arc<Health> {
        let mut states = self.states();
        let key = (target.host.clone(), target.port);
        if let Some(known) = states.get(&key).and_then(Weak::upgrade) {
            return known;
        }
        states.retain(|_, state| state.strong_count() > 0);
        let fresh = Arc::new(Health::default());
        states.insert(key, Arc::downgrade(&fresh));
        fresh
    }

    /// All targets in use, as in the file, in order.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<(String, Arc<Health>)> {
        let states = self.states();
        let in_use = states.iter().filter_map(|(key, state)| Some((text(key), state.upgrade()?)));
        let mut list: Vec<_> = in_use.collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }

    /// The targets in use that are down at `now`, in order.
    #[must_use]
    pub(crate) fn down(&self, now: Duration) -> Vec<DownTarget> {
        let is_down = |health: &Health| match health.state(now) {
            State::Due | State::Down => true,
            State::Up | State::Drained => false,
        };
        let down = self.list().into_iter().filter(|(_, health)| is_down(health));
        down.map(|(target, health)| DownTarget { target, active: health.active() }).collect()
    }

    fn states(&self) -> MutexGuard<'_, HashMap<Key, Weak<Health>>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The target as in the file.
fn text((host, port): &Key) -> String {
    Target { host: host.clone(), port: *port, weight: NonZeroU16::MIN, backup: false, down: false }.to_string()
}

#[cfg(test)]
mod tests {
    use super::{super::Busy, *};

    fn target(host: &str, port: u16) -> Target {
        Target { host: Host::Name(host.into()), port, weight: NonZeroU16::MIN, backup: false, down: false }
    }

    #[test]
    fn targets_that_are_down_are_listed_while_in_use() {
        let targets = Targets::default();
        let health: Vec<_> = ["b", "a", "c", "d"].map(|name| targets.health(&target(name, 1))).into();
        let at = Duration::from_secs;
        let down = |now| targets.down(at(now)).into_iter().map(|down| down.target).collect::<Vec<_>>();
        health[0].failed(at(5), at(10));
        health[1].failed(at(5), at(10));
        health[3].failed(at(5), at(10));
        health[3].administrative().drain(at(5));
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
        let first = targets.health(&target("a", 1));
        let busy = Busy::new(&first);
        assert!(Arc::ptr_eq(&first, &targets.health(&Target { backup: true, ..target("a", 1) })));
        assert!(!Arc::ptr_eq(&first, &targets.health(&target("a", 2))));
        assert_eq!(first.active(), 1);
        drop(busy);
        assert_eq!(first.active(), 0);
    }
}
