//! Signals as events.

use std::io;

use tokio::signal::unix::{Signal as Stream, SignalKind, signal};

/// Meaning of a signal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Signal {
    /// SIGHUP: read the configuration again and reopen the log files.
    Reload,
    /// SIGUSR1: reopen the log files.
    Reopen,
    /// SIGTERM, SIGINT or SIGQUIT: finish.
    Stop,
}

/// The signals that the daemon handles.
#[derive(Debug)]
pub(super) struct Signals {
    hangup: Stream,
    user1: Stream,
    user2: Stream,
    terminate: Stream,
    interrupt: Stream,
    quit: Stream,
    /// SIGXFSZ, never looked at: a log that may not grow is told of by write(2).
    _file_size: Stream,
}

impl Signals {
    /// Takes the signals over from their default action, which is to end the process.
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            user1: signal(SignalKind::user_defined1())?,
            user2: signal(SignalKind::user_defined2())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
            quit: signal(SignalKind::quit())?,
            _file_size: signal(SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw()))?,
        })
    }

    /// The next signal. Cancel-safe.
    pub(super) async fn next(&mut self) -> Signal {
        loop {
            tokio::select! {
                _ = self.hangup.recv() => return Signal::Reload,
                _ = self.user1.recv() => return Signal::Reopen,
                _ = self.terminate.recv() => return Signal::Stop,
                _ = self.interrupt.recv() => return Signal::Stop,
                _ = self.quit.recv() => return Signal::Stop,
                _ = self.user2.recv() => tracing::info!("SIGUSR2 ignored: it has no meaning here"),
            }
        }
    }
}
