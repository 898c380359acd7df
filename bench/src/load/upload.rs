//! Bulk towards the backend: one connection that only sends, as fast as it can.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rpxy_l4_tests::wait::pause;
use rustix::io::write;

use super::{MESSAGE, SETTLE, WARM_UP, poller::dial_and_wait, sample::Sample};

/// Bytes offered to one call of write(2).
const CHUNK: usize = 1 << 18;

/// Sends to `target` for `window` after the warm-up. Operations are bytes that the kernel has taken.
///
/// # Errors
///
/// When the connection fails or stalls.
pub fn run(target: SocketAddrV4, window: Duration) -> anyhow::Result<Sample> {
    let socket = dial_and_wait(target)?;
    ensure!(write(&socket, MESSAGE).context("send")? == MESSAGE.len(), "short write");
    pause(SETTLE);
    let bytes = vec![7; CHUNK];
    let begin = Instant::now() + WARM_UP;
    let end = begin + window;
    let (mut operations, mut all_operations) = (0, 0);
    let mut now = Instant::now();
    while now < end {
        let count = u64::try_from(write(&socket, &bytes).context("send")?)?;
        now = Instant::now();
        all_operations += count;
        if now >= begin {
            operations += count;
        }
    }
    Ok(Sample { operations, seconds: (now - begin).as_secs_f64(), all_operations, ..Sample::default() })
}
