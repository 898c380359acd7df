//! Times in fixed buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

/// Upper bounds of the buckets in microseconds: from a neighbour in the same rack to a connect that had to be repeated.
const BOUNDS: [u64; 13] =
    [500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 500_000, 1_000_000, 2_500_000, 5_000_000];

/// A histogram of times. Adding one is two atomic additions.
#[derive(Debug, Default)]
pub(super) struct Times {
    /// The last has what is over all bounds.
    buckets: [AtomicU64; BOUNDS.len() + 1],
    /// Microseconds.
    sum: AtomicU64,
}

/// A histogram as it is encoded.
#[derive(Debug, PartialEq)]
pub(super) struct Counted {
    /// Seconds.
    pub(super) sum: f64,
    pub(super) count: u64,
    /// Upper bound in seconds and number in the bucket itself; the last bound is infinite.
    pub(super) buckets: Vec<(f64, u64)>,
}

impl Times {
    pub(super) fn add(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = BOUNDS.partition_point(|bound| *bound < micros);
        if let Some(bucket) = self.buckets.get(bucket) {
            bucket.fetch_add(1, Ordering::Relaxed);
        }
        self.sum.fetch_add(micros, Ordering::Relaxed);
    }

    pub(super) fn counted(&self) -> Counted {
        let bounds = BOUNDS.iter().map(|bound| seconds(*bound)).chain([f64::INFINITY]);
        let counts = self.buckets.iter().map(|count| count.load(Ordering::Relaxed));
        let buckets: Vec<(f64, u64)> = bounds.zip(counts).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        Counted { sum: seconds(self.sum.load(Ordering::Relaxed)), count, buckets }
    }
}

fn seconds(micros: u64) -> f64 {
    Duration::from_micros(micros).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_at_a_bound_is_within_it() {
        for (row, micros, bound) in [
            ("nothing", 0, 0.0005),
            ("at the first", 500, 0.0005),
            ("above the first", 501, 0.001),
            ("at the last", 5_000_000, 5.0),
            ("above the last", 5_000_001, f64::INFINITY),
        ] {
            let times = Times::default();
            times.add(Duration::from_micros(micros));
            let counted = times.counted();
            let filled: Vec<f64> = counted.buckets.iter().filter(|(_, n)| *n > 0).map(|(bound, _)| *bound).collect();
            assert_eq!((filled, counted.count), (vec![bound], 1), "{row}");
            assert!((counted.sum - seconds(micros)).abs() < 1e-9, "{row}");
        }
    }
}
