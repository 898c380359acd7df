//! Actions repeated on threads of their own while a test does something else.

use std::{
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use crate::{wait, waiting::Waiting};

/// An action to repeat.
pub type Action<'a> = Box<dyn FnMut() + Send + 'a>;

/// Progress of one repeated action.
#[derive(Debug, Default)]
pub struct Progress {
    done: AtomicUsize,
    failed: AtomicBool,
}

impl Progress {
    /// Returns how often the action has been done.
    pub fn done(&self) -> usize {
        self.done.load(Ordering::SeqCst)
    }

    /// Waits until the action has been done `more` times from now on.
    ///
    /// # Panics
    ///
    /// When that does not happen, or the action has panicked.
    #[track_caller]
    pub fn wait_for(&self, more: usize, what: &str) {
        let enough = self.done() + more;
        wait::until(what, || {
            assert!(!self.failed.load(Ordering::SeqCst), "an action beside the test has failed; waited until {what}");
            (self.done() >= enough).then_some(())
        });
    }
}

/// Repeats each of `actions` on a thread of its own until `body` returns, whose value is returned when all have ended.
///
/// They are told to stop also when `body` panics: a scope waits for its threads, so that a loop without that would
/// keep a failed test alive for ever.
///
/// # Panics
///
/// When `body` or one of the actions does.
pub fn alongside<R>(actions: Vec<Action<'_>>, body: impl FnOnce(&[Progress]) -> R) -> R {
    let progress: Vec<Progress> = actions.iter().map(|_| Progress::default()).collect();
    let stop = AtomicBool::new(false);
    let _waiting = Waiting::begin("the actions beside it end");
    thread::scope(|scope| {
        let _stop = SetOnDrop { flag: &stop, only_panicking: false };
        for (mut action, progress) in actions.into_iter().zip(&progress) {
            let stop = &stop;
            scope.spawn(move || {
                let _failed = SetOnDrop { flag: &progress.failed, only_panicking: true };
                while !stop.load(Ordering::SeqCst) {
                    action();
                    progress.done.fetch_add(1, Ordering::SeqCst);
                }
            });
        }
        body(&progress)
    })
}

struct SetOnDrop<'a> {
    flag: &'a AtomicBool,
    only_panicking: bool,
}

impl Drop for SetOnDrop<'_> {
    fn drop(&mut self) {
        if !self.only_panicking || thread::panicking() {
            self.flag.store(true, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    #[test]
    fn actions_end_with_the_body_also_when_it_panics() {
        let count = AtomicUsize::new(0);
        let action = || -> Action<'_> { Box::new(|| _ = count.fetch_add(1, Ordering::SeqCst)) };
        let value = alongside(vec![action(), action()], |progress| {
            progress.iter().for_each(|progress| progress.wait_for(3, "three are done"));
            7
        });
        assert_eq!(value, 7);
        assert!(count.load(Ordering::SeqCst) >= 6);
        let failed = catch_unwind(AssertUnwindSafe(|| alongside(vec![action()], |_| panic!("the test fails"))));
        assert!(failed.is_err());
    }

    #[test]
    fn an_action_that_fails_ends_the_wait_for_it() {
        let failing = || alongside(vec![Box::new(|| panic!("no more"))], |progress| progress[0].wait_for(1, "never"));
        let cause = catch_unwind(failing).unwrap_err();
        let text = cause.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(text.contains("an action beside the test has failed"), "{text}");
    }
}
