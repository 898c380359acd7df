//! When an address is asked: spread, so that neither the daemon nor a backend with many names sees all checks at once.

use std::time::Duration;

/// Start of one check after another when many begin at the same time.
const APART: Duration = Duration::from_millis(2);
/// The time in which the first few are asked.
const AT_ONCE: Duration = Duration::from_millis(200);
/// Rest between two checks when connections give reason for one out of turn.
const REST: Duration = Duration::from_secs(1);

/// The wait before the first check of one of `starting` addresses. `random` is uniform.
pub(super) fn first(interval: Duration, starting: usize, random: u64) -> Duration {
    let window = APART.saturating_mul(u32::try_from(starting).unwrap_or(u32::MAX)).max(AT_ONCE);
    part(window.min(interval), random)
}

/// The time from the beginning of one check to the next: the interval, give or take a tenth. `random` is uniform.
pub(super) fn next(interval: Duration, random: u64) -> Duration {
    interval - interval / 10 + part(interval / 5, random)
}

/// The least time from the beginning of one check to another one out of turn.
pub(super) fn rest(interval: Duration) -> Duration {
    interval.min(REST)
}

/// A random part of `whole`.
fn part(whole: Duration, random: u64) -> Duration {
    let nanoseconds = u64::try_from(whole.as_nanos()).unwrap_or(u64::MAX);
    let part = (u128::from(nanoseconds) * u128::from(random)) >> u64::BITS;
    Duration::from_nanos(u64::try_from(part).unwrap_or(nanoseconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_checks_are_spread_by_their_number_and_within_the_interval() {
        let ms = Duration::from_millis;
        for (name, interval, starting, longest) in [
            ("a few", 5000, 1, 200),
            ("many", 5000, 1000, 2000),
            ("more than the interval has room for", 5000, 100_000, 5000),
            ("a short interval", 100, 1, 100),
            ("more than can be counted", 5000, usize::MAX, 5000),
        ] {
            assert_eq!(first(ms(interval), starting, 0), Duration::ZERO, "{name}");
            let last = first(ms(interval), starting, u64::MAX);
            assert!(last <= ms(longest) && last + ms(1) > ms(longest), "{name}: {last:?}");
        }
    }

    #[test]
    fn intervals_vary_by_a_tenth_around_what_was_asked_for() {
        let interval = Duration::from_secs(10);
        assert_eq!(next(interval, 0), Duration::from_secs(9));
        assert_eq!(next(interval, 1 << 63), interval);
        assert!(next(interval, u64::MAX) <= Duration::from_secs(11));
        assert_eq!(rest(Duration::from_millis(100)), Duration::from_millis(100));
        assert_eq!(rest(interval), Duration::from_secs(1));
    }
}
