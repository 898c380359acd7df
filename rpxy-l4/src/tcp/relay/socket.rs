//! One `recv(2)` or `send(2)` on a socket of the runtime.
//!
//! Straight system calls: the C library's wrappers are cancellation points, which costs a relay that does little else a
//! few per cent.

use std::{
    io,
    task::{Context, Poll, ready},
};

use rustix::net::{RecvFlags, SendFlags, recv, send};
use tokio::{io::Interest, net::TcpStream};

/// Reads what is there; 0 is the end of the stream.
pub(super) fn poll_recv(cx: &mut Context<'_>, socket: &TcpStream, buffer: &mut [u8]) -> Poll<io::Result<usize>> {
    let size = buffer.len();
    loop {
        let mut done = None;
        let result = socket.try_io(Interest::READABLE, || {
            let (n, _) = recv(socket, &mut *buffer, RecvFlags::empty())?;
            done = Some(n);
            drained(n, size)
        });
        match (done, result) {
            (Some(n), _) => return Poll::Ready(Ok(n)),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            (None, _) => ready!(socket.poll_read_ready(cx))?,
        }
    }
}

/// Writes as much of `bytes`, which are not empty, as the socket takes.
pub(super) fn poll_send(cx: &mut Context<'_>, socket: &TcpStream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    loop {
        let mut done = None;
        let result = socket.try_io(Interest::WRITABLE, || {
            let n = send(socket, bytes, SendFlags::NOSIGNAL)?;
            done = Some(n);
            drained(n, bytes.len())
        });
        match (done, result) {
            (Some(n), _) => return Poll::Ready(Ok(n)),
            (None, Err(error)) if error.kind() != io::ErrorKind::WouldBlock => return Poll::Ready(Err(error)),
            (None, _) => ready!(socket.poll_write_ready(cx))?,
        }
    }
}

/// A short count means that the socket is empty (or full): saying so to the runtime saves the call that would only be
/// told "try again" (epoll(7), edge-triggered: "the amount of data read from / written to the target file descriptor").
/// An end or an error that came meanwhile stays noted there, and what comes later is a new event.
///
/// There is one exception: recv(2) also stops short at TCP urgent data, and what is queued behind it then waits for the
/// next segment. Telling the two apart would cost a system call for each read.
fn drained(n: usize, asked: usize) -> io::Result<()> {
    if 0 < n && n < asked { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(()) }
}
