//! A bounded line buffer and the thread that writes it out.
//!
//! Pushing a line takes a short lock and, once per batch, a wake-up. When the output cannot keep up, or cannot be written
//! to, lines are dropped and counted rather than held back: a stalled pipe or a full disk must not stall the proxy. Files
//! are reopened after a rotation.

use std::{
    fs::{File, OpenOptions},
    io, mem,
    os::{fd::AsFd as _, unix::fs::MetadataExt},
    path::{Path, PathBuf},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use rustix::event::{PollFd, PollFlags, poll};

use super::form::Form;
use crate::{config::Severity, metrics::Metrics};

/// Lines collect for this long before they are written, unless one of them is urgent.
const BATCH: Duration = Duration::from_millis(20);
/// Bytes that may wait to be written.
const CAPACITY: usize = 4 << 20;
/// Interval of checking whether a file was rotated away.
const ROTATION_CHECK: Duration = Duration::from_secs(1);
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
    closed: bool,
    done: bool,
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
        Self::start(Output::Stdout, form, metrics)
    }

    /// Appends to the file at `path`, which is created when missing and reopened when it was renamed or removed.
    pub(crate) fn file(path: &Path, form: &Form, metrics: &Arc<Metrics>) -> io::Result<(Self, SinkGuard)> {
        Self::start(Output::File(LogFile::open(path)?), form, metrics)
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

/// Something that the operator has to know about an output.
#[derive(Debug)]
enum Event<'a> {
    /// So many lines were lost, for whatever reason.
    Lost(u64),
    /// So many lines did not fit into the buffer.
    TooSlow(u64),
    /// Writing has begun to fail.
    Failed(&'a str, &'a io::Error),
    /// Writing works again; so many lines were lost meanwhile.
    Recovered(&'a str, u64),
}

/// Writes until the guard is gone and everything is out; `tell` hears what is lost.
fn write_out(buffer: &Buffer, mut output: Output, tell: &dyn Fn(Event<'_>)) {
    let name = output.name();
    let mut batch = Vec::new();
    let mut trouble = Trouble::default();
    loop {
        let mut pending = buffer.lock();
        while pending.lines.is_empty() && !pending.closed {
            pending = buffer.wake.wait(pending).unwrap_or_else(PoisonError::into_inner);
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
        trouble.write(&mut output, &batch, reopen, &name, tell);
        batch.clear();
        batch.shrink_to(64 << 10);
        if last {
            buffer.lock().done = true;
            buffer.finished.notify_all();
            return;
        }
    }
}

/// Lines that an output does not take, because its disk is full or its pipe has no reader.
#[derive(Debug, Default)]
struct Trouble {
    /// Lines lost since writing began to fail; `None` while it works.
    lost: Option<u64>,
    /// The last line that was written is not whole.
    torn: bool,
}

impl Trouble {
    /// Writes whole lines. What cannot be written is lost, and said once until it can be again.
    fn write(&mut self, output: &mut Output, batch: &[u8], reopen: bool, name: &str, tell: &dyn Fn(Event<'_>)) {
        if reopen {
            output.reopen();
        }
        if batch.is_empty() {
            return;
        }
        let mut start = 0;
        let mut result = Ok(());
        if self.torn {
            result = output.write(b"\n").map(|_| self.torn = false);
        }
        while let (Ok(()), Some(rest @ [_, ..])) = (&result, batch.get(start..)) {
            match output.write(rest) {
                Ok(0) => result = Err(io::ErrorKind::WriteZero.into()),
                Ok(written) => start += written,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                // A pipe that somebody has made non-blocking: as stalled as any.
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => output.wait(),
                Err(error) => result = Err(error),
            }
        }
        match (result, self.lost) {
            (Ok(()), None) => {}
            (Ok(()), Some(lost)) => {
                self.lost = None;
                tell(Event::Recovered(name, lost));
            }
            (Err(error), before) => {
                let (written, unwritten) = batch.split_at_checked(start).unwrap_or((batch, &[]));
                self.torn |= written.last().is_some_and(|last| *last != b'\n');
                let lost = unwritten.iter().filter(|byte| **byte == b'\n').count() as u64;
                self.lost = Some(before.unwrap_or(0) + lost);
                if before.is_none() {
                    tell(Event::Failed(name, &error));
                }
                tell(Event::Lost(lost));
            }
        }
    }
}

enum Output {
    Stdout,
    File(LogFile),
}

impl Output {
    /// As messages call it.
    fn name(&self) -> String {
        match self {
            Self::Stdout => "the standard output".to_owned(),
            Self::File(file) => file.path.display().to_string(),
        }
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            // Not through the buffer of the standard library, which would keep what could not be written.
            Self::Stdout => Ok(rustix::io::write(io::stdout(), bytes)?),
            Self::File(file) => file.write(bytes),
        }
    }

    /// Waits until there is room.
    fn wait(&self) {
        let stdout = io::stdout();
        let fd = match self {
            Self::Stdout => stdout.as_fd(),
            Self::File(file) => file.file.as_fd(),
        };
        // Should it fail, writing tells more.
        let _ready = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
    }

    fn reopen(&mut self) {
        match self {
            Self::Stdout => {}
            Self::File(file) => file.reopen(),
        }
    }
}

struct LogFile {
    path: PathBuf,
    file: File,
    checked: Instant,
}

impl LogFile {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path)?;
        Ok(Self { path: path.to_owned(), file, checked: Instant::now() })
    }

    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.checked.elapsed() >= ROTATION_CHECK {
            self.checked = Instant::now();
            if self.rotated_away() {
                self.reopen();
            }
        }
        io::Write::write(&mut self.file, bytes)
    }

    /// Where the new file cannot be opened, the old one is better than nothing.
    fn reopen(&mut self) {
        if let Ok(fresh) = Self::open(&self.path) {
            *self = fresh;
        }
    }

    fn rotated_away(&self) -> bool {
        match (self.file.metadata(), std::fs::metadata(&self.path)) {
            (Ok(ours), Ok(there)) => (ours.dev(), ours.ino()) != (there.dev(), there.ino()),
            _ => true,
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
        let told = Told::default();
        write_out(&sink.buffer, Output::File(LogFile::open(&path).unwrap()), &|event| told.hear(&event));
        assert_eq!(told.0.into_inner(), ["lost 3", "too slow 3"]);
        assert_eq!(std::fs::metadata(&path).unwrap().len(), CAPACITY as u64);
    }

    #[derive(Default)]
    struct Told(std::cell::RefCell<Vec<String>>);

    impl Told {
        fn hear(&self, event: &Event<'_>) {
            self.0.borrow_mut().push(match event {
                Event::Lost(lines) => format!("lost {lines}"),
                Event::TooSlow(lines) => format!("too slow {lines}"),
                Event::Failed(_, error) => format!("failed {:?}", error.kind()),
                Event::Recovered(_, lines) => format!("recovered {lines}"),
            });
        }
    }

    #[test]
    fn a_full_disk_is_told_once_and_so_is_its_end() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let told = Told::default();
        let mut trouble = Trouble::default();
        // Every write to it fails as on a full disk (full(4)).
        let mut full = Output::File(LogFile::open(Path::new("/dev/full")).unwrap());
        let mut room = Output::File(LogFile::open(&path).unwrap());
        let mut write = |output: &mut Output, lines: &[u8]| {
            trouble.write(output, lines, false, "a.log", &|event| told.hear(&event));
            told.0.take()
        };
        assert_eq!(write(&mut room, b"1\n"), Vec::<String>::new());
        assert_eq!(write(&mut full, b"2\n3\n"), ["failed StorageFull", "lost 2"]);
        assert_eq!(write(&mut full, b"4\n"), ["lost 1"]);
        assert_eq!(write(&mut full, b""), Vec::<String>::new());
        assert_eq!(write(&mut room, b"5\n"), ["recovered 3"]);
        assert_eq!(write(&mut full, b"6\n"), ["failed StorageFull", "lost 1"]);
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "1\n5\n");
    }

    #[test]
    fn a_line_that_fits_in_part_is_ended_before_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("a.log");
        let mut trouble = Trouble { lost: Some(1), torn: true };
        std::fs::write(&path, "half of a li").unwrap();
        let mut room = Output::File(LogFile::open(&path).unwrap());
        trouble.write(&mut room, b"whole\n", false, "a.log", &|_| ());
        assert_eq!(std::fs::read_to_string(&path).unwrap(), "half of a li\nwhole\n");
    }
}
