//! Problems of a configuration file, in the words that an operator reads.
//!
//! A problem names the key, the line and, where there is an obvious one, the remedy. Private keys are never quoted.

use std::{
    error::Error,
    fmt,
    path::{Path, PathBuf},
};

/// Severity of a [`Problem`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// The file is not used.
    Error,
    /// The file is used; somebody should look.
    Warning,
}

impl Severity {
    /// The word in front of a line.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong with a configuration file.
///
/// Displays as `LINE: PATH: message (remedy)`; [`Problem::in_file`] puts the file's name in front.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// An error, or a warning.
    pub severity: Severity,
    /// The included file that it is in; none for the file itself.
    pub file: Option<PathBuf>,
    /// The key, as in `protocols."web".target[0]`; empty when the problem belongs to no key.
    pub path: String,
    /// Line in the file, from 1. A missing key is reported at its table, or at line 1.
    pub line: usize,
    /// Column in the line, in characters, from 1.
    pub column: usize,
    /// The message: lower case, without a full stop.
    pub message: String,
    /// A way to mend it.
    pub remedy: Option<String>,
}

impl Problem {
    /// This problem with the name of its file in front, which is `file` unless it is included:
    /// `FILE:LINE: PATH: message (remedy)`.
    pub fn in_file<'a>(&'a self, file: &'a Path) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| write!(f, "{}:{self}", self.file.as_deref().unwrap_or(file).display()))
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.line)?;
        if !self.path.is_empty() {
            write!(f, "{}: ", self.path)?;
        }
        write!(f, "{}", self.message)?;
        match &self.remedy {
            Some(remedy) => write!(f, " ({remedy})"),
            None => Ok(()),
        }
    }
}

/// All problems of an unusable file in the order of its lines; at least one is an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    pub(super) fn new(problems: Vec<Problem>) -> Self {
        debug_assert!(problems.iter().any(|problem| problem.severity == Severity::Error), "{problems:?}");
        Self(problems)
    }

    /// The problems, errors and warnings mixed, in the order of the file's lines.
    pub fn iter(&self) -> std::slice::Iter<'_, Problem> {
        self.0.iter()
    }

    /// The problems, the worst first, otherwise in the order of the file's lines.
    #[must_use]
    pub fn worst_first(&self) -> Vec<&Problem> {
        let mut problems: Vec<&Problem> = self.0.iter().collect();
        problems.sort_by_key(|problem| problem.severity);
        problems
    }

    /// These problems, one a line, with the name of their file in front.
    pub fn in_file<'a>(&'a self, file: &'a Path) -> impl fmt::Display + 'a {
        fmt::from_fn(move |f| self.lines(f, Some(file)))
    }

    fn lines(&self, f: &mut fmt::Formatter<'_>, file: Option<&Path>) -> fmt::Result {
        for (index, problem) in self.0.iter().enumerate() {
            if index > 0 {
                f.write_str("\n")?;
            }
            match file {
                Some(file) => write!(f, "{}", problem.in_file(file))?,
                None => write!(f, "{problem}")?,
            }
            if problem.severity == Severity::Warning {
                f.write_str(" [warning]")?;
            }
        }
        Ok(())
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.lines(f, None)
    }
}

impl Error for Problems {}

impl<'a> IntoIterator for &'a Problems {
    type Item = &'a Problem;
    type IntoIter = std::slice::Iter<'a, Problem>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problem(severity: Severity, remedy: Option<&str>) -> Problem {
        Problem {
            severity,
            file: None,
            path: "listen_port".into(),
            line: 3,
            column: 1,
            message: "invalid port 0".into(),
            remedy: remedy.map(Into::into),
        }
    }

    #[test]
    fn one_line_has_file_line_path_message_and_remedy() {
        let file = Path::new("a.toml");
        let with = problem(Severity::Error, Some("use 1 to 65535"));
        assert_eq!(with.in_file(file).to_string(), "a.toml:3: listen_port: invalid port 0 (use 1 to 65535)");
        let without = Problem { path: String::new(), ..problem(Severity::Error, None) };
        assert_eq!(without.to_string(), "3: invalid port 0");
    }

    #[test]
    fn every_problem_has_its_own_line_and_warnings_are_marked() {
        let problems = Problems::new(vec![problem(Severity::Error, None), problem(Severity::Warning, None)]);
        assert_eq!(
            problems.in_file(Path::new("a.toml")).to_string(),
            "a.toml:3: listen_port: invalid port 0\na.toml:3: listen_port: invalid port 0 [warning]"
        );
    }
}
