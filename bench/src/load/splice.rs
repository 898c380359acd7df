//! The reference relay: what plain splice(2) through a pipe can do.
//!
//! Two blocking threads a connection, one for each direction, and nothing else: no routing, no limits, no timeouts.
//! It is a yardstick for bulk transfer, not a proxy.

use std::{net::SocketAddrV4, sync::Arc, thread};

use anyhow::Context as _;
use rustix::{
    event::{PollFd, PollFlags, poll},
    fd::OwnedFd,
    io::Errno,
    net::{Shutdown, SocketFlags, shutdown, sockopt},
    pipe::{PipeFlags, SpliceFlags, fcntl_setpipe_size, pipe_with, splice},
};

use super::poller::{dial_and_wait, listen};

/// Size of the pipe between two sockets, in bytes: the most that an unprivileged user may ask for by default.
const PIPE: usize = 1 << 20;

/// Stack of a thread, in bytes.
const STACK: usize = 64 << 10;

/// Relays connections from `address` to `target` for ever.
///
/// # Errors
///
/// When the address cannot be listened on, or a thread cannot be started.
pub fn relay(address: SocketAddrV4, target: SocketAddrV4) -> anyhow::Result<()> {
    let listener = listen(address)?;
    loop {
        poll(&mut [PollFd::new(&listener, PollFlags::IN)], None)?;
        let client = match rustix::net::accept_with(&listener, SocketFlags::CLOEXEC) {
            Ok(client) => client,
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => continue,
            Err(error) => return Err(error).context("accept"),
        };
        spawn(move || connection(client, target))?;
    }
}

/// A failure on the way is the end of this connection, which both peers see.
fn connection(client: OwnedFd, target: SocketAddrV4) {
    let Ok(server) = dial_and_wait(target) else { return };
    // The timeouts of dialling would end a direction that is silent for a while.
    for timeout in [sockopt::Timeout::Send, sockopt::Timeout::Recv] {
        if sockopt::set_socket_timeout(&server, timeout, None).is_err() {
            return;
        }
    }
    if sockopt::set_tcp_nodelay(&client, true).is_err() {
        return;
    }
    let (client, server) = (Arc::new(client), Arc::new(server));
    let (back_from, back_to) = (Arc::clone(&server), Arc::clone(&client));
    if spawn(move || pump(&back_from, &back_to)).is_ok() {
        pump(&client, &server);
    }
}

fn pump(from: &OwnedFd, to: &OwnedFd) {
    // Either way the reader of `to` learns that no more will come.
    let _ended = transfer(from, to);
    let _gone = shutdown(to, Shutdown::Write);
}

fn transfer(from: &OwnedFd, to: &OwnedFd) -> rustix::io::Result<()> {
    let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
    fcntl_setpipe_size(&writer, PIPE)?;
    loop {
        let mut held = splice(from, None, &writer, None, PIPE, SpliceFlags::MOVE)?;
        if held == 0 {
            return Ok(());
        }
        while held > 0 {
            held -= splice(&reader, None, to, None, held, SpliceFlags::MOVE)?;
        }
    }
}

fn spawn(work: impl FnOnce() + Send + 'static) -> std::io::Result<()> {
    thread::Builder::new().stack_size(STACK).spawn(work).map(drop)
}
