//! The barest relay: two sockets and epoll(7), with as few system calls as that takes.
//!
//! No routing, no limits, no timeouts, no log: what is between this and a proxy is what the proxy's work costs, and no
//! relay that reads and writes sockets one by one gets past it. It is a yardstick for exchanges and connections.

use std::{mem, net::SocketAddrV4, sync::mpsc, thread};

use anyhow::Context as _;
use rustix::{
    event::epoll::EventFlags,
    fd::OwnedFd,
    io::Errno,
    net::{RecvFlags, SendFlags, Shutdown, SocketFlags, shutdown, sockopt},
};

use super::poller::{Poller, dial, listen_shared};

/// Threads, each with a listening socket of its own.
const THREADS: usize = 2;
/// The most that is read at once, in bytes.
const BUFFER: usize = 32 << 10;
/// The token of the listening socket.
const LISTENER: u64 = u64::MAX;

/// Relays connections from `address` to `target` for ever.
///
/// # Errors
///
/// When the address cannot be listened on, or epoll fails.
pub fn relay(address: SocketAddrV4, target: SocketAddrV4) -> anyhow::Result<()> {
    let (end, ended) = mpsc::channel();
    for _ in 0..THREADS {
        let end = end.clone();
        thread::spawn(move || end.send(Relay::new(address, target).and_then(Relay::run)));
    }
    // Half a relay would be measured as if it were a whole one.
    ended.recv()?
}

/// One side of a connection.
struct Side {
    socket: OwnedFd,
    /// There may be something to read.
    readable: bool,
    /// Its end is behind what there is to read.
    closing: bool,
    /// It can be written to.
    writable: bool,
    /// It will send no more.
    ended: bool,
    /// Bytes that could not be written to it yet.
    held: Vec<u8>,
}

/// Client and server.
type Pair = [Side; 2];

struct Relay {
    poller: Poller,
    listener: OwnedFd,
    target: SocketAddrV4,
    pairs: Vec<Option<Pair>>,
    free: Vec<usize>,
    buffer: Vec<u8>,
}

impl Relay {
    fn new(address: SocketAddrV4, target: SocketAddrV4) -> anyhow::Result<Self> {
        let (poller, listener) = (Poller::new()?, listen_shared(address)?);
        // Accepted sockets inherit it.
        sockopt::set_tcp_nodelay(&listener, true)?;
        poller.add(&listener, LISTENER, EventFlags::IN)?;
        Ok(Self { poller, listener, target, pairs: Vec::new(), free: Vec::new(), buffer: vec![0; BUFFER] })
    }

    fn run(mut self) -> anyhow::Result<()> {
        let (mut ready, mut ended) = (Vec::new(), Vec::new());
        loop {
            self.poller.wait(&mut ready)?;
            for (token, events) in ready.drain(..) {
                if token == LISTENER {
                    self.accept()?;
                    continue;
                }
                let slot = usize::try_from(token / 2)?;
                let Some(pair) = self.pairs.get_mut(slot).and_then(Option::as_mut) else { continue };
                let side = &mut pair[usize::from(token % 2 == 1)];
                let closing = EventFlags::RDHUP | EventFlags::HUP | EventFlags::ERR;
                side.closing |= events.intersects(closing);
                side.readable |= events.intersects(EventFlags::IN | closing);
                side.writable |= events.contains(EventFlags::OUT);
                if !carry(pair, &mut self.buffer) {
                    self.pairs[slot] = None;
                    ended.push(slot);
                }
            }
            // Not before: later events of this batch may be for what was in the slot.
            self.free.append(&mut ended);
        }
    }

    fn accept(&mut self) -> anyhow::Result<()> {
        let client = match rustix::net::accept_with(&self.listener, SocketFlags::CLOEXEC | SocketFlags::NONBLOCK) {
            Ok(client) => client,
            Err(Errno::AGAIN | Errno::CONNABORTED | Errno::INTR) => return Ok(()),
            Err(error) => return Err(error).context("accept"),
        };
        let server = dial(self.target)?;
        sockopt::set_tcp_nodelay(&server, true)?;
        let slot = self.free.pop().unwrap_or(self.pairs.len());
        let interest = EventFlags::IN | EventFlags::OUT | EventFlags::RDHUP | EventFlags::ET;
        let token = 2 * u64::try_from(slot)?;
        self.poller.add(&client, token, interest)?;
        self.poller.add(&server, token + 1, interest)?;
        let side = |socket, writable| Side {
            socket,
            readable: false,
            closing: false,
            writable,
            ended: false,
            held: Vec::new(),
        };
        let pair = Some([side(client, true), side(server, false)]);
        match self.pairs.get_mut(slot) {
            Some(slot) => *slot = pair,
            None => self.pairs.push(pair),
        }
        Ok(())
    }
}

/// Carries what can be carried; whether there may be more.
fn carry(pair: &mut Pair, buffer: &mut [u8]) -> bool {
    let [client, server] = pair;
    let more = pump(client, server, buffer).and_then(|()| pump(server, client, buffer));
    more.is_ok() && !(client.ended && server.ended)
}

/// Everything from one side to the other; a failure ends both.
fn pump(from: &mut Side, to: &mut Side, buffer: &mut [u8]) -> rustix::io::Result<()> {
    if !to.writable {
        return Ok(());
    }
    let held = mem::take(&mut to.held);
    put(to, &held)?;
    while to.held.is_empty() && from.readable && !from.ended {
        let count = match rustix::net::recv(&from.socket, &mut *buffer, RecvFlags::empty()) {
            Ok((count, _)) => count,
            Err(Errno::AGAIN) => {
                from.readable = false;
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        if count == 0 {
            from.ended = true;
            // With both ended, closing tells the same.
            return if to.ended { Ok(()) } else { shutdown(&to.socket, Shutdown::Write) };
        }
        // Less than was asked for: the next event tells of more, but for the end.
        from.readable = count == buffer.len() || from.closing;
        put(to, &buffer[..count])?;
    }
    Ok(())
}

/// Writes, and keeps what finds no room.
fn put(to: &mut Side, bytes: &[u8]) -> rustix::io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        match rustix::net::send(&to.socket, rest, SendFlags::NOSIGNAL) {
            Ok(count) => rest = rest.get(count..).unwrap_or_default(),
            Err(Errno::AGAIN) => {
                to.writable = false;
                to.held = rest.to_vec();
                break;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
