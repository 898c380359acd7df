//! The rpxy-l4 daemon and what asks it: arguments in, exit code out.
#![forbid(unsafe_code)]

use std::{
    io::{self, Write},
    process::ExitCode,
};

use anyhow::Result;
use clap::{CommandFactory, Parser, error::ErrorKind};
use rpxy_l4::{
    admin::{self, client},
    cli::{Cli, Command, Run},
    config, ech, offload, supervise,
};

fn main() -> ExitCode {
    let result = match Cli::parse() {
        Cli { command: Some(command), .. } => ask(&command),
        Cli { run: Some(run), .. } if run.check => check(&run),
        Cli { run: Some(run), .. } => supervise::run(&run),
        Cli { run: None, .. } => Cli::command().error(ErrorKind::MissingRequiredArgument, "no --config <FILE>").exit(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            say(&mut io::stderr(), &format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// The subcommands.
fn ask(command: &Command) -> Result<()> {
    let mut out = io::BufWriter::new(io::stdout().lock());
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
            let configured = config.as_deref().map(config::load).transpose()?.map(|loaded| loaded.config.ebpf.pin_path);
            let directory = configured.as_ref().unwrap_or(path);
            let line = match offload::unpin(directory)? {
                Some(offload::Pinned { links, .. }) => format!("removed the programs from {links} interfaces"),
                None => format!("nothing is pinned in {}", directory.display()),
            };
            writeln!(out, "{line}")?;
            return Ok(out.flush()?);
        }
        Command::Doctor { config } => {
            let config = config.as_deref().map(config::load).transpose()?.map(|loaded| loaded.config);
            offload::doctor(&mut out, config.as_ref())?;
            return Ok(out.flush()?);
        }
    };
    client::run(daemon, &request, &mut out)
}

/// `--check`: the verdict on stdout, everything there is to say about the file on stderr.
fn check(run: &Run) -> Result<()> {
    let loaded = config::load(&run.config)?;
    for warning in &loaded.warnings {
        say(&mut io::stderr(), &format!("warning: {}", warning.in_file(&run.config)));
    }
    say(&mut io::stdout(), &format!("{} is valid", run.config.display()));
    Ok(())
}

/// Nobody is left to tell when the terminal is gone.
fn say(to: &mut impl Write, line: &str) {
    drop(writeln!(to, "{line}"));
}
