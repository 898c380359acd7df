//! A group of targets.

use std::sync::Arc;

#[cfg(feature = "proxy-protocol")]
use super::ProxyVersion;
use super::{Check, ServerId, SplicePolicy, Target};

/// A group of targets and how one is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Not empty, in file order, at least one of them not a backup.
    pub targets: Vec<Target>,
    /// The choice among them.
    pub balance: Balance,
    /// For QUIC: the server's part of connection IDs by position of the target, where it is told.
    pub server_ids: Vec<(usize, ServerId)>,
    /// How they are asked whether they live; `None` is not at all.
    pub check: Option<Arc<Check>>,
    /// What is down is not tried at all, instead of last.
    pub only_healthy: bool,
    /// When connections to these targets are handed to the kernel (TCP only), inheritance already resolved.
    pub splice: SplicePolicy,
    /// PROXY header to send to these targets (TCP only), inheritance already resolved.
    #[cfg(feature = "proxy-protocol")]
    pub send_proxy: Option<ProxyVersion>,
}

/// The choice among several targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Balance {
    /// The first that can be reached.
    #[default]
    None,
    /// Rendezvous hash of the client's address.
    SourceIp,
    /// Rendezvous hash of the client's address and port.
    SourceSocket,
    /// At random, by weight.
    Random,
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConn,
}
