//! Flows that each keep one window of datagrams in flight, or a single one.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use super::{
    DATAGRAM, WARM_UP,
    sample::Sample,
    udp_client::Client,
    udp_turns::{Shape, Span, take_turns},
};

/// Datagrams of a window.
pub const WIDTH: u32 = 16;

/// Bytes of a datagram of a window: what QUIC sends before it knows the path.
pub const SIZE: usize = 1200;

/// Runs `flows` ping-pongs against `target` for `window` after the warm-up.
///
/// # Errors
///
/// When nothing comes back, or a reply is not what was sent.
pub fn ping(target: SocketAddrV4, pool: Ipv4Addr, flows: u32, window: Duration) -> anyhow::Result<Sample> {
    let shape = Shape { slots: flows, width: 1, size: DATAGRAM, insist: false };
    run(Client::plain(target, pool, flows)?, shape, window)
}

/// Sends windows over `flows` flows, each with one system call (UDP_SEGMENT), and receives with UDP_GRO.
///
/// # Errors
///
/// When nothing comes back, or a reply is not what was sent.
pub fn segments(target: SocketAddrV4, pool: Ipv4Addr, flows: u32, window: Duration) -> anyhow::Result<Sample> {
    run(Client::trains(target, pool, flows)?, Shape { slots: flows, width: WIDTH, size: SIZE, insist: false }, window)
}

/// Sends windows over `flows` flows, one datagram a system call, and receives likewise.
///
/// # Errors
///
/// When nothing comes back, or a reply is not what was sent.
pub fn plain(target: SocketAddrV4, pool: Ipv4Addr, flows: u32, window: Duration) -> anyhow::Result<Sample> {
    run(Client::plain(target, pool, flows)?, Shape { slots: flows, width: WIDTH, size: SIZE, insist: false }, window)
}

fn run(mut client: Client, shape: Shape, window: Duration) -> anyhow::Result<Sample> {
    let begin = Instant::now() + WARM_UP;
    // Every slot keeps to the flow of its number.
    take_turns(&mut client, shape, Span { begin, end: begin + window }, Some)
}
