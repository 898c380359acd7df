//! Times in fixed buckets.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use crate::overview;

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

impl Times {
    /// The same with quantiles: where in its bucket a time lies is not known, so that they are as far between its bounds as
    /// its place among the times there; beyond the last bound, they are that.
    pub(super) fn summary(&self) -> overview::Times {
        let counts = self.buckets.each_ref().map(|count| count.load(Ordering::Relaxed));
        let count = counts.iter().sum();
        let [p50_us, p90_us, p99_us] = [50, 90, 99].map(|percent| quantile(&counts, count, percent));
        overview::Times { count, sum_us: self.sum.load(Ordering::Relaxed), p50_us, p90_us, p99_us }
    }
}

/// The time in microseconds that `percent` of `count` times do not exceed.
fn quantile(counts: &[u64], count: u64, percent: u64) -> u64 {
    let place = u128::from(count) * u128::from(percent);
    let (mut below, mut lower) = (0, 0);
    for (bound, inside) in BOUNDS.iter().zip(counts) {
        let inside = u128::from(*inside) * 100;
        if place > 0 && below + inside >= place {
            let part = u128::from(bound - lower) * (place - below) / inside;
            return lower + u64::try_from(part).unwrap_or(u64::MAX);
        }
        (below, lower) = (below + inside, *bound);
    }
    if count > 0 { lower } else { 0 }
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

    #[test]
    fn quantiles_lie_between_the_bounds_of_their_bucket() {
        for (row, times, expected) in [
            ("none", &[][..], [0, 0, 0]),
            ("one", &[(700, 1)], [750, 950, 995]),
            ("all in the first", &[(100, 100)], [250, 450, 495]),
            ("halves", &[(100, 50), (40_000, 50)], [500, 45_000, 49_500]),
            ("beyond the last bound", &[(9_000_000, 3)], [5_000_000; 3]),
            ("one of a hundred is", &[(2_000, 99), (9_000_000, 1)], [1_757, 2_363, 2_500]),
        ] {
            let histogram = Times::default();
            for (micros, count) in times {
                (0..*count).for_each(|_| histogram.add(Duration::from_micros(*micros)));
            }
            let summary = histogram.summary();
            assert_eq!([summary.p50_us, summary.p90_us, summary.p99_us], expected, "{row}");
            assert_eq!(summary.count, times.iter().map(|(_, count)| count).sum::<u64>(), "{row}");
            assert_eq!(summary.sum_us, times.iter().map(|(micros, count)| micros * count).sum::<u64>(), "{row}");
        }
    }
}
