//! The sockets of a worker: those that it listens on, and one for each session.

use std::{
    net::{SocketAddr, UdpSocket},
    os::fd::OwnedFd,
    sync::Arc,
    time::Duration,
};

use socket2::SockRef;

use super::{ingress::Way, kernel_flow::KernelFlow};
use crate::{
    config::model::AccessLogFormat,
    log::Access,
    metrics::{Carried, ListenerCount},
    net,
    offload::Usage,
    udp::{core::SessionId, mailbox::ClientEnd, own::OwnPort},
};

/// The number of buffers to ask for at once. Asking for more than there is costs the kernel a vain look; the rest is
/// reported again.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Appetite {
    /// Several came at once the last time.
    burst: bool,
    /// Times that one came alone.
    quiet: u8,
}

impl Appetite {
    /// One, now and then two to find out whether there is more, and `most` while there is.
    pub(super) fn ask(self, most: usize) -> usize {
        match (self.burst, self.quiet % 8) {
            (true, _) => most,
            (false, 0) => 2,
            (false, _) => 1,
        }
    }

    pub(super) fn got(&mut self, filled: usize) {
        self.burst = filled > 1;
        self.quiet = self.quiet.wrapping_add(1);
    }
}

/// One listening socket.
#[derive(Debug)]
pub(super) struct Listener {
    pub(super) address: SocketAddr,
    /// Name of the listener that it is of.
    pub(super) name: Arc<str>,
    pub(super) socket: UdpSocket,
    pub(super) appetite: Appetite,
    pub(super) losses: Losses,
    /// When it was first left with more than was read, if it still is.
    pub(super) backlog: Option<Duration>,
    /// Bytes of its receive buffer.
    pub(super) receive_buffer: u32,
    /// Counts the sessions of its listener.
    pub(super) started: ListenerCount,
}

/// Datagrams that a socket had no room for.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Losses(u32);

impl Losses {
    /// The socket has told its count; returns how many were added.
    pub(super) fn told(&mut self, count: u32) -> u32 {
        count.wrapping_sub(std::mem::replace(&mut self.0, count))
    }
}

impl Listener {
    /// Its socket, and how much to ask it for.
    pub(super) fn source(&mut self) -> (&UdpSocket, &mut Appetite) {
        (&self.socket, &mut self.appetite)
    }

    /// Has the socket have a receive buffer of so many bytes.
    pub(super) fn set_receive_buffer(&mut self, bytes: u32) {
        if self.receive_buffer != bytes {
            self.receive_buffer = bytes;
            net::udp::set_receive_buffer(&self.socket, bytes);
        }
    }
}

/// A session's socket towards its backend.
#[derive(Debug)]
pub(super) struct Upstream {
    pub(super) generation: u32,
    pub(super) socket: OwnedFd,
    pub(super) v6: bool,
    /// Has its port known as one of ours.
    pub(super) _port: Option<OwnPort>,
    pub(super) appetite: Appetite,
    pub(super) losses: Losses,
    /// Interface that its answers arrive by; 0 before the first, and where that is not told.
    pub(super) ingress: u32,
    pub(super) kernel: KernelFlow,
    /// What the kernel had forwarded when it gave the session back, if it has.
    pub(super) steered: Option<Box<Usage>>,
    /// Set where it was inherited from an earlier daemon.
    pub(super) inherited: Option<Box<ClientEnd>>,
    pub(super) format: AccessLogFormat,
    /// Name of the listener, once the session has started.
    pub(super) listener: Arc<str>,
    pub(super) access: Option<Access>,
    /// Once it has started.
    pub(super) carried: Option<Carried>,
}

impl Upstream {
    /// How datagrams of the backend come that arrive by `interface`; `None` for IPv6.
    pub(super) fn way(&self, interface: u32) -> Option<Way> {
        let socket = SockRef::from(&self.socket);
        let source = *socket.peer_addr().ok()?.as_socket_ipv4()?.ip();
        let destination = *socket.local_addr().ok()?.as_socket_ipv4()?.ip();
        Some(Way { source, destination, interface })
    }

    /// The backend, once the session has started.
    pub(super) fn backend(&self) -> Option<SocketAddr> {
        self.access.as_ref()?.destination.ip()
    }
}

pub(super) fn kernel_flow(upstreams: &[Option<Upstream>], session: SessionId) -> Option<&KernelFlow> {
    open_upstream(upstreams, session).map(|upstream| &upstream.kernel)
}

pub(super) fn open_upstream(upstreams: &[Option<Upstream>], session: SessionId) -> Option<&Upstream> {
    let held = upstreams.get(usize::try_from(session.index).ok()?)?.as_ref();
    held.filter(|upstream| upstream.generation == session.generation)
}

pub(super) fn open_upstream_mut(upstreams: &mut [Option<Upstream>], session: SessionId) -> Option<&mut Upstream> {
    let held = upstreams.get_mut(usize::try_from(session.index).ok()?)?.as_mut();
    held.filter(|upstream| upstream.generation == session.generation)
}
