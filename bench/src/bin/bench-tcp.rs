//! `cargo xtask bench tcp`: rpxy-l4 side by side with HAProxy, nginx, sslh, kernel NAT and no proxy at all.
//!
//! The same program is also the backend, the client and the reference relay of the rig: see the hidden subcommands.
//! It errs towards no figure rather than a wrong one: what fails is reported and makes the exit code 1.

use std::{net::SocketAddrV4, process::ExitCode, time::Duration};

use clap::ValueEnum;
use rpxy_l4_bench::{
    arguments,
    load::{connect, download, idle, ping, sample::Sample, serve},
    tcp::SUITE,
};

/// Connections of [`Mode::ConnectSome`]: fewer than a system has ports by default, 32768 to 60999.
const CONNECTIONS: u64 = 24_000;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Ping,
    Connect,
    ConnectSome,
    Download,
    Idle,
}

fn main() -> ExitCode {
    arguments::main(&SUITE, serve::serve, drive)
}

fn drive(mode: Mode, target: SocketAddrV4, count: u32, window: Duration) -> anyhow::Result<Sample> {
    let connections = usize::try_from(count)?;
    match mode {
        Mode::Ping => ping::run(target, connections, window),
        Mode::Connect => connect::run(target, connections, window, None),
        Mode::ConnectSome => connect::run(target, connections, window, Some(CONNECTIONS)),
        Mode::Download => download::run(target, connections, window),
        Mode::Idle => {
            let _held = idle::open(target, connections)?;
            arguments::hold()
        }
    }
}
