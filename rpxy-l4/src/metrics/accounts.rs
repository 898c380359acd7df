//! What each rule and each target carries: connections of TCP, sessions of UDP, their bytes and times.
//!
//! Accounts are found by name, so that they go on across a reload, and are gone with the last snapshot, connection and
//! session that has them: the file bounds their number. They change when a connection begins, ends or has moved another
//! MiB, never for each datagram or read.

use std::{
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use super::{DatagramDrop, Outcome, times::Times};
use crate::limit::WeakMap;

/// Refusals of connections that a rule had been chosen for.
pub(super) const TCP_REFUSALS: [Outcome; 5] =
    [Outcome::EchInvalid, Outcome::RuleConnections, Outcome::TargetConnections, Outcome::Unreachable, Outcome::NoPort];
/// Refusals of sessions that a rule had been chosen for.
pub(super) const UDP_REFUSALS: [DatagramDrop; 10] = [
    DatagramDrop::EchInvalid,
    DatagramDrop::SourceLimited,
    DatagramDrop::RateLimited,
    DatagramDrop::TooMany,
    DatagramDrop::Overloaded,
    DatagramDrop::RuleConnections,
    DatagramDrop::TargetConnections,
    DatagramDrop::Unreachable,
    DatagramDrop::NoPort,
    DatagramDrop::Shortage,
];

/// The names of both.
#[cfg(test)]
pub(crate) fn rule_refusals() -> impl Iterator<Item = &'static str> {
    TCP_REFUSALS.iter().map(|outcome| outcome.name()).chain(UDP_REFUSALS.iter().map(|reason| reason.name()))
}

/// Connections or sessions with a backend.
#[derive(Debug, Default)]
pub(super) struct Load {
    started: AtomicU64,
    ended: AtomicU64,
    bytes_up: AtomicU64,
    bytes_down: AtomicU64,
}

impl Load {
    /// So many have got a backend.
    pub(super) fn started(&self) -> u64 {
        self.started.load(Ordering::Relaxed)
    }

    /// So many have one now.
    pub(super) fn active(&self) -> u64 {
        // The ended first: one that starts in between is not missing.
        let ended = self.ended.load(Ordering::Relaxed);
        self.started().saturating_sub(ended)
    }

    /// Payload from clients, and to them.
    pub(super) fn bytes(&self) -> (u64, u64) {
        (self.bytes_up.load(Ordering::Relaxed), self.bytes_down.load(Ordering::Relaxed))
    }

    fn add(&self, (up, down): (u64, u64)) {
        if up > 0 {
            self.bytes_up.fetch_add(up, Ordering::Relaxed);
        }
        if down > 0 {
            self.bytes_down.fetch_add(down, Ordering::Relaxed);
        }
    }
}

/// Account of a rule, or of the default targets.
#[derive(Debug, Default)]
pub(crate) struct RuleAccount {
    pub(super) load: Load,
    /// In the order of [`TCP_REFUSALS`] or [`UDP_REFUSALS`]; a rule is of one transport.
    refused: [AtomicU64; UDP_REFUSALS.len()],
}

impl RuleAccount {
    /// A connection of the rule ends without a backend. Counts it if it was refused.
    pub(crate) fn refused(&self, outcome: Outcome) {
        self.refuse(TCP_REFUSALS.iter().position(|other| *other == outcome));
    }

    /// The same for a session.
    pub(crate) fn refused_session(&self, reason: DatagramDrop) {
        self.refuse(UDP_REFUSALS.iter().position(|other| *other == reason));
    }

