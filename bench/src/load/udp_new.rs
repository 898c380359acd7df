//! New flows: each operation is a source that was not there before, one datagram from it, and the reply.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use super::{
    DATAGRAM,
    sample::Sample,
    udp_client::Client,
    udp_turns::{Shape, Span, take_turns},
};

/// Flows begun at the same time.
const IN_FLIGHT: u32 = 32;

/// Begins flows to `target` until there are `flows` of them or `window` is over. There is no warm-up, because flows
/// are limited.
///
/// # Errors
///
/// When nothing comes back, or a reply is not what was sent.
pub fn run(target: SocketAddrV4, pool: Ipv4Addr, flows: u32, window: Duration) -> anyhow::Result<Sample> {
    let mut client = Client::trains(target, pool, flows)?;
    let begin = Instant::now();
    let shape = Shape { slots: IN_FLIGHT.min(flows), width: 1, size: DATAGRAM, insist: false };
    let mut left = 0..flows;
    take_turns(&mut client, shape, Span { begin, end: begin + window }, |_| left.next())
}
