//! `splice(2)`: socket to pipe to socket, pages by reference.
//!
//! A pipe is two descriptors and up to [`CAPACITY`] of pinned memory, so a connection holds one only while bytes are in
//! it; idle ones wait in a small pool of the worker.

use std::{
    cell::RefCell,
    io,
    os::fd::OwnedFd,
    task::{Context, Poll, ready},
};

use rustix::pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice};
use tokio::{io::Interest, net::TcpStream};

use super::half::Broken;

/// Asked of the kernel for each pipe, in bytes; what it grants is enough in any case.
const CAPACITY: usize = 1 << 20;
/// Bytes asked of one splice.
const CHUNK: usize = 1 << 20;
/// Idle pipes that a worker keeps.
const POOL: usize = 16;
/// A splice that moves less than this would have been cheaper as a copy.
const TRICKLE: usize = 8 << 10;
/// Trickles in a row after which a stream no longer counts as bulk.
const TRICKLES: u8 = 8;

thread_local! {
    static IDLE: RefCell<Vec<Pipe>> = const { RefCell::new(Vec::new()) };
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

/// What a round moved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Moved {
    /// Much, or not all of it yet.
    Bulk,
    /// Little, for some time: go back to copying.
    Trickle,
    /// The source has ended and the pipe is empty.
    End,
}

impl Piped {
    /// `None` when no pipe can be had: then copying goes on, and works.
    pub(super) fn new() -> Option<Self> {
        Some(Self { pipe: Some(Pipe::take()?), held: 0, trickles: 0 })
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
                match source.try_io(Interest::READABLE, || move_bytes(source, &pipe.write, CHUNK)) {
                    Ok(0) => return Poll::Ready(Ok(Moved::End)),
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
            match sink.try_io(Interest::WRITABLE, || move_bytes(&pipe.read, sink, self.held)) {
                Ok(n @ 1..) => {
                    self.held = self.held.saturating_sub(n);
                    *moved += n as u64;
                }
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    ready!(sink.poll_write_ready(cx)).map_err(|_gone| Broken::Sink)?;
                }
                // Nothing written though bytes are there: no way to go on.
                Ok(0) | Err(_) => return Poll::Ready(Err(Broken::Sink)),
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
    fn take() -> Option<Self> {
        IDLE.with_borrow_mut(Vec::pop).or_else(|| {
            let (read, write) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK).ok()?;
            // Refused beyond /proc/sys/fs/pipe-user-pages-soft; a pipe of the default size works as well.
            let _default_size_will_do = fcntl_setpipe_size(&write, CAPACITY);
            Some(Self { read, write })
        })
    }

    fn give_back(self) {
        IDLE.with_borrow_mut(|idle| {
            if idle.len() < POOL {
                idle.push(self);
            }
        });
    }
}

fn move_bytes(from: &impl std::os::fd::AsFd, to: &impl std::os::fd::AsFd, most: usize) -> io::Result<usize> {
    Ok(splice(from, None, to, None, most, SpliceFlags::MOVE | SpliceFlags::NONBLOCK)?)
}
