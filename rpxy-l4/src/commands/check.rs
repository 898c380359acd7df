//! `rpxy-l4 --check`.

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;

use crate::config;

/// Checks the configuration in `file`: the verdict goes to the standard output, warnings to the standard error.
///
/// # Errors
///
/// The file cannot be used.
pub(crate) fn check(file: &Path) -> Result<()> {
    let loaded = config::load(file)?;
    // A terminal that is gone does not change the verdict.
    for warning in &loaded.warnings {
        drop(writeln!(io::stderr(), "warning: {}", warning.in_file(file)));
    }
    drop(writeln!(io::stdout(), "{} is valid", file.display()));
    Ok(())
}
