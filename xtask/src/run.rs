//! `cargo xtask run`: from a fresh clone to a running daemon.

use std::ffi::OsString;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::{Profile, Workspace};

/// Arguments of `cargo xtask run`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Configuration file of the daemon [default: config.example.toml]
    config: Option<PathBuf>,
    /// Further arguments of the daemon
    #[arg(last = true)]
    daemon_arguments: Vec<OsString>,
}

/// Builds the daemon and becomes it, so that signals and the exit status are the daemon's own.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    let config = arguments.config.clone().unwrap_or_else(|| workspace.path("config.example.toml"));
    if !config.is_file() {
        bail!("{}: no such configuration file", config.display());
    }
    setup::require(workspace, &[Purpose::Build])?;
    let daemon = workspace.build("rpxy-l4", "rpxy-l4", Profile::Release)?;
    let mut command = Command::new(&daemon);
    command.arg("--config").arg(config).args(&arguments.daemon_arguments);
    println!("$ {}", process::display(&command));
    Err(command.exec()).with_context(|| format!("cannot start {}", daemon.display()))
}
