//! Fall and rise: how many results in a row turn a verdict.
//!
//! The first result decides alone: a target that was never checked counts as up, and is not to get connections for several
//! intervals when it is not there.

use std::num::NonZeroU16;

/// The verdict on one address.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Up,
    Down,
}

/// A verdict, and the results in a row that speak against it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Streak {
    verdict: Verdict,
    against: u16,
    /// The next result decides alone.
    fresh: bool,
}

impl Streak {
    /// Starts with `verdict`, which the first result may turn.
    pub(super) fn new(verdict: Verdict) -> Self {
        Self { verdict, against: 0, fresh: true }
    }

    /// Something else is asked from now on: the next result decides alone.
    pub(super) fn start_over(&mut self) {
        *self = Self::new(self.verdict);
    }

    /// Takes a result; returns the new verdict if it turns, and after how many results in a row.
    pub(super) fn note(&mut self, passed: bool, fall: NonZeroU16, rise: NonZeroU16) -> Option<(Verdict, u16)> {
        let result = if passed { Verdict::Up } else { Verdict::Down };
        let fresh = std::mem::replace(&mut self.fresh, false);
        if result == self.verdict {
            self.against = 0;
            return None;
        }
        self.against = self.against.saturating_add(1);
        let needed = if fresh {
            NonZeroU16::MIN
        } else if passed {
            rise
        } else {
            fall
        };
        if self.against < needed.get() {
            return None;
        }
        let after = std::mem::replace(&mut self.against, 0);
        self.verdict = result;
        Some((result, after))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn number(number: u16) -> NonZeroU16 {
        NonZeroU16::new(number).unwrap()
    }

    /// Verdicts after each of the results, `+` passed and `-` failed: `U` up, `D` down.
    fn verdicts(results: &str, fall: u16, rise: u16) -> String {
        let mut streak = Streak::new(Verdict::Up);
        let after = |result| {
            streak.note(result == '+', number(fall), number(rise));
            if streak.verdict == Verdict::Up { 'U' } else { 'D' }
        };
        results.chars().map(after).collect()
    }

    #[test]
    fn it_takes_several_in_a_row() {
        for (name, results, fall, rise, expected) in [
            ("never failed", "+++", 3, 2, "UUU"),
            ("the first result decides", "-", 3, 2, "D"),
            ("the first result decides, once", "+---", 3, 2, "UUUD"),
            ("one short of falling", "+--+--", 3, 2, "UUUUUU"),
            ("rises after two", "-+-++", 3, 2, "DDDDU"),
            ("each counts", "+-+-", 1, 1, "UDUD"),
        ] {
            assert_eq!(verdicts(results, fall, rise), expected, "{name}");
        }
    }

    #[test]
    fn another_question_lets_the_next_result_decide_and_keeps_the_verdict_until_then() {
        let mut streak = Streak::new(Verdict::Up);
        assert_eq!(streak.note(false, number(3), number(3)), Some((Verdict::Down, 1)));
        assert_eq!(streak.note(true, number(3), number(3)), None);
        streak.start_over();
        assert_eq!(streak.verdict, Verdict::Down);
        assert_eq!(streak.note(true, number(3), number(3)), Some((Verdict::Up, 1)));
    }

    proptest! {
        /// The verdict after any results is what the definition says of the whole history.
        #[test]
        fn a_verdict_turns_exactly_after_as_many_results_in_a_row(
            results in prop::collection::vec(any::<bool>(), 1..80),
            fall in 1_u16..6,
            rise in 1_u16..6,
        ) {
            let mut streak = Streak::new(Verdict::Up);
            let mut verdict = Verdict::Up;
            for (index, passed) in results.iter().enumerate() {
                let turned = streak.note(*passed, number(fall), number(rise));
                let in_a_row = results[..=index].iter().rev().take_while(|result| *result == passed).count();
                let needed = usize::from(match (index, passed) { (0, _) => 1, (_, true) => rise, (_, false) => fall });
                let against = (*passed) != (verdict == Verdict::Up);
                if against && in_a_row >= needed {
                    verdict = if *passed { Verdict::Up } else { Verdict::Down };
                    prop_assert_eq!(turned, Some((verdict, u16::try_from(in_a_row).unwrap())));
                } else {
                    prop_assert_eq!(turned, None);
                }
                prop_assert_eq!(streak.verdict, verdict);
            }
        }
    }
}
