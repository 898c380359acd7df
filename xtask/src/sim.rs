//! `cargo xtask sim`: the simulation of the UDP core at length, in a release build, on all processor cores.
//!
//! Each seed is one interleaving of honest and hostile clients and backends, which repeats exactly. The first seed that
//! fails ends the run and is printed with the command that repeats it.

use std::path::PathBuf;
use std::process::Command;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use crate::process;
use crate::setup::{self, Purpose};
use crate::workspace::Workspace;

const TEST: &str = "udp::core::tests::simulation::invariants_hold_in_every_interleaving";
/// Seeds of one process.
const BATCH: u64 = 250;

/// Arguments of `cargo xtask sim`.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// How many seeds [default: 20000, or what fits into the minutes]
    #[arg(long, value_parser = clap::value_parser!(u64).range(1..))]
    seeds: Option<u64>,
    /// For how long, at most
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    minutes: Option<u32>,
    /// The first seed
    #[arg(long, default_value_t = 0)]
    from: u64,
}

impl Arguments {
    /// The seed at which to stop, unless time runs out before.
    fn end(&self) -> u64 {
        let seeds = self.seeds.unwrap_or(if self.minutes.is_some() { u64::MAX } else { 20_000 });
        self.from.saturating_add(seeds)
    }
}

/// Runs seed after seed until all are done, time is up or one fails.
pub(crate) fn command(workspace: &Workspace, arguments: &Arguments) -> Result<()> {
    setup::require(workspace, &[Purpose::Build])?;
    let program = build(workspace)?;
    let (started, limit) = (Instant::now(), arguments.minutes.map(|minutes| Duration::from_secs(60) * minutes));
    let (next, end, stop) = (AtomicU64::new(arguments.from), arguments.end(), AtomicBool::new(false));
    let (done, failure) = (AtomicU64::new(0), Mutex::new(None));
    let work = || {
        while !stop.load(Ordering::Relaxed) && limit.is_none_or(|limit| started.elapsed() < limit) {
            let from = next.fetch_add(BATCH, Ordering::Relaxed);
            let seeds = end.saturating_sub(from).min(BATCH);
            if seeds == 0 {
                return;
            }
            if let Err(error) = run(&program, from, seeds) {
                stop.store(true, Ordering::Relaxed);
                failure.lock().unwrap_or_else(std::sync::PoisonError::into_inner).get_or_insert(error);
                return;
            }
            let done = done.fetch_add(seeds, Ordering::Relaxed) + seeds;
            println!("{done} seeds in {} s", started.elapsed().as_secs());
        }
    };
    thread::scope(|scope| {
        for _ in 0..thread::available_parallelism().map_or(1, std::num::NonZero::get) {
            scope.spawn(work);
        }
    });
    match failure.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner) {
        Some(error) => Err(error),
        None => Ok(()),
    }
}

/// Builds the unit tests of the daemon and returns the program. Overflow and debug assertions stay on.
fn build(workspace: &Workspace) -> Result<PathBuf> {
    let cargo = || {
        let mut command = workspace.cargo();
        command.args(["test", "--locked", "--release", "--package", "rpxy-l4", "--lib", "--no-run"]);
        for (setting, value) in
            [("LTO", "off"), ("CODEGEN_UNITS", "16"), ("DEBUG_ASSERTIONS", "true"), ("OVERFLOW_CHECKS", "true")]
        {
            command.env(format!("CARGO_PROFILE_RELEASE_{setting}"), value);
        }
        command
    };
    process::run(&mut cargo())?;
    let messages = process::read(cargo().args(["--message-format", "json"]))?;
    let executable = |line: &str| {
        let message: Value = serde_json::from_str(line).ok()?;
        message.get("executable")?.as_str().map(PathBuf::from)
    };
    messages.lines().find_map(executable).context("cargo did not say where the tests are")
}

fn run(program: &PathBuf, from: u64, seeds: u64) -> Result<()> {
    let mut command = Command::new(program);
    command.args(["--exact", TEST, "--nocapture"]);
    command.env("RPXY_L4_SIM_FROM", from.to_string()).env("RPXY_L4_SIM_SEEDS", seeds.to_string());
    let output = command.output().with_context(|| format!("cannot start {}", program.display()))?;
    if output.status.success() {
        return Ok(());
    }
    let said = String::from_utf8_lossy(&output.stderr);
    match failed_seed(&said) {
        Some(seed) => bail!("{said}\nseed {seed} failed; repeat it with `cargo xtask sim --from {seed} --seeds 1`"),
        None => bail!("`{}` failed: {}\n{said}", process::display(&command), output.status),
    }
}

/// The seed that the test names on a line of its own.
fn failed_seed(said: &str) -> Option<u64> {
    said.lines().find_map(|line| line.strip_prefix("seed ")?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_seed_is_found_in_what_the_test_says() {
        assert_eq!(failed_seed("thread panicked\nseed 47\nnote: x"), Some(47));
        assert_eq!(failed_seed("seeds 3\n seed 4"), None);
    }

    #[test]
    fn minutes_alone_have_no_last_seed() {
        for (row, seeds, minutes, end) in [
            ("neither", None, None, 20_005),
            ("seeds", Some(10), None, 15),
            ("minutes", None, Some(1), u64::MAX),
            ("both", Some(10), Some(1), 15),
        ] {
            assert_eq!(Arguments { seeds, minutes, from: 5 }.end(), end, "{row}");
        }
    }
}
