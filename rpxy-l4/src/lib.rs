//! rpxy-l4: a layer-4 reverse proxy and protocol multiplexer.
//!
//! One public port serves several protocols; each is recognised from its first bytes and sent to its own backends.
//! [`run`] is the whole program, of which the binary of the same name is the entry point. ARCHITECTURE.md at the top of
//! the repository has the map of the modules and the rules that hold between them.
#![deny(unsafe_code)]

mod admin;
mod cli;
mod commands;
mod config;
#[cfg(test)]
mod docs;
mod health;
mod limit;
mod log;
mod metrics;
mod net;
mod offload;
#[cfg(any(test, feature = "properties"))]
pub mod properties;
mod resolve;
mod route;
mod supervise;
mod tcp;
mod udp;

use std::{
    io::{self, Write as _},
    process::ExitCode,
};

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use cli::Cli;

/// Runs the command or the daemon that the arguments of this process ask for. Usage errors end the process with 2.
#[must_use]
pub fn run() -> ExitCode {
    let result = match Cli::parse() {
        Cli { command: Some(command), .. } => commands::run(&command),
        Cli { run: Some(run), .. } if run.check => commands::check(&run.config),
        Cli { run: Some(run), .. } => supervise::run(&supervise::Options {
            config: run.config,
            log_dir: run.log_dir,
            wait_for_config: run.wait_for_config,
        }),
        Cli { run: None, .. } => Cli::command().error(ErrorKind::MissingRequiredArgument, "no --config <FILE>").exit(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // The standard error may be closed; the exit code says it all the same.
            drop(writeln!(io::stderr(), "error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}
