//! What the programs tell of each packet, passed on to `tracing`: only where the object was built to tell it
//! (`cargo xtask build-ebpf --log`).
//!
//! The programs keep the rate (`rpxy_l4_common::map::log_state`) and never wait: what there is no room for is not told.
//! The thread that reads counts what is missing.

use std::{
    fmt, io,
    os::fd::{AsFd as _, OwnedFd},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread::{Builder, JoinHandle},
};

use aya::{
    Ebpf,
    maps::{Array, MapData, MapError},
};
use aya_log::EbpfLogger;
use rpxy_l4_common::map::{log_state, name};
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
    pipe::{PipeFlags, pipe_with},
};
use thiserror::Error;

/// The target of the messages in `RUST_LOG` directives.
const TARGET: &str = "rpxy_l4::ebpf";
/// How often missing messages are reported while others arrive, and after the last one.
const REPORT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Levels of aya-log that a program can be told to keep to.
const OFF: u8 = 0;
const DEBUG: u8 = aya_log::Level::Debug as u8;
const TRACE: u8 = aya_log::Level::Trace as u8;

/// Why the messages of the programs cannot be read.
#[derive(Debug, Error)]
pub(super) enum LogError {
    #[error("cannot open the ring of messages: {0}")]
    Ring(#[from] aya_log::Error),
    #[error("cannot open the count of messages: {0}")]
    Count(#[from] MapError),
    #[error("cannot start a thread: {0}")]
    Thread(#[from] io::Error),
}

/// Returns the level that the programs are to keep to, by what `RUST_LOG` asks for.
pub(super) fn level() -> u8 {
    if tracing::enabled!(target: TARGET, tracing::Level::TRACE) {
        TRACE
    } else if tracing::enabled!(target: TARGET, tracing::Level::DEBUG) {
        DEBUG
    } else {
        OFF
    }
}

/// The thread that reads what the programs tell. It ends when this is dropped.
pub(crate) struct VerdictLog {
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
}

impl VerdictLog {
    /// Starts reading, on a thread that begins with `enter`, if the object tells anything at this [`level`].
    pub(super) fn start(ebpf: &mut Ebpf, level: u8, enter: &Arc<dyn Fn() + Send + Sync>) -> Option<Self> {
        ebpf.map(name::LOG_STATE)?;
        if level == OFF {
            tracing::info!("kernel plane: built to log verdicts, which RUST_LOG={TARGET}=debug turns on");
            return None;
        }
        Self::try_start(ebpf, Arc::clone(enter))
            .inspect(|_| tracing::info!("kernel plane: verdicts are logged as {TARGET}"))
            .inspect_err(|error| tracing::warn!("kernel plane: verdicts are not logged: {error}"))
            .ok()
    }

    fn try_start(ebpf: &mut Ebpf, enter: Arc<dyn Fn() + Send + Sync>) -> Result<Self, LogError> {
        let reader = Reader::new(ebpf)?;
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).map_err(io::Error::from)?;
        let thread = Builder::new().name("verdicts".to_owned()).spawn(move || {
            enter();
            reader.run(&stopped);
        })?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for VerdictLog {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("internal error: the thread that reads verdicts has failed");
        }
    }
}

impl fmt::Debug for VerdictLog {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerdictLog").finish_non_exhaustive()
    }
}

struct Reader {
    ring: EbpfLogger<Forward>,
    state: Array<MapData, u64>,
    count: Count,
}

impl Reader {
    fn new(ebpf: &mut Ebpf) -> Result<Self, LogError> {
        let state = ebpf.take_map(name::LOG_STATE).ok_or(aya_log::Error::MapNotFound)?;
        let count = Count::default();
        let ring = EbpfLogger::init_with_logger(ebpf, Forward(Arc::clone(&count.read)))?;
        Ok(Self { ring, state: state.try_into()?, count })
    }

    fn run(mut self, stopped: &OwnedFd) {
        loop {
            let ring = self.ring.as_fd();
            let mut both = [PollFd::new(stopped, PollFlags::IN), PollFd::new(&ring, PollFlags::IN)];
            match poll(&mut both, Some(&REPORT)) {
                Ok(_) | Err(Errno::INTR) => {}
                Err(error) => return tracing::warn!("kernel plane: verdicts are no longer logged: {error}"),
            }
            if !both[0].revents().is_empty() {
                return;
            }
            let is_quiet = both[1].revents().is_empty();
            // Read first: messages that come later are not missing.
            let all = self.state.get(&log_state::MESSAGES, 0).unwrap_or_default();
            self.ring.flush();
            if let Some(missing) = self.count.missing(all, is_quiet) {
                tracing::debug!(target: TARGET, "{missing} messages were withheld");
            }
        }
    }
}

/// How many messages were read, and how many are known to be missing.
#[derive(Default)]
struct Count {
    read: Arc<AtomicU64>,
    reported: u64,
}

impl Count {
    /// Returns how many more are missing of `all`, when that is to be said: in a pause, or for each thousand.
    fn missing(&mut self, all: u64, is_quiet: bool) -> Option<u64> {
        let missing = all.saturating_sub(self.read.load(Ordering::Relaxed)).saturating_sub(self.reported);
        if missing == 0 || (missing < 1000 && !is_quiet) {
            return None;
        }
        self.reported += missing;
        Some(missing)
    }
}

/// Hands messages to `tracing`, at their level.
struct Forward(Arc<AtomicU64>);

impl log::Log for Forward {
    fn enabled(&self, _: &log::Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &log::Record<'_>) {
        self.0.fetch_add(1, Ordering::Relaxed);
        // Padded by the programs.
        let message = record.args().to_string();
        let message = message.trim_end();
        if record.level() == log::Level::Trace {
            tracing::trace!(target: TARGET, "{message}");
        } else {
            tracing::debug!(target: TARGET, "{message}");
        }
    }

    fn flush(&self) {}
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_missing_is_said_once() {
        let mut count = Count::default();
        // (name, read meanwhile, messages that there were, quiet, missing)
        let rows = [
            ("nothing yet", 0, 0, true, None),
            ("all were read", 5, 5, true, None),
            ("more were read than there were a moment ago", 3, 7, false, None),
            ("a few are missing", 0, 10, false, None),
            ("in the pause", 0, 10, true, Some(2)),
            ("said once", 0, 10, true, None),
            ("a flood", 200, 5000, false, Some(4790)),
            ("its end", 0, 5001, true, Some(1)),
        ];
        for (name, read, all, is_quiet, expected) in rows {
            count.read.fetch_add(read, Ordering::Relaxed);
            assert_eq!(count.missing(all, is_quiet), expected, "{name}");
        }
    }
}
