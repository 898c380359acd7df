//! What the operator says of a target at run time: in service, or drained.
//!
//! Unlike `down` in the file it lasts until it is taken back, across reloads. It says nothing of what the target does.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::millis;

/// The operator's word on one target; in service by default.
#[derive(Debug, Default)]
pub(crate) struct Administrative {
    /// Since when it is drained, in milliseconds of the daemon's uptime; 0 when it is in service.
    drained_since: AtomicU64,
}

impl Administrative {
    /// Since when the target is drained; `None` when it is in service.
    #[must_use]
    pub(crate) fn drained_since(&self) -> Option<Duration> {
        match self.drained_since.load(Ordering::Relaxed) {
            0 => None,
            since => Some(Duration::from_millis(since)),
        }
    }

    /// Takes the target out of service at `now`: no new connection or session goes there. Returns whether it was in
    /// service.
    pub(crate) fn drain(&self, now: Duration) -> bool {
        self.drained_since.compare_exchange(0, millis(now).max(1), Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }

    /// Puts the target back into service; returns whether it was drained.
    pub(crate) fn up(&self) -> bool {
        self.drained_since.swap(0, Ordering::Relaxed) != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_in_service_unless_it_is_drained() {
        let state = Administrative::default();
        let at = Duration::from_secs;
        assert_eq!((state.drained_since(), state.up()), (None, false));
        assert!(state.drain(at(5)));
        assert!(!state.drain(at(6)), "it is drained already");
        assert_eq!(state.drained_since(), Some(at(5)));
        assert!(state.up());
        assert_eq!(state.drained_since(), None);
        assert!(state.drain(Duration::ZERO), "also in the first millisecond");
        assert!(state.drained_since().is_some());
    }
}
