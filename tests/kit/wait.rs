//! Waiting for conditions that nothing announces.

use std::time::{Duration, Instant};

use crate::{process::PATIENCE, waiting::Waiting};

/// Waits until `ready` returns something.
///
/// # Panics
///
/// When it does not within [`PATIENCE`]; `what` names it.
#[track_caller]
pub fn until<T>(what: &str, mut ready: impl FnMut() -> Option<T>) -> T {
    let _waiting = Waiting::begin(what);
    let deadline = Instant::now() + PATIENCE;
    loop {
        if let Some(value) = ready() {
            return value;
        }
        assert!(Instant::now() < deadline, "waited too long until {what}");
        pause(Duration::from_millis(5));
    }
}

/// Lets time pass where time itself is the subject of a test: a client's pace, a silence.
#[expect(clippy::disallowed_methods, reason = "the thread belongs to one test and has nothing else to do")]
pub fn pause(time: Duration) {
    std::thread::sleep(time);
}
