//! When a changing file is worth reading: once it has been quiet for a moment, or has changed for too long.
//!
//! Knows neither files nor clocks: a look is a value and the time is an argument.

use std::time::Duration;

use tokio::time::Instant;

/// Time for which a file must be unchanged before it is read. Editors and `cp` write in several steps.
const QUIET: Duration = Duration::from_millis(100);

/// Longest wait for a file that keeps changing.
const LONGEST: Duration = Duration::from_secs(1);

/// The last state that was reported, and one that may be reported next.
#[derive(Debug)]
pub(super) struct Debounce<T> {
    reported: Option<T>,
    candidate: Option<Candidate<T>>,
}

#[derive(Debug)]
struct Candidate<T> {
    state: T,
    first: Instant,
    last: Instant,
}

impl<T: PartialEq + Clone> Debounce<T> {
    /// Starts from `state`, which is taken as known; `None` is a missing file.
    pub(super) fn new(state: Option<T>) -> Self {
        Self { reported: state, candidate: None }
    }

    /// Takes in a look at the file. True when its new content should be read now.
    ///
    /// A missing file is not a change: the last report holds until there is a file again.
    pub(super) fn look(&mut self, state: Option<T>, now: Instant) -> bool {
        let Some(state) = state.filter(|state| self.reported.as_ref() != Some(state)) else {
            self.candidate = None;
            return false;
        };
        let candidate = self.candidate.get_or_insert_with(|| Candidate { state: state.clone(), first: now, last: now });
        if candidate.state != state {
            candidate.state = state.clone();
            candidate.last = now;
        }
        let due = candidate.due() <= now;
        if due {
            self.reported = Some(state);
            self.candidate = None;
        }
        due
    }

    /// Changes what was last reported, if anything was; a change under way begins anew.
    pub(super) fn amend(&mut self, change: impl FnOnce(&mut T)) {
        if let Some(reported) = &mut self.reported {
            change(reported);
        }
        self.candidate = None;
    }

    /// When to look again at the latest, if a change is under way.
    pub(super) fn deadline(&self) -> Option<Instant> {
        self.candidate.as_ref().map(Candidate::due)
    }
}

impl<T> Candidate<T> {
    fn due(&self) -> Instant {
        (self.last + QUIET).min(self.first + LONGEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds looks at the given milliseconds; returns those at which the file was to be read.
    fn reads(initial: Option<u8>, looks: impl IntoIterator<Item = (u64, Option<u8>)>) -> Vec<u64> {
        let start = Instant::now();
        let mut debounce = Debounce::new(initial);
        looks
            .into_iter()
            .filter(|(at, state)| debounce.look(*state, start + Duration::from_millis(*at)))
            .map(|(at, _)| at)
            .collect()
    }

    #[test]
    fn scenarios() {
        type Looks = &'static [(u64, Option<u8>)];
        let rows: &[(&str, Option<u8>, Looks, &[u64])] = &[
            ("nothing happens", Some(1), &[(0, Some(1)), (5_000, Some(1))], &[]),
            ("a change is read once it is quiet", Some(1), &[(0, Some(2)), (99, Some(2)), (100, Some(2))], &[100]),
            ("and only once", Some(1), &[(0, Some(2)), (100, Some(2)), (300, Some(2))], &[100]),
            (
                "a second write waits on",
                Some(1),
                &[(0, Some(2)), (60, Some(3)), (100, Some(3)), (160, Some(3))],
                &[160],
            ),
            ("two bursts", Some(1), &[(0, Some(2)), (100, Some(2)), (500, Some(3)), (600, Some(3))], &[100, 600]),
            ("changed and changed back", Some(1), &[(0, Some(2)), (50, Some(1)), (200, Some(1))], &[]),
            ("removed", Some(1), &[(0, None), (200, None)], &[]),
            ("removed and restored", Some(1), &[(0, None), (50, Some(1)), (200, Some(1))], &[]),
            ("removed and written anew", Some(1), &[(0, None), (200, Some(2)), (300, Some(2))], &[300]),
            (
                "gone again before it was quiet",
                Some(1),
                &[(0, Some(2)), (50, None), (100, Some(2)), (150, Some(2))],
                &[],
            ),
            ("missing at first", None, &[(0, Some(1)), (100, Some(1))], &[100]),
        ];
        for (name, initial, looks, expected) in rows {
            assert_eq!(reads(*initial, looks.iter().copied()), *expected, "{name}");
        }
    }

    #[test]
    fn a_file_that_never_rests_is_read_after_a_second() {
        let looks = (0..=110).map(|step: u8| (u64::from(step) * 20, Some(step + 1)));
        assert_eq!(reads(Some(0), looks), [1_000, 2_020]);
    }

    #[test]
    fn the_deadline_is_that_of_the_change() {
        let start = Instant::now();
        let mut debounce = Debounce::new(Some(1));
        assert_eq!(debounce.deadline(), None);
        debounce.look(Some(2), start);
        assert_eq!(debounce.deadline(), Some(start + QUIET));
        debounce.look(Some(2), start + QUIET);
        assert_eq!(debounce.deadline(), None);
    }
}
