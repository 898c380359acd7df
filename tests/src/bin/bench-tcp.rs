//! `cargo xtask bench tcp`: rpxy-l4 side by side with HAProxy, nginx, sslh, kernel NAT and no proxy at all.
//!
//! The same program is also the backend, the client and the reference relay of the rig: see the hidden subcommands.
//! It errs towards no figure rather than a wrong one: what fails is reported and makes the exit code 1.

use std::{
    io::Write as _,
    net::{Ipv4Addr, SocketAddrV4},
    num::NonZeroUsize,
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Parser, Subcommand, ValueEnum};
use rpxy_l4_tests::{
    bench::{candidate::Daemons, session::Plan},
    load::{connect, download, idle, ping, serve, splice},
};

/// Measures TCP relays side by side in network namespaces; needs root.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    /// The rpxy-l4 to measure, a release build; without it only the others are measured.
    #[arg(long, value_name = "PATH")]
    daemon: Option<PathBuf>,
    /// Another build of rpxy-l4, measured next to the first.
    #[arg(long, value_name = "PATH")]
    baseline: Option<PathBuf>,
    /// Length of one measurement in seconds, 1 to 60.
    #[arg(long, value_name = "N", default_value_t = 3, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// How often each workload is measured.
    #[arg(long, value_name = "N", default_value = "5")]
    rounds: NonZeroUsize,
    /// Measure only this candidate or workload; may be repeated.
    #[arg(long, value_name = "NAME", value_parser = known_name)]
    only: Vec<String>,
    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Parts of the rig, which the benchmark starts as processes of their own.
#[derive(Debug, Subcommand)]
enum Part {
    /// The backend.
    #[command(hide = true)]
    Serve { address: Ipv4Addr, count: u16 },
    /// The client.
    #[command(hide = true)]
    Drive { mode: Mode, target: SocketAddrV4, connections: usize, milliseconds: u64 },
    /// The reference relay.
    #[command(hide = true)]
    Relay { address: SocketAddrV4, target: SocketAddrV4 },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Ping,
    Connect,
    Download,
    Idle,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let outcome = match arguments.part {
        None => benchmark(&arguments),
        Some(Part::Serve { address, count }) => serve::serve(address, count).map(|()| ExitCode::SUCCESS),
        Some(Part::Relay { address, target }) => splice::relay(address, target).map(|()| ExitCode::SUCCESS),
        Some(Part::Drive { mode, target, connections, milliseconds }) => {
            drive(mode, target, connections, Duration::from_millis(milliseconds)).map(|()| ExitCode::SUCCESS)
        }
    };
    outcome.unwrap_or_else(|error| {
        progress(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

fn benchmark(arguments: &Arguments) -> anyhow::Result<ExitCode> {
    for path in [&arguments.daemon, &arguments.baseline].into_iter().flatten() {
        if !path.is_file() {
            bail!("{}: no such program", path.display());
        }
    }
    let mut command = format!("cargo xtask bench tcp --seconds {} --rounds {}", arguments.seconds, arguments.rounds);
    for name in &arguments.only {
        command += &format!(" --only {name}");
    }
    let plan = Plan {
        daemons: Daemons { daemon: arguments.daemon.clone(), baseline: arguments.baseline.clone() },
        window: Duration::from_secs(arguments.seconds),
        rounds: arguments.rounds,
        only: arguments.only.clone(),
        command,
    };
    let outcome = plan.run(&progress)?;
    say(outcome.text.trim_end())?;
    if let Some(path) = &arguments.markdown {
        std::fs::write(path, &outcome.text).with_context(|| path.display().to_string())?;
    }
    if outcome.failures.is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    progress(&format!("failed: {}", outcome.failures.join(", ")));
    Ok(ExitCode::FAILURE)
}

fn drive(mode: Mode, target: SocketAddrV4, connections: usize, window: Duration) -> anyhow::Result<()> {
    let sample = match mode {
        Mode::Ping => ping::run(target, connections, window)?,
        Mode::Connect => connect::run(target, connections, window)?,
        Mode::Download => download::run(target, connections, window)?,
        Mode::Idle => {
            let _held = idle::open(target, connections)?;
            say("held")?;
            // Until the benchmark kills this process, which closes them all.
            loop {
                std::thread::park();
            }
        }
    };
    say(&sample.to_json())
}

fn known_name(name: &str) -> Result<String, String> {
    let names = Plan::names();
    if names.contains(&name) {
        return Ok(name.to_owned());
    }
    Err(format!("it is one of {}", names.join(", ")))
}

/// Writes a line to standard output.
fn say(line: &str) -> anyhow::Result<()> {
    let mut stdout = std::io::stdout().lock();
    writeln!(stdout, "{line}")?;
    Ok(stdout.flush()?)
}

/// Writes a line to standard error, which is not part of the report.
fn progress(line: &str) {
    // A measurement goes on when nobody watches.
    let _unwatched = writeln!(std::io::stderr().lock(), "{line}");
}