    fn refuse(&self, index: Option<usize>) {
        if let Some(counter) = index.and_then(|index| self.refused.get(index)) {
            counter.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Refusals in the order of the list for the rule's transport.
    pub(super) fn refusals(&self) -> impl Iterator<Item = u64> {
        self.refused.iter().map(|count| count.load(Ordering::Relaxed))
    }
}

/// Account of a target, over all rules that name it.
#[derive(Debug, Default)]
pub(crate) struct TargetAccount {
    pub(super) load: Load,
    pub(super) connect_failed: AtomicU64,
    pub(super) connect: Times,
    pub(super) first_byte: Times,
}

impl TargetAccount {
    /// An attempt to reach the target failed.
    pub(crate) fn connect_failed(&self) {
        self.connect_failed.fetch_add(1, Ordering::Relaxed);
    }

    /// A connection to the target took `time`, its name's first lookup included.
    pub(crate) fn connected(&self, time: Duration) {
        self.connect.add(time);
    }

    /// Its first byte, or its first datagram of a session, came after `time`.
    pub(crate) fn answered(&self, time: Duration) {
        self.first_byte.add(time);
    }
}

/// A connection or session in the accounts of its rule and its target, until dropped.
#[derive(Debug)]
pub(crate) struct Carried {
    rule: Arc<RuleAccount>,
    target: Arc<TargetAccount>,
    /// Bytes that the accounts know.
    told: (u64, u64),
}

impl Carried {
    /// One more that has a backend.
    #[must_use]
    pub(crate) fn new(rule: &Arc<RuleAccount>, target: &Arc<TargetAccount>) -> Self {
        let carried = Self { rule: Arc::clone(rule), target: Arc::clone(target), told: (0, 0) };
        for load in carried.loads() {
            load.started.fetch_add(1, Ordering::Relaxed);
        }
        carried
    }

    /// It has moved so many bytes up and down since it began.
    pub(crate) fn tell(&mut self, up: u64, down: u64) {
        let more = (up.saturating_sub(self.told.0), down.saturating_sub(self.told.1));
        self.told = (up.max(self.told.0), down.max(self.told.1));
        for load in self.loads() {
            load.add(more);
        }
    }

    /// Bytes up and down that were told so far.
    #[must_use]
    pub(crate) fn told(&self) -> u64 {
        self.told.0.saturating_add(self.told.1)
    }

    /// The first byte of the backend came `time` after the connection to it.
    pub(crate) fn answered(&self, time: Duration) {
        self.target.answered(time);
    }

    fn loads(&self) -> [&Load; 2] {
        [&self.rule.load, &self.target.load]
    }
}

impl Drop for Carried {
    fn drop(&mut self) {
        for load in self.loads() {
            load.ended.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// The accounts of one transport that are in use.
#[derive(Debug, Default)]
pub(crate) struct Accounts {
    /// By name.
    rules: Mutex<WeakMap<Arc<str>, RuleAccount>>,
    /// By host and port, as configured.
    targets: Mutex<WeakMap<Arc<str>, TargetAccount>>,
}

impl Accounts {
    /// The account of the rule of this name, or of default targets by their key, if it is in use.
    #[must_use]
    pub(crate) fn find_rule(&self, rule: &str) -> Option<Arc<RuleAccount>> {
        self.rules.lock().unwrap_or_else(PoisonError::into_inner).get(rule)
    }

    /// The account of the target at this host and port, if it is in use.
    #[must_use]
    pub(crate) fn find_target(&self, target: &str) -> Option<Arc<TargetAccount>> {
        self.targets.lock().unwrap_or_else(PoisonError::into_inner).get(target)
    }

    /// The account of the rule of this name, or of default targets by their key.
    #[must_use]
    pub(crate) fn rule(&self, rule: &Arc<str>) -> Arc<RuleAccount> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.get_or_insert_with(Arc::clone(rule), RuleAccount::default)
    }

    /// The account of the target at this host and port.
    #[must_use]
    pub(crate) fn target(&self, target: &str) -> Arc<TargetAccount> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        targets.get_or_insert_with(target.into(), TargetAccount::default)
    }

    /// All rules in use with their names, in order.
    pub(super) fn rules(&self) -> Vec<(Arc<str>, Arc<RuleAccount>)> {
        let rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = rules.iter().map(|(name, account)| (Arc::clone(name), account)).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }

    /// All targets in use, in order.
    pub(super) fn targets(&self) -> Vec<(Arc<str>, Arc<TargetAccount>)> {
        let targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        let mut all: Vec<_> = targets.iter().map(|(target, account)| (Arc::clone(target), account)).collect();
        all.sort_unstable_by(|(a, _), (b, _)| a.cmp(b));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_counted_once_however_often_they_are_told() {
        let accounts = Accounts::default();
        let (rule, target) = (accounts.rule(&"b".into()), accounts.target("a:1"));
        let mut first = Carried::new(&rule, &target);
        let second = Carried::new(&rule, &target);
        for (up, down) in [(10, 0), (10, 5), (10, 5), (30, 7)] {
            first.tell(up, down);
            assert_eq!(first.told(), up + down);
            assert_eq!((rule.load.bytes(), target.load.bytes()), ((up, down), (up, down)));
        }
        assert_eq!((rule.load.started(), rule.load.active(), target.load.active()), (2, 2, 2));
        drop(first);
        assert_eq!((rule.load.started(), rule.load.active(), target.load.active()), (2, 1, 1));
        drop(second);
        assert_eq!((rule.load.active(), rule.load.bytes()), (0, (30, 7)));
    }

    #[test]
    fn accounts_last_as_long_as_somebody_has_them() {
        let accounts = Accounts::default();
        let name: Arc<str> = "web".into();
        let (rule, target) = (accounts.rule(&name), accounts.target("a:1"));
        let carried = Carried::new(&rule, &target);
        assert!(Arc::ptr_eq(&rule, &accounts.rule(&name)), "a reload finds it again");
        assert!(!Arc::ptr_eq(&rule, &accounts.rule(&"api".into())));
        drop((rule, target));
        assert_eq!((accounts.rules().len(), accounts.targets().len()), (1, 1), "it has a connection");
        drop(carried);
        assert_eq!((accounts.rules().len(), accounts.targets().len()), (0, 0));
    }

    #[test]
    fn refusals_without_a_rule_are_in_no_account() {
        let rule = RuleAccount::default();
        rule.refused(Outcome::Unreachable);
        rule.refused(Outcome::ClientGone);
        rule.refused(Outcome::Unmatched);
        assert_eq!(rule.refusals().collect::<Vec<_>>(), [0, 0, 0, 1, 0, 0, 0, 0, 0, 0]);
        let rule = RuleAccount::default();
        rule.refused_session(DatagramDrop::Shortage);
        rule.refused_session(DatagramDrop::Overflow);
        assert_eq!(rule.refusals().collect::<Vec<_>>(), [0, 0, 0, 0, 0, 0, 0, 0, 0, 1]);
        assert!(TCP_REFUSALS.iter().all(|outcome| outcome.is_refusal()));
        assert!(UDP_REFUSALS.iter().all(|reason| reason.is_refusal()));
    }
}
