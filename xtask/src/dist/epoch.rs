//! The time that every file of a release has: that of the commit, or `SOURCE_DATE_EPOCH`
//! (<https://reproducible-builds.org/specs/source-date-epoch/>).

use std::fmt;
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;

/// Seconds since 1970.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Epoch(u64);

impl Epoch {
    /// That of the environment, or else of the last commit.
    pub(super) fn of(workspace: &Workspace) -> Result<Self> {
        let text = match std::env::var("SOURCE_DATE_EPOCH") {
            Ok(text) => text,
            Err(_unset) => {
                let mut git = Command::new("git");
                process::read(git.current_dir(&workspace.root).args(["log", "-1", "--format=%ct"]))?
            }
        };
        Ok(Self(text.trim().parse().context("SOURCE_DATE_EPOCH is no number of seconds")?))
    }

    /// As YYYY-MM-DD.
    pub(super) fn day(self) -> Result<String> {
        self.format("%Y-%m-%d")
    }

    /// As date(1) writes it by `format`, in UTC.
    pub(super) fn format(self, format: &str) -> Result<String> {
        let mut date = Command::new("date");
        date.env("LC_ALL", "C").args(["--utc", &format!("--date=@{self}"), &format!("+{format}")]);
        Ok(process::read(&mut date)?.trim().to_owned())
    }

    /// Gives everything below `directory` this time.
    pub(super) fn stamp(self, directory: &Path) -> Result<()> {
        let touch = format!("--date=@{self}");
        let mut find = Command::new("find");
        find.arg(directory).args(["-exec", "touch", "--no-dereference", &touch, "{}", "+"]);
        process::read(&mut find).map(drop)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_written_in_utc() {
        assert_eq!(Epoch(86_399).day().unwrap(), "1970-01-01");
        assert_eq!(Epoch(86_400).format("%Y-%m-%dT%H:%M:%SZ").unwrap(), "1970-01-02T00:00:00Z");
    }
}
