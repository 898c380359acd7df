//! System and access logs.
//!
//! Both go through a [`Sink`]: a bounded buffer that a thread of its own writes out, so that no connection ever waits
//! for a slow disk or a stalled pipe. Levels: per packet or per scanner probe is TRACE or DEBUG, WARN means that
//! someone should look, ERROR that something asked for was not done.

mod access;
mod sink;

use std::{
    io::{self, IsTerminal},
    path::Path,
};

pub(crate) use access::{Access, AccessLog, Detail, Ended};
pub(crate) use sink::{Sink, SinkGuard};

use thiserror::Error;
use tracing::Level;
use tracing_subscriber::{
    EnvFilter,
    fmt::{MakeWriter, time::FormatTime},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Target of access-log lines in `RUST_LOG` directives.
const ACCESS_TARGET: &str = "rpxy_l4::access";

/// Error of setting up logging.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    /// A log file cannot be opened.
    #[error("cannot open the log file {path}: {source} (create the directory, or make it writable for this user)")]
    Open {
        /// The file.
        path: String,
        /// The error of the system.
        source: io::Error,
    },
    /// The writing thread cannot be started.
    #[error("cannot start the log writer thread: {0}")]
    Thread(io::Error),
    /// `RUST_LOG` does not parse.
    #[error("RUST_LOG: {0} (use a level such as info, or directives such as warn,rpxy_l4::tcp=debug)")]
    Filter(String),
    /// Logging was set up before.
    #[error("logging is set up already")]
    Twice,
}

/// The handles of a running log. Dropping it flushes what is buffered.
#[derive(Debug)]
pub(crate) struct Logs {
    /// The access log.
    pub access: AccessLog,
    guards: Vec<SinkGuard>,
}

impl Logs {
    /// Reopens the log files now, for `logrotate` without waiting for the next look.
    pub(crate) fn reopen(&self) {
        for guard in &self.guards {
            guard.reopen();
        }
    }
}

/// Starts logging: to stdout, or to `access.log` and `rpxy-l4.log` in `directory`.
pub(crate) fn start(directory: Option<&Path>) -> Result<Logs, LogError> {
    let filter = filter()?;
    let ansi =
        directory.is_none() && io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none_or(|v| v.is_empty());
    let (system, access, guards) = match directory {
        None => {
            let (sink, guard) = Sink::stdout().map_err(LogError::Thread)?;
            (sink.clone(), AccessLog::among_system_lines(sink, ansi), vec![guard])
        }
        Some(directory) => {
            let (system, system_guard) = open(directory, "rpxy-l4.log")?;
            let (access, access_guard) = open(directory, "access.log")?;
            (system, AccessLog::own_file(access), vec![system_guard, access_guard])
        }
    };
    let layer =
        tracing_subscriber::fmt::layer().with_target(false).with_ansi(ansi).with_timer(Clock).with_writer(system);
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_already| LogError::Twice)?;
    std::panic::set_hook(Box::new(|panic| tracing::error!("internal error, this is a bug: {panic}")));
    Ok(Logs { access, guards })
}

fn filter() -> Result<EnvFilter, LogError> {
    let directives = std::env::var("RUST_LOG").unwrap_or_default();
    let directives = if directives.trim().is_empty() { "info" } else { directives.trim() };
    // What the libraries below say is for their developers; a bare level does not ask for it.
    let quiet = "hickory_proto=error,hickory_resolver=error,hickory_net=error,notify=error,mio=error";
    let all = if directives.contains(['=', ',']) { directives.to_owned() } else { format!("{directives},{quiet}") };
    EnvFilter::try_new(all).map_err(|error| LogError::Filter(error.to_string()))
}

fn open(directory: &Path, name: &str) -> Result<(Sink, SinkGuard), LogError> {
    let path = directory.join(name);
    Sink::file(&path).map_err(|source| LogError::Open { path: path.display().to_string(), source })
}

/// RFC 3339, UTC, microseconds.
#[derive(Debug, Clone, Copy)]
struct Clock;

impl FormatTime for Clock {
    fn format_time(&self, w: &mut tracing_subscriber::fmt::format::Writer<'_>) -> std::fmt::Result {
        write!(w, "{}", timestamp())
    }
}

fn timestamp() -> humantime::Rfc3339Timestamp {
    humantime::format_rfc3339_micros(std::time::SystemTime::now())
}

/// A writer of one log line: `fmt` formats a whole line first and hands it over in one call.
#[derive(Debug)]
pub(crate) struct Line<'a> {
    sink: &'a Sink,
    urgent: bool,
}

impl io::Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        self.sink.push(line, self.urgent);
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Sink {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { sink: self, urgent: false }
    }

    fn make_writer_for(&'a self, meta: &tracing::Metadata<'_>) -> Line<'a> {
        Line { sink: self, urgent: *meta.level() <= Level::WARN }
    }
}
