//! Bulk: each connection asks once and then only receives, as fast as it can.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::{
    event::epoll::EventFlags,
    io::{Errno, ioctl_fionbio, write},
    net::{RecvFlags, recv},
};

use super::{
    MESSAGE, WARM_UP,
    poller::{Poller, dial_and_wait},
    sample::Sample,
};

/// Most bytes to take at once.
const CHUNK: usize = 1 << 20;

/// Downloads from `target` over `connections` for `window` after the warm-up. Operations are bytes.
///
/// # Errors
///
/// When a connection fails or ends.
pub fn run(target: SocketAddrV4, connections: usize, window: Duration) -> anyhow::Result<Sample> {
    let mut poller = Poller::new()?;
    let mut sockets = Vec::with_capacity(connections);
    for token in 0..connections {
        let socket = dial_and_wait(target)?;
        ioctl_fionbio(&socket, true)?;
        poller.add(&socket, u64::try_from(token)?, EventFlags::IN)?;
        ensure!(write(&socket, MESSAGE).context("send")? == MESSAGE.len(), "short write");
        sockets.push(socket);
    }

    let begin = Instant::now() + WARM_UP;
    let end = begin + window;
    let (mut operations, mut all_operations) = (0, 0);
    let mut buffer = vec![0; CHUNK];
    let mut ready = Vec::new();
    let mut now = Instant::now();
    while now < end {
        poller.wait_or_stall(&mut ready)?;
        now = Instant::now();
        for &(token, _) in &ready {
            // TCP with MSG_TRUNC discards what it would copy (tcp(7)): the client costs next to nothing.
            let count = match recv(&sockets[usize::try_from(token)?], &mut buffer[..], RecvFlags::TRUNC) {
                Ok((_, count)) => u64::try_from(count)?,
                Err(Errno::AGAIN) => continue,
                Err(error) => return Err(error).context("receive"),
            };
            ensure!(count > 0, "the proxy has closed a connection");
            all_operations += count;
            if now >= begin {
                operations += count;
            }
        }
    }
    Ok(Sample { operations, seconds: (now - begin).as_secs_f64(), all_operations, ..Sample::default() })
}
