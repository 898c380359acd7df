//! A token bucket that threads share without a lock ([`rpxy_l4_common::bucket`]).

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use rpxy_l4_common::bucket::{Charge, charge};

/// Size and refill of a bucket.
#[derive(Debug, Clone, Copy)]
pub(super) struct Rate {
    /// Nanoseconds for one more event.
    interval: u32,
    /// Nanoseconds until an empty bucket is full.
    window: u64,
}

impl Rate {
    /// A bucket of `burst` events, with one more each `interval` nanoseconds.
    pub(super) const fn new(interval: u32, burst: u32) -> Self {
        Self { interval, window: interval as u64 * burst as u64 }
    }

    pub(super) const fn from_timing((interval, window): (u32, u64)) -> Self {
        Self { interval, window }
    }
}

/// A full bucket by default. Times are of any monotonic clock. Of two charges that race, one may be lost.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Nanoseconds: the time at which the bucket is full again.
    due: AtomicU64,
}

impl Bucket {
    pub(super) fn has_room(&self, now: Duration, rate: Rate) -> bool {
        self.charge(now, rate) != Charge::Refused
    }

    /// Takes one event out of the bucket; returns false, and takes nothing, when it is empty.
    pub(super) fn take(&self, now: Duration, rate: Rate) -> bool {
        match self.charge(now, rate) {
            Charge::Refused => return false,
            Charge::Begin(due) => self.due.store(due, Ordering::Relaxed),
            Charge::Add(more) => drop(self.due.fetch_add(more, Ordering::Relaxed)),
        }
        true
    }

    pub(super) fn fill(&self) {
        self.due.store(0, Ordering::Relaxed);
    }

    fn charge(&self, now: Duration, rate: Rate) -> Charge {
        let now = u64::try_from(now.as_nanos()).unwrap_or(u64::MAX);
        charge(self.due.load(Ordering::Relaxed), now, rate.interval, rate.window, 1)
    }
}
