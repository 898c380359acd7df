//! A child process that cannot outlive its test, and whose output can be waited for.
//!
//! Output is kept, not shown; it is shown when the guard is dropped while a panic unwinds, so that a failing test tells
//! what its programs said.

use std::{
    fmt::Write as _,
    io::{BufRead as _, BufReader, Read},
    process::{Command, ExitStatus, Stdio},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

use crate::waiting::Waiting;

/// Limit of anything that is expected to happen: far beyond what a busy machine needs. A guard against hanging for ever,
/// not a measurement.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// A running program in a process group of its own; dropping it kills the group.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: std::process::Child,
    output: Arc<Output>,
}

#[derive(Debug, Default)]
struct Output {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct State {
    lines: Vec<String>,
    /// Streams that reached their end, of two.
    ended: usize,
}

impl Output {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Process {
    /// Starts `command` with its output captured and its input empty. `name` stands for it in messages.
    ///
    /// # Errors
    ///
    /// When the program cannot be started.
    pub fn spawn(name: &str, command: &mut Command) -> anyhow::Result<Self> {
        use std::os::unix::process::CommandExt as _;
        let mut child = command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .process_group(0)
            .spawn()
            .with_context(|| format!("{name}: {command:?}"))?;
        let output = Arc::new(Output::default());
        if let Some(stream) = child.stdout.take() {
            collect(stream, Arc::clone(&output));
        }
        if let Some(stream) = child.stderr.take() {
            collect(stream, Arc::clone(&output));
        }
        Ok(Self { name: name.to_owned(), child, output })
    }

    /// Process id, which is also the id of the group.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Lines of standard output and standard error so far, in order of arrival.
    pub fn lines(&self) -> Vec<String> {
        self.output.lock().lines.clone()
    }

    /// Number of lines so far: a position to wait from, see [`Process::wait_for`].
    pub fn mark(&self) -> usize {
        self.output.lock().lines.len()
    }

    /// Waits for a line that contains `text`, also among those already there, and returns it.
    ///
    /// # Errors
    ///
    /// When the output ends, or nothing comes within [`PATIENCE`]; the error holds the output.
    pub fn wait_for_line(&self, text: &str) -> anyhow::Result<String> {
        self.wait_for(0, &format!("a line with {text:?}"), |line| line.contains(text))
    }

    /// Waits for a line from number `from` on that `wanted` accepts, and returns it. `what` names it in the error.
    ///
    /// # Errors
    ///
    /// When the output ends, or nothing comes within [`PATIENCE`]; the error holds the output.
    pub fn wait_for(&self, from: usize, what: &str, wanted: impl Fn(&str) -> bool) -> anyhow::Result<String> {
        let _waiting = Waiting::begin(&format!("{} writes {what}", self.name));
        let deadline = Instant::now() + PATIENCE;
        let mut state = self.output.lock();
        let mut next = from;
        loop {
            while let Some(line) = state.lines.get(next) {
                if wanted(line) {
                    return Ok(line.clone());
                }
                next += 1;
            }
            let left = deadline.saturating_duration_since(Instant::now());
            if state.ended == 2 || left.is_zero() {
                let why = if left.is_zero() { "did not write" } else { "ended without" };
                drop(state);
                bail!("{} {why} {what}; it wrote:\n{}", self.name, self.transcript());
            }
            state = self.output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Sends a signal to the program, not to its group.
    ///
    /// # Errors
    ///
    /// When the program has ended.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        kill_process(self.group(), signal).with_context(|| format!("{}: signal {signal:?}", self.name))
    }

    /// Returns true while the program runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Waits until the program has ended and all its output has been read.
    ///
    /// # Errors
    ///
    /// When it does not end within [`PATIENCE`].
    pub fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.wait_within(PATIENCE)
    }

    /// As [`Process::wait`], for a program that rightly takes longer.
    ///
    /// # Errors
    ///
    /// When it does not end within `time`.
    pub fn wait_within(&mut self, time: Duration) -> anyhow::Result<ExitStatus> {
        let _waiting = Waiting::begin(&format!("{} ends", self.name));
        // The end of both streams is the event; the exit follows at once.
        let deadline = Instant::now() + time;
        let mut state = self.output.lock();
        while state.ended < 2 {
            let left = deadline.saturating_duration_since(Instant::now());
            if left.is_zero() {
                drop(state);
                bail!("{} did not end; it wrote:\n{}", self.name, self.transcript());
            }
            state = self.output.changed.wait_timeout(state, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        self.child.wait().with_context(|| self.name.clone())
    }

    /// All output as one indented text, for messages.
    pub fn transcript(&self) -> String {
        let mut text = String::new();
        for line in &self.output.lock().lines {
            // Writing to a String cannot fail.
            let _infallible = writeln!(text, "  {} | {line}", self.name);
        }
        text
    }

    fn group(&self) -> Pid {
        Pid::from_child(&self.child)
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "libtest captures only the print macros and shows them for failed tests")]
    fn drop(&mut self) {
        // The group may be gone already; what is left of it must not outlive the test.
        let _gone = kill_process_group(self.group(), Signal::KILL);
        let _reaped = self.child.wait();
        if thread::panicking() {
            eprint!("{}", self.transcript());
        }
    }
}

fn collect(stream: impl Read + Send + 'static, output: Arc<Output>) {
    thread::spawn(move || {
        let mut reader = BufReader::new(stream);
        let mut line = Vec::new();
        while reader.read_until(b'\n', &mut line).is_ok_and(|count| count > 0) {
            let text = String::from_utf8_lossy(&line).trim_end().to_owned();
            output.lock().lines.push(text);
            output.changed.notify_all();
            line.clear();
        }
        output.lock().ended += 1;
        output.changed.notify_all();
    });
}
