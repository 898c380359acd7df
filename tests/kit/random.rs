//! Numbers that a seed repeats, for tests that try what nobody thought of.

/// A generator: SplitMix64 (Steele, Lea and Flood, 2014).
#[derive(Debug, Clone)]
pub struct Random(u64);

impl Random {
    /// A generator that depends on `seed` alone.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next number of 64 bits.
    pub fn bits(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut word = self.0;
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        word ^ (word >> 31)
    }

    /// A number from `low` to `high`, both included; `low` where `high` is not above it.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        let span = high.saturating_sub(low).saturating_add(1);
        low + self.bits() % span
    }

    /// Returns true in `thousandths` of 1,000 cases.
    pub fn chance(&mut self, thousandths: u64) -> bool {
        self.bits() % 1000 < thousandths
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_repeats_its_numbers_and_another_one_does_not() {
        let numbers = |seed| {
            std::iter::repeat_with({
                let mut random = Random::new(seed);
                move || random.bits()
            })
        };
        let first: Vec<_> = numbers(7).take(100).collect();
        assert_eq!(first, numbers(7).take(100).collect::<Vec<_>>());
        assert_ne!(first, numbers(8).take(100).collect::<Vec<_>>());
    }

    #[test]
    fn both_limits_are_drawn_and_nothing_beyond() {
        let mut random = Random::new(1);
        let drawn: std::collections::BTreeSet<_> = (0..1000).map(|_| random.between(3, 6)).collect();
        assert_eq!(drawn.into_iter().collect::<Vec<_>>(), [3, 4, 5, 6]);
        assert_eq!(random.between(5, 5), 5);
        assert!(!(0..1000).any(|_| random.chance(0)) && (0..1000).all(|_| random.chance(1000)));
    }
}
