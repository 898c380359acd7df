//! Installs aioquic, a QUIC client of the tests with foreign software, into the target directory.

use std::path::PathBuf;
use std::process::Command;

use anyhow::{Result, bail};

use super::pip;
use crate::process;
use crate::workspace::Workspace;

const REQUIREMENT: &str = "aioquic==1.7.2";

/// Returns true when Python finds it there.
pub(super) fn is_present(workspace: &Workspace) -> bool {
    let mut python = Command::new("python3");
    python.env("PYTHONPATH", root(workspace)).args(["-c", "import aioquic.quic.connection"]);
    process::read(&mut python).is_ok()
}

/// Installs the pinned version with what it depends on.
pub(super) fn install(workspace: &Workspace) -> Result<()> {
    process::run(pip::install(&root(workspace)).arg(REQUIREMENT))?;
    if !is_present(workspace) {
        bail!("{REQUIREMENT} was installed, but cannot be imported");
    }
    Ok(())
}

/// Where the tests look for it.
fn root(workspace: &Workspace) -> PathBuf {
    workspace.scratch("tools").join("aioquic")
}
