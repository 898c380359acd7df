//! Datagrams that belong to nobody, at a steady rate.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::{Duration, Instant},
};

use anyhow::Context as _;

use super::{DATAGRAM, sample::Sample};
use rpxy_l4_tests::wait::pause;

/// Datagrams sent at once, and how often.
const BURST: u32 = 50;
const PERIOD: Duration = Duration::from_millis(1);

/// Sends from `flows` ports of `source` for `window`. What the kernel has no room for counts as failed.
///
/// # Errors
///
/// When a socket cannot be made.
pub fn run(target: SocketAddrV4, source: Ipv4Addr, flows: u32, window: Duration) -> anyhow::Result<Sample> {
    let mut sockets = Vec::new();
    for _ in 0..flows {
        let socket = UdpSocket::bind((source, 0)).with_context(|| format!("bind {source}"))?;
        socket.set_nonblocking(true)?;
        sockets.push(socket);
    }
    // No version of anything: the first bits are those of no protocol that is told.
    let payload = [0x15; DATAGRAM];
    let begin = Instant::now();
    let mut sample = Sample::default();
    let mut turns = sockets.iter().cycle();
    let mut due = begin;
    while begin.elapsed() < window {
        for socket in turns.by_ref().take(BURST as usize) {
            match socket.send_to(&payload, target) {
                Ok(_) => sample.operations += 1,
                Err(_) => sample.failures += 1,
            }
        }
        due += PERIOD;
        pause(due.saturating_duration_since(Instant::now()));
    }
    sample.seconds = begin.elapsed().as_secs_f64();
    sample.all_operations = sample.operations;
    Ok(sample)
}
