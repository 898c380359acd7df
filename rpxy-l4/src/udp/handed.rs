//! What a worker hands to the process that succeeds this one, and gets from the one before.

use std::{
    fmt, io,
    net::SocketAddr,
    os::fd::{BorrowedFd, OwnedFd},
};

use serde::{Deserialize, Serialize};
use tokio::sync::oneshot;

use super::core::HandedSession;
use crate::net::udp::Local;

/// One thing handed over.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Handed {
    /// A session, with its socket.
    Session(HandedEnd, Box<HandedSession>),
    /// A datagram of a client that waits for a decision, with its type of service.
    Held(HandedEnd, Vec<u8>, u8),
}

/// The client's end of a session.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub(crate) struct HandedEnd {
    /// The address of the listening socket.
    pub(super) listener: SocketAddr,
    pub(super) client: SocketAddr,
    /// The address that the client used, where the socket has several.
    pub(super) local: Option<Local>,
}

impl Handed {
    /// The address of the listening socket.
    pub(super) fn listener(&self) -> SocketAddr {
        match self {
            Self::Session(end, _) | Self::Held(end, ..) => end.listener,
        }
    }
}

/// The way to the successor.
pub(crate) type Give = Box<dyn FnMut(&Handed, Option<BorrowedFd<'_>>) -> io::Result<()> + Send>;

/// An order to give all that a worker has.
pub(crate) struct HandOver {
    /// Takes one thing after the other.
    pub(crate) give: Give,
    /// Told when that was all: how many sessions, or why it was broken off.
    pub(crate) done: oneshot::Sender<io::Result<usize>>,
}

impl fmt::Debug for HandOver {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HandOver").finish_non_exhaustive()
    }
}

/// What a worker gets, with the socket of a session.
pub(crate) type TakenOver = Vec<(Handed, Option<OwnedFd>)>;
