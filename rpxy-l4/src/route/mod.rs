//! From what was recognised to where it goes: rule tables, balancing, health of targets.

mod balance;
mod ech;
mod from;
mod health;
mod keys;
mod mac1;
mod names;
mod order;
mod random;
mod rendezvous;
mod selection;
mod table;
mod turns;
mod udp;
mod why;

use std::sync::Arc;

pub(crate) use balance::{Active, Endpoint, Group, Pick, Tried, bare};
pub(crate) use ech::{EchDecision, EchRoute};
pub(crate) use health::{Busy, CheckedTarget, DownTarget, Health, Standing, Targets};
pub(crate) use names::{Conditions, NameTable};
pub(crate) use order::Tier;
pub(crate) use random::Random;
pub(crate) use selection::Selection;
pub(crate) use table::{Protocol, Route, TcpRoutes};
pub(crate) use udp::{Datagrams, Stray, UdpRoute, UdpRoutes, UnknownVersionRoute};
pub(crate) use why::{Asked, KeyConditions, Misfit, Outranked, of_hello, of_initiation};

use crate::config::model::TOP;

/// What has a share of the connections and sessions that there may be.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum ShareOf {
    /// The default targets of a listener.
    Default(Arc<str>),
    /// A rule, on all its listeners.
    Rule(Arc<str>),
}

impl ShareOf {
    /// The name of its account: that of the rule, or where the file has `key`, the default targets.
    #[must_use]
    pub(crate) fn account(&self, key: &str) -> Arc<str> {
        match self {
            Self::Rule(name) => Arc::clone(name),
            Self::Default(listener) if &**listener == TOP => key.into(),
            Self::Default(listener) => format!("listeners.{listener}.{key}").into(),
        }
    }
}

impl UdpRoute {
    /// This route, and those that decrypted hellos go to.
    fn all(self: &Arc<Self>) -> impl Iterator<Item = &Arc<Self>> {
        std::iter::once(self).chain(self.ech.iter().flat_map(EchRoute::iter))
    }

    /// Returns whether it, or one of its targets, has a limit of its own.
    #[must_use]
    pub(crate) fn is_limited(&self) -> bool {
        self.max_connections.is_some() || self.group.is_limited()
    }

    /// The rule as the kernel keeps it with a flow; see [`mark`].
    #[must_use]
    pub(crate) fn mark(&self) -> u16 {
        mark(self.rule.as_deref())
    }
}

impl Route {
    /// The rule as the kernel keeps it with a connection; see [`mark`].
    #[must_use]
    pub(crate) fn mark(&self) -> u16 {
        mark(self.rule.as_deref())
    }
}

/// A rule in 16 bits, never 0: what the kernel keeps, so that a later daemon finds the rule again. Others may have the same;
/// with the backend it tells enough.
fn mark(rule: Option<&str>) -> u16 {
    // FNV-1a, which stays the same between versions of this program.
    let name = rule.unwrap_or_default();
    let hash = name.bytes().fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    let [a, b, c, d] = hash.to_be_bytes();
    u16::from_be_bytes([a ^ c, b ^ d]).max(1)
}

/// Waits until the name of every endpoint has had its first answer, good or bad.
pub(crate) async fn resolved(endpoints: impl Iterator<Item = &Endpoint>) {
    for lookup in endpoints.filter_map(Endpoint::lookup) {
        drop(lookup.first().await);
    }
}
