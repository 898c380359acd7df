//! Backend addresses of one service that could not be reached not long ago. They are tried last, but for one try each time
//! that their rest is over.
//!
//! A target as a whole is up as long as one of them is.

use std::{
    net::SocketAddr,
    sync::{Mutex, MutexGuard, PoisonError},
    time::Duration,
};

/// Addresses that are remembered; of more, the oldest is forgotten.
const MOST: usize = 64;

/// The addresses. Times are the daemon's uptime.
#[derive(Debug, Default)]
pub(crate) struct Missed(Mutex<Vec<Rest>>);

#[derive(Debug)]
struct Rest {
    address: SocketAddr,
    until: Duration,
    long: Duration,
}

impl Missed {
    /// `address` could not be reached at `now`; it rests for `retry`.
    pub(crate) fn add(&self, address: SocketAddr, now: Duration, retry: Duration) {
        let mut rests = self.rests();
        rests.retain(|rest| rest.address != address);
        if retry.is_zero() {
            return;
        }
        if rests.len() >= MOST {
            rests.remove(0);
        }
        rests.push(Rest { address, until: now.saturating_add(retry), long: retry });
    }

    /// `address` was reached.
    pub(crate) fn reached(&self, address: SocketAddr) {
        self.rests().retain(|rest| rest.address != address);
    }

    /// Returns whether `address` rests at `now`. Once its time is over, one who asks finds it up, who finds out.
    #[must_use]
    pub(crate) fn rests_at(&self, address: SocketAddr, now: Duration) -> bool {
        let mut rests = self.rests();
        let Some(rest) = rests.iter_mut().find(|rest| rest.address == address) else { return false };
        if now < rest.until {
            return true;
        }
        rest.until = now.saturating_add(rest.long);
        false
    }

    fn rests(&self) -> MutexGuard<'_, Vec<Rest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_rests_until_one_finds_out_that_it_is_back() {
        let (missed, retry) = (Missed::default(), Duration::from_secs(10));
        let address = |port| SocketAddr::from(([192, 0, 2, 1], port));
        let at = Duration::from_secs;
        assert!(!missed.rests_at(address(1), at(0)));
        missed.add(address(1), at(5), retry);
        assert!(missed.rests_at(address(1), at(14)) && !missed.rests_at(address(2), at(14)));
        assert!(!missed.rests_at(address(1), at(15)), "one tries");
        assert!(missed.rests_at(address(1), at(15)), "and no other one");
        missed.reached(address(1));
        assert!(!missed.rests_at(address(1), at(15)));
        missed.add(address(1), at(20), Duration::ZERO);
        assert!(!missed.rests_at(address(1), at(20)), "nothing rests");
        (1..=100).for_each(|port| missed.add(address(port), at(30), retry));
        assert_eq!(missed.rests().len(), MOST);
        assert!(missed.rests_at(address(100), at(30)) && !missed.rests_at(address(36), at(30)));
    }
}
