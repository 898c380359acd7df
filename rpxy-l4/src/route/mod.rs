//! From what was recognised to where it goes: rule tables, balancing, health of targets.

mod balance;
mod ech;
mod from;
mod health;
mod mac1;
mod names;
mod random;
mod rendezvous;
mod table;
mod turns;
mod udp;

pub(crate) use balance::{Endpoint, Group, Pick, Tried};
pub(crate) use ech::{EchDecision, EchRoute};
pub(crate) use health::{Busy, DownTarget, Targets};
pub(crate) use names::{Conditions, NameTable};
pub(crate) use random::Random;
pub(crate) use table::{Protocol, Route, TcpRoutes};
pub(crate) use udp::{Datagrams, ShareOf, Stray, UdpRoute, UdpRoutes, UnknownVersionRoute};

/// Waits until the name of every endpoint has had its first answer, good or bad.
pub(crate) async fn resolved(endpoints: impl Iterator<Item = &Endpoint>) {
    for name in endpoints.filter_map(Endpoint::name) {
        drop(name.addresses().await);
    }
}
