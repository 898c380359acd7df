//! What the log says of names that cannot be resolved: when a name server is down, one line for many of them.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

/// Least time between two warnings.
const QUIET: Duration = Duration::from_secs(60);
/// Names in one line.
const MOST_NAMES: usize = 5;

/// The names that cannot be resolved at present.
#[derive(Debug, Default)]
pub(super) struct Failures {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// When the last warning was.
    warned: Option<Instant>,
    /// Names of which no warning has told yet.
    unsaid: BTreeSet<Arc<str>>,
    /// Names that have had a warning of their own.
    said: HashSet<Arc<str>>,
    /// Names that fail now, and the most since there was none.
    failing: usize,
    most: usize,
}

impl Failures {
    /// A look-up of `name` has failed at `now`, for the first time in a row or once more. Returns a warning if there is one
    /// to be logged; `stays` says what becomes of the name.
    pub(super) fn failed(
        &self,
        name: &Arc<str>,
        first: bool,
        now: Instant,
        (reason, stays): (&str, &str),
    ) -> Option<String> {
        let mut state = self.state();
        if first {
            state.failing += 1;
            state.most = state.most.max(state.failing);
            state.unsaid.insert(Arc::clone(name));
        }
        let quiet = state.warned.is_some_and(|warned| now.saturating_duration_since(warned) < QUIET);
        if quiet || state.unsaid.is_empty() {
            return None;
        }
        state.warned = Some(now);
        let unsaid = std::mem::take(&mut state.unsaid);
        if unsaid.len() == 1 && unsaid.contains(name) {
            state.said.insert(Arc::clone(name));
            return Some(format!("cannot resolve {name}: {reason}; {stays}"));
        }
        let some = unsaid.iter().take(MOST_NAMES).map(AsRef::as_ref).collect::<Vec<&str>>().join(", ");
        let more = if unsaid.len() > MOST_NAMES { ", .." } else { "" };
        Some(format!(
            "cannot resolve {} more names ({some}{more}): {reason}; what is known of them stays in use",
            unsaid.len()
        ))
    }

    /// A name that had failed resolves again, or is not asked for any more. Returns a message if there is one to be logged.
    pub(super) fn ended(&self, name: &str, resolves: bool) -> Option<String> {
        let mut state = self.state();
        state.unsaid.remove(name);
        let said = state.said.remove(name);
        state.failing = state.failing.saturating_sub(1);
        let most = state.most;
        if state.failing == 0 {
            state.most = 0;
        }
        match (state.failing, most) {
            _ if !resolves => None,
            (0, 2..) => Some(format!("all names resolve again, {most} of which did not")),
            _ => said.then(|| format!("{name} resolves again")),
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHY: (&str, &str) = ("silence", "it stays");

    fn names(count: usize) -> Vec<Arc<str>> {
        (0..count).map(|index| format!("n{index:04}.test").into()).collect()
    }

    #[test]
    fn one_name_is_told_of_when_it_fails_and_when_it_is_back() {
        let (failures, start) = (Failures::default(), Instant::now());
        let name = &names(1)[0];
        assert_eq!(
            failures.failed(name, true, start, WHY).as_deref(),
            Some("cannot resolve n0000.test: silence; it stays")
        );
        for retry in 1..200 {
            assert_eq!(failures.failed(name, false, start + Duration::from_secs(retry), WHY), None);
        }
        assert_eq!(failures.ended(name, true).as_deref(), Some("n0000.test resolves again"));
        assert!(failures.failed(name, true, start + QUIET * 9, WHY).is_some(), "a new failure");
    }

    #[test]
    fn thousands_that_fail_together_are_told_of_in_two_lines() {
        let (failures, start) = (Failures::default(), Instant::now());
        let names = names(4000);
        let said: Vec<String> =
            names.iter().filter_map(|name| failures.failed(name, true, start + QUIET / 2, WHY)).collect();
        assert_eq!(said, ["cannot resolve n0000.test: silence; it stays"]);
        // Any of them that is tried again tells of the others.
        let said: Vec<String> =
            names.iter().rev().filter_map(|name| failures.failed(name, false, start + QUIET * 2, WHY)).collect();
        assert_eq!(
            said,
            [
                "cannot resolve 3999 more names (n0001.test, n0002.test, n0003.test, n0004.test, n0005.test, ..): silence; \
              what is known of them stays in use"
            ]
        );
        let back: Vec<String> = names.iter().filter_map(|name| failures.ended(name, true)).collect();
        assert_eq!(back, ["n0000.test resolves again", "all names resolve again, 4000 of which did not"]);
    }

    #[test]
    fn a_name_that_is_back_before_it_was_told_of_is_not_told_of() {
        let (failures, start) = (Failures::default(), Instant::now());
        let names = names(3);
        assert!(failures.failed(&names[0], true, start, WHY).is_some());
        for name in &names[1..] {
            assert!(failures.failed(name, true, start, WHY).is_none());
        }
        assert_eq!(failures.ended(&names[1], true), None);
        assert_eq!(failures.ended(&names[2], false), None, "not asked for any more");
        assert_eq!(failures.failed(&names[0], false, start + QUIET, WHY), None);
    }
}
