//! One read buffer per worker.
//!
//! A read and the write that follows it never wait in between, so all connections of a worker can share one buffer; an
//! idle connection holds none.

use std::{
    cell::RefCell,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, ReadBuf},
    net::TcpStream,
};

/// Size of the buffer in bytes. A connection that fills it again and again is better served by `splice`.
pub(super) const SIZE: usize = 32 << 10;

thread_local! {
    static BUFFER: RefCell<Box<[u8]>> = RefCell::new(vec![0; SIZE].into());
}

/// Lends the worker's buffer to `f`, which must not call this again.
pub(super) fn with<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    BUFFER.with_borrow_mut(|buffer| f(buffer))
}

/// Appends what `stream` has, up to `room` bytes; resolves to how much that was, 0 at the end of the stream.
pub(super) async fn read_into(stream: &mut TcpStream, received: &mut BytesMut, room: usize) -> io::Result<usize> {
    std::future::poll_fn(|cx| with(|buffer| poll_read_into(cx, stream, received, room, buffer))).await
}

fn poll_read_into(
    cx: &mut Context<'_>,
    stream: &mut TcpStream,
    received: &mut BytesMut,
    room: usize,
    buffer: &mut [u8],
) -> Poll<io::Result<usize>> {
    let room = room.min(buffer.len());
    let mut read = ReadBuf::new(buffer.get_mut(..room).unwrap_or_default());
    ready!(Pin::new(stream).poll_read(cx, &mut read))?;
    received.extend_from_slice(read.filled());
    Poll::Ready(Ok(read.filled().len()))
}
