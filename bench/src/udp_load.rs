//! The loads of the suites over UDP, by their names on the command line.

use std::{net::SocketAddrV4, time::Duration};

use clap::ValueEnum;
use rpxy_l4_tests::topology::client_pool;

use super::arguments::{hold, say};
use crate::load::{sample::Sample, udp_flood, udp_flows::Table, udp_new, udp_windows};

/// Load of the client.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum Mode {
    /// One datagram of each flow at a time.
    Ping,
    /// Windows, each sent with one system call.
    Windows,
    /// Windows of single datagrams.
    WindowsPlain,
    /// One datagram at a time, over any of many flows.
    Table,
    /// Each datagram begins a flow.
    New,
    /// Flows that do nothing.
    Idle,
    /// Datagrams that nobody asked for.
    Flood,
}

/// Puts the load on `target`.
///
/// # Errors
///
/// When the load fails.
pub fn drive(mode: Mode, target: SocketAddrV4, flows: u32, window: Duration) -> anyhow::Result<Sample> {
    let pool = client_pool(0);
    match mode {
        Mode::Ping => udp_windows::ping(target, pool, flows, window),
        Mode::Windows => udp_windows::segments(target, pool, flows, window),
        Mode::WindowsPlain => udp_windows::plain(target, pool, flows, window),
        Mode::Table => Table::open(target, pool, flows)?.run(window, || say("ready")),
        Mode::New => udp_new::run(target, pool, flows, window),
        Mode::Flood => udp_flood::run(target, pool, flows, window),
        Mode::Idle => {
            let _held = Table::open(target, pool, flows)?;
            hold()
        }
    }
}
