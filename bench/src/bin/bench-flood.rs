//! `cargo xtask bench flood`: real clients beside floods from forged sources.
//!
//! The same program is also the sender of the flood and the DNS server.

use std::{
    fs,
    io::{self, Write as _},
    net::{Ipv4Addr, SocketAddrV4},
    path::PathBuf,
    process::ExitCode,
    time::Duration,
};

use anyhow::Context as _;
use clap::{Parser, Subcommand, ValueEnum as _};
use rpxy_l4_bench::{
    arguments::say,
    flood::{Kind, Plan, Plane, Rate, send},
    load::udp_serve,
};

/// Measures how many real clients are served beside floods, and how fast.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    part: Option<Part>,
}

#[derive(Debug, clap::Args)]
struct Arguments {
    /// The rpxy-l4 to measure, a release build.
    #[arg(long, value_name = "PATH")]
    daemon: Option<PathBuf>,
    /// Length of one measurement in seconds, 1 to 60.
    #[arg(long, value_name = "N", default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=60))]
    seconds: u64,
    /// Measure only this flood; may be repeated.
    #[arg(long, value_name = "KIND")]
    kind: Vec<Kind>,
    /// Measure only this plane; may be repeated.
    #[arg(long, value_name = "PLANE")]
    plane: Vec<Plane>,
    /// Also write the report to this file.
    #[arg(long, value_name = "FILE")]
    markdown: Option<PathBuf>,
}

/// Parts of the network, which the benchmark starts as processes of their own.
#[derive(Debug, Subcommand)]
enum Part {
    /// The DNS server.
    #[command(hide = true)]
    Serve {
        /// Address to listen on.
        address: Ipv4Addr,
        /// Ports of each kind.
        count: u16,
    },
    /// The sender.
    #[command(hide = true)]
    Send {
        /// What to send.
        kind: Kind,
        /// Where to.
        target: SocketAddrV4,
        /// Datagrams a second; as many as possible when absent.
        #[arg(long)]
        rate: Option<u32>,
        /// Length of the flood; each source sends once when absent.
        #[arg(long)]
        milliseconds: Option<u64>,
    },
}

fn main() -> ExitCode {
    let Command { arguments, part } = Command::parse();
    let outcome = match part {
        None => benchmark(&arguments),
        Some(Part::Serve { address, count }) => udp_serve::serve(address, count),
        Some(Part::Send { kind, target, rate, milliseconds }) => {
            let rate = rate.map_or(Rate::Most, Rate::Steady);
            send::run(kind, target, rate, milliseconds.map(Duration::from_millis))
                .and_then(|(sent, time)| say(&format!("{:.0}", sent as f64 / time.as_secs_f64())))
        }
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            progress(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn benchmark(arguments: &Arguments) -> anyhow::Result<()> {
    let mut command = format!("cargo xtask bench flood --seconds {}", arguments.seconds);
    let mut kinds = Kind::value_variants().to_vec();
    let mut planes = Plane::value_variants().to_vec();
    if !arguments.kind.is_empty() {
        kinds.retain(|kind| arguments.kind.contains(kind));
    }
    if !arguments.plane.is_empty() {
        planes.retain(|plane| arguments.plane.contains(plane));
    }
    for (option, chosen) in [
        ("kind", arguments.kind.iter().filter_map(clap::ValueEnum::to_possible_value).collect::<Vec<_>>()),
        ("plane", arguments.plane.iter().filter_map(clap::ValueEnum::to_possible_value).collect()),
    ] {
        chosen.iter().for_each(|value| command += &format!(" --{option} {}", value.get_name()));
    }
    let plan = Plan {
        daemon: arguments.daemon.clone().context("no daemon given (--daemon)")?,
        window: Duration::from_secs(arguments.seconds),
        kinds,
        planes,
        command,
    };
    let text = plan.run(&progress)?;
    say(text.trim_end())?;
    if let Some(path) = &arguments.markdown {
        fs::write(path, &text).with_context(|| path.display().to_string())?;
    }
    Ok(())
}

/// Writes a line to standard error, which is not part of the report.
fn progress(line: &str) {
    // A measurement goes on when nobody watches.
    let _unwatched = writeln!(io::stderr().lock(), "{line}");
}
