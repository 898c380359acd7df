//! `cargo xtask pages`: manual pages and completions, as packages have them.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};

use crate::process;
use crate::workspace::Workspace;

/// Arguments of `cargo xtask pages`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Where to write them [default: target/pages]
    #[arg(long, value_name = "DIRECTORY")]
    out: Option<PathBuf>,
}

/// Writes the pages of the working tree.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let directory = arguments.out.clone().unwrap_or_else(|| workspace.scratch("pages"));
    write(workspace, &directory, &date(workspace)?)?;
    println!("pages: in {}", directory.display());
    Ok(())
}

/// Writes the pages, last changed on `date` (YYYY-MM-DD), into `directory`.
///
/// By a debug build, which a developer has: what they say does not depend on it.
pub(crate) fn write(workspace: &Workspace, directory: &Path, date: &str) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| format!("cannot create {}", directory.display()))?;
    let mut cargo = workspace.cargo();
    cargo.args(["run", "--quiet", "--locked", "--package", "rpxy-l4", "--example", "pages", "--"]);
    process::run(cargo.arg(directory).arg(date))
}

/// The day of the last commit.
fn date(workspace: &Workspace) -> Result<String> {
    let mut git = std::process::Command::new("git");
    git.current_dir(&workspace.root).args(["log", "-1", "--format=%cs"]);
    Ok(process::read(&mut git)?.trim().to_owned())
}
