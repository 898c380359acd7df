//! The state of a target, for an operator.

use std::{sync::Arc, time::Duration};

use super::{Checked, Health, millis};
use crate::overview::{Check, Target};

/// State of one target as `rpxy-l4 targets` shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct TargetReport {
    /// `up`, `down`, `drained`, or `off` for `down = true` in the file.
    pub state: &'static str,
    /// Why it is not up.
    pub reason: Option<String>,
    /// For how long, in milliseconds, where that is known.
    pub since_ms: Option<u64>,
    /// Connections or sessions that it has.
    pub active: u32,
    /// Failures of connections or sessions to reach it since the daemon's start.
    pub failures: u64,
    /// What a check has found, if the rule has one.
    pub check: Option<Check>,
}

impl TargetReport {
    /// Fills in what is said here.
    pub(crate) fn fill_in(self, target: &mut Target) {
        let Self { state, reason, since_ms, active, failures, check } = self;
        target.state = state.into();
        (target.reason, target.since_ms, target.check) = (reason, since_ms, check);
        (target.active, target.failures) = (active, failures);
    }
}

impl Health {
    /// Describes the target at `now`, with what `check` has found, if its rule has one; `off` tells that the file takes it
    /// out of use.
    #[must_use]
    pub(crate) fn report(&self, off: bool, check: Option<(&Arc<str>, &Checked)>, now: Duration) -> TargetReport {
        let ago = |since: Duration| Some(millis(now.saturating_sub(since)));
        let (state, reason, since_ms) = if off {
            ("off", Some("down = true in the file".to_owned()), None)
        } else if let Some(since) = self.administrative.drained_since() {
            ("drained", Some("by command".to_owned()), ago(since))
        } else if let Some((name, checked, since)) =
            check.and_then(|(name, checked)| Some((name, checked, down(checked)?)))
        {
            let reason = checked.reason().map_or(String::new(), |reason| format!(": {reason}"));
            ("down", Some(format!("check {name}{reason}")), ago(since))
        } else if let Some((since, cause)) = self.passive.failing() {
            let reason = if cause.is_empty() { "cannot be reached".to_owned() } else { cause.into() };
            ("down", Some(reason), ago(since))
        } else {
            ("up", None, None)
        };
        let check = check.map(|(name, checked)| {
            let (passed, failed) = checked.counts();
            Check { name: Arc::clone(name), passed, failed }
        });
        TargetReport { state, reason, since_ms, active: self.active(), failures: self.passive.failures(), check }
    }
}

/// Since when all addresses are down; `None` when the target is up.
fn down(checked: &Checked) -> Option<Duration> {
    let addresses = checked.addresses();
    let since: Option<Vec<Duration>> = addresses.iter().map(|(_, standing)| standing.down_since()).collect();
    since?.into_iter().max()
}

#[cfg(test)]
mod tests {
    use super::{super::Standing, *};

    #[test]
    fn the_strongest_word_is_reported() {
        let health = Health::default();
        let at = Duration::from_secs;
        let report = |off, now| {
            let TargetReport { state, reason, since_ms, failures, .. } = health.report(off, None, at(now));
            (state, reason, since_ms, failures)
        };
        let because = |text: &str| Some(text.to_owned());
        assert_eq!(report(false, 1), ("up", None, None, 0));
        health.failed(at(5), at(10));
        health.failed_because(&"connection refused");
        health.failed(at(7), at(10));
        assert_eq!(report(false, 8), ("down", because("connection refused"), Some(3000), 2), "since the first failure");
        assert_eq!(
            report(false, 60),
            ("down", because("connection refused"), Some(55_000), 2),
            "nobody has tried again"
        );
        health.administrative().drain(at(61));
        assert_eq!(report(false, 62), ("drained", because("by command"), Some(1000), 2));
        assert_eq!(report(true, 62), ("off", because("down = true in the file"), None, 2));
        health.administrative().up();
        health.reached();
        assert_eq!(report(false, 63), ("up", None, None, 2));
        health.failed(at(70), at(10));
        assert_eq!(report(false, 71).2, Some(1000), "a new failure begins anew");
    }

    #[test]
    fn a_check_has_its_say() {
        let (health, checked, name) = (Health::default(), Checked::default(), "web".into());
        let standings: [Arc<Standing>; 2] = Default::default();
        let at = Duration::from_secs;
        let report = |now| health.report(false, Some((&name, &checked)), at(now));
        assert_eq!(report(1).state, "up", "not checked yet");
        checked.set(
            (1..).zip(&standings).map(|(n, each)| (Some(([192, 0, 2, n], 443).into()), Arc::clone(each))).collect(),
        );
        standings[0].failed("status 503");
        standings[0].set_down(at(5));
        standings[1].passed();
        assert_eq!(report(9).state, "up", "one of its addresses is");
        standings[1].failed("status 503");
        standings[1].set_down(at(7));
        let TargetReport { state, reason, since_ms, check, .. } = report(9);
        assert_eq!((state, reason.as_deref(), since_ms), ("down", Some("check web: status 503"), Some(2000)));
        assert_eq!(check, Some(Check { name: Arc::clone(&name), passed: 1, failed: 2 }));
        standings[0].set_up();
        assert_eq!(report(10).state, "up");
    }
}
