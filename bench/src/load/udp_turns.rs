//! Slots that take turns: each sends a window of datagrams over some flow, waits until all are back, and goes on.
//!
//! A ping-pong is a window of one datagram. What does not come back in time counts as lost and ends the turn, so that
//! no loss can stop a run, and none is hidden.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};

use super::{
    STALL,
    sample::{Latencies, Sample},
    udp_client::Client,
    udp_tag::Tag,
};

/// After so long a datagram is lost. Far above any latency seen, so that what is late is not mistaken for it.
pub(super) const LOST: Duration = Duration::from_millis(100);

/// Interval of looking for lost datagrams.
const LOOK: Duration = Duration::from_millis(10);

/// Work of the slots.
#[derive(Debug, Clone, Copy)]
pub(super) struct Shape {
    /// Number of slots.
    pub(super) slots: u32,
    /// Datagrams of a window, 1 to 32.
    pub(super) width: u32,
    /// Bytes of a datagram.
    pub(super) size: usize,
    /// True when a turn in which something is lost is taken again over the same flow.
    pub(super) insist: bool,
}

/// The part of a run that counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Span {
    pub(super) begin: Instant,
    pub(super) end: Instant,
}

/// Lets slots take turns until the end of `span`, or until `next` has no flow any more for any of them. Operations are
/// datagrams that came back; latency is from sending a window to the last datagram of it.
pub(super) fn take_turns(
    client: &mut Client,
    shape: Shape,
    span: Span,
    mut next: impl FnMut(u32) -> Option<u32>,
) -> anyhow::Result<Sample> {
    let mut run = Run::new(shape, span);
    for slot in 0..shape.slots {
        run.begin_turn(client, slot, next(slot))?;
    }
    let mut looked = Instant::now();
    let mut done = Vec::new();
    while run.open > 0 {
        client.receive(LOOK, shape.size, |tag| {
            done.extend(run.take(tag, Instant::now())?);
            Ok(())
        })?;
        for slot in done.drain(..) {
            run.begin_turn(client, slot, next(slot))?;
        }
        let now = Instant::now();
        if now >= span.end {
            break;
        }
        if now - looked >= LOOK {
            looked = now;
            ensure!(now - run.heard < STALL, "nothing has come back for {STALL:?}");
            for (slot, flow) in run.give_up(now) {
                let flow = if shape.insist { Some(flow) } else { next(slot) };
                run.begin_turn(client, slot, flow)?;
            }
        }
    }
    Ok(run.sample(Instant::now()))
}

struct Run {
    shape: Shape,
    span: Span,
    turns: Vec<Turn>,
    /// Slots that wait for something.
    open: usize,
    /// When something last came back.
    heard: Instant,
    latencies: Latencies,
    operations: u64,
    all_operations: u64,
    failures: u64,
}

#[derive(Clone, Copy)]
struct Turn {
    flow: u32,
    /// Number of the first datagram.
    first: u64,
    /// A bit for each datagram that is not back yet; none when the slot is not in use.
    missing: u32,
    sent: Instant,
}

impl Run {
    fn new(shape: Shape, span: Span) -> Self {
        let now = Instant::now();
        Self {
            shape,
            span,
            turns: vec![Turn { flow: 0, first: 0, missing: 0, sent: now }; shape.slots as usize],
            open: 0,
            heard: now,
            latencies: Latencies::default(),
            operations: 0,
            all_operations: 0,
            failures: 0,
        }
    }

    fn begin_turn(&mut self, client: &mut Client, slot: u32, flow: Option<u32>) -> anyhow::Result<()> {
        let Some(flow) = flow else { return Ok(()) };
        let sent = Instant::now();
        let first = client.send(flow, slot, self.shape.width, self.shape.size)?;
        self.turns[slot as usize] = Turn { flow, first, missing: u32::MAX >> (32 - self.shape.width), sent };
        self.open += 1;
        Ok(())
    }

    /// Takes what has come back. Returns the slot whose turn is over with it.
    fn take(&mut self, tag: Tag, now: Instant) -> anyhow::Result<Option<u32>> {
        self.heard = now;
        let turn = self.turns.get_mut(tag.slot as usize).context("a reply is not what was sent")?;
        let position = tag.sequence.checked_sub(turn.first).filter(|position| *position < u64::from(self.shape.width));
        // Of an earlier turn that was given up.
        let Some(position) = position else { return Ok(None) };
        ensure!(turn.flow == tag.flow, "a reply has another number than what was sent");
        let bit = 1 << position;
        // Here twice, which the network may do.
        if turn.missing & bit == 0 {
            return Ok(None);
        }
        turn.missing &= !bit;
        let (over, latency) = (turn.missing == 0, now - turn.sent);
        let counts = now >= self.span.begin && now < self.span.end;
        self.all_operations += 1;
        self.operations += u64::from(counts);
        if !over {
            return Ok(None);
        }
        if counts {
            self.latencies.record(latency);
        }
        self.open -= 1;
        Ok(Some(tag.slot))
    }

    /// Ends the turns that wait for too long. Returns their slots and flows.
    fn give_up(&mut self, now: Instant) -> Vec<(u32, u32)> {
        let mut late = Vec::new();
        for (slot, turn) in (0..).zip(&mut self.turns) {
            if turn.missing != 0 && now - turn.sent >= LOST {
                self.failures += u64::from(turn.missing.count_ones());
                turn.missing = 0;
                self.open -= 1;
                late.push((slot, turn.flow));
            }
        }
        late
    }

    fn sample(mut self, now: Instant) -> Sample {
        Sample {
            operations: self.operations,
            seconds: (now.min(self.span.end) - self.span.begin).as_secs_f64(),
            all_operations: self.all_operations,
            p50_us: self.latencies.percentile_us(500),
            p99_us: self.latencies.percentile_us(990),
            failures: self.failures,
        }
    }
}
