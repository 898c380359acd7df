//! What tests that explain made-up traffic draw.

use crate::route::Random;

/// Numbers and choices that a seed gives.
pub(crate) struct Draw(Random);

impl Draw {
    pub(crate) fn new(seed: u64) -> Self {
        Self(Random::new(seed))
    }

    /// A number below `n`.
    pub(crate) fn below(&self, n: usize) -> usize {
        usize::try_from(self.0.next() % n as u64).unwrap()
    }

    /// One of these.
    pub(crate) fn one<T: Copy>(&self, of: &[T]) -> T {
        of[self.below(of.len())]
    }

    /// True in one of so many cases.
    pub(crate) fn one_in(&self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// About a third of these.
    pub(crate) fn some<T: Copy>(&self, of: &[T]) -> Vec<T> {
        of.iter().copied().filter(|_| self.one_in(3)).collect()
    }
}
