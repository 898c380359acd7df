//! The daemon's sign of life to programs that would outlive it.
//!
//! Links end with the process that holds them. TC has none before Linux 6.6: its filters stay when the daemon is killed, and
//! would steer sessions that no daemon manages. So these programs stop at the end of a lease, which a living daemon
//! renews. The next daemon removes them.

use std::{
    cell::Cell,
    time::{Duration, Instant},
};

use rustix::time::{ClockId, clock_gettime};

use crate::offload::maps::Maps;

/// Duration of a lease.
const LEASE: Duration = Duration::from_secs(10);
/// Interval between renewals.
const RENEW: Duration = Duration::from_secs(1);

/// The time of the last renewal.
#[derive(Debug, Default)]
pub(crate) struct Lease(Cell<Option<Instant>>);

impl Lease {
    /// Returns true if it is time to renew.
    pub(crate) fn is_due(&self) -> bool {
        self.0.get().is_none_or(|last| last.elapsed() >= RENEW)
    }

    pub(crate) fn renew(&self, maps: &mut Maps) {
        self.0.set(Some(Instant::now()));
        if let Err(error) = maps.set_lease(end(clock_gettime(ClockId::Monotonic).try_into().unwrap_or_default())) {
            tracing::debug!("kernel plane: cannot renew the lease: {error}");
        }
    }
}

/// Returns the end of a lease that begins at `now`, in nanoseconds; never 0.
fn end(now: Duration) -> u64 {
    u64::try_from((now + LEASE).as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_outlasts_several_missed_renewals() {
        assert_eq!(end(Duration::from_secs(5)), 15_000_000_000);
        assert_eq!(end(Duration::MAX - LEASE), u64::MAX);
        assert!(RENEW * 5 <= LEASE);
        assert!(Lease::default().is_due());
    }
}
