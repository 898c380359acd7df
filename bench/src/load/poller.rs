//! epoll(7) and sockets, as little of them as the load generator needs.
//!
//! Tokens are indexes into the caller's tables. Stale events are possible and must be harmless to the caller.

use std::{io, net::SocketAddrV4, time::Duration};

use anyhow::{Context as _, bail};
use rustix::{
    buffer::spare_capacity,
    event::{
        Timespec,
        epoll::{self, EventData, EventFlags},
    },
    fd::{AsFd, OwnedFd},
    io::Errno,
    net::{AddressFamily, SocketFlags, SocketType, sockopt},
};

use super::STALL;

/// Events fetched by one system call.
const BATCH: usize = 256;

/// Length of accept queues. The kernel caps it by `net.core.somaxconn`.
const BACKLOG: i32 = 4096;

/// One epoll instance.
pub(super) struct Poller {
    epoll: OwnedFd,
    events: Vec<epoll::Event>,
}

impl Poller {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self { epoll: epoll::create(epoll::CreateFlags::CLOEXEC)?, events: Vec::with_capacity(BATCH) })
    }

    pub(super) fn add(&self, socket: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::add(&self.epoll, socket, EventData::new_u64(token), interest)?)
    }

    pub(super) fn modify(&self, socket: impl AsFd, token: u64, interest: EventFlags) -> io::Result<()> {
        Ok(epoll::modify(&self.epoll, socket, EventData::new_u64(token), interest)?)
    }

    /// Waits for events without limit and moves them to `ready`, which is cleared first.
    pub(super) fn wait(&mut self, ready: &mut Vec<(u64, EventFlags)>) -> io::Result<()> {
        self.fetch(None, ready)
    }

    /// Like [`Poller::wait`], for no longer than `limit`.
    pub(super) fn wait_within(&mut self, limit: Duration, ready: &mut Vec<(u64, EventFlags)>) -> io::Result<()> {
        self.fetch(Some(limit), ready)
    }

    /// Like [`Poller::wait`], but [`STALL`] without any event is an error.
    pub(super) fn wait_or_stall(&mut self, ready: &mut Vec<(u64, EventFlags)>) -> anyhow::Result<()> {
        self.fetch(Some(STALL), ready)?;
        if ready.is_empty() {
            bail!("nothing has happened for {STALL:?}");
        }
        Ok(())
    }

    fn fetch(&mut self, limit: Option<Duration>, ready: &mut Vec<(u64, EventFlags)>) -> io::Result<()> {
        let limit = limit.map(|limit| Timespec::try_from(limit).map_err(io::Error::other)).transpose()?;
        ready.clear();
        self.events.clear();
        loop {
            match epoll::wait(&self.epoll, spare_capacity(&mut self.events), limit.as_ref()) {
                Ok(_) => break,
                Err(Errno::INTR) => {}
                Err(error) => return Err(error.into()),
            }
        }
        ready.extend(self.events.iter().map(|event| {
            let (data, flags) = (event.data, event.flags);
            (data.u64(), flags)
        }));
        Ok(())
    }
}

/// A non-blocking listening socket.
pub(super) fn listen(address: SocketAddrV4) -> anyhow::Result<OwnedFd> {
    listen_with(address, stream_socket(SocketFlags::NONBLOCK)?)
}

/// The same, of several that share the address.
pub(super) fn listen_shared(address: SocketAddrV4) -> anyhow::Result<OwnedFd> {
    let socket = stream_socket(SocketFlags::NONBLOCK)?;
    sockopt::set_socket_reuseport(&socket, true)?;
    listen_with(address, socket)
}

fn listen_with(address: SocketAddrV4, socket: OwnedFd) -> anyhow::Result<OwnedFd> {
    // The address may still be in TIME_WAIT from the round before.
    sockopt::set_socket_reuseaddr(&socket, true)?;
    rustix::net::bind(&socket, &address).with_context(|| format!("bind {address}"))?;
    rustix::net::listen(&socket, BACKLOG).with_context(|| format!("listen on {address}"))?;
    Ok(socket)
}

/// A non-blocking socket on its way to `address`.
pub(super) fn dial(address: SocketAddrV4) -> anyhow::Result<OwnedFd> {
    let socket = stream_socket(SocketFlags::NONBLOCK)?;
    match rustix::net::connect(&socket, &address) {
        Ok(()) | Err(Errno::INPROGRESS) => Ok(socket),
        Err(error) => Err(error).with_context(|| format!("connect to {address}")),
    }
}

/// A blocking socket connected to `address` that gives up after [`STALL`] in any call.
pub(super) fn dial_and_wait(address: SocketAddrV4) -> anyhow::Result<OwnedFd> {
    let socket = stream_socket(SocketFlags::empty())?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Send, Some(STALL))?;
    sockopt::set_socket_timeout(&socket, sockopt::Timeout::Recv, Some(STALL))?;
    rustix::net::connect(&socket, &address).with_context(|| format!("connect to {address}"))?;
    sockopt::set_tcp_nodelay(&socket, true)?;
    Ok(socket)
}

fn stream_socket(flags: SocketFlags) -> io::Result<OwnedFd> {
    Ok(rustix::net::socket_with(AddressFamily::INET, SocketType::STREAM, SocketFlags::CLOEXEC | flags, None)?)
}
