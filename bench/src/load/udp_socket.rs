//! A UDP socket of the load generator: plain, or one that sends and receives trains of datagrams.

use std::{
    io::{self, ErrorKind, IoSliceMut},
    net::{IpAddr, Ipv4Addr, SocketAddr, SocketAddrV4, UdpSocket},
};

use anyhow::{Context as _, bail};
use quinn_udp::{RecvMeta, Transmit, UdpSockRef, UdpSocketState};
use rustix::{
    fd::{AsFd, BorrowedFd},
    net::sockopt,
};

/// Trains received by one system call.
const BATCH: usize = 8;
/// Bytes of the longest train.
const TRAIN: usize = 64 << 10;
/// Receive buffer of a socket, in bytes: what is measured must not lose datagrams at the ends.
const RECEIVE_BUFFER: usize = 4 << 20;
/// Datagrams received in a row before other sockets have their turn.
const IN_A_ROW: usize = 64;

/// One socket, non-blocking.
pub(super) struct Port {
    socket: UdpSocket,
    /// Of a socket with UDP_GRO and IP_PKTINFO.
    trains: Option<UdpSocketState>,
}

/// One datagram, or several of one flow in a row.
pub(super) struct Received<'buffer> {
    /// Address of the sender.
    pub(super) from: SocketAddrV4,
    /// The address that it was sent to; `None` at a plain socket.
    pub(super) to: Option<Ipv4Addr>,
    /// All of it.
    pub(super) bytes: &'buffer [u8],
    /// Length of each datagram but the last, which may be shorter.
    pub(super) stride: usize,
}

impl Port {
    /// A socket that sends and receives one datagram a system call.
    pub(super) fn plain(address: SocketAddrV4) -> anyhow::Result<Self> {
        let socket = UdpSocket::bind(address).with_context(|| format!("bind {address}"))?;
        socket.set_nonblocking(true)?;
        // Only root may go beyond the limit; the tests do without.
        let _refused = sockopt::set_socket_recv_buffer_size_force(&socket, RECEIVE_BUFFER);
        Ok(Self { socket, trains: None })
    }

    /// A socket that sends and receives trains, and tells which of its addresses they were sent to.
    pub(super) fn trains(address: SocketAddrV4) -> anyhow::Result<Self> {
        let port = Self::plain(address)?;
        let trains = UdpSocketState::new(UdpSockRef::from(&port.socket)).context("UDP_GRO and IP_PKTINFO")?;
        Ok(Self { trains: Some(trains), ..port })
    }

    /// Buffers of [`Port::receive`].
    pub(super) fn buffer() -> Vec<u8> {
        vec![0; BATCH * TRAIN]
    }

    /// Sends datagrams of `stride` bytes each to `to`, all at once if this is a socket for trains. `from` is for these
    /// only. What does not fit the send buffer is lost.
    pub(super) fn send(
        &self,
        from: Option<Ipv4Addr>,
        to: SocketAddrV4,
        bytes: &[u8],
        stride: usize,
    ) -> anyhow::Result<()> {
        let destination = SocketAddr::V4(to);
        let outcome = match &self.trains {
            None => bytes.chunks(stride).try_for_each(|bytes| self.socket.send_to(bytes, destination).map(drop)),
            Some(state) => {
                let src_ip = from.map(IpAddr::V4);
                let train = Transmit { destination, ecn: None, contents: bytes, segment_size: Some(stride), src_ip };
                state.try_send(UdpSockRef::from(&self.socket), &train)
            }
        };
        match outcome {
            Err(error) if error.kind() != ErrorKind::WouldBlock => Err(error).with_context(|| format!("send to {to}")),
            Ok(()) | Err(_) => Ok(()),
        }
    }

    /// Receives what is there and hands it to `each`.
    pub(super) fn receive(
        &self,
        buffer: &mut [u8],
        mut each: impl FnMut(Received<'_>) -> anyhow::Result<()>,
    ) -> anyhow::Result<()> {
        let Some(state) = &self.trains else {
            for _ in 0..IN_A_ROW {
                let Some((length, from)) = unless_empty(self.socket.recv_from(buffer))? else { break };
                each(Received { from: ipv4(from)?, to: None, bytes: &buffer[..length], stride: length })?;
            }
            return Ok(());
        };
        let mut trains: Vec<_> = buffer.chunks_mut(TRAIN).map(IoSliceMut::new).collect();
        let mut metas = [RecvMeta::default(); BATCH];
        let received = state.recv(UdpSockRef::from(&self.socket), &mut trains, &mut metas);
        let Some(count) = unless_empty(received)? else { return Ok(()) };
        for (train, meta) in trains.iter().zip(&metas).take(count) {
            let to = match meta.dst_ip {
                Some(IpAddr::V4(address)) => Some(address),
                Some(IpAddr::V6(_)) | None => None,
            };
            each(Received { from: ipv4(meta.addr)?, to, bytes: &train[..meta.len], stride: meta.stride.max(1) })?;
        }
        Ok(())
    }
}

impl AsFd for Port {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.socket.as_fd()
    }
}

fn unless_empty<T>(outcome: io::Result<T>) -> anyhow::Result<Option<T>> {
    match outcome {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
        Err(error) => Err(error).context("receive"),
    }
}

fn ipv4(address: SocketAddr) -> anyhow::Result<SocketAddrV4> {
    match address {
        SocketAddr::V4(address) => Ok(address),
        SocketAddr::V6(address) => bail!("{address} is not of IPv4"),
    }
}
