//! Turns by weight.

use std::sync::atomic::{AtomicUsize, Ordering};

/// Turns of a weighted round that are laid out ahead; larger sums of weights are scaled down to fit.
const MAX_ROUND: u32 = 4096;

/// Round robin over the targets of one class.
#[derive(Debug)]
pub(super) struct Turns {
    /// Indices in turn, heavier ones more often and spread out.
    round: Vec<usize>,
    turn: AtomicUsize,
    /// Who stands in for one that cannot take its turn: a round of its own, so that the others share those turns by
    /// weight instead of leaving them to a neighbour.
    stand_in: AtomicUsize,
}

impl Turns {
    /// Targets by index and weight.
    pub(super) fn new(targets: &[(usize, u32)]) -> Self {
        let weights: Vec<u32> = targets.iter().map(|(_, weight)| *weight).collect();
        let index = |position: usize| targets.get(position).map(|(index, _)| *index);
        let round = round(&weights).into_iter().filter_map(index).collect();
        Self { round, turn: AtomicUsize::new(0), stand_in: AtomicUsize::new(0) }
    }

    /// Whose turn is next among the `eligible`, without taking it.
    pub(super) fn peek(&self, first: bool, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let at = |turn: usize| {
            let index = self.round.get(turn.checked_rem(self.round.len())?).copied();
            index.filter(|index| eligible(*index))
        };
        let own = if first { at(self.turn.load(Ordering::Relaxed)) } else { None };
        let stand_in = self.stand_in.load(Ordering::Relaxed);
        own.or_else(|| (0..self.round.len()).find_map(|later| at(stand_in.wrapping_add(later))))
    }

    /// The next `eligible` one; one that stands in for a target that was tried in vain, unless this is the `first`.
    pub(super) fn pick(&self, first: bool, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        // A class in which nobody can moves no turn.
        let some = self.round.iter().copied().find(|index| eligible(*index))?;
        let next = |turn: &AtomicUsize| {
            let turn = turn.fetch_add(1, Ordering::Relaxed).checked_rem(self.round.len())?;
            self.round.get(turn).copied().filter(|index| eligible(*index))
        };
        let own = if first { next(&self.turn) } else { None };
        // Other threads move the turns as well, so that a whole round may find nobody.
        own.or_else(|| (0..self.round.len()).find_map(|_| next(&self.stand_in))).or(Some(some))
    }
}

/// A smooth weighted round: each index as often as its weight says, as far apart as can be.
fn round(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<u32> = weights.iter().map(|weight| weight / divisor).collect();
    while weights.iter().sum::<u32>() > MAX_ROUND && weights.iter().any(|weight| *weight > 1) {
        weights = weights.iter().map(|weight| (weight / 2).max(1)).collect();
    }
    let sum: i64 = weights.iter().copied().map(i64::from).sum();
    let mut credit = vec![0_i64; weights.len()];
    let turn = |_| {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += i64::from(*weight);
        }
        let (best, most) = credit.iter_mut().enumerate().max_by(|(i, a), (j, b)| a.cmp(b).then(j.cmp(i)))?;
        *most -= sum;
        Some(best)
    };
    (0..sum).filter_map(turn).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_weighted_round_spreads_the_heavy_one() {
        assert_eq!(round(&[5, 1, 1]), [0, 0, 1, 0, 2, 0, 0]);
        assert_eq!(round(&[2, 4]), round(&[1, 2]));
        assert_eq!(round(&[1; 3]), [0, 1, 2]);
        let long = round(&[256; 40].map(|weight| weight - 1));
        assert!(long.len() <= MAX_ROUND as usize, "{}", long.len());
    }

    #[test]
    fn turns_of_one_that_cannot_are_shared() {
        let turns = Turns::new(&[(0, 1), (1, 1), (2, 1)]);
        let picks: Vec<_> = (0..12).filter_map(|_| turns.pick(true, |index| index != 1)).collect();
        let count = |wanted| picks.iter().filter(|index| **index == wanted).count();
        assert_eq!((count(0), count(1), count(2)), (6, 0, 6), "{picks:?}");
        assert_eq!(turns.pick(true, |_| false), None);
    }
}
