//! Moving bytes both ways until both sides are done.
//!
//! Two [`Half`]s share a task. A small exchange is one read and one write through the worker's buffer; a half that
//! keeps filling that buffer changes to `splice(2)`, which moves pages without copying them. Half-close is passed on,
//! and so is a reset: a stream that was cut off must not look complete to the other side.

mod broken;
mod half;
mod limits;
mod pipe;
mod socket;
mod watch;

use std::{
    future::Future,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use broken::Broken;
use bytes::Bytes;
use half::Half;
pub(super) use limits::Limits;
use limits::{Looks, arrived};
pub(super) use pipe::{MOST_PIPES, fit as fit_pipes};
use tokio::net::TcpStream;
use watch::Watch;

use super::{
    end::{End, Side},
    record::Traffic,
    scratch,
    splice::{Attempts, Handed, acknowledge_at_once, hold_acknowledgements},
    timer::{Age, Event, Timer},
};
use crate::{metrics::Outcome, net, offload::NotSpliced};

/// Silence for which a client may still send what nobody wants, or take what is left for it, after its backend has gone.
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

/// Why a relay stops.
#[derive(Debug)]
pub(super) enum Stop {
    /// The connection has ended.
    End(End),
    /// It is a moment for a hand-over; [`Relay::go_on`] if that fails.
    HandOver,
}

impl From<End> for Stop {
    fn from(end: End) -> Self {
        Self::End(end)
    }
}

/// A connection being relayed.
#[derive(Debug)]
pub(super) struct Relay<'a> {
    client: &'a TcpStream,
    backend: &'a TcpStream,
    traffic: &'a mut Traffic,
    up: Half,
    down: Half,
    client_watch: Watch<'a>,
    backend_watch: Watch<'a>,
    age: Age,
    limits: Arc<Limits>,
    /// Made when it is first needed, which is rare.
    looks: Option<Box<Looks>>,
    /// The sides that had ended when the limit of silence was set: client, backend.
    ended: (bool, bool),
    /// The backend is gone, and the client has a little time.
    lingering: bool,
    /// An error of the backend was seen while nothing was read from it.
    backend_broke: bool,
    /// The backend's reset was seen while writing to it; an end that is read later does not count.
    cut_off: bool,
    /// Hand-overs that may be tried.
    attempts: Option<Box<Attempts>>,
}

impl<'a> Relay<'a> {
    /// Relays between `client` and `backend`. What is left of `preamble` goes to the backend before anything else. The
    /// connection may be handed over by `attempts`; then it counts whether all that the client has sent is `verbatim` in the
    /// preamble.
    pub(super) fn new(
        client: &'a TcpStream,
        backend: &'a TcpStream,
        traffic: &'a mut Traffic,
        preamble: Preamble,
        (timer, limits): (Timer, Arc<Limits>),
        (mut attempts, verbatim): (Option<Box<Attempts>>, bool),
    ) -> Self {
        if let Some(attempts) = attempts.as_mut().filter(|_| !verbatim) {
            let up = traffic.up + preamble.bytes.len().saturating_sub(preamble.header) as u64;
            attempts.count_from_here((client, backend), [up, traffic.down]);
        }
        let may_be_held = verbatim || preamble.bytes.len() == preamble.sent;
        let mut up = Half::starting_with(preamble, &mut traffic.up);
        if may_be_held && attempts.as_ref().is_some_and(|attempts| attempts.at_first()) {
            up.hold();
        }
        traffic.note();
        let age = Age::new(timer, limits.idle);
        Self {
            client,
            backend,
            traffic,
            up,
            down: Half::default(),
            client_watch: Watch::default(),
            backend_watch: Watch::default(),
            age,
            limits,
            looks: None,
            ended: (false, false),
            lingering: false,
            backend_broke: false,
            cut_off: false,
            attempts,
        }
    }

    /// Hands the connection over.
    ///
    /// # Errors
    ///
    /// The reason why not. [`Relay::go_on`] relays on.
    pub(super) async fn hand_over(&mut self) -> Result<Handed, NotSpliced> {
        let attempts = self.attempts.as_mut().ok_or(NotSpliced::Off)?;
        let held = self.up.held().cloned().unwrap_or_default();
        let passed_on = [self.traffic.up + held.len() as u64, self.traffic.down];
        attempts.hand_over((self.client, self.backend), held, passed_on).await
    }

    /// Relays on after a hand-over that has failed.
    pub(super) fn go_on(&mut self, reason: NotSpliced) {
        self.up.let_go();
        if self.attempts.as_mut().is_some_and(|attempts| !attempts.missed(reason)) {
            self.attempts = None;
            acknowledge_at_once(self.client);
            acknowledge_at_once(self.backend);
        }
    }

