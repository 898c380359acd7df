//! The command line apart from the daemon: one module for each command that does more than call another module.

mod check;
mod client;
mod ech;
mod show;
mod unpin;

use std::{
    io::{self, Write as _},
    path::Path,
};

use anyhow::Result;

pub(crate) use check::check;

use crate::{
    admin,
    cli::Command,
    config::{self, model::Config},
    escape, offload,
};

/// Runs `command` and writes its result to the standard output.
///
/// # Errors
///
/// The command failed, or the standard output cannot be written to.
pub(crate) fn run(command: &Command) -> Result<()> {
    // Names, paths and the words of a daemon that may not be ours: none of it moves a cursor.
    let mut out = escape::Lines(io::BufWriter::new(io::stdout().lock()));
    let (daemon, request) = match command {
        Command::Status { daemon } => (daemon, admin::Command::Status {}),
        Command::Flows { daemon, limit } => (daemon, admin::Command::Flows { limit: *limit }),
        Command::Ban { daemon, network } => (daemon, admin::Command::Ban { network: *network }),
        Command::Unban { daemon, network } => (daemon, admin::Command::Unban { network: *network }),
        Command::Bans { daemon } => (daemon, admin::Command::Bans {}),
        Command::Ech(command) => {
            ech::run(command, &mut out)?;
            return Ok(out.flush()?);
        }
        Command::Unpin { path, config } => {
            unpin::unpin(path, config.as_deref(), &mut out)?;
            return Ok(out.flush()?);
        }
        Command::Schema => {
            writeln!(out, "{:#}", config::schema::schema())?;
            return Ok(out.flush()?);
        }
        Command::Doctor { config } => {
            offload::doctor(&mut out, load(config.as_deref())?.as_ref())?;
            return Ok(out.flush()?);
        }
    };
    let socket = client::socket(daemon.socket.as_deref(), daemon.config.as_deref())?;
    client::run(&socket, &request, daemon.json, &mut out)
}

/// The configuration in `file`, if there is one.
fn load(file: Option<&Path>) -> Result<Option<Config>> {
    Ok(file.map(config::load).transpose()?.map(|loaded| loaded.config))
}
