//! The command line that the programs of all suites share, and what they do with it.
//!
//! It errs towards no figure rather than a wrong one: what fails is reported and makes the exit code 1.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};

use super::{candidate::Daemons, session::Plan, suite::Suite, test_run};
use crate::load::{barest, sample::Sample, splice};

/// Measurements to make, and the file of the report.
#[derive(Debug, clap::Args)]
struct Arguments {
    /// The rpxy-l4 to measure, a release build; without it only the others are measured.
    #[arg(long, value_name = "PATH")]
    daemon: Option<PathBuf>,
    /// Another build of rpxy-l4, measured next to the first.
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
    /// The eBPF object, whose programs are then measured by themselves too.
    #[arg(long, value_name = "PATH")]
    object: Option<PathBuf>,
    /// Length of one measurement in seconds, 1 to 60.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Number of times that each workload is measured.
    #[arg(long, value_name = "N")]
    rounds: NonZeroUsize,
    /// Measure only this candidate or workload; may be repeated.
    #[arg(long, value_name = "NAME")]
    only: Vec<String>,
    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// The command line of a suite whose load has the modes `M`.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Command<M: ValueEnum + Clone + Send + Sync + 'static> {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    part: Option<Part<M>>,
}

/// Parts of the rig, which the benchmark starts as processes of their own. `M` are the workloads of a suite.
#[derive(Debug, Subcommand)]
enum Part<M: ValueEnum + Clone + Send + Sync + 'static> {
    /// The backend.
    #[command(hide = true)]
    Serve {
        /// Address to listen on.
        address: Ipv4Addr,
        /// Ports of each kind.
        count: u16,
    },
    /// The client.
    #[command(hide = true)]
    Drive {
        /// Load to generate.
        mode: M,
        /// Address to connect to.
        target: SocketAddrV4,
        /// Connections or flows.
        count: u32,
        /// Length of the measurement.
        milliseconds: u64,
    },
    /// The barest relay.
    #[command(hide = true)]
    Barest {
        /// Address to listen on.
        address: SocketAddrV4,
        /// Address to connect to.
        target: SocketAddrV4,
    },
    /// The reference relay.
    #[command(hide = true)]
    Relay {
        /// Address to listen on.
        address: SocketAddrV4,
        /// Address to connect to.
        target: SocketAddrV4,
    },
}

impl<M: ValueEnum + Clone + Send + Sync + 'static> Part<M> {
    /// Runs this part until it is killed. The client prints its outcome and ends.
    fn run(
        self,
        serve: impl FnOnce(Ipv4Addr, u16) -> anyhow::Result<()>,
        drive: impl FnOnce(M, SocketAddrV4, u32, Duration) -> anyhow::Result<Sample>,
    ) -> anyhow::Result<ExitCode> {
        match self {
            Self::Serve { address, count } => serve(address, count)?,
            Self::Drive { mode, target, count, milliseconds } => {
                say(&drive(mode, target, count, Duration::from_millis(milliseconds))?.to_json())?;
            }
            Self::Barest { address, target } => barest::relay(address, target)?,
            Self::Relay { address, target } => splice::relay(address, target)?,
        }
        Ok(ExitCode::SUCCESS)
    }
}

/// Is the program of `suite`, or the part of its rig that the command line asks for.
pub fn main<M: ValueEnum + Clone + Send + Sync + 'static>(
    suite: &'static Suite,
    serve: impl FnOnce(Ipv4Addr, u16) -> anyhow::Result<()>,
    drive: impl FnOnce(M, SocketAddrV4, u32, Duration) -> anyhow::Result<Sample>,
) -> ExitCode {
    let Command { arguments, part } = parse::<Command<M>>(suite);
    let outcome = match part {
        None => benchmark(suite, &arguments),
        Some(part) => part.run(serve, drive),
    };
    outcome.unwrap_or_else(|error| {
        progress(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

/// Reads the command line. Ends the process when it is wrong, or asks for help.
fn parse<P: Parser>(suite: &'static Suite) -> P {
    let known = |name: &str| {
        let names = suite.names();
        if names.contains(&name) { Ok(name.to_owned()) } else { Err(format!("it is one of {}", names.join(", "))) }
    };
    // What differs between suites.
    let command = P::command()
        .mut_arg("rounds", |argument| argument.required(false).default_value(suite.rounds))
        .mut_arg("only", |argument| argument.value_parser(known));
    P::from_arg_matches(&command.get_matches()).unwrap_or_else(|error| error.exit())
}

/// Measures `suite` and tells the report. A failed measurement is told and changes the exit code.
fn benchmark(suite: &'static Suite, arguments: &Arguments) -> anyhow::Result<ExitCode> {
    for path in [&arguments.daemon, &arguments.baseline].into_iter().flatten() {
        if !path.is_file() {
            bail!("{}: no such program", path.display());
        }
    }
    let Arguments { seconds, rounds, .. } = arguments;
    let mut command = format!("cargo xtask bench {} --seconds {seconds} --rounds {rounds}", suite.name);
    for name in &arguments.only {
        command += &format!(" --only {name}");
    }
    let plan = Plan {
        suite,
        daemons: Daemons { daemon: arguments.daemon.clone(), baseline: arguments.baseline.clone() },
        window: Duration::from_secs(*seconds),
        rounds: *rounds,
        only: arguments.only.clone(),
        command,
    };
    let mut outcome = plan.run(&progress)?;
    if let Some(object) = &arguments.object {
        outcome.text += &test_run::report(object)?;
    }
    say(outcome.text.trim_end())?;
    if let Some(path) = &arguments.markdown {
        fs::write(path, &outcome.text).with_context(|| path.display().to_string())?;
    }
    if outcome.failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    progress(&format!("failed: {}", outcome.failures.join(", ")));
    Ok(ExitCode::FAILURE)
}

/// Says `held` and keeps what the caller holds until the benchmark kills this process.
///
/// # Errors
///
/// When nobody listens.
pub fn hold() -> anyhow::Result<Sample> {
    say("held")?;
    loop {
        std::thread::park();
    }
}

/// Writes a line to standard output.
///
/// # Errors
///
/// When nobody reads it.
pub fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Writes a line to standard error, which is not part of the report.
fn progress(line: &str) {
    // A measurement goes on when nobody watches.
    let _unwatched = writeln!(io::stderr().lock(), "{line}");
}
