//! Downloads of a given size, one after the other, each over a connection of its own.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::{
    io::write,
    net::{RecvFlags, recv},
};

use super::{
    poller::dial_and_wait,
    sample::{Latencies, Sample},
    serve::sized,
};

/// Most bytes to take at once.
const CHUNK: usize = 1 << 20;

/// Downloads `bytes` from `target` again and again until `window` is over, at least once. Latency is from connect to the
/// end of the download.
///
/// # Errors
///
/// When a download fails, stalls or has another size.
pub fn run(target: SocketAddrV4, bytes: u64, window: Duration) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    let mut latencies = Latencies::default();
    let mut buffer = vec![0; CHUNK];
    while latencies.count() == 0 || begun.elapsed() < window {
        let start = Instant::now();
        let socket = dial_and_wait(target)?;
        let message = sized(bytes);
        ensure!(write(&socket, &message).context("send")? == message.len(), "short write");
        let mut received = 0;
        loop {
            // TCP with MSG_TRUNC discards what it would copy (tcp(7)).
            let (_, count) = recv(&socket, &mut buffer[..], RecvFlags::TRUNC).context("receive")?;
            if count == 0 {
                break;
            }
            received += u64::try_from(count)?;
        }
        ensure!(received == bytes, "{received} bytes instead of {bytes}");
        latencies.record(start.elapsed());
    }
    let operations = u64::try_from(latencies.count())?;
    Ok(Sample {
        operations,
        seconds: begun.elapsed().as_secs_f64(),
        all_operations: operations,
        p50_us: latencies.percentile_us(500),
        p99_us: latencies.percentile_us(990),
        failures: 0,
    })
}
