//! A token bucket as one number, the time at which it is full again: programs on several processors need no lock.
//!
//! This is the virtual scheduling form of the generic cell rate algorithm (ITU-T I.371 annex A). There is no clock
//! here: times are arguments, in nanoseconds of any monotonic clock. Where two charges race, one may be forgotten: it
//! errs towards allowing.

/// The change of a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Charge {
    /// It does not hold enough and stays as it is.
    Refused,
    /// It was full: this is the new number.
    Begin(u64),
    /// This is to be added to the number.
    Add(u64),
}

/// Takes `events` out of a bucket that is full at `due`. It holds as many events as there are intervals in `window`,
/// and gains one each `interval`; all in nanoseconds.
#[inline(always)]
#[must_use]
pub const fn charge(due: u64, now: u64, interval: u32, window: u64, events: u32) -> Charge {
    // 32 bits each: it cannot overflow.
    let cost = interval as u64 * events as u64;
    let owed = due.saturating_sub(now);
    if owed.saturating_add(cost) > window {
        Charge::Refused
    } else if owed == 0 {
        Charge::Begin(now.saturating_add(cost))
    } else {
        Charge::Add(cost)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::map::SourceLimit;

    /// The number afterwards, and whether the events were allowed.
    fn apply(due: u64, charge: Charge) -> (u64, bool) {
        match charge {
            Charge::Refused => (due, false),
            Charge::Begin(due) => (due, true),
            Charge::Add(more) => (due + more, true),
        }
    }

    #[test]
    fn a_burst_and_then_a_rate() {
        // Ten at once, one each 100 ns: time, events at once, allowed.
        let rows = [
            ("all at once", 5000, 10, true),
            ("nothing is left", 5000, 1, false),
            ("just before the next", 5099, 1, false),
            ("the next", 5100, 1, true),
            ("one each interval", 5200, 1, true),
            ("two of three", 5400, 3, false),
            ("both", 5400, 2, true),
            ("more than there ever is", 9_000_000, 11, false),
            ("full again", 9_000_000, 9, true),
            ("the rest", 9_000_000, 2, false),
            ("of it", 9_000_000, 1, true),
            ("a clock that lags", 8_999_999, 1, false),
        ];
        let mut due = 0;
        for (row, now, events, expected) in rows {
            let (after, allowed) = apply(due, charge(due, now, 100, 1000, events));
            assert_eq!(allowed, expected, "{row}");
            due = after;
        }
    }

    #[test]
    fn no_more_is_charged_than_a_full_bucket_holds() {
        // (interval, window, at once, charged)
        let rows =
            [(100, 1000, 9, 9), (100, 1000, 10, 10), (100, 1000, 11, 10), (0, 1000, 11, 11), (100, u64::MAX, 11, 11)];
        for (interval, window, events, charged) in rows {
            let limit = SourceLimit { interval, window, ..SourceLimit::default() };
            assert_eq!(limit.charged(events), charged, "{events} of {window} / {interval}");
        }
    }

    proptest! {
        /// Against a bucket with tokens, counted in fractions of an interval.
        #[test]
        fn is_a_token_bucket(
            steps in proptest::collection::vec((0_u64..500, 1_u32..4), 1..200),
            interval in 1_u32..200,
            burst in 1_u64..20,
        ) {
            let (mut now, mut due, window) = (1_000_000, 0, u64::from(interval) * burst);
            let mut credit = window;
            for (pause, events) in steps {
                now += pause;
                credit = (credit + pause).min(window);
                let (after, allowed) = apply(due, charge(due, now, interval, window, events));
                due = after;
                let cost = u64::from(interval) * u64::from(events);
                prop_assert_eq!(allowed, credit >= cost);
                credit -= if allowed { cost } else { 0 };
            }
        }

        #[test]
        fn any_numbers_will_do(due: u64, now: u64, interval: u32, window: u64, events: u32) {
            match charge(due, now, interval, window, events) {
                Charge::Refused => {}
                Charge::Begin(after) => prop_assert!(due <= now && after >= now),
                Charge::Add(more) => prop_assert!(due > now && more <= window),
            }
        }
    }
}
