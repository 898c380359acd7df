//! Keys of next hops: slots of the array that the programs look them up in.

use std::collections::VecDeque;

use rpxy_l4_common::map::HopKey;

/// Free slots. One that was given back is reused after all others, because a running program may still hold a flow entry
/// that names it.
#[derive(Debug)]
pub(super) struct HopKeys {
    /// First slot that was never taken. Slot 0 means "no hop".
    unused: u32,
    /// Length of the array.
    end: u32,
    returned: VecDeque<HopKey>,
}

impl HopKeys {
    pub(super) fn new(slots: u32) -> Self {
        Self { unused: 1, end: slots, returned: VecDeque::new() }
    }

    /// Returns the number of free slots.
    pub(super) fn free(&self) -> usize {
        let unused = self.end.saturating_sub(self.unused);
        usize::try_from(unused).unwrap_or(usize::MAX).saturating_add(self.returned.len())
    }

    pub(super) fn take(&mut self) -> Option<HopKey> {
        if self.unused < self.end
            && let Ok(key) = HopKey::try_from(self.unused)
        {
            self.unused += 1;
            return Some(key);
        }
        self.returned.pop_front()
    }

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
            (keys.free(), keys.take())
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
