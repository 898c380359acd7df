//! A bounded line buffer and the thread that writes it out.
//!
//! Pushing a line takes a short lock and, once per batch, a wake-up. When the output cannot keep up, or cannot be written
//! to, lines are dropped and counted rather than held back: a stalled pipe or a full disk must not stall the proxy. Files
//! are reopened after a rotation.

use std::{
    fmt, io, mem,
    path::Path,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use super::{
    form::Form,
    output::{Event, Output},
};
use crate::{config::Severity, metrics::Metrics};

/// Lines collect for this long before they are written, unless one of them is urgent.
const BATCH: Duration = Duration::from_millis(20);
/// Bytes that may wait to be written.
const CAPACITY: usize = 4 << 20;
/// Longest wait of the end of the process for a stalled output.
const LAST_FLUSH: Duration = Duration::from_secs(2);

/// The pushing end. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sink {
    buffer: Arc<Buffer>,
}

/// Owns the writing thread; dropping it writes what is left.
#[derive(Debug)]
pub(crate) struct SinkGuard {
    buffer: Arc<Buffer>,
    writer: Option<JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Buffer {
    pending: Mutex<Pending>,
    wake: Condvar,
    finished: Condvar,
}

#[derive(Debug, Default)]
struct Pending {
    lines: Vec<u8>,
    lost: u64,
    urgent: bool,
    reopen: bool,
    task: Option<Task>,
    closed: bool,
    done: bool,
}

/// Something that the writing thread does once.
struct Task(Box<dyn FnOnce() + Send>);

impl fmt::Debug for Task {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Task")
    }
}

impl Buffer {
    fn lock(&self) -> MutexGuard<'_, Pending> {
        // A panic while holding the lock leaves a usable buffer.
        self.pending.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Sink {
    /// Writes to the standard output.
    pub(crate) fn stdout(form: &Form, metrics: &Arc<Metrics>) -> io::Result<(Self, SinkGuard)> {
        Self::start(Output::stdout(), form, metrics)
    }

    /// Appends to the file at `path`, which is created when missing and reopened when it was renamed or removed.
    pub(crate) fn file(path: &Path, form: &Form, metrics: &Arc<Metrics>) -> io::Result<(Self, SinkGuard)> {
        Self::start(Output::file(path)?, form, metrics)
    }

    /// Writes nothing. What is pushed is lost once the buffer is full.
    pub(super) fn nowhere() -> Self {
        Self { buffer: Arc::default() }
    }

    /// Adds one line, which ends in a newline. An urgent line is written at once.
    pub(crate) fn push(&self, line: &[u8], urgent: bool) {
        let mut pending = self.buffer.lock();
        if pending.lines.len() + line.len() > CAPACITY {
            pending.lost += 1;
            return;
        }
        let wake = pending.lines.is_empty() || (urgent && !pending.urgent);
        pending.lines.extend_from_slice(line);
        pending.urgent |= urgent;
        drop(pending);
        if wake {
            self.buffer.wake.notify_one();
        }
    }

    fn start(output: Output, form: &Form, metrics: &Arc<Metrics>) -> io::Result<(Self, SinkGuard)> {
        let buffer = Arc::new(Buffer::default());
        let for_writer = Arc::clone(&buffer);
        let (form, metrics) = (form.clone(), Arc::clone(metrics));
        let tell = move |event: Event<'_>| match event {
            Event::Lost(lines) => metrics.log_lines_lost(lines),
            // Lines like any others of the system log, which may be this very sink.
            Event::TooSlow(lines) => tracing::warn!("{lines} log lines lost: the output was too slow"),
            Event::Recovered(output, lines) => {
                tracing::warn!("{output} can be written again: {lines} log lines were lost");
            }
            // The log that would tell may be the one that fails.
            Event::Failed(output, error) => {
                form.say(Severity::Error, &format_args!("{output} cannot be written, log lines are lost: {error}"));
            }
        };
        let writer =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || write_out(&for_writer, output, &tell))?;
        Ok((Self { buffer: Arc::clone(&buffer) }, SinkGuard { buffer, writer: Some(writer) }))
    }
}

impl SinkGuard {
    /// Reopens the file before the next line.
    pub(crate) fn reopen(&self) {
        self.buffer.lock().reopen = true;
    }

    /// Has the writing thread do something, and waits for the result; `None` if that thread is gone.
    pub(crate) fn on_thread<R: Send + 'static>(&self, work: impl FnOnce() -> R + Send + 'static) -> Option<R> {
        let (done, result) = mpsc::sync_channel(1);
        self.buffer.lock().task = Some(Task(Box::new(move || drop(done.send(work())))));
        self.buffer.wake.notify_one();
        result.recv().ok()
    }
}

