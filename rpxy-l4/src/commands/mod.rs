//! The command line apart from the daemon: one module for each command that does more than call another module.

mod check;
mod client;
mod container;
mod ech;
mod explain;
mod explanation;
mod healthcheck;
mod show;
#[cfg(feature = "top")]
mod top;
mod units;
mod unpin;
mod upgrade;
mod values;

use std::{
    io::{self, Write},
    path::{Path, PathBuf},
};

use anyhow::Result;
#[cfg(not(feature = "top"))]
use anyhow::bail;

pub(crate) use check::check;
pub(crate) use upgrade::detach;

use crate::{
    admin,
    cli::{Command, ListArgs, MaintainedArgs, TopArgs},
    config::{self, model::Config},
    confine, escape, offload,
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
        Command::Connections { daemon, list } => (daemon, admin::Command::Connections(listed(list))),
        Command::Flows { daemon, list } => (daemon, admin::Command::Flows(listed(list))),
        Command::Close { daemon, id } => (daemon, admin::Command::Close { id: *id }),
        Command::Targets { daemon } => (daemon, admin::Command::Targets {}),
        Command::Drain { daemon, what } => {
            (daemon, target(what).map_or_else(|| admin::Command::DrainListeners(listener(what)), admin::Command::Drain))
        }
        Command::Up { daemon, what } => {
            (daemon, target(what).map_or_else(|| admin::Command::UpListeners(listener(what)), admin::Command::Up))
        }
        Command::Ban { daemon, network } => (daemon, admin::Command::Ban { network: *network }),
        Command::Unban { daemon, network } => (daemon, admin::Command::Unban { network: *network }),
        Command::Bans { daemon } => (daemon, admin::Command::Bans {}),
        Command::Top { daemon, top } => {
            let socket = client::socket(daemon.socket.as_deref(), daemon.config.as_deref())?;
            return watch(socket, daemon.json, top, out);
        }
        Command::Healthcheck(arguments) => {
            healthcheck::run(arguments, &mut out)?;
            return Ok(out.flush()?);
        }
        Command::Container => {
            out.flush()?;
            return container::run();
        }
        Command::Explain(args) => {
            explain::run(args, &mut out)?;
            return Ok(out.flush()?);
        }
        Command::Ech(command) => {
            ech::run(command, &mut out)?;
            return Ok(out.flush()?);
        }
        Command::Upgrade(arguments) => {
            upgrade::run(arguments, &mut out)?;
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
            let config = load(config.as_deref())?;
            confine::doctor(&mut out, config.as_ref())?;
            offload::doctor(&mut out, config.as_ref())?;
            return Ok(out.flush()?);
        }
    };
    let socket = client::socket(daemon.socket.as_deref(), daemon.config.as_deref())?;
    client::run(&socket, &request, daemon.json, &mut out)
}

#[cfg(feature = "top")]
fn watch(socket: PathBuf, json: bool, args: &TopArgs, out: impl Write) -> Result<()> {
    top::run(socket, json, args, out)
}

#[cfg(not(feature = "top"))]
fn watch(_socket: PathBuf, _json: bool, _args: &TopArgs, _out: impl Write) -> Result<()> {
    bail!("this program was built without `top`: build it with --features top")
}

fn listed(ListArgs { limit, client, rule, target }: &ListArgs) -> admin::List {
    admin::List { limit: *limit, client: *client, rule: rule.clone(), target: target.clone() }
}

/// The listener, or all of them.
fn listener(what: &MaintainedArgs) -> admin::ListenerArgs {
    admin::ListenerArgs { listener: what.listener.clone() }
}

/// The target; `None` for listeners.
fn target(what: &MaintainedArgs) -> Option<admin::TargetArgs> {
    what.target.clone().map(|target| admin::TargetArgs { target, transport: what.transport })
}

/// The configuration in `file`, if there is one.
fn load(file: Option<&Path>) -> Result<Option<Config>> {
    Ok(file.map(config::load).transpose()?.map(|loaded| loaded.config))
}
