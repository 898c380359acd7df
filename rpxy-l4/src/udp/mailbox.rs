//! What other threads tell a worker: the supervisor's orders, answers of DNS, datagrams that arrived elsewhere.

use std::{
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
        mpsc::{Receiver, Sender, channel},
    },
};

use tokio::sync::oneshot;

use super::{
    Snapshot,
    core::{FlowLine, SessionId},
    handed::{HandOver, TakenOver},
};
use crate::{
    limit::DrainedListeners,
    net::{
        poller::{Alarm, Poller},
        udp::Local,
    },
    offload::Steered,
    route::Selection,
};

/// A message to a worker.
#[derive(Debug)]
pub(crate) enum Control {
    /// Receive on this socket, which is bound to this address.
    Listen(SocketAddr, std::net::UdpSocket),
    /// Close the socket of that address with all its sessions, then drop the sender.
    Close(SocketAddr, oneshot::Sender<()>),
    /// Another configuration is in effect.
    Snapshot(Arc<Snapshot>),
    /// The first lookup of a session's name has ended.
    Resolved(SessionId),
    /// Sessions that an earlier daemon left to the kernel: inherit them when the sockets of their clients come, and receive
    /// nothing from clients before [`Control::Receive`].
    Inherit(Vec<Steered>),
    /// All of those sockets have come: return the number of sessions inherited, and forget the rest.
    Inherited(oneshot::Sender<usize>),
    /// Return copies of the listening sockets, with their addresses.
    Share(oneshot::Sender<std::io::Result<Vec<(SocketAddr, OwnedFd)>>>),
    /// Read no socket until [`Control::Thaw`]; what else comes waits until then.
    Freeze(oneshot::Sender<()>),
    /// Give all sessions to the successor of this process.
    HandOver(HandOver),
    /// Go on: there is no successor.
    Thaw,
    /// The successor has it all: end the thread, and nothing else.
    Leave,
    /// Sessions of this process's predecessor: go on with them when the sockets of their clients come.
    TakeOver(TakenOver),
    /// All of those sockets have come: return how many sessions go on, and how many do not.
    TakenOver(oneshot::Sender<(usize, usize)>),
    /// All workers have inherited their sessions, so that each finds whose a datagram is.
    Receive,
    /// Datagrams of a session here that arrived at another worker.
    Handover(Handover),
    /// Other networks are banned: end the sessions that this concerns.
    Bans,
    /// A target has gone down: end the sessions that a check ends.
    Fallen,
    /// Describe so many sessions at most, of those that are selected.
    Flows(oneshot::Sender<Vec<FlowLine>>, usize, Arc<Selection>),
    /// End a session, and tell whether there was such a session.
    CloseSession(oneshot::Sender<bool>, SessionId),
    /// Answer, as a sign of life.
    Ping(oneshot::Sender<()>),
    /// Let no new sessions begin at these listeners.
    Drain(Arc<DrainedListeners>),
    /// End every session, then the thread.
    Stop,
}

/// The sending end of a worker's mailbox. Unbounded: the supervisor sends a few messages per reload, a session one at
/// most, and handovers have a bound of their own.
#[derive(Debug, Clone)]
pub(super) struct Mailbox {
    sender: Sender<Control>,
    alarm: Alarm,
}

impl Mailbox {
    /// A mailbox whose worker waits in `poller`, and the end that the worker reads.
    pub(super) fn new(poller: &Poller) -> (Self, Receiver<Control>) {
        let (sender, inbox) = channel();
        (Self { sender, alarm: poller.alarm() }, inbox)
    }

    pub(super) fn send(&self, control: Control) {
        // A worker that is gone has nothing left to do.
        let _gone = self.sender.send(control);
        self.alarm.ring();
    }
}

/// The client's end of a session, whichever worker has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClientEnd {
    /// The address of the listening socket.
    pub(super) listener: SocketAddr,
    pub(super) client: SocketAddr,
    /// The address that the client used, where the socket has several.
    pub(super) local: Option<Local>,
}

/// A buffer of datagrams that arrived at another worker than the one that has their session.
#[derive(Debug)]
pub(crate) struct Handover {
    pub(super) end: ClientEnd,
    pub(super) bytes: Box<[u8]>,
    /// Length of each datagram but the last.
    pub(super) segment: usize,
    pub(super) tos: u8,
    _in_flight: InFlight,
}

impl Handover {
    pub(super) fn new(end: ClientEnd, bytes: &[u8], segment: usize, tos: u8, in_flight: InFlight) -> Self {
        Self { end, bytes: bytes.into(), segment, tos, _in_flight: in_flight }
    }
}

/// One buffer on its way to another worker.
#[derive(Debug)]
pub(super) struct InFlight(Arc<AtomicUsize>);

impl InFlight {
    /// Buffers on their way at most; further ones are lost.
    pub(super) const MOST: usize = 1024;

    /// Counts one more in `count`, unless there are [`InFlight::MOST`].
    pub(super) fn acquire(count: &Arc<AtomicUsize>) -> Option<Self> {
        let one = Self(Arc::clone(count));
        (count.fetch_add(1, Ordering::Relaxed) < Self::MOST).then_some(one)
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
