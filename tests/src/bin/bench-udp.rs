//! `cargo xtask bench udp`: rpxy-l4 side by side with nginx, kernel NAT and no proxy at all.
//!
//! The same program is also the backend and the client of the rig: see the hidden subcommands. It errs towards no
//! figure rather than a wrong one: what fails is reported and makes the exit code 1.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    process::ExitCode,
    time::Duration,
};

use clap::{Parser, Subcommand, ValueEnum};
use rpxy_l4_tests::{
    bench::{
        arguments::{self, Arguments, say},
        udp::SUITE,
    },
    load::{udp_flows, udp_new, udp_serve, udp_windows},
    topology::client_pool,
};

/// Measures UDP relays side by side in network namespaces; needs root.
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
    /// The backend.
    #[command(hide = true)]
    Serve { address: Ipv4Addr, count: u16 },
    /// The client.
    #[command(hide = true)]
    Drive { mode: Mode, target: SocketAddrV4, flows: u32, milliseconds: u64 },
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Ping,
    Windows,
    WindowsPlain,
    Table,
    New,
    Idle,
}

fn main() -> ExitCode {
    let Command { arguments, part } = arguments::parse(&SUITE);
    arguments::exit_code(match part {
        None => arguments::benchmark(&SUITE, &arguments),
        Some(Part::Serve { address, count }) => udp_serve::serve(address, count).map(|()| ExitCode::SUCCESS),
        Some(Part::Drive { mode, target, flows, milliseconds }) => {
            drive(mode, target, flows, Duration::from_millis(milliseconds)).map(|()| ExitCode::SUCCESS)
        }
    })
}

fn drive(mode: Mode, target: SocketAddrV4, flows: u32, window: Duration) -> anyhow::Result<()> {
    let pool = client_pool(0);
    let sample = match mode {
        Mode::Ping => udp_windows::ping(target, pool, flows, window)?,
        Mode::Windows => udp_windows::segments(target, pool, flows, window)?,
        Mode::WindowsPlain => udp_windows::plain(target, pool, flows, window)?,
        Mode::Table => udp_flows::Table::open(target, pool, flows)?.run(window, || say("ready"))?,
        Mode::New => udp_new::run(target, pool, flows, window)?,
        Mode::Idle => {
            let _held = udp_flows::Table::open(target, pool, flows)?;
            return arguments::hold();
        }
    };
    say(&sample.to_json())
}
