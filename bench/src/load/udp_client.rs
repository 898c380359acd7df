//! The flows of a client: which socket and which address each has, and whether what arrives belongs to it.
//!
//! A plain client has a socket for each flow. A client of trains has one socket for 126 flows, which differ in the
//! source address (IP_PKTINFO, ip(7)), so that many flows need few descriptors.

use std::{
    net::{Ipv4Addr, SocketAddrV4, UdpSocket},
    time::Duration,
};

use anyhow::{Context as _, ensure};
use rustix::event::epoll::EventFlags;

use super::{DATAGRAM, poller::Poller, udp_socket::Port, udp_tag::Tag};

/// Addresses that flows have, from the pool's first on.
pub const POOL: u32 = 126;

/// Time limit of [`answers`].
const ANSWER: Duration = Duration::from_millis(200);

/// Flows from this machine to one target.
pub(super) struct Client {
    target: SocketAddrV4,
    pool: Ipv4Addr,
    ports: Vec<Port>,
    /// Flows of each port.
    of_port: u32,
    poller: Poller,
    ready: Vec<(u64, EventFlags)>,
    incoming: Vec<u8>,
    outgoing: Vec<u8>,
    sequence: u64,
}

impl Client {
    /// `flows` flows with a plain socket each, from the addresses of `pool` in turn.
    pub(super) fn plain(target: SocketAddrV4, pool: Ipv4Addr, flows: u32) -> anyhow::Result<Self> {
        let ports = (0..flows).map(|flow| Port::plain(SocketAddrV4::new(address(pool, flow % POOL), 0))).collect();
        Self::new(target, pool, ports, 1)
    }

    /// `flows` flows from the addresses of `pool`, which share sockets for trains.
    pub(super) fn trains(target: SocketAddrV4, pool: Ipv4Addr, flows: u32) -> anyhow::Result<Self> {
        let any = SocketAddrV4::new(Ipv4Addr::UNSPECIFIED, 0);
        let ports = (0..flows.div_ceil(POOL)).map(|_| Port::trains(any)).collect();
        Self::new(target, pool, ports, POOL)
    }

    fn new(
        target: SocketAddrV4,
        pool: Ipv4Addr,
        ports: anyhow::Result<Vec<Port>>,
        of_port: u32,
    ) -> anyhow::Result<Self> {
        let (ports, poller) = (ports?, Poller::new()?);
        for (token, port) in ports.iter().enumerate() {
            poller.add(port, u64::try_from(token)?, EventFlags::IN)?;
        }
        Ok(Self {
            target,
            pool,
            ports,
            of_port,
            poller,
            ready: Vec::new(),
            incoming: Port::buffer(),
            outgoing: Vec::new(),
            sequence: 0,
        })
    }

    /// Sends `count` datagrams of `size` bytes over `flow` and returns the number of the first.
    pub(super) fn send(&mut self, flow: u32, slot: u32, count: u32, size: usize) -> anyhow::Result<u64> {
        let first = self.sequence;
        self.sequence += u64::from(count);
        self.outgoing.resize(usize::try_from(count)? * size, 0);
        for (datagram, sequence) in self.outgoing.chunks_mut(size).zip(first..) {
            let tag = Tag { flow, slot, sequence }.to_bytes();
            datagram.get_mut(..Tag::LENGTH).context("a datagram is too short")?.copy_from_slice(&tag);
        }
        let port = self.ports.get(usize::try_from(flow / self.of_port)?).context("no such flow")?;
        port.send(Some(address(self.pool, flow % POOL)), self.target, &self.outgoing, size)?;
        Ok(first)
    }

    /// Waits for datagrams for no longer than `limit`, and hands each to `each` with its tag.
    ///
    /// # Errors
    ///
    /// When one is not of `size` bytes, comes from elsewhere, or belongs to another flow than the one it arrives at.
    pub(super) fn receive(
        &mut self,
        limit: Duration,
        size: usize,
        mut each: impl FnMut(Tag) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        self.poller.wait_within(limit, &mut self.ready)?;
        for &(token, _) in &self.ready {
            self.ports[usize::try_from(token)?].receive(&mut self.incoming, |received| {
                ensure!(received.from == self.target, "a reply comes from {}", received.from);
                // Without an address there is one flow to a port.
                let of_address = received.to.map_or(0, |to| u32::from(to).wrapping_sub(u32::from(self.pool)));
                let flow = u32::try_from(token)? * self.of_port + of_address;
                for datagram in received.bytes.chunks(received.stride) {
                    ensure!(datagram.len() == size, "a reply of {} bytes instead of {size}", datagram.len());
                    let tag = Tag::from_bytes(datagram).context("a reply is not what was sent")?;
                    ensure!(tag.flow == flow, "a reply to flow {} has arrived at flow {flow}", tag.flow);
                    each(tag)?;
                }
                Ok(())
            })?;
        }
        Ok(())
    }
}

/// Sends a datagram to `target` and waits a moment for its echo.
///
/// # Errors
///
/// When nothing comes back, or something else.
pub fn answers(target: SocketAddrV4) -> anyhow::Result<()> {
    let socket = UdpSocket::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    socket.set_read_timeout(Some(ANSWER))?;
    let mut message = [0; DATAGRAM];
    message[..Tag::LENGTH].copy_from_slice(&Tag { flow: 0, slot: 0, sequence: 0 }.to_bytes());
    socket.send_to(&message, target).context("send")?;
    let mut answer = [0; DATAGRAM + 1];
    let (length, _) = socket.recv_from(&mut answer).context("no answer")?;
    ensure!(answer[..length] == message, "the echo is not the message");
    Ok(())
}

/// Number `n` of the addresses of `pool`.
fn address(pool: Ipv4Addr, n: u32) -> Ipv4Addr {
    Ipv4Addr::from_bits(pool.to_bits() + n)
}
