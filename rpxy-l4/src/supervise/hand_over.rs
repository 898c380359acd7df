//! What a daemon and its successor say to each other. docs/design/upgrade.md has the order, and who owns what meanwhile.
//!
//! The successor asks at the admin socket, in the protocol of that socket; from the answer on, both speak in messages of
//! JSON, some of which come with a descriptor.

use std::{
    io,
    net::SocketAddr,
    os::fd::{BorrowedFd, OwnedFd},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use crate::{
    config::model::Transport,
    net::{Address, Channel},
    udp::Handed,
};

/// Version of the messages. Two daemons that have different ones do not hand over.
pub(super) const VERSION: u32 = 1;
/// Longest wait for the other one, but for the time that a start takes.
pub(super) const PATIENCE: Duration = Duration::from_secs(10);
/// Time that the successor has until it is ready: names may have to be looked up, and programs be loaded.
pub(super) const START: Duration = Duration::from_secs(60);

/// From the predecessor.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromPredecessor {
    /// A listening socket.
    Socket(HandedSocket),
    /// Those were all; what else the successor has to know.
    Sockets(Rest),
    /// A session or datagram of this worker.
    Udp(usize, Handed),
    /// That was all: serve. The predecessor does not any more, but for its TCP.
    Go,
    /// The predecessor is one no more.
    Done,
}

/// From the successor.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum FromSuccessor {
    /// It has all that can fail behind it but the sockets of metrics and commands.
    Ready,
    /// It serves, as this process.
    Serving {
        /// Its number.
        pid: u32,
    },
}

/// A listening socket, with its description.
pub(super) type OfListener = (HandedSocket, OwnedFd);
/// A session or datagram of a worker, with the socket of a session.
pub(super) type OfWorker = (usize, Handed, Option<OwnedFd>);

/// A listening socket.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct HandedSocket {
    pub(super) transport: Transport,
    pub(super) address: HandedAddress,
    /// Name of its listener, which matters where the service manager has opened it.
    pub(super) listener: String,
    /// Number of its worker.
    pub(super) worker: usize,
    /// The service manager has opened it.
    pub(super) passed: bool,
}

impl HandedSocket {
    /// A socket that this daemon has opened for a worker.
    pub(super) fn new(transport: Transport, address: Address, worker: usize) -> Self {
        Self { transport, address: address.into(), listener: String::new(), worker, passed: false }
    }

    pub(super) fn key(&self) -> (Transport, Address) {
        let address = match &self.address {
            HandedAddress::Ip(address) => Address::Ip(*address),
            HandedAddress::Unix(path) => Address::Unix(Arc::from(path.as_path())),
        };
        (self.transport, address)
    }
}

/// Where it listens.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum HandedAddress {
    Ip(SocketAddr),
    Unix(PathBuf),
}

impl From<Address> for HandedAddress {
    fn from(address: Address) -> Self {
        match address {
            Address::Ip(address) => Self::Ip(address),
            Address::Unix(path) => Self::Unix(path.to_path_buf()),
        }
    }
}

/// What a successor has to know beside the sockets.
#[derive(Debug, Serialize, Deserialize)]
pub(super) struct Rest {
    /// `NOTIFY_SOCKET` of the predecessor.
    pub(super) notify: Option<PathBuf>,
    /// What the service manager wants of the watchdog.
    pub(super) watchdog: Option<Duration>,
    /// Networks that were banned by command.
    pub(super) bans: Vec<IpNet>,
}

/// Sends a message.
pub(super) fn send(channel: &mut Channel, message: &impl Serialize, with: Option<BorrowedFd<'_>>) -> io::Result<()> {
    channel.send(&serde_json::to_vec(message)?, with)
}

/// The next message.
pub(super) fn receive<T: DeserializeOwned>(channel: &mut Channel) -> io::Result<(T, Option<OwnedFd>)> {
    let words = [
        (io::ErrorKind::UnexpectedEof, "it has ended the conversation"),
        (io::ErrorKind::WouldBlock, "it does not answer"),
    ];
    let (message, descriptor) = channel.receive().map_err(|error| {
        let known = words.iter().find(|(kind, _)| *kind == error.kind());
        known.map_or(error, |(kind, text)| io::Error::new(*kind, *text))
    })?;
    Ok((serde_json::from_slice(&message)?, descriptor))
}
