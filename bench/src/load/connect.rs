//! Connect rate: connect, send the message, receive its echo, close; again and again in each of several slots.
//!
//! The client closes first and in order, so its side keeps TIME_WAIT: the namespace must let it reuse those ports, or there
//! must be fewer connections than ports.

use std::{
    net::SocketAddrV4,
    time::{Duration, Instant},
};

use anyhow::ensure;
use rustix::{
    event::epoll::EventFlags,
    fd::OwnedFd,
    io::{Errno, read, write},
};

use super::{
    MESSAGE, WARM_UP,
    poller::{Poller, dial},
    sample::{Latencies, Sample},
};

/// So many failures are counted before they are compared with the successes.
const IGNORED_FAILURES: u64 = 1000;

/// Keeps `in_flight` connections to `target` going for `window` after the warm-up. Latency is from connect to the
/// last byte of the echo. Ends before the window does when `most` connections have been made, warm-up included. Connections
/// that end before that are counted as failures and replaced: some proxies lose a
/// few, which is worth telling and no reason to give up.
///
/// # Errors
///
/// When more connections fail than succeed, the echo is not the message, or the client is out of ports.
pub fn run(target: SocketAddrV4, in_flight: usize, window: Duration, most: Option<u64>) -> anyhow::Result<Sample> {
    let mut poller = Poller::new()?;
    let mut slots = Vec::with_capacity(in_flight);
    for token in 0..in_flight {
        slots.push(Slot::open(&poller, token, target)?);
    }

    let begin = Instant::now() + WARM_UP;
    let mut end = begin + window;
    let mut latencies = Latencies::default();
    let (mut all_operations, mut failures) = (0, 0);
    let mut ready = Vec::new();
    loop {
        poller.wait_or_stall(&mut ready)?;
        for &(token, flags) in &ready {
            let token = usize::try_from(token)?;
            let slot = &mut slots[token];
            let now = Instant::now();
            match slot.advance(flags)? {
                Progress::Waiting => continue,
                Progress::Broken => {
                    failures += 1;
                    ensure!(failures <= IGNORED_FAILURES + all_operations, "{failures} connections have failed");
                }
                Progress::Done => {
                    all_operations += 1;
                    if now >= begin && now < end {
                        latencies.record(now - slot.begun);
                    }
                }
            }
            if most.is_some_and(|most| all_operations + failures >= most) {
                end = end.min(now);
                break;
            }
            // The assignment closes the old connection.
            *slot = Slot::open(&poller, token, target)?;
        }
        if Instant::now() >= end {
            break;
        }
    }
    ensure!(end > begin, "all connections were made before the measurement began");
    Ok(Sample {
        operations: u64::try_from(latencies.count())?,
        seconds: (end - begin).as_secs_f64(),
        all_operations,
        p50_us: latencies.percentile_us(500),
        p99_us: latencies.percentile_us(990),
        failures,
    })
}

enum Progress {
    Waiting,
    Done,
    Broken,
}

struct Slot {
    socket: OwnedFd,
    begun: Instant,
    sent: bool,
    received: usize,
}

impl Slot {
    fn open(poller: &Poller, token: usize, target: SocketAddrV4) -> anyhow::Result<Self> {
        let begun = Instant::now();
        let socket = dial(target)?;
        // Edge-triggered: one registration serves both "connected" and "readable".
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        poller.add(&socket, u64::try_from(token)?, interest)?;
        Ok(Self { socket, begun, sent: false, received: 0 })
    }

    /// Does what `flags` allow.
    fn advance(&mut self, flags: EventFlags) -> anyhow::Result<Progress> {
        if flags.contains(EventFlags::ERR) {
            return Ok(Progress::Broken);
        }
        if !self.sent && flags.contains(EventFlags::OUT) {
            if write(&self.socket, MESSAGE) != Ok(MESSAGE.len()) {
                return Ok(Progress::Broken);
            }
            self.sent = true;
        }
        if !flags.intersects(EventFlags::IN | EventFlags::RDHUP) {
            return Ok(Progress::Waiting);
        }
        let mut buffer = [0; MESSAGE.len()];
        let count = match read(&self.socket, &mut buffer) {
            Err(Errno::AGAIN) => return Ok(Progress::Waiting),
            Ok(0) | Err(_) => return Ok(Progress::Broken),
            Ok(count) => count,
        };
        let expected = MESSAGE.get(self.received..self.received + count);
        ensure!(expected == Some(&buffer[..count]), "the echo is not the message");
        self.received += count;
        Ok(if self.received == MESSAGE.len() { Progress::Done } else { Progress::Waiting })
    }
}
