//! Keys of next hops: places in the array that programs look them up in.

use std::collections::VecDeque;

use rpxy_l4_common::map::HopKey;

/// Places that nobody has. One that was given back is taken again after all others, because a program that runs may
/// still have the entry of a flow that named it.
#[derive(Debug)]
pub(super) struct HopKeys {
    /// Of those from here on none was ever taken. 0 is the key of no hop.
    unused: HopKey,
    /// The first that there is no room for.
    end: HopKey,
    returned: VecDeque<HopKey>,
}

impl HopKeys {
    /// For an array with so many places.
    pub(super) fn new(places: u32) -> Self {
        Self { unused: 1, end: places, returned: VecDeque::new() }
    }

    /// How many can be taken.
    pub(super) fn left(&self) -> usize {
        let unused = self.end.saturating_sub(self.unused);
        usize::try_from(unused).unwrap_or(usize::MAX).saturating_add(self.returned.len())
    }

    /// Takes one.
    pub(super) fn take(&mut self) -> Option<HopKey> {
        if self.unused < self.end {
            let key = self.unused;
            self.unused += 1;
            return Some(key);
        }
        self.returned.pop_front()
    }

    /// Gives one back.
    pub(super) fn give_back(&mut self, key: HopKey) {
        self.returned.push_back(key);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_taken_again_as_late_as_possible() {
        let mut keys = HopKeys::new(4);
        let mut take = |back: &[HopKey]| {
            back.iter().for_each(|key| keys.give_back(*key));
            (keys.left(), keys.take())
        };
        assert_eq!(take(&[]), (3, Some(1)));
        assert_eq!(take(&[1]), (3, Some(2)), "the third was never taken");
        assert_eq!(take(&[2]), (3, Some(3)));
        assert_eq!(take(&[]), (2, Some(1)));
        assert_eq!(take(&[3]), (2, Some(2)), "given back before the third");
        assert_eq!(take(&[]), (1, Some(3)));
        assert_eq!(take(&[]), (0, None));
        assert_eq!(HopKeys::new(0).take(), None);
    }
}
