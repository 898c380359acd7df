//! Sources that are targets of this configuration.
//!
//! A datagram of no protocol in particular that comes from the address and port of a target is an answer that went astray, or
//! forged. A session for it would hand it to a target, whose answer goes to that source, which answers in turn: two that
//! answer everything would do so for ever. A hello that selects a rule and a WireGuard initiation are no answers, so that a
//! server behind this port can be a client of another one.

use std::{collections::HashSet, net::SocketAddr, time::Duration};

use crate::{
    route::{Endpoint, bare},
    udp::Snapshot,
};

/// How long the addresses of names are believed.
const BELIEVED: Duration = Duration::from_secs(10);

/// The addresses of a configuration's targets.
#[derive(Debug, Default)]
pub(crate) struct TargetAddresses {
    /// Those that the file tells.
    literal: HashSet<SocketAddr>,
    /// There are others.
    has_names: bool,
}

impl TargetAddresses {
    /// Those of `endpoints`.
    pub(crate) fn of<'a, E: Iterator<Item = &'a Endpoint>>(endpoints: E) -> Self {
        let mut addresses = Self::default();
        for endpoint in endpoints {
            addresses.has_names |= endpoint.lookup().is_some();
            addresses.literal.extend(endpoint.address().and_then(Result::ok).map(plain));
        }
        addresses
    }

    /// These alone.
    pub(in crate::udp) fn literal(addresses: impl Iterator<Item = SocketAddr>) -> Self {
        Self { literal: addresses.map(plain).collect(), has_names: false }
    }
}

/// What the names among them lead to, as one worker knows it.
#[derive(Debug, Default)]
pub(super) struct NamedBackends {
    addresses: HashSet<SocketAddr>,
    until: Option<Duration>,
}

impl NamedBackends {
    /// The configuration is another one.
    pub(super) fn forget(&mut self) {
        self.until = None;
    }

    /// Returns whether a target has this address.
    pub(super) fn contains(&mut self, source: SocketAddr, snapshot: &Snapshot, now: Duration) -> bool {
        let (source, all) = (plain(source), &snapshot.target_addresses);
        if all.literal.contains(&source) || !all.has_names {
            return all.literal.contains(&source);
        }
        if self.until.is_none_or(|until| until <= now) {
            let known = snapshot.endpoints().filter_map(|endpoint| endpoint.lookup()?.known());
            self.addresses = known.flatten().map(|place| plain(place.address)).collect();
            self.until = Some(now.saturating_add(BELIEVED));
        }
        self.addresses.contains(&source)
    }
}

/// In the form that tells equal addresses to be so.
fn plain(address: SocketAddr) -> SocketAddr {
    let address = bare(address);
    SocketAddr::new(address.ip().to_canonical(), address.port())
}
