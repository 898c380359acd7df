//! The interface of the kernel plane to the rest of the daemon, and its stand-in where there is none.

use std::{fmt::Debug, net::SocketAddr, time::Duration};

use rpxy_l4_proto::quic::ConnectionId;
use thiserror::Error;

/// A session as the kernel sees it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Steered {
    /// Client.
    pub client: SocketAddr,
    /// Local address and port that the client sends to. Not a wildcard.
    pub local: SocketAddr,
    /// Local end towards the backend. Not a wildcard.
    pub upstream: SocketAddr,
    /// Backend address.
    pub backend: SocketAddr,
    /// Bits of `rpxy_l4_common::map::kind`, for both directions.
    pub kind: u8,
    /// Mark of its rule, by which a later daemon finds the rule again (`UdpRoute::mark`). Not 0.
    pub mark: u16,
    /// QUIC: destination connection ID of the client's short headers. WireGuard: receiver index of its transport messages,
    /// 4 bytes. Datagrams with another one go to the daemon. `None`, or an empty ID, is not compared.
    pub cid: Option<ConnectionId>,
}

/// A session that the kernel steers. Small, for every session has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Installed {
    /// Where it is in the flow table.
    pub(super) slot: u32,
    /// Tells it from earlier ones there.
    pub(super) generation: u32,
}

/// Reason why a session stays in userspace.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum NotSteered {
    /// There is no kernel plane.
    Off,
    /// Client and backend are of different families.
    Family,
    /// Client or backend is on this machine.
    Loopback,
    /// An address is link-local, multicast, broadcast or unspecified.
    Address,
    /// There is no route to the client or to the backend. Temporary.
    NoRoute,
    /// The flow table or the table of next hops is full. Temporary.
    Full,
    /// Packets would leave by an interface without a program. Temporary.
    Interface,
    /// The kernel refused the entry.
    Failed,
}

impl NotSteered {
    /// All of them, in the order of their discriminants.
    pub(crate) const ALL: [Self; 8] = [
        Self::Off,
        Self::Family,
        Self::Loopback,
        Self::Address,
        Self::NoRoute,
        Self::Full,
        Self::Interface,
        Self::Failed,
    ];

    /// Returns true if the reason can go away while the session lives. [`Offload::changes`] then tells when to retry.
    #[must_use]
    pub(crate) fn is_temporary(self) -> bool {
        matches!(self, Self::NoRoute | Self::Full | Self::Interface)
    }

    /// Returns the name that `rpxy-l4 flows` shows.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
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

/// Traffic that the kernel has steered for a session, including directions that are parked for lack of a route.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Usage {
    /// Packets steered, both directions.
    pub packets: u64,
    /// UDP payload bytes steered from the client to the backend.
    pub bytes_up: u64,
    /// UDP payload bytes steered from the backend to the client.
    pub bytes_down: u64,
    /// Time since the last packet was steered; `None` if none was.
    pub idle: Option<Duration>,
    /// Times that the client can have spoken after the backend had, at most: the session was installed after an answer.
    pub turns: u64,
    /// Most packets of a direction arrive by another interface than the route to their sender leaves by, and so pass
    /// through the daemon.
    pub asymmetric: bool,
}

impl Usage {
    /// Adds the usage of a later installation of the same session.
    pub(crate) fn add(&mut self, other: &Self) {
        self.packets += other.packets;
        self.bytes_up += other.bytes_up;
        self.bytes_down += other.bytes_down;
        self.idle = other.idle;
        self.turns = other.turns;
        self.asymmetric = other.asymmetric;
    }
}

/// Steers established sessions past the daemon. Calls are made per session, never per datagram: they take system calls.
pub(crate) trait Offload: Send + Sync + Debug {
    /// Lets the session's datagrams bypass the daemon. A session that is installed with the same client's end is replaced,
    /// and its counters start again from zero.
    ///
    /// # Errors
    ///
    /// The reason why the session stays in userspace; nothing of it is left in the kernel.
    fn install(&self, flow: &Steered) -> Result<Installed, NotSteered>;

    /// Steers by another connection ID or index, that the client now uses.
    fn update_cid(&self, session: Installed, cid: &ConnectionId);

    /// Takes the session back: its datagrams no longer bypass the daemon.
    fn revoke(&self, session: Installed);

    /// Reads the route to the session's backend again, after ICMP reported a smaller path MTU.
    fn path_changed(&self, session: Installed);

    /// Returns what was steered so far; `None` if the session was replaced.
    fn usage(&self, session: Installed) -> Option<Usage>;

    /// Returns a number that changes whenever a session that was refused for a temporary reason may be accepted: a slot
    /// became free, or the network changed.
    fn changes(&self) -> u64;
}

/// The absence of a kernel plane: every session stays in userspace.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Off;

impl Offload for Off {
    fn install(&self, _flow: &Steered) -> Result<Installed, NotSteered> {
        Err(NotSteered::Off)
    }

    fn update_cid(&self, _session: Installed, _cid: &ConnectionId) {}

    fn revoke(&self, _session: Installed) {}

    fn path_changed(&self, _session: Installed) {}

    fn usage(&self, _session: Installed) -> Option<Usage> {
        None
    }

    fn changes(&self) -> u64 {
        0
    }
}

/// Reason why there is no kernel plane, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{what}; {remedy}")]
pub(crate) struct Unavailable {
    pub(crate) what: String,
    pub(crate) remedy: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_in_the_order_of_their_discriminants() {
        for (index, reason) in NotSteered::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
    }
}
