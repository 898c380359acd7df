//! A backend's claim on an ID or index, and where it leads from.

use std::{
    net::{IpAddr, SocketAddr},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use super::Owner;

/// The network of a client, within which its address may change: 24 bits of IPv4, 56 of IPv6.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Network([u8; 7]);

impl From<IpAddr> for Network {
    fn from(address: IpAddr) -> Self {
        match address.to_canonical() {
            // 0xff is multicast in IPv6, and no client's.
            IpAddr::V4(address) => {
                let [a, b, c, _] = address.octets();
                Self([0xff, a, b, c, 0, 0, 0])
            }
            IpAddr::V6(address) => {
                let [a, b, c, d, e, f, g, ..] = address.octets();
                Self([a, b, c, d, e, f, g])
            }
        }
    }
}

/// A claim of a backend on a key; it takes of the backend's budget.
#[derive(Debug)]
pub(super) struct Claim {
    pub(super) owner: Arc<Owner>,
    /// Sessions that use it now.
    pub(super) live: u32,
    /// Until when it holds without any.
    pub(super) until: Duration,
    /// The network that it leads from; `None` is everywhere.
    pub(super) network: Option<Network>,
    /// The client socket that a used ID was first used on.
    pub(super) socket: Option<SocketAddr>,
}

impl Claim {
    /// `None` when the backend has no budget left.
    pub(super) fn new(
        owner: &Arc<Owner>,
        budget: u32,
        live: u32,
        until: Duration,
        socket: Option<SocketAddr>,
    ) -> Option<Self> {
        let more = |entries: u32| (entries < budget).then_some(entries + 1);
        owner.entries.fetch_update(Ordering::Relaxed, Ordering::Relaxed, more).ok()?;
        let network = socket.map(|socket| socket.ip().into());
        Some(Self { owner: Arc::clone(owner), live, until, network, socket })
    }

    pub(super) fn holds(&self, now: Duration) -> bool {
        self.live > 0 || now < self.until
    }
}

impl Drop for Claim {
    fn drop(&mut self) {
        self.owner.entries.fetch_sub(1, Ordering::Relaxed);
    }
}
