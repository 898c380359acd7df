//! Moving bytes both ways until both sides are done.
//!
//! Two [`Half`]s share a task. A small exchange is one read and one write through the worker's buffer; a half that
//! keeps filling that buffer changes to `splice(2)`, which moves pages without copying them. Half-close is passed on,
//! and so is a reset: a stream that was cut off must not look complete to the other side.

mod broken;
mod half;
mod pipe;
mod socket;

use std::{
    future::Future,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use broken::Broken;
use bytes::Bytes;
use half::Half;
use tokio::net::TcpStream;

use super::{
    record::Traffic,
    scratch,
    timer::{Age, Event, Timer},
};
use crate::{metrics::Outcome, net};

/// Time for which a client's late bytes are discarded after a backend answered and left without reading all of them.
/// Closing at once would reset the connection and could destroy the answer on its way.
const LINGER: Duration = Duration::from_secs(2);

/// The first bytes to the backend: our PROXY header and what was read from the client before.
#[derive(Debug, Default)]
pub(super) struct Preamble {
    pub(super) bytes: Bytes,
    /// Bytes of the header, which does not count as payload.
    pub(super) header: usize,
    /// Bytes sent already.
    pub(super) sent: usize,
}

/// End of a relay.
#[derive(Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    /// The side that gets a reset, because its stream is cut off.
    pub(super) reset: Option<Side>,
}

/// Sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
    Both,
}

/// A connection being relayed.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    client: &'a mut TcpStream,
    backend: &'a mut TcpStream,
    traffic: &'a mut Traffic,
    up: Half,
    down: Half,
    age: Age,
    lingering: bool,
    /// The backend's reset was seen while writing to it; an end that is read later does not count.
    cut_off: bool,
}

impl<'a> Relay<'a> {
    /// Relays between `client` and `backend`. What is left of `preamble` goes to the backend before anything else. A
    /// connection that is `idle` for that long is ended.
    pub(super) fn new(
        client: &'a mut TcpStream,
        backend: &'a mut TcpStream,
        traffic: &'a mut Traffic,
        preamble: Preamble,
        timer: Timer,
        idle: Option<Duration>,
    ) -> Self {
        let up = Half::starting_with(preamble, &mut traffic.up);
        let age = Age::new(timer, idle);
        Self { client, backend, traffic, up, down: Half::default(), age, lingering: false, cut_off: false }
    }

    fn poll_halves(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        let mut up = self.poll_up(cx);
        match up {
            // The backend takes no more, but may have answered: what it said still has to reach the client. The client
            // may have to get rid of its bytes before it reads.
            Poll::Ready(Err(Broken::SinkClosed)) => {
                self.up.discard();
                up = self.poll_up(cx);
            }
            Poll::Ready(Err(Broken::SinkReset)) => {
                self.up.discard();
                self.cut_off = true;
                up = self.poll_up(cx);
            }
            Poll::Ready(Err(Broken::Source) | Ok(())) | Poll::Pending => {}
        }
        if let Poll::Ready(Err(_)) = up {
            return broken(Outcome::ClientReset, Side::Backend);
        }
        let last = self.up.is_done() || self.cut_off;
        match self.down.poll(cx, self.backend, self.client, &mut self.traffic.down, last) {
            Poll::Ready(Ok(())) if self.cut_off => broken(Outcome::BackendReset, Side::Client),
            Poll::Ready(Ok(())) if up.is_ready() => closed(),
            Poll::Ready(Ok(())) => {
                // The backend is through; a client still sending what nobody wants has a little time to notice.
                if self.up.is_discarding() && !self.lingering {
                    self.lingering = true;
                    self.age.limit_idle(LINGER);
                }
                Poll::Pending
            }
            Poll::Ready(Err(Broken::Source)) => broken(Outcome::BackendReset, Side::Client),
            Poll::Ready(Err(Broken::SinkClosed | Broken::SinkReset)) => broken(Outcome::ClientReset, Side::Backend),
            Poll::Pending => Poll::Pending,
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.up.poll(cx, self.client, self.backend, &mut self.traffic.up, self.down.is_done())
    }
}

impl Future for Relay<'_> {
    type Output = End;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<End> {
        let this = &mut *self;
        let before = (this.traffic.up, this.traffic.down);
        if let Poll::Ready(end) = this.poll_halves(cx) {
            return Poll::Ready(end);
        }
        if before != (this.traffic.up, this.traffic.down) {
            this.age.note();
        }
        while let Poll::Ready(event) = this.age.poll(cx) {
            match event {
                // Most connections are gone by now; keepalive is for those that stay.
                Event::Grown => net::keep_alive(this.backend),
                Event::Idle if this.lingering => return closed(),
                Event::Idle => return broken(Outcome::Idle, Side::Both),
            }
        }
        Poll::Pending
    }
}

fn broken(outcome: Outcome, reset: Side) -> Poll<End> {
    Poll::Ready(End { outcome, reset: Some(reset) })
}

fn closed() -> Poll<End> {
    Poll::Ready(End { outcome: Outcome::Closed, reset: None })
}

#[cfg(test)]
mod tests;
