//! `cargo xtask bench udp`: rpxy-l4 side by side with nginx, kernel NAT and no proxy at all.
//!
//! The same program is also the backend and the client of the rig: see the hidden subcommands. It errs towards no
//! figure rather than a wrong one: what fails is reported and makes the exit code 1.

use std::{net::SocketAddrV4, process::ExitCode, time::Duration};

use clap::{Parser, ValueEnum};
use rpxy_l4_tests::{
    bench::{
        arguments::{self, Arguments, End, say},
        udp::SUITE,
    },
    load::{sample::Sample, udp_flows::Table, udp_new, udp_serve, udp_windows},
    topology::client_pool,
};

/// Measures UDP relays side by side in network namespaces; needs root.
#[derive(Debug, Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Command {
    #[command(flatten)]
    arguments: Arguments,
    #[command(subcommand)]
    end: Option<End<Mode>>,
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
    let Command { arguments, end } = arguments::parse(&SUITE);
    arguments::exit_code(match end {
        None => arguments::benchmark(&SUITE, &arguments),
        Some(end) => end.run(udp_serve::serve, drive),
    })
}

fn drive(mode: Mode, target: SocketAddrV4, flows: u32, window: Duration) -> anyhow::Result<Sample> {
    let pool = client_pool(0);
    match mode {
        Mode::Ping => udp_windows::ping(target, pool, flows, window),
        Mode::Windows => udp_windows::segments(target, pool, flows, window),
        Mode::WindowsPlain => udp_windows::plain(target, pool, flows, window),
        Mode::Table => Table::open(target, pool, flows)?.run(window, || say("ready")),
        Mode::New => udp_new::run(target, pool, flows, window),
        Mode::Idle => {
            let _held = Table::open(target, pool, flows)?;
            arguments::hold()
        }
    }
}
