//! What each listener with a limit of its own counts by.

use std::sync::{Arc, Mutex, PoisonError};

use super::WeakMap;
use crate::config::model::LimitOf;

/// One `T` for each listener that says a limit of its own, and one that all others share. It lives as long as a
/// configuration uses it, also across reloads.
#[derive(Debug)]
pub(crate) struct ByListener<T>(Mutex<WeakMap<LimitOf, T>>);

impl<T> Default for ByListener<T> {
    fn default() -> Self {
        Self(Mutex::default())
    }
}

impl<T> ByListener<T> {
    /// All that are in use.
    pub(crate) fn all(&self) -> Vec<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).iter().map(|(_, used)| used).collect()
    }

    /// The one for `of`, if it is in use.
    pub(crate) fn find(&self, of: &LimitOf) -> Option<Arc<T>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get(of)
    }

    /// The one for `of`, which is made if there is none.
    pub(crate) fn of(&self, of: &LimitOf, make: impl FnOnce() -> T) -> Arc<T> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert_with(of.clone(), make)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listeners_share_one_unless_they_have_their_own_for_as_long_as_it_is_used() {
        let made = std::cell::Cell::new(0);
        let by = ByListener::default();
        let of = |of: Option<&str>| {
            by.of(&of.map(Into::into), || {
                made.set(made.get() + 1);
                made.get()
            })
        };
        let (shared, own) = (of(None), of(Some("a")));
        assert_eq!((*shared, *own), (1, 2));
        assert_eq!((*of(None), *of(Some("a"))), (1, 2), "another configuration");
        drop(own);
        assert_eq!(*of(Some("a")), 3, "nobody used it meanwhile");
        assert_eq!(*of(Some("b")), 4);
        assert_eq!(*of(None), 1);
        assert_eq!(by.all().len(), 1, "the shared one");
    }
}
