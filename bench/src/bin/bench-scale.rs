//! `cargo xtask bench scale`: what large files cost.

use std::{
    fs,
    io::{self, Write as _},
    path::PathBuf,
    process::ExitCode,
};

use anyhow::Context as _;
use clap::Parser;
use rpxy_l4_bench::{
    arguments::say,
    scale::{Plan, Shape},
};

/// Measures what large files cost: checking, starting, reloading, memory and connections.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// The rpxy-l4 to measure, a release build.
    #[arg(long, value_name = "PATH")]
    daemon: PathBuf,
    /// Connections for each file with rules, 100 to 20000.
    #[arg(long, value_name = "N", default_value_t = 4000, value_parser = clap::value_parser!(u32).range(100..=20_000))]
    connections: u32,
    /// Measure only this file; may be repeated.
    #[arg(long, value_name = "FILE")]
    only: Vec<Shape>,
    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

fn main() -> ExitCode {
    match run(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Arguments) -> anyhow::Result<()> {
    let Arguments { daemon, connections, only, markdown } = arguments;
    let report = Plan { daemon, connections, only }.run(&progress)?;
    say(report.trim_end())?;
    if let Some(path) = markdown {
        fs::write(&path, &report).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Writes a line to standard error, which is not part of the report.
fn progress(line: &str) {
    // A measurement goes on when nobody watches.
    let _unwatched = writeln!(io::stderr().lock(), "{line}");
}