    /// Whether it is a moment for a hand-over. `answered` if the backend has just sent something.
    fn is_moment(&mut self, cx: &Context<'_>, answered: bool) -> bool {
        let Some(attempts) = &mut self.attempts else { return false };
        if self.up.held().is_some() {
            if self.down.is_quiet() {
                return true;
            }
            self.go_on(NotSpliced::Busy);
            cx.waker().wake_by_ref();
        } else if answered && attempts.answered() && self.up.is_quiet() && self.down.is_quiet() {
            hold_acknowledgements(self.client, self.backend);
            self.up.hold();
        }
        false
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
            // The backend is through; a client still sending what nobody wants has a little time to notice.
            Poll::Ready(Ok(())) if self.up.is_discarding() => self.linger(),
            Poll::Ready(Err(Broken::Source)) => broken(Outcome::BackendReset, Side::Client),
            Poll::Ready(Err(Broken::SinkClosed | Broken::SinkReset)) => broken(Outcome::ClientReset, Side::Backend),
            Poll::Ready(Ok(())) | Poll::Pending => self.poll_deaf(cx),
        }
    }

    fn poll_up(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.up.poll(cx, self.client, self.backend, &mut self.traffic.up, self.down.is_done())
    }

    /// Errors of a side that is not read from.
    fn poll_deaf(&mut self, cx: &mut Context<'_>) -> Poll<End> {
        if self.up.is_deaf() && self.client_watch.poll(cx, self.client).is_ready() {
            return broken(Outcome::ClientReset, Side::Backend);
        }
        if self.down.is_deaf() && !self.lingering && self.backend_watch.poll(cx, self.backend).is_ready() {
            self.backend_broke = true;
            // As when writing to it fails. Whether it ended in good order before is told by reading the rest, if any.
            if !self.up.is_done() {
                self.up.discard();
                if let Poll::Ready(up) = self.poll_up(cx) {
                    match up {
                        Err(_) => return broken(Outcome::ClientReset, Side::Backend),
                        Ok(()) if self.down.is_done() => return closed(),
                        Ok(()) => {}
                    }
                }
            }
            return self.linger();
        }
        Poll::Pending
    }

    fn linger(&mut self) -> Poll<End> {
        if !self.lingering {
            self.lingering = true;
            let arrived = self.arrived_now();
            self.looks().moves(arrived);
            self.age.limit(Some(LINGER));
        }
        Poll::Pending
    }

    /// Sets the limits that hold for what the halves are doing now.
    fn set_limits(&mut self) {
        let ended = (self.up.is_done(), self.down.is_done());
        if ended != self.ended && !self.lingering {
            self.ended = ended;
            self.age.limit(self.limits.silence(ended.0, ended.1).0);
        }
        if let Some(stall) = self.limits.stall
            && (self.up.is_blocked() || self.down.is_blocked())
        {
            self.age.look_after(Looks::interval(stall));
        }
    }

    fn looks(&mut self) -> &mut Looks {
        self.looks.get_or_insert_default()
    }

    fn arrived_now(&self) -> (u64, u64) {
        // What a backend that is gone has taken does not count.
        let up = if self.lingering { 0 } else { arrived(self.traffic.up, self.backend) };
        (up, arrived(self.traffic.down, self.client))
    }

    /// The end of a connection in which nothing moved for the limit, unless the kernel has delivered something that
    /// waited.
    fn silent(&mut self) -> Poll<End> {
        let arrived = self.arrived_now();
        let all = (self.traffic.up, self.traffic.down);
        if arrived != all && self.looks().moves(arrived) {
            return Poll::Pending;
        }
        if !self.lingering {
            return broken(self.limits.silence(self.ended.0, self.ended.1).1, Side::Both);
        }
        if self.backend_broke { broken(Outcome::BackendReset, Side::Client) } else { closed() }
    }
}

impl Future for Relay<'_> {
    type Output = Stop;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Stop> {
        let this = &mut *self;
        let before = (this.traffic.up, this.traffic.down);
        let ended = this.poll_halves(cx);
        let moved = before != (this.traffic.up, this.traffic.down);
        if moved {
            this.traffic.moved(before.1);
        }
        if let Poll::Ready(end) = ended {
            return Poll::Ready(Stop::End(end));
        }
        if this.attempts.is_some() && this.is_moment(cx, this.traffic.down != before.1) {
            return Poll::Ready(Stop::HandOver);
        }
        if moved {
            this.traffic.note();
            this.age.note();
        }
        this.set_limits();
        while let Poll::Ready(event) = this.age.poll(cx) {
            match event {
                // Most connections are gone by now; keepalive is for those that stay.
                Event::Grown => {
                    net::keep_alive(this.backend);
                    if this.attempts.is_some() && this.up.is_quiet() && this.down.is_quiet() {
                        return Poll::Ready(Stop::HandOver);
                    }
                }
                Event::Silent => {
                    if let Poll::Ready(end) = this.silent() {
                        return Poll::Ready(Stop::End(end));
                    }
                }
                Event::Look => {
                    let looks = this.looks.get_or_insert_default();
                    if looks.find([(&this.up, this.backend), (&this.down, this.client)], this.traffic) {
                        return broken(Outcome::Stalled, Side::Both).map(Stop::End);
                    }
                    this.set_limits();
                }
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
