//! One direction of a relayed connection.

use std::{
    future::Future,
    pin::pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use rustix::net::{Shutdown, shutdown};
use tokio::net::TcpStream;

use super::{
    Preamble,
    broken::Broken,
    pipe::{Moved, Piped},
    scratch,
    socket::{poll_recv, poll_send},
};

/// Buffers filled in a row after which a stream counts as bulk.
const BULK_AFTER: u8 = 2;
/// Bytes moved in one poll; then other connections of the worker have their turn.
const TURN: u64 = 1 << 20;
/// Rounds of one poll, for streams that come in small pieces.
const ROUNDS: u32 = 16;

/// One direction: bytes from a source socket to a sink socket.
#[derive(Debug, Default)]
pub(super) struct Half {
    state: State,
    /// Full buffers in a row.
    full: u8,
    /// Bytes at the front of the stream that are not payload and not counted.
    uncounted: usize,
    /// The next bytes of the source are held.
    hold: bool,
}

#[derive(Debug, Default)]
enum State {
    /// Nothing held. The next bytes go through the worker's buffer.
    #[default]
    Copy,
    /// The sink took only a part; the rest waits here.
    Stalled(Bytes),
    /// The next bytes for the sink, which wait for a hand-over.
    Held(Bytes),
    /// Bulk. The pipe is held only while bytes are on their way.
    Splice(Piped),
    /// The sink is gone: the source's bytes are read and thrown away.
    Discard,
    /// The source has ended and the sink knows.
    Done,
}

impl Half {
    /// A half whose sink first gets what is left of `preamble`.
    pub(super) fn starting_with(preamble: Preamble, moved: &mut u64) -> Self {
        let Preamble { mut bytes, header, sent } = preamble;
        let mut half = Self { uncounted: header, ..Self::default() };
        half.count(sent, moved);
        bytes.advance(sent);
        if !bytes.is_empty() {
            half.state = State::Stalled(bytes);
        }
        half
    }

    /// Holds the next bytes of the source. Those that wait to be sent are held as well, if they are the source's own and
    /// none was sent.
    pub(super) fn hold(&mut self) {
        self.hold = true;
        if self.uncounted == 0
            && let State::Stalled(bytes) = &mut self.state
        {
            self.hold = false;
            self.state = State::Held(std::mem::take(bytes));
        }
    }

    /// What is held, if it is.
    pub(super) fn held(&self) -> Option<&Bytes> {
        if let State::Held(bytes) = &self.state { Some(bytes) } else { None }
    }

    /// Passes on what is held, and what follows.
    pub(super) fn let_go(&mut self) {
        self.hold = false;
        if let State::Held(bytes) = &mut self.state {
            self.state = State::Stalled(std::mem::take(bytes));
        }
    }

    /// True while nothing waits and nothing is bulk.
    pub(super) fn is_quiet(&self) -> bool {
        matches!(self.state, State::Copy)
    }

    /// From now on reads and throws away.
    pub(super) fn discard(&mut self) {
        self.state = State::Discard;
    }

    pub(super) fn is_done(&self) -> bool {
        matches!(self.state, State::Done)
    }

    pub(super) fn is_discarding(&self) -> bool {
        matches!(self.state, State::Discard)
    }

    /// True while bytes wait for the sink, so that nothing is read from the source.
    pub(super) fn is_blocked(&self) -> bool {
        match &self.state {
            State::Stalled(_) => true,
            State::Splice(piped) => piped.is_filled(),
            State::Copy | State::Held(_) | State::Discard | State::Done => false,
        }
    }

    /// True if nothing is read from the source, now or any more: its errors have to be looked for.
    pub(super) fn is_deaf(&self) -> bool {
        self.is_done() || self.is_blocked()
    }

    /// Moves what can be moved now and adds it to `moved`. Ready once the source has ended and everything, including
    /// its end, was passed on. The `last` half leaves telling the end to the close that follows.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        moved: &mut u64,
        last: bool,
    ) -> Poll<Result<(), Broken>> {
        let turn = *moved + TURN;
        for _ in 0..ROUNDS {
            if *moved >= turn {
                break;
            }
            let ended = match &mut self.state {
                State::Done => return Poll::Ready(Ok(())),
                State::Held(_) => return Poll::Pending,
                State::Copy => ready!(self.copy(cx, source, sink, moved))?,
                State::Stalled(rest) => {
                    let n = ready!(poll_send(cx, sink, rest)).map_err(|e| Broken::sink(&e))?;
                    rest.advance(n);
                    if rest.is_empty() {
                        self.state = State::Copy;
                    }
                    self.count(n, moved);
                    false
                }
                State::Splice(piped) => match ready!(piped.poll(cx, source, sink, moved))? {
                    Moved::Bulk => false,
                    Moved::Trickle => {
                        self.full = 0;
                        self.state = State::Copy;
                        false
                    }
                    Moved::Unclear => {
                        self.full = BULK_AFTER - 1;
                        self.state = State::Copy;
                        false
                    }
                },
                State::Discard => ready!(discard(cx, source))?,
            };
            if ended {
                self.state = State::Done;
                if last {
                    return Poll::Ready(Ok(()));
                }
                // A sink that is gone already has nothing to be told.
                let _gone = shutdown(sink, Shutdown::Write);
                return Poll::Ready(Ok(()));
            }
        }
        again_later(cx);
        Poll::Pending
    }

    /// One read and one write. True at the end of the source.
    fn copy(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        moved: &mut u64,
    ) -> Poll<Result<bool, Broken>> {
        scratch::with(|buffer| {
            let size = buffer.len();
            let filled = ready!(poll_recv(cx, source, buffer)).map_err(|_gone| Broken::Source)?;
            let data = buffer.get(..filled).unwrap_or_default();
            if data.is_empty() {
                return Poll::Ready(Ok(true));
            }
            if self.hold {
                self.hold = false;
                self.state = State::Held(Bytes::copy_from_slice(data));
                return Poll::Ready(Ok(false));
            }
            let n = match poll_send(cx, sink, data) {
                Poll::Ready(written) => written.map_err(|e| Broken::sink(&e))?,
                Poll::Pending => 0,
            };
            self.count(n, moved);
            self.full = if data.len() == size { self.full.saturating_add(1) } else { 0 };
            let rest = data.get(n..).unwrap_or_default();
            if !rest.is_empty() {
                self.state = State::Stalled(Bytes::copy_from_slice(rest));
            } else if self.full >= BULK_AFTER {
                self.state = Piped::new().map_or(State::Copy, State::Splice);
            }
            Poll::Ready(Ok(false))
        })
    }

    fn count(&mut self, n: usize, moved: &mut u64) {
        let free = n.min(self.uncounted);
        self.uncounted -= free;
        *moved += (n - free) as u64;
    }
}

/// Has the task polled again, but only after the worker has looked for events of other connections. Waking it at once
/// would let a few bulk transfers keep the event loop from running.
fn again_later(cx: &mut Context<'_>) {
    let deferred = pin!(tokio::task::yield_now()).poll(cx);
    debug_assert!(deferred.is_pending(), "the first poll of yield_now defers the wake-up");
}

fn discard(cx: &mut Context<'_>, source: &TcpStream) -> Poll<Result<bool, Broken>> {
    scratch::with(|buffer| poll_recv(cx, source, buffer))
        .map(|result| result.map(|n| n == 0).map_err(|_gone| Broken::Source))
}
