//! Request and response: each connection sends the message and waits for its echo before it sends again.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::{Context as _, ensure};
use rustix::{
    event::epoll::EventFlags,
    fd::OwnedFd,
    io::{Errno, ioctl_fionbio, read, write},
};

use super::{
    MESSAGE, WARM_UP,
    poller::{Poller, dial_and_wait},
    sample::{Latencies, Sample},
};

/// Runs `connections` ping-pongs against `target` for `window` after the warm-up.
///
/// # Errors
///
/// When a connection fails or ends, or the echo is not the message.
pub fn run(target: SocketAddrV4, connections: usize, window: Duration) -> anyhow::Result<Sample> {
    let mut poller = Poller::new()?;
    let mut players = Vec::with_capacity(connections);
    for token in 0..connections {
        let socket = dial_and_wait(target)?;
        ioctl_fionbio(&socket, true)?;
        poller.add(&socket, u64::try_from(token)?, EventFlags::IN)?;
        players.push(Player { socket, sent: Instant::now(), received: 0 });
    }
    for player in &mut players {
        player.send()?;
    }

    let begin = Instant::now() + WARM_UP;
    let end = begin + window;
    let mut latencies = Latencies::default();
    let mut all_operations = 0;
    let mut ready = Vec::new();
    loop {
        poller.wait_or_stall(&mut ready)?;
        for &(token, _) in &ready {
            let player = &mut players[usize::try_from(token)?];
            if !player.receive()? {
                continue;
            }
            let now = Instant::now();
            all_operations += 1;
            if now >= begin && now < end {
                latencies.record(now - player.sent);
            }
            player.send()?;
        }
        if Instant::now() >= end {
            break;
        }
    }
    Ok(Sample {
        operations: u64::try_from(latencies.count())?,
        seconds: window.as_secs_f64(),
        all_operations,
        p50_us: latencies.percentile_us(500),
        p99_us: latencies.percentile_us(990),
        failures: 0,
    })
}

struct Player {
    socket: OwnedFd,
    sent: Instant,
    received: usize,
}

impl Player {
    fn send(&mut self) -> anyhow::Result<()> {
        self.received = 0;
        self.sent = Instant::now();
        ensure!(write(&self.socket, MESSAGE).context("send")? == MESSAGE.len(), "short write");
        Ok(())
    }

    /// Returns whether the echo is complete.
    fn receive(&mut self) -> anyhow::Result<bool> {
        let mut buffer = [0; MESSAGE.len()];
        let count = match read(&self.socket, &mut buffer) {
            Ok(count) => count,
            Err(Errno::AGAIN) => return Ok(false),
            Err(error) => return Err(error).context("receive"),
        };
        ensure!(count > 0, "the proxy has closed a connection");
        let expected = MESSAGE.get(self.received..self.received + count);
        ensure!(expected == Some(&buffer[..count]), "the echo is not the message");
        self.received += count;
        Ok(self.received == MESSAGE.len())
    }
}
