//! Configuration: from a TOML file to a [`model::Config`] that cannot be wrong, and the watch on that file.
//!
//! [`load`] looks at every key and reports all mistakes at once; a file with one error is not used at all. It errs
//! towards what 0.2.x accepts: a value that worked there is never refused, and what has no effect is a warning.

mod check;
pub(crate) mod ech;
mod file;
mod keys;
pub(crate) mod model;
mod problem;
mod report;
pub(crate) mod schema;
#[cfg(test)]
mod tests;
pub(crate) mod watch;

use std::{
    fs,
    io::{self, Read as _},
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use thiserror::Error;
use zeroize::Zeroizing;

pub(crate) use self::problem::{Problem, Problems, Severity};
use self::{
    check::MOST_BYTES,
    model::{AccessLogFormat, Config},
    report::{Position, Report},
};

/// A usable configuration.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Loaded {
    /// The configuration.
    pub config: Config,
    /// Warnings, in the order of the file's lines.
    pub warnings: Vec<Problem>,
    /// Other files that the configuration was read from (ECH keys). Like the file itself, they may change.
    pub files: Vec<watch::Seen>,
}

/// Error of a configuration file. Displays every problem on its own line, with file and line number.
#[derive(Debug, Error)]
pub(crate) enum LoadError {
    /// The file is missing or may not be read.
    #[error("cannot read the configuration file {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// The file was read and is wrong.
    #[error("{}", problems.in_file(path))]
    Invalid {
        /// The file.
        path: PathBuf,
        /// Its problems.
        problems: Problems,
        /// Other files that it names.
        files: Vec<watch::Seen>,
        /// The form of the access log that it asks for.
        log_format: AccessLogFormat,
    },
}

impl LoadError {
    /// What it says, in lines of their own, the worst first.
    #[must_use]
    pub(crate) fn told_apart(&self) -> Vec<(Severity, String)> {
        match self {
            Self::Unreadable { .. } => vec![(Severity::Error, self.to_string())],
            Self::Invalid { path, problems, .. } => {
                let line = |problem: &Problem| (problem.severity, problem.in_file(path).to_string());
                problems.worst_first().into_iter().map(line).collect()
            }
        }
    }

    /// The form of the access log that the file asks for, as far as it could be read.
    #[must_use]
    pub(crate) fn log_format(&self) -> AccessLogFormat {
        match self {
            Self::Unreadable { .. } => AccessLogFormat::default(),
            Self::Invalid { log_format, .. } => *log_format,
        }
    }

    /// Other files whose change may mend it.
    #[must_use]
    pub(crate) fn files(&self) -> &[watch::Seen] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Invalid { files, .. } => files,
        }
    }
}

/// What `error` says, in lines of their own: the problems of a configuration file, the worst first, or all of it.
#[must_use]
pub(crate) fn told_apart(error: &anyhow::Error) -> Vec<(Severity, String)> {
    match error.downcast_ref() {
        Some(error) => LoadError::told_apart(error),
        None => vec![(Severity::Error, format!("{error:#}"))],
    }
}

/// Reads and checks the configuration file at `path`, and the files that it names, relative to its directory.
///
/// Blocks for as long as reading takes.
///
/// # Errors
///
/// The file cannot be read, or it has at least one error.
pub(crate) fn load(path: &Path) -> Result<Loaded, LoadError> {
    // The text may hold private keys.
    let bytes = text(path).map_err(|error| LoadError::Unreadable { path: path.to_owned(), error })?;
    let directory = path.parent().unwrap_or(Path::new(""));
    let (checked, log_format) = match std::str::from_utf8(&bytes) {
        Ok(text) => {
            let mode = fs::metadata(path).map_or(0, |of| of.mode());
            let checked = check::check(text, directory, mode);
            let log_format = checked.log_format;
            (usable(checked), log_format)
        }
        Err(error) => (Err((not_utf8(&bytes, error.valid_up_to()), Vec::new())), AccessLogFormat::default()),
    };
    checked.map_err(|(problems, files)| LoadError::Invalid { path: path.to_owned(), problems, files, log_format })
}

/// The bytes of a configuration file. It may be a pipe, as `--check` is given one by a shell, and a device without an end.
fn text(path: &Path) -> io::Result<Zeroizing<Vec<u8>>> {
    let file = fs::File::open(path)?;
    let size = usize::try_from(file.metadata()?.len()).unwrap_or(usize::MAX);
    // Bytes that may hold keys are not moved about.
    let mut bytes = Zeroizing::new(Vec::with_capacity(size.min(MOST_BYTES).saturating_add(1)));
    file.take(MOST_BYTES as u64 + 1).read_to_end(&mut bytes)?;
    if bytes.len() > MOST_BYTES {
        return Err(io::Error::other(format!("it has more than {} MiB", MOST_BYTES >> 20)));
    }
    Ok(bytes)
}

/// Checks the text of a configuration file. Relative paths in it start at the current directory.
///
/// # Errors
///
/// The text is not TOML (one problem), or at least one key is wrong (all problems).
#[cfg(any(test, feature = "properties"))]
pub(crate) fn parse(text: &str) -> Result<Loaded, Problems> {
    usable(check::check(text, Path::new(""), 0)).map_err(|(problems, _)| problems)
}

fn usable(checked: check::Checked) -> Result<Loaded, (Problems, Vec<watch::Seen>)> {
    let check::Checked { config, problems, files, .. } = checked;
    match config {
        Some(config) => Ok(Loaded { config, warnings: problems, files }),
        None => Err((Problems::new(problems), files)),
    }
}

fn not_utf8(bytes: &[u8], valid_up_to: usize) -> Problems {
    let valid = bytes.get(..valid_up_to).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default();
    let mut report = Report::new(valid);
    report.error(&Position { path: String::new(), offset: valid_up_to }, "the file is not UTF-8 text");
    Problems::new(report.finish())
}
