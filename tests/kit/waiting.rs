//! Notes of what threads wait for, so that the [watchdog](crate::watchdog) can tell it of a test that hangs.

use std::{
    fmt::Write as _,
    sync::{Mutex, MutexGuard, PoisonError},
    thread,
    time::Instant,
};

static NOTES: Mutex<Notes> = Mutex::new(Notes { next: 0, waits: Vec::new() });

struct Notes {
    next: u64,
    waits: Vec<Wait>,
}

struct Wait {
    number: u64,
    thread: String,
    what: String,
    since: Instant,
}

fn notes() -> MutexGuard<'static, Notes> {
    NOTES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Notes what the calling thread waits for, until it is dropped.
#[derive(Debug)]
#[must_use]
pub(crate) struct Waiting(u64);

impl Waiting {
    pub(crate) fn begin(what: &str) -> Self {
        let mut notes = notes();
        let number = notes.next;
        notes.next += 1;
        let thread = thread::current().name().unwrap_or("helper").to_owned();
        notes.waits.push(Wait { number, thread, what: what.to_owned(), since: Instant::now() });
        Self(number)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        notes().waits.retain(|wait| wait.number != self.0);
    }
}

/// All notes, one indented line each.
pub(crate) fn transcript() -> String {
    let mut text = String::new();
    for wait in &notes().waits {
        let waited = wait.since.elapsed().as_secs();
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "  {} waits until {} ({waited} s)", wait.thread, wait.what);
    }
    text
}
