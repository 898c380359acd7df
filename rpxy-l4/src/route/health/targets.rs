//! The states of all targets in use, so that a reload finds them again.

use std::{
    num::NonZeroU16,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{super::ShareOf, Checked, Health, State};
use crate::{
    config::model::{Check, Host, Target},
    limit::{ConnLimit, WeakMap},
    metrics::Accounts,
};

type Key = (Host, u16);

/// A target, and the check by name and variant.
type CheckKey = (Key, Arc<str>, u8);

/// The states of all targets in use of one transport.
#[derive(Debug, Default)]
pub(crate) struct Targets {
    states: Mutex<WeakMap<Key, Health>>,
    checked: Mutex<WeakMap<CheckKey, Checked>>,
    /// Connections of rules, and of the default targets of listeners.
    rules: Mutex<WeakMap<ShareOf, ConnLimit>>,
    accounts: Arc<Accounts>,
}

/// A target that could not be reached the last time, or that a check has found to be down.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct DownTarget {
    /// As in the file.
    pub target: String,
    /// Connections that it has all the same.
    pub active: u32,
    /// Who says so, the name of a check; `None` for connections.
    pub check: Option<Arc<str>>,
    /// What the check has met.
    pub reason: Option<Arc<str>>,
}

/// A target and one check of it.
#[derive(Debug, Clone)]
pub(crate) struct CheckedTarget {
    /// As in the file.
    pub target: String,
    /// The check's name.
    pub check: Arc<str>,
    /// What the check has found.
    pub checked: Arc<Checked>,
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
        self.states().get_or_insert_with((target.host.clone(), target.port), Health::default)
    }

    /// The connections of a rule, on all its listeners, or of the default targets of one.
    #[must_use]
    pub(crate) fn of_rule(&self, rule: ShareOf) -> Arc<ConnLimit> {
        let mut rules = self.rules.lock().unwrap_or_else(PoisonError::into_inner);
        rules.get_or_insert_with(rule, ConnLimit::default)
    }

    /// All targets in use, as in the file, in order.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<(String, Arc<Health>)> {
        let mut list: Vec<_> = self.states().iter().map(|(key, state)| (text(key), state)).collect();
        list.sort_by(|(a, _), (b, _)| a.cmp(b));
        list
    }

    /// What `check` has found of `target`; where they are still in use, what one of that name has found before.
    #[must_use]
    pub(crate) fn checked(&self, target: &Target, check: &Check) -> Arc<Checked> {
        let key = ((target.host.clone(), target.port), Arc::clone(&check.name), check.variant());
        self.checks().get_or_insert_with(key, Checked::default)
    }

    /// All targets with an address that is checked, once for each check and variant of it, in order.
    #[must_use]
    pub(crate) fn list_checked(&self) -> Vec<CheckedTarget> {
        let checks = self.checks();
        let in_use = checks.iter().filter_map(|((target, check, _), checked)| {
            let known = !checked.addresses().is_empty();
            known.then(|| CheckedTarget { target: text(target), check: Arc::clone(check), checked })
        });
        let mut list: Vec<_> = in_use.collect();
        list.sort_by(|a, b| (&a.target, &a.check).cmp(&(&b.target, &b.check)));
        list
    }

    /// The targets in use that are down at `now`, in order: those that connections could not reach, then those that
    /// checks have found.
    #[must_use]
    pub(crate) fn down(&self, now: Duration) -> Vec<DownTarget> {
        let all = self.list();
        let met = |health: &Health| match health.state(now) {
            State::Due | State::Down => true,
            State::Up | State::Drained => false,
        };
        let active = |target: &str| {
            let known = all.binary_search_by(|(other, _)| other.as_str().cmp(target)).ok();
            known.and_then(|index| all.get(index)).map_or(0, |(_, health)| health.active())
        };
        let unreached = all.iter().filter(|(_, health)| met(health)).map(|(target, health)| DownTarget {
            target: target.clone(),
            active: health.active(),
            check: None,
            reason: None,
        });
        let failing = self.list_checked().into_iter().filter(|found| found.checked.is_down());
        let failing = failing.map(|CheckedTarget { target, check, checked }| DownTarget {
            active: active(&target),
            reason: checked.reason(),
            check: Some(check),
            target,
        });
        unreached.chain(failing).collect()
    }

    fn checks(&self) -> MutexGuard<'_, WeakMap<CheckKey, Checked>> {
        self.checked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn states(&self) -> MutexGuard<'_, WeakMap<Key, Health>> {
        self.states.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The target as in the file.
fn text((host, port): &Key) -> String {
    Target {
        host: host.clone(),
        port: *port,
        weight: NonZeroU16::MIN,
        backup: false,
        down: false,
        max_connections: None,
    }
    .to_string()
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Busy, Standing},
        *,
    };
    use crate::config::model::CheckKind;

    fn target(host: &str, port: u16) -> Target {
        Target {
            host: Host::Name(host.into()),
            port,
            weight: NonZeroU16::MIN,
            backup: false,
            down: false,
            max_connections: None,
        }
    }

    fn check(name: &str) -> Check {
        Check {
            name: name.into(),
            kind: CheckKind::Connect,
            port: None,
            #[cfg(feature = "proxy-protocol")]
            send_proxy: None,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(2),
            fall: NonZeroU16::MIN,
            rise: NonZeroU16::MIN,
            close: false,
        }
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
        let unreached = DownTarget { target: "b:1".to_owned(), active: 1, check: None, reason: None };
        assert_eq!(targets.down(at(20)), [unreached]);
        drop((busy, health));
        assert!(down(20).is_empty(), "in use no more");
    }

    #[test]
    fn targets_that_a_check_has_found_to_be_down_are_listed_with_its_reason() {
        let targets = Targets::default();
        let (target, check) = (target("a", 1), check("web"));
        let health = targets.health(&target);
        let checked = targets.checked(&target, &check);
        assert!(Arc::ptr_eq(&checked, &targets.checked(&target, &check)), "found again");
        let standing = Arc::new(Standing::default());
        checked.set(vec![(Some(([192, 0, 2, 1], 443).into()), Arc::clone(&standing))]);
        let now = Duration::from_secs(5);
        assert_eq!(targets.down(now), []);
        standing.failed("status 503");
        standing.set_down(now);
        let _busy = Busy::new(&health);
        let failing = DownTarget {
            target: "a:1".to_owned(),
            active: 1,
            check: Some(check.name),
            reason: Some("status 503".into()),
        };
        assert_eq!(targets.down(now), [failing]);
        drop(checked);
        assert_eq!(targets.down(now), [], "checked no more");
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
