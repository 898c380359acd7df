//! `cargo xtask bench splice`: TCP in the kernel side by side with the daemon's relay, HAProxy, kernel NAT and routing.
//!
//! The same program is also the backend and the client of the rig. It errs towards no figure rather than a wrong one:
//! what fails is reported and makes the exit code 1.

use std::{net::SocketAddrV4, process::ExitCode, time::Duration};

use clap::ValueEnum;
use rpxy_l4_bench::{
    arguments,
    load::{connect, download, fetch, idle, ping, sample::Sample, serve, upload},
    spliced::SUITE,
};

/// Connections of [`Mode::ConnectSome`]: fewer than `ebpf.max_spliced`, 16,384.
const CONNECTIONS: u64 = 12_000;

#[derive(Debug, Clone, Copy, ValueEnum)]
enum Mode {
    Ping,
    Connect,
    ConnectSome,
    Download,
    Upload,
    #[value(name = "fetch100k")]
    Fetch100k,
    #[value(name = "fetch1m")]
    Fetch1m,
    #[value(name = "fetch50m")]
    Fetch50m,
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
        Mode::Upload => upload::run(target, window),
        Mode::Fetch100k => fetch::run(target, 100_000, window),
        Mode::Fetch1m => fetch::run(target, 1_000_000, window),
        Mode::Fetch50m => fetch::run(target, 50_000_000, window),
        Mode::Idle => {
            let _held = idle::open(target, connections)?;
            arguments::hold()
        }
    }
}
