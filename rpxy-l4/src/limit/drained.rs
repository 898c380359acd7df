//! The listeners that let nothing new in because an operator wants it.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

/// The listeners that are drained: all of them, or some by name, or both. Each is lifted as it was asked for.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct DrainedListeners {
    /// Since when all are, as uptime.
    all: Option<Duration>,
    /// Since when those of these names are.
    named: BTreeMap<Arc<str>, Duration>,
}

impl DrainedListeners {
    /// Drains the listener of this name, or all; returns whether it was not asked for before.
    pub(crate) fn drain(&mut self, name: Option<&str>, now: Duration) -> bool {
        match name {
            None => self.all.replace(self.all.unwrap_or(now)).is_none(),
            Some(name) if self.named.contains_key(name) => false,
            Some(name) => self.named.insert(name.into(), now).is_none(),
        }
    }

    /// Lifts that; returns whether it was asked for.
    pub(crate) fn up(&mut self, name: Option<&str>) -> bool {
        match name {
            None => self.all.take().is_some(),
            Some(name) => self.named.remove(name).is_some(),
        }
    }

    /// Returns whether the listener of this name is drained.
    #[must_use]
    pub(crate) fn contains(&self, name: &str) -> bool {
        self.all.is_some() || self.named.contains_key(name)
    }

    /// Since when all are.
    #[must_use]
    pub(crate) fn all(&self) -> Option<Duration> {
        self.all
    }

    /// Those that are drained by name, and since when.
    pub(crate) fn named(&self) -> impl Iterator<Item = (&Arc<str>, Duration)> {
        self.named.iter().map(|(name, since)| (name, *since))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_and_one_by_name_are_lifted_each_by_itself() {
        let mut drained = DrainedListeners::default();
        let at = Duration::from_secs;
        assert!(!drained.contains("a"));
        assert!(drained.drain(Some("a"), at(1)) && !drained.drain(Some("a"), at(2)));
        assert!(drained.contains("a") && !drained.contains("b"));
        assert!(drained.drain(None, at(3)) && !drained.drain(None, at(4)));
        assert!(drained.contains("b"));
        assert_eq!((drained.all(), drained.named().collect::<Vec<_>>()), (Some(at(3)), vec![(&"a".into(), at(1))]));
        assert!(drained.up(None) && !drained.up(None));
        assert!(drained.contains("a") && !drained.contains("b"));
        assert!(drained.up(Some("a")) && !drained.up(Some("a")) && !drained.up(Some("b")));
        assert_eq!(drained, DrainedListeners::default());
    }
}
