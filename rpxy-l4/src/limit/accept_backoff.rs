//! Exhaustion of file descriptors or memory.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::{LogThrottle, millis};

/// Pause of accepting after file descriptors or memory ran out, so that accepted connections get what they need.
#[derive(Debug)]
pub(crate) struct AcceptBackoff {
    started: Instant,
    /// Milliseconds since `started`.
    until: AtomicU64,
    warning: LogThrottle,
}

impl AcceptBackoff {
    /// Pause after one failure. It is short: descriptors come back whenever a connection ends.
    pub(crate) const PAUSE: Duration = Duration::from_millis(100);

    /// Creates one without a pause, which warns at most once per `interval`.
    #[must_use]
    pub(crate) fn new(interval: Duration) -> Self {
        Self { started: Instant::now(), until: AtomicU64::new(0), warning: LogThrottle::new(interval) }
    }

    /// Begins a pause: `error` at `now` was resource exhaustion.
    pub(crate) fn exhausted(&self, error: &std::io::Error, now: Instant) {
        let until = millis(now.saturating_duration_since(self.started).saturating_add(Self::PAUSE));
        self.until.fetch_max(until, Ordering::Relaxed);
        if let Some(withheld) = self.warning.speak(now) {
            tracing::warn!(
                "accepting paused: {error}; raise the limit on open files (LimitNOFILE=, ulimit -n) or lower \
                 tcp_max_connections ({withheld} more not shown)"
            );
        }
    }

    /// Returns the rest of the pause; `None` without one. Reads the clock only after an exhaustion.
    pub(crate) fn pause(&self, clock: impl FnOnce() -> Instant) -> Option<Duration> {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let rest = Duration::from_millis(until).checked_sub(clock().saturating_duration_since(self.started));
        if rest.is_none() {
            // Over. An exhaustion in between is recorded again by the call that fails next.
            self.until.store(0, Ordering::Relaxed);
        }
        rest.filter(|rest| !rest.is_zero())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_exhaustion_pauses_for_a_moment() {
        let backoff = AcceptBackoff::new(Duration::from_secs(10));
        let at = |millis| backoff.started + Duration::from_millis(millis);
        assert_eq!(backoff.pause(|| at(0)), None);
        backoff.exhausted(&std::io::Error::other("too many open files"), at(1000));
        assert_eq!(backoff.pause(|| at(1000)), Some(AcceptBackoff::PAUSE));
        assert_eq!(backoff.pause(|| at(1040)), Some(Duration::from_millis(60)));
        assert_eq!(backoff.pause(|| at(1100)), None);
    }
}
