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
mod confine;
#[cfg(test)]
mod docs;
mod escape;
mod explain;
mod health;
mod id;
mod limit;
mod log;
mod metrics;
mod net;
mod offload;
mod overview;
#[cfg(any(test, feature = "properties"))]
pub mod properties;
mod resolve;
mod route;
mod status_page;
mod supervise;
mod tcp;
mod trust;
mod udp;
mod web;

use std::process::ExitCode;

use clap::{CommandFactory as _, Parser as _, error::ErrorKind};

use cli::{Cli, RunArgs};
use log::Form;

/// The command line, for manual pages and completions.
#[must_use]
pub fn command() -> clap::Command {
    Cli::command()
}

/// The JSON Schema of the configuration file, as `rpxy-l4 schema` prints it.
#[must_use]
pub fn schema() -> serde_json::Value {
    config::schema::schema()
}

/// Runs the command or the daemon that the arguments of this process ask for. Usage errors end the process with 2.
#[must_use]
pub fn run() -> ExitCode {
    let cli = Cli::parse();
    let form = Form::new(cli.run.as_ref().is_some_and(|run| run.json));
    let result = match cli {
        Cli { command: Some(command), .. } => commands::run(&command),
        Cli { run: Some(run), .. } if run.check => return commands::check(&run),
        Cli { run: Some(run), .. } if run.detach => commands::detach(),
        Cli { run: Some(run), .. } => {
            let RunArgs { config, log_dir, wait_for_config, admin_socket, take_over, .. } = run;
            let form = form.clone();
            let options = supervise::Options { config, log_dir, wait_for_config, admin_socket, form, take_over };
            supervise::run(&options)
        }
        Cli { run: None, .. } => Cli::command().error(ErrorKind::MissingRequiredArgument, "no --config <FILE>").exit(),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            for (severity, message) in config::told_apart(&error) {
                form.say(severity, &message);
            }
            ExitCode::FAILURE
        }
    }
}
