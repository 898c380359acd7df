//! Ends a test that hangs: says which one and what it waits for, removes what the process has on the machine, and aborts.
//!
//! Waits of the kit have limits of their own and fail their test alone. This is for the rest: a program that never
//! ends, a thread that is waited for and never told to stop. A thread cannot be ended, so the process is.

use std::{
    env,
    fmt::Write as _,
    fs,
    io::Write as _,
    process,
    sync::{Mutex, MutexGuard, Once, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use crate::{owned, wait::pause, waiting};

/// Lifetime of one network of a test. The longest of today needs about a minute.
const LIMIT: Duration = Duration::from_secs(15 * 60);
/// Replaces the limit, in seconds.
pub(crate) const LIMIT_VARIABLE: &str = "RPXY_L4_TESTS_LIMIT";
/// Time for the clean-up.
const CLEAN_UP: Duration = Duration::from_secs(60);

static STATE: Mutex<State> = Mutex::new(State { next: 0, tests: Vec::new() });

struct State {
    next: u64,
    tests: Vec<Test>,
}

struct Test {
    number: u64,
    thread: String,
    since: Instant,
}

fn state() -> MutexGuard<'static, State> {
    STATE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Watches the test of the calling thread until it is dropped.
#[derive(Debug)]
pub(crate) struct Watched(u64);

impl Watched {
    pub(crate) fn begin() -> Self {
        static STARTED: Once = Once::new();
        STARTED.call_once(|| drop(thread::spawn(watch)));
        let mut state = state();
        let number = state.next;
        state.next += 1;
        let thread = thread::current().name().unwrap_or("helper").to_owned();
        state.tests.push(Test { number, thread, since: Instant::now() });
        Self(number)
    }
}

impl Drop for Watched {
    fn drop(&mut self) {
        state().tests.retain(|test| test.number != self.0);
    }
}

fn watch() {
    let limit = env::var(LIMIT_VARIABLE).ok().and_then(|text| text.parse().ok()).map_or(LIMIT, Duration::from_secs);
    loop {
        pause(Duration::from_secs(1).min(limit));
        let hanging = {
            let state = state();
            let oldest = state.tests.iter().find(|test| test.since.elapsed() > limit);
            oldest.map(|test| report(&test.thread, test.since.elapsed()))
        };
        if let Some(report) = hanging {
            end(&report);
        }
    }
}

fn report(test: &str, running: Duration) -> String {
    let mut text = format!("\nTEST HANGS: {test} runs for {} s; the process is ended\n", running.as_secs());
    text += &waiting::transcript();
    for thread in fs::read_dir("/proc/self/task").into_iter().flatten().flatten() {
        let read = |name: &str| fs::read_to_string(thread.path().join(name)).unwrap_or_default();
        let (name, at) = (read("comm"), read("wchan"));
        // Writing to a String cannot fail.
        let _infallible = writeln!(text, "  thread {} in {at}", name.trim());
    }
    text
}

fn end(report: &str) -> ! {
    // Past libtest's capture. A closed stderr does not matter.
    let _unseen = std::io::stderr().lock().write_all(report.as_bytes());
    let (sender, done) = mpsc::channel();
    thread::spawn(move || {
        owned::remove_own();
        let _late = sender.send(());
    });
    let _too_long = done.recv_timeout(CLEAN_UP);
    process::abort();
}

#[cfg(test)]
mod tests {
    use std::{os::unix::process::ExitStatusExt as _, path::Path, process::Command};

    use rustix::process::Signal;

    use super::*;
    use crate::{host::RUN_DIRECTORY, privilege, process::Process, topology::Topology, waiting::Waiting};

    /// Makes [`hangs`] hang.
    const HANG_VARIABLE: &str = "RPXY_L4_TESTS_HANG";

    /// The other half of [`a_test_that_hangs_is_ended_with_a_message`], in a process of its own.
    #[test]
    fn hangs() {
        if env::var_os(HANG_VARIABLE).is_none() {
            return;
        }
        let Some(net) = Topology::or_skip() else { return };
        let _program = Process::spawn("sleep", net.client.command("sleep").arg("3600")).unwrap();
        let directory = owned::directory();
        let _waiting = Waiting::begin("somebody comes");
        std::io::stdout().write_all(format!("directory {}\n", directory.path().display()).as_bytes()).unwrap();
        loop {
            thread::park();
        }
    }

    #[test]
    fn a_test_that_hangs_is_ended_with_a_message() {
        if privilege::missing().is_some() {
            return assert!(!privilege::required());
        }
        let mut command = Command::new(env::current_exe().unwrap());
        command.args(["--exact", "--nocapture", "watchdog::tests::hangs"]);
        command.env(HANG_VARIABLE, "1").env(LIMIT_VARIABLE, "1");
        command.stdout(process::Stdio::piped()).stderr(process::Stdio::piped());
        let child = command.spawn().unwrap();
        let namespaces = format!("rx{}-", child.id());
        let output = child.wait_with_output().unwrap();
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.signal(), Some(Signal::ABORT.as_raw()), "{said}");
        for text in ["TEST HANGS: watchdog::tests::hangs", "waits until somebody comes"] {
            assert!(said.contains(text), "{text} is missing: {said}");
        }
        let out = String::from_utf8_lossy(&output.stdout).into_owned();
        let directory = out.lines().find_map(|line| line.split_once("directory ")).unwrap().1;
        assert!(!Path::new(directory).exists(), "{directory} is left");
        let left = fs::read_dir(RUN_DIRECTORY).unwrap().flatten();
        let left: Vec<_> = left.filter(|entry| entry.file_name().to_string_lossy().starts_with(&namespaces)).collect();
        assert!(left.is_empty(), "{left:?}");
    }
}
