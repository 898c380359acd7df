//! Messages that the same cause may log only so often.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::{Duration, Instant},
};

use super::millis;

/// Lets one message through per interval and counts the rest.
#[derive(Debug)]
pub(crate) struct LogThrottle {
    started: Instant,
    interval: Duration,
    /// Milliseconds since `started` before which nothing is logged.
    quiet_until: AtomicU64,
    withheld: AtomicU64,
}

impl LogThrottle {
    /// At most one message per `interval`.
    #[must_use]
    pub(crate) fn new(interval: Duration) -> Self {
        Self { started: Instant::now(), interval, quiet_until: AtomicU64::new(0), withheld: AtomicU64::new(0) }
    }

    /// Returns the number of messages withheld since the last one, if one may be logged now; otherwise counts this one.
    #[must_use]
    pub(crate) fn speak(&self, now: Instant) -> Option<u64> {
        let now = millis(now.saturating_duration_since(self.started));
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        let next = now.saturating_add(millis(self.interval));
        let won = now >= quiet_until
            && self.quiet_until.compare_exchange(quiet_until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if won {
            Some(self.withheld.swap(0, Ordering::Relaxed))
        } else {
            self.withheld.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_message_per_interval_with_the_number_withheld() {
        let throttle = LogThrottle::new(Duration::from_secs(10));
        let start = throttle.started;
        assert_eq!(throttle.speak(start), Some(0));
        assert_eq!(throttle.speak(start + Duration::from_secs(1)), None);
        assert_eq!(throttle.speak(start + Duration::from_secs(9)), None);
        assert_eq!(throttle.speak(start + Duration::from_secs(10)), Some(2));
        assert_eq!(throttle.speak(start + Duration::from_secs(11)), None);
    }
}