impl Drop for SinkGuard {
    fn drop(&mut self) {
        let Some(writer) = self.writer.take() else { return };
        let mut pending = self.buffer.lock();
        pending.closed = true;
        self.buffer.wake.notify_one();
        let deadline = Instant::now() + LAST_FLUSH;
        while !pending.done {
            let Some(left) = deadline.checked_duration_since(Instant::now()) else { return };
            pending = self.buffer.finished.wait_timeout(pending, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(pending);
        drop(writer.join());
    }
}

/// Writes until the guard is gone and everything is out; `tell` hears what is lost.
fn write_out(buffer: &Buffer, mut output: Output, tell: &dyn Fn(Event<'_>)) {
    let mut batch = Vec::new();
    loop {
        let mut pending = buffer.lock();
        while pending.lines.is_empty() && !pending.closed && pending.task.is_none() {
            pending = buffer.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
        }
        if let Some(Task(work)) = pending.task.take() {
            drop(pending);
            work();
            continue;
        }
        if !pending.urgent && !pending.closed {
            let quiet = |pending: &mut Pending| !pending.urgent && !pending.closed;
            pending = buffer.wake.wait_timeout_while(pending, BATCH, quiet).unwrap_or_else(PoisonError::into_inner).0;
        }
        mem::swap(&mut batch, &mut pending.lines);
        let lost = mem::take(&mut pending.lost);
        let reopen = mem::take(&mut pending.reopen);
        pending.urgent = false;
        let last = pending.closed && batch.is_empty();
        drop(pending);

        if lost > 0 {
            tell(Event::Lost(lost));
            tell(Event::TooSlow(lost));
        }
        output.write(&batch, reopen, tell);
        batch.clear();
        batch.shrink_to(64 << 10);
        if last {
            buffer.lock().done = true;
            buffer.finished.notify_all();
            return;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file(path: &Path) -> (Sink, SinkGuard) {
        Sink::file(path, &Form::default(), &Metrics::new()).unwrap()
    }

    #[test]
    fn lines_are_written_in_order_and_before_the_guard_is_gone() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        std::fs::write(&path, "kept\n").unwrap();
        let (sink, guard) = file(&path);
        for n in 0..1000 {
            sink.push(format!("{n}\n").as_bytes(), n % 100 == 0);
        }
        drop(guard);
        let expected: String =
            std::iter::once("kept\n".to_owned()).chain((0..1000).map(|n| format!("{n}\n"))).collect();
        assert_eq!(std::fs::read_to_string(&path).unwrap(), expected);
    }

    #[test]
    fn a_renamed_file_is_opened_anew_when_asked() {
        let directory = tempfile::tempdir().unwrap();
        let (path, old) = (directory.path().join("a.log"), directory.path().join("a.log.1"));
        let (sink, guard) = file(&path);
        std::fs::rename(&path, &old).unwrap();
        guard.reopen();
        sink.push(b"new\n", true);
        drop(guard);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "new\n");
        assert_eq!(std::fs::read_to_string(&old).unwrap(), "");
    }

    #[test]
    fn work_is_done_by_the_thread_that_writes() {
        let directory = tempfile::tempdir().unwrap();
        let (sink, guard) = file(&directory.path().join("a.log"));
        sink.push(b"line\n", false);
        let name = || std::thread::current().name().map(str::to_owned);
        assert_eq!(guard.on_thread(name).flatten().as_deref(), Some("log"));
        drop(guard);
        assert_eq!(std::fs::read_to_string(directory.path().join("a.log")).unwrap(), "line\n");
    }

    #[test]
    fn what_does_not_fit_is_counted_and_told() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        // No thread writes while these are pushed: the output is as slow as can be.
        let sink = Sink { buffer: Arc::default() };
        let line = [b'x'; 1 << 20];
        for _ in 0..CAPACITY / line.len() + 3 {
            sink.push(&line, true);
        }
        sink.buffer.lock().closed = true;
        let (lost, too_slow) = (std::cell::Cell::new(0), std::cell::Cell::new(0));
        write_out(&sink.buffer, Output::file(&path).unwrap(), &|event| match event {
            Event::Lost(lines) => lost.set(lines),
            Event::TooSlow(lines) => too_slow.set(lines),
            Event::Failed(..) | Event::Recovered(..) => panic!("{event:?}"),
        });
        assert_eq!((lost.get(), too_slow.get()), (3, 3));
        assert_eq!(std::fs::metadata(&path).unwrap().len(), CAPACITY as u64);
    }
}
