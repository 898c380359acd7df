//! What is in use somewhere, by its key: found again while it is used, and forgotten afterwards.

use std::{
    borrow::Borrow,
    collections::HashMap,
    hash::Hash,
    sync::{Arc, Weak},
};

/// Values by key, which others own. There are never more than twice as many entries as were in use at once, or
/// [`Self::FEW`].
#[derive(Debug)]
pub(crate) struct WeakMap<K, V> {
    entries: HashMap<K, Weak<V>>,
    /// The number of entries at which those out of use are forgotten, so that adding one costs the same for any number.
    full: usize,
}

impl<K, V> Default for WeakMap<K, V> {
    fn default() -> Self {
        Self { entries: HashMap::new(), full: Self::FEW }
    }
}

impl<K, V> WeakMap<K, V> {
    const FEW: usize = 64;

    /// The values in use.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&K, Arc<V>)> {
        self.entries.iter().filter_map(|(key, value)| Some((key, value.upgrade()?)))
    }
}

impl<K: Eq + Hash, V> WeakMap<K, V> {
    /// The value of `key`, if it is in use.
    pub(crate) fn get<Q: Eq + Hash + ?Sized>(&self, key: &Q) -> Option<Arc<V>>
    where
        K: Borrow<Q>,
    {
        self.entries.get(key).and_then(Weak::upgrade)
    }

    /// The value of `key`, a new one if it is not in use.
    pub(crate) fn get_or_insert_with(&mut self, key: K, new: impl FnOnce() -> V) -> Arc<V> {
        if let Some(known) = self.get(&key) {
            return known;
        }
        if self.entries.len() >= self.full {
            self.entries.retain(|_, value| value.strong_count() > 0);
            self.full = (self.entries.len() * 2).max(Self::FEW);
        }
        let fresh = Arc::new(new());
        self.entries.insert(key, Arc::downgrade(&fresh));
        fresh
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_found_while_used_and_do_not_pile_up_afterwards() {
        let mut map = WeakMap::<u32, u32>::default();
        let held = map.get_or_insert_with(0, || 7);
        for key in 1..10_000 {
            drop(map.get_or_insert_with(key, || key));
            assert!(map.entries.len() <= WeakMap::<u32, u32>::FEW, "{key}");
        }
        assert!(Arc::ptr_eq(&held, &map.get_or_insert_with(0, || 8)));
        assert_eq!(map.iter().map(|(key, value)| (*key, *value)).collect::<Vec<_>>(), [(0, 7)]);
        drop(held);
        assert!(map.get(&0).is_none());
    }
}
