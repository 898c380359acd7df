//! `cargo xtask bench tcp`: rpxy-l4 side by side with HAProxy, nginx, sslh, kernel NAT and no proxy at all.
//!
//! The same program is also the backend, the client and the reference relay of the rig: see the hidden subcommands.
//! It errs towards no figure rather than a wrong one: what fails is reported and makes the exit code 1.

use std::{net::SocketAddrV4, process::ExitCode, time::Duration};

use clap::{Parser, Subcommand, ValueEnum};
use rpxy_l4_tests::{
    bench::{
        arguments::{self, Arguments, End},
        tcp::SUITE,
    },
    load::{connect, download, idle, ping, sample::Sample, serve, splice},
};

/// Measures TCP relays side by side in network namespaces; needs root.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    part: Option<Part>,
}

/// Parts of the rig, which the benchmark starts as processes of their own.
#[derive(Debug, Subcommand)]
enum Part {
    #[command(flatten)]
    End(End<Mode>),
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
    let Command { arguments, part } = arguments::parse(&SUITE);
    arguments::exit_code(match part {
        None => arguments::benchmark(&SUITE, &arguments),
        Some(Part::End(end)) => end.run(serve::serve, drive),
        Some(Part::Relay { address, target }) => splice::relay(address, target).map(|()| ExitCode::SUCCESS),
    })
}

fn drive(mode: Mode, target: SocketAddrV4, count: u32, window: Duration) -> anyhow::Result<Sample> {
    let connections = usize::try_from(count)?;
    match mode {
        Mode::Ping => ping::run(target, connections, window),
        Mode::Connect => connect::run(target, connections, window),
        Mode::Download => download::run(target, connections, window),
        Mode::Idle => {
            let _held = idle::open(target, connections)?;
            arguments::hold()
        }
    }
}
