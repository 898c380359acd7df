//! The daemon's sign of life to programs that would stay without it.
//!
//! Links go with the process that holds them. TC has none before Linux 6.6: its filters stay when the daemon is killed, and
//! would send packets of sessions that nobody looks after. So the program has a time from when on it does nothing, which
//! the daemon puts off as long as it lives; the next daemon removes it.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use super::maps::Maps;

/// How long programs go on without a sign.
pub(super) const LEASE: Duration = Duration::from_secs(10);
/// How often one is given.
pub(super) const RENEW: Duration = Duration::from_secs(1);

/// When the last sign was given.
#[derive(Debug, Default)]
pub(super) struct Lease(Cell<Option<Instant>>);

impl Lease {
    /// Whether it is time for the next one.
    pub(super) fn is_due(&self) -> bool {
        self.0.get().is_none_or(|last| last.elapsed() >= RENEW)
    }

    /// Gives a sign of life.
    pub(super) fn renew(&self, maps: &mut Maps) {
        self.0.set(Some(Instant::now()));
        if let Err(error) = maps.set_lease(end(clock_gettime(ClockId::Monotonic).try_into().unwrap_or_default())) {
            tracing::debug!("kernel plane: lease: {error}");
        }
    }
}

/// The end of a lease that begins at `now`, in nanoseconds; never 0.
fn end(now: Duration) -> u64 {
    u64::try_from((now + LEASE).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlasts_some_signs_that_are_missed() {
        assert_eq!(end(Duration::from_secs(5)), 15_000_000_000);
        assert_eq!(end(Duration::MAX - LEASE), u64::MAX);
        assert!(RENEW * 5 <= LEASE);
        assert!(Lease::default().is_due());
    }
}
