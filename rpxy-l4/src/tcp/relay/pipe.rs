//! `splice(2)`: socket to pipe to socket, pages by reference.
//!
//! A pipe is two descriptors and up to [`CAPACITY`] of pinned memory, so a connection holds one only while bytes are in
//! it; idle ones wait in a small pool of the worker.

use std::{
    cell::{Cell, RefCell},
    io,
    os::fd::OwnedFd,
    sync::atomic::{AtomicUsize, Ordering},
    task::{Context, Poll, ready},
    time::{Duration, Instant},
};

use rustix::{
    io::Errno,
    net::{RecvFlags, recv},
    pipe::{PipeFlags, SpliceFlags, fcntl_getpipe_size, fcntl_setpipe_size, pipe_with, splice},
};
use tokio::{io::Interest, net::TcpStream};

use super::broken::Broken;

/// Asked of the kernel for each pipe, in bytes. It is also what a receiver that has stalled can pin.
const CAPACITY: usize = 1 << 20;
/// Least useful capacity of a pipe. Beyond `/proc/sys/fs/pipe-user-pages-soft` new ones have two pages.
const LEAST_CAPACITY: usize = 64 << 10;
/// Pipes that one worker has at once, in use and idle; more streams than that are copied.
pub(in crate::tcp) const MOST_PIPES: usize = 32;
/// The same, where there are few descriptors.
static FIT: AtomicUsize = AtomicUsize::new(MOST_PIPES);
/// Time for which a worker that was refused a pipe does not ask again: asking in vain costs seven system calls.
const ASK_AGAIN: Duration = Duration::from_secs(1);
/// Idle pipes that a worker keeps.
const POOL: usize = 16;
/// A splice that moves less than this would have been cheaper as a copy.
const TRICKLE: usize = 8 << 10;
/// Trickles in a row after which a stream no longer counts as bulk.
const TRICKLES: u8 = 8;

thread_local! {
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
    static PIPES: Cell<usize> = const { Cell::new(0) };
    static REFUSED: Cell<Option<Instant>> = const { Cell::new(None) };
}

/// From now on, every worker has room for `count` pipes, if that is less than it would have otherwise.
pub(in crate::tcp) fn fit(count: usize) {
    FIT.store(count.min(MOST_PIPES), Ordering::Relaxed);
}

#[derive(Debug)]
struct Pipe {
    read: OwnedFd,
    write: OwnedFd,
}

/// A half that splices.
#[derive(Debug)]
pub(super) struct Piped {
    pipe: Option<Pipe>,
    /// Bytes in the pipe.
    held: usize,
    trickles: u8,
}

/// Progress of a round.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Much, or not all of it yet.
    Bulk,
    /// Little, for some time: go back to copying.
    Trickle,
    /// The source has nothing for splice, but is not simply empty: its end, an error or urgent data. Only reading tells.
    Unclear,
}

impl Piped {
    /// `None` when no pipe can be had: then copying goes on, and works.
    pub(super) fn new() -> Option<Self> {
        Some(Self { pipe: Some(Pipe::take()?), held: 0, trickles: 0 })
    }

    /// True while bytes are in the pipe.
    pub(super) fn is_filled(&self) -> bool {
        self.held > 0
    }

    /// One round: fills the pipe when it is empty, then empties it as far as the sink takes it.
    pub(super) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        source: &TcpStream,
        sink: &TcpStream,
        moved: &mut u64,
    ) -> Poll<Result<Moved, Broken>> {
        if self.held == 0 {
            loop {
                let Some(pipe) = self.pipe.as_ref() else {
                    // The pipe went back while the source was silent.
                    ready!(source.poll_read_ready(cx)).map_err(|_gone| Broken::Source)?;
                    self.pipe = Pipe::take();
                    if self.pipe.is_none() {
                        return Poll::Ready(Ok(Moved::Trickle));
                    }
                    continue;
                };
                match source.try_io(Interest::READABLE, || fill(source, pipe)) {
                    Ok(0) => return Poll::Ready(Ok(Moved::Unclear)),
                    Ok(n) => {
                        self.held = n;
                        self.trickles = if n < TRICKLE { self.trickles.saturating_add(1) } else { 0 };
                        break;
                    }
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        if let Some(pipe) = self.pipe.take() {
                            pipe.give_back();
                        }
                    }
                    Err(_gone) => return Poll::Ready(Err(Broken::Source)),
                }
            }
        }
        while let (1.., Some(pipe)) = (self.held, self.pipe.as_ref()) {
            match sink.try_io(Interest::WRITABLE, || Ok(splice(&pipe.read, None, sink, None, self.held, FLAGS)?)) {
                Ok(n @ 1..) => {
                    self.held = self.held.saturating_sub(n);
                    *moved += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(sink.poll_write_ready(cx)).map_err(|error| Broken::sink(&error))?;
                }
                // Nothing written though bytes are there: no way to go on.
                Ok(0) => return Poll::Ready(Err(Broken::SinkReset)),
                Err(error) => return Poll::Ready(Err(Broken::sink(&error))),
            }
        }
        Poll::Ready(Ok(if self.trickles >= TRICKLES { Moved::Trickle } else { Moved::Bulk }))
    }
}

impl Drop for Piped {
    fn drop(&mut self) {
        // A pipe with bytes in it must never serve another connection.
        if self.held == 0
            && let Some(pipe) = self.pipe.take()
        {
            pipe.give_back();
        }
    }
}

impl Pipe {
    /// An idle pipe or a new one; `None` when there are enough, or none of use can be had.
    fn take() -> Option<Self> {
        IDLE.with_borrow_mut(Vec::pop).or_else(|| {
            let refused = REFUSED.get().is_some_and(|when| when.elapsed() < ASK_AGAIN);
            if refused || PIPES.get() >= FIT.load(Ordering::Relaxed) {
                return None;
            }
            let pipe = Self::open();
            REFUSED.set(pipe.is_none().then(Instant::now));
            pipe
        })
    }

    fn open() -> Option<Self> {
        let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
        PIPES.set(PIPES.get() + 1);
        let pipe = Self { read, write };
        let _may_be_refused = fcntl_setpipe_size(&pipe.write, CAPACITY);
        let capacity = fcntl_getpipe_size(&pipe.write).unwrap_or(0);
        (capacity >= LEAST_CAPACITY).then_some(pipe)
    }

    fn give_back(self) {
        IDLE.with_borrow_mut(|idle| {
            if idle.len() < POOL {
                idle.push(self);
            }
        });
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        // At the end of a thread the count may be gone before the pool.
        let _uncounted = PIPES.try_with(|pipes| pipes.set(pipes.get().saturating_sub(1)));
    }
}

const FLAGS: SpliceFlags = SpliceFlags::MOVE.union(SpliceFlags::NONBLOCK);

/// Splices from `source` into an empty pipe. 0 means that the source is neither empty nor fit for splice.
fn fill(source: &TcpStream, pipe: &Pipe) -> io::Result<usize> {
    match splice(source, None, &pipe.write, None, CAPACITY, FLAGS) {
        Ok(n) => Ok(n),
        // Also said for ever in front of an urgent byte, which only reading skips (__tcp_read_sock). Looking costs
        // little next to what splice saves.
        Err(Errno::AGAIN) => match recv(source, &mut [0], RecvFlags::PEEK | RecvFlags::DONTWAIT) {
            Err(Errno::AGAIN) => Err(io::ErrorKind::WouldBlock.into()),
            Ok(_) => Ok(0),
            // Told once: whoever read after this would see an end in good order.
            Err(error) => Err(error.into()),
        },
        Err(error) => Err(error.into()),
    }
}
