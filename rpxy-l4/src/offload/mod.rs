//! Handing established flows to the kernel.
//!
//! The daemon decides; the programs of `rpxy-l4-ebpf` repeat the decision for every further datagram. [`Kernel`] is the
//! loaded object with its maps and interfaces, [`Off`] the absence of one. Only this module names aya. Whatever is in
//! doubt stays in the daemon, and [`NotSteered`] says why.

mod attach;
mod doctor;
mod encode;
mod explain;
mod guards;
mod hop_keys;
mod inherit;
mod kernel;
mod lease;
mod machine;
mod maps;
mod netlink;
mod object;
mod pin;
mod policy;
mod start;
mod state;
mod table;
mod watch;

use std::{fmt::Debug, net::SocketAddr, sync::Arc, time::Duration};

pub use doctor::doctor;
pub use guards::Guards;
pub use kernel::Kernel;
pub use object::object;
pub use pin::{Pinned, unpin, warn_of_left};
pub use policy::drops;
use rpxy_l4_proto::quic::ConnectionId;
use thiserror::Error;

use crate::config::model;

/// A session as the kernel would see it.
#[derive(Debug, Clone, Copy)]
pub struct Steered {
    /// The client.
    pub client: SocketAddr,
    /// The address and port that the client sends to. Not a wildcard.
    pub local: SocketAddr,
    /// Our end towards the backend. Not a wildcard.
    pub upstream: SocketAddr,
    /// The backend.
    pub backend: SocketAddr,
    /// Bits of `rpxy_l4_common::map::kind`, for both directions.
    pub kind: u8,
    /// By what rule it goes, as a later daemon finds it (`UdpRoute::mark`); not 0.
    pub mark: u16,
    /// QUIC: the connection ID that short headers of the client carry; WireGuard: the receiver's index that its transport
    /// messages carry, 4 bytes. Others go to the daemon. `None`, or an empty one, is not compared.
    pub cid: Option<ConnectionId>,
}

/// Why a session stays in the daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum NotSteered {
    /// There is no kernel plane.
    Off,
    /// Client and backend are of different families.
    Family,
    /// Client or backend is on this machine.
    Loopback,
    /// An address that only a link knows, or none at all.
    Address,
    /// There is no way to the client or to the backend. Worth another try later.
    NoRoute,
    /// As many flows as allowed. Worth another try later.
    Full,
    /// Packets would leave by an interface that has no program. Worth another try later.
    Interface,
    /// The kernel refused the entry.
    Failed,
}

impl NotSteered {
    /// Whether it may pass without the session's doing: then [`Offload::changes`] tells when.
    #[must_use]
    pub fn may_pass(self) -> bool {
        matches!(self, Self::NoRoute | Self::Full | Self::Interface)
    }

    /// As `rpxy-l4 flows` shows it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Off => "off",
            Self::Family => "family",
            Self::Loopback => "loopback",
            Self::Address => "address",
            Self::NoRoute => "no_route",
            Self::Full => "full",
            Self::Interface => "interface",
            Self::Failed => "failed",
        }
    }
}

/// What the kernel has done for a session, directions that are out because their route is gone included.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Usage {
    /// Packets steered.
    pub packets: u64,
    /// UDP payload bytes steered from the client to the backend.
    pub bytes_up: u64,
    /// UDP payload bytes steered from the backend to the client.
    pub bytes_down: u64,
    /// Time since the last packet was steered; `None` when none was.
    pub idle: Option<Duration>,
}

impl Usage {
    /// Adds what was done at another time.
    pub fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.idle = other.idle;
    }
}

/// Steers established sessions past the daemon. Calls are for sessions, not for datagrams: they take system calls.
pub trait Offload: Send + Sync + Debug {
    /// From now on the session's datagrams may bypass the daemon. Also for one that is installed: counters go on from
    /// zero.
    ///
    /// # Errors
    ///
    /// The session stays in the daemon, and nothing of it in the kernel.
    fn install(&self, flow: &Steered) -> Result<(), NotSteered>;

    /// The client goes on with another connection ID or index, `flow.cid`.
    fn update_cid(&self, flow: &Steered);

    /// From now on the session's datagrams must not bypass the daemon.
    fn revoke(&self, flow: &Steered);

    /// A router has told that the way to the session's backend takes smaller packets than was known.
    fn path_changed(&self, flow: &Steered);

    /// What was steered so far; `None` when the session is not installed.
    fn usage(&self, flow: &Steered) -> Option<Usage>;

    /// A number that is another one whenever a session that was refused for a reason that may pass could be taken now: a
    /// place is free again, or the network has changed.
    fn changes(&self) -> u64;
}

/// No offload.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off;

impl Offload for Off {
    fn install(&self, _flow: &Steered) -> Result<(), NotSteered> {
        Err(NotSteered::Off)
    }

    fn update_cid(&self, _flow: &Steered) {}

    fn revoke(&self, _flow: &Steered) {}

    fn path_changed(&self, _flow: &Steered) {}

    fn usage(&self, _flow: &Steered) -> Option<Usage> {
        None
    }

    fn changes(&self) -> u64 {
        0
    }
}

/// Why there is no kernel plane, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}; {remedy}")]
pub struct Unavailable {
    /// What is missing.
    pub what: String,
    /// The remedy.
    pub remedy: String,
}

/// Loads the programs and attaches them, as `config` says. They are gone when the value is dropped.
///
/// # Errors
///
/// Says why there is no kernel plane. Everything then passes through the daemon.
pub fn start(config: &model::Ebpf) -> Result<Arc<Kernel>, Unavailable> {
    start::start(config).map(Arc::new)
}
