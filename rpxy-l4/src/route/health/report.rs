//! The state of a target, for an operator.

use std::time::Duration;

use serde::Serialize;

use super::{Health, millis};

/// State of one target as `rpxy-l4 targets` shows it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct TargetReport {
    /// `up`, `down`, `drained`, or `off` for `down = true` in the file.
    pub state: &'static str,
    /// Why it is not up.
    pub reason: Option<String>,
    /// For how long, in milliseconds, where that is known.
    pub since_ms: Option<u64>,
    /// Connections or sessions that it has.
    pub active: u32,
    /// Failures to reach it since the daemon's start.
    pub failures: u64,
}

impl Health {
    /// Describes the target at `now`; `off` tells that the file takes it out of use.
    #[must_use]
    pub(crate) fn report(&self, off: bool, now: Duration) -> TargetReport {
        let ago = |since: Duration| Some(millis(now.saturating_sub(since)));
        let (state, reason, since_ms) = if off {
            ("off", Some("down = true in the file".to_owned()), None)
        } else if let Some(since) = self.administrative.drained_since() {
            ("drained", Some("by command".to_owned()), ago(since))
        } else if let Some((since, cause)) = self.passive.failing() {
            let reason = if cause.is_empty() { "cannot be reached".to_owned() } else { cause.into() };
            ("down", Some(reason), ago(since))
        } else {
            ("up", None, None)
        };
        TargetReport { state, reason, since_ms, active: self.active(), failures: self.passive.failures() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_strongest_word_is_reported() {
        let health = Health::default();
        let at = Duration::from_secs;
        let report = |off, now| {
            let TargetReport { state, reason, since_ms, failures, .. } = health.report(off, at(now));
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
}
