//! The sessions that use a route: of most routes, those to clients, there is one.

use std::collections::BTreeSet;

/// Slots of sessions.
#[derive(Debug, Default)]
pub(super) enum Users {
    /// Nobody.
    #[default]
    None,
    /// One session.
    One(u32),
    /// Several, or there were.
    Many(BTreeSet<u32>),
}

impl Users {
    pub(super) fn add(&mut self, slot: u32) {
        match self {
            Self::None => *self = Self::One(slot),
            Self::One(other) if *other == slot => {}
            Self::One(other) => *self = Self::Many(BTreeSet::from([*other, slot])),
            Self::Many(slots) => drop(slots.insert(slot)),
        }
    }

    pub(super) fn remove(&mut self, slot: u32) {
        match self {
            Self::One(other) if *other == slot => *self = Self::None,
            Self::None | Self::One(_) => {}
            Self::Many(slots) => {
                slots.remove(&slot);
            }
        }
    }

    pub(super) fn is_empty(&self) -> bool {
        match self {
            Self::None => true,
            Self::One(_) => false,
            Self::Many(slots) => slots.is_empty(),
        }
    }

    pub(super) fn all(&self) -> Vec<u32> {
        match self {
            Self::None => Vec::new(),
            Self::One(slot) => vec![*slot],
            Self::Many(slots) => slots.iter().copied().collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_there_once() {
        let mut users = Users::default();
        assert!(users.is_empty());
        for (add, slot, expected) in [
            (true, 1, vec![1]),
            (true, 1, vec![1]),
            (false, 2, vec![1]),
            (false, 1, vec![]),
            (false, 1, vec![]),
            (true, 2, vec![2]),
            (true, 1, vec![1, 2]),
            (true, 3, vec![1, 2, 3]),
            (true, 2, vec![1, 2, 3]),
            (false, 2, vec![1, 3]),
            (false, 1, vec![3]),
            (false, 3, vec![]),
        ] {
            if add {
                users.add(slot);
            } else {
                users.remove(slot);
            }
            let is_empty = expected.is_empty();
            assert_eq!((users.all(), users.is_empty()), (expected, is_empty), "{add} {slot}");
        }
    }
}
