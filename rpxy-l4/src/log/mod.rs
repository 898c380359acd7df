//! System and access logs.
//!
//! Both go through a [`Sink`]: a bounded buffer that a thread of its own writes out, so that no connection ever waits
//! for a slow disk or a stalled pipe. Levels: per packet or per scanner probe is TRACE or DEBUG, WARN means that
//! someone should look, ERROR that something asked for was not done.

mod access;
mod form;
mod head;
mod latest;
mod output;
mod refused;
mod sink;
mod system;

use std::{io, path::Path, sync::Arc};

pub(crate) use access::{Access, AccessLines, AccessLog, Detail, Ended, Named};
pub(crate) use form::Form;
pub(crate) use refused::{Kind, Refused};
pub(crate) use sink::{Sink, SinkGuard};

use head::Head;
use system::SystemLines;
use thiserror::Error;
use tracing::{Level, level_filters::LevelFilter};
use tracing_subscriber::{EnvFilter, fmt::MakeWriter, layer::SubscriberExt, util::SubscriberInitExt};

use crate::metrics::Metrics;

/// Target of access-log lines in `RUST_LOG` directives.
const ACCESS_TARGET: &str = "rpxy_l4::access";

/// Names of log files: of the system log and of the access log.
pub(crate) const FILES: [&str; 2] = [SYSTEM_FILE, ACCESS_FILE];
const SYSTEM_FILE: &str = "rpxy-l4.log";
const ACCESS_FILE: &str = "access.log";

/// Error of setting up logging.
#[derive(Debug, Error)]
pub(crate) enum LogError {
    /// A log file cannot be opened.
    #[error("cannot open the log file {path}: {error} (create the directory, or make it writable for this user)")]
    Open {
        /// The file.
        path: String,
        /// The error of the system, which the message tells.
        error: io::Error,
    },
    /// The writing thread cannot be started.
    #[error("cannot start the log writer thread: {0}")]
    Thread(io::Error),
    /// `RUST_LOG` does not parse.
    #[error(
        "RUST_LOG: {0} (use one of off, error, warn, info, debug and trace, or directives such as warn,rpxy_l4::tcp=debug)"
    )]
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

impl Logs {
    /// Has each thread that writes do something, and returns the results.
    pub(crate) fn on_each_thread<R: Send + 'static>(&self, work: impl Fn() -> R + Send + Sync + 'static) -> Vec<R> {
        let work = Arc::new(work);
        let on = |guard: &SinkGuard| {
            let work = Arc::clone(&work);
            guard.on_thread(move || work())
        };
        self.guards.iter().filter_map(on).collect()
    }
}

/// Starts logging: to stdout, or to `access.log` and `rpxy-l4.log` in `directory`. Lines that are lost are counted in
/// `metrics`.
pub(crate) fn start(directory: Option<&Path>, form: &Form, metrics: &Arc<Metrics>) -> Result<Logs, LogError> {
    let filter = filter(&std::env::var("RUST_LOG").unwrap_or_default())?;
    let head = if directory.is_none() { Head::of_stdout() } else { Head::Plain };
    let (system, access, guards) = match directory {
        None => {
            let (sink, guard) = Sink::stdout(form, metrics).map_err(LogError::Thread)?;
            (sink.clone(), AccessLog::among_system_lines(sink, head), vec![guard])
        }
        Some(directory) => {
            let open = |name: &str| {
                let path = directory.join(name);
                let opened = Sink::file(&path, form, metrics);
                opened.map_err(|error| LogError::Open { path: path.display().to_string(), error })
            };
            let (system, system_guard) = open(SYSTEM_FILE)?;
            let (access, access_guard) = open(ACCESS_FILE)?;
            (system, AccessLog::own_file(access), vec![system_guard, access_guard])
        }
    };
    let layer =
        tracing_subscriber::fmt::layer().event_format(SystemLines { form: form.clone(), head }).with_writer(system);
    tracing_subscriber::registry().with(filter).with(layer).try_init().map_err(|_already| LogError::Twice)?;
    std::panic::set_hook(Box::new(|panic| {
        // In one line, like everything else.
        let text = panic.to_string().replace('\n', " ");
        tracing::error!("internal error, this is a bug: {text}");
    }));
    Ok(Logs { access, guards })
}

/// The filter that `directives` of `RUST_LOG` describe; `info` where there are none.
fn filter(directives: &str) -> Result<EnvFilter, LogError> {
    let directives = if directives.trim().is_empty() { "info" } else { directives.trim() };
    // A bare word that is no level is taken for the name of a module, and everything else falls silent.
    for word in directives.split(',').map(str::trim) {
        let is_module = word.is_empty() || word.contains(['=', ':', '[', '_']);
        if !is_module && word.parse::<LevelFilter>().is_err() {
            return Err(LogError::Filter(format!("{word:?} is not a level")));
        }
    }
    // What the libraries below say is for their developers; a bare level does not ask for it.
    let quiet = "hickory_proto=error,hickory_resolver=error,hickory_net=error,notify=error,mio=error";
    let all = if directives.contains(['=', ',']) { directives.to_owned() } else { format!("{directives},{quiet}") };
    EnvFilter::try_new(all).map_err(|error| LogError::Filter(error.to_string()))
}

/// Now, by RFC 3339: UTC, microseconds.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_level_is_said_and_not_taken_for_a_module() {
        for (directives, expected) in [
            ("", None),
            (" ", None),
            ("info", None),
            ("WARN", None),
            ("off", None),
            ("3", None),
            ("warn,rpxy_l4::tcp=debug", None),
            ("rpxy_l4::tcp", None),
            ("rpxy_l4", None),
            ("info, rpxy_l4=debug", Some("RUST_LOG: ")),
            ("verbose", Some("\"verbose\" is not a level")),
            ("rpxy_l4=debug,verbose", Some("\"verbose\" is not a level")),
            ("rpxy_l4=verbose", Some("level filter")),
        ] {
            let error = filter(directives).err().map(|error| error.to_string());
            match (&error, expected) {
                (Some(error), Some(expected)) => assert!(error.contains(expected), "{directives}: {error}"),
                (error, expected) => assert_eq!(error.as_deref(), expected, "{directives}"),
            }
        }
    }
}
