//! From what was recognised to where it goes: rule tables, balancing, health of targets.

mod balance;
mod ech;
mod health;
mod names;
mod random;
mod table;
mod udp;

pub use balance::{Endpoint, Group, Tried};
pub use ech::{EchDecision, EchRoute};
pub use health::{Busy, DownTarget, Health, State, Targets};
pub use names::{Conditions, NameTable};
pub use random::Random;
pub use table::{Protocol, Route, TcpRoutes};
pub use udp::{Datagrams, UdpRoute, UdpRoutes};

/// Waits until the name of every endpoint has had its first answer, good or bad.
pub async fn resolved(endpoints: impl Iterator<Item = &Endpoint>) {
    for name in endpoints.filter_map(Endpoint::name) {
        drop(name.addresses().await);
    }
}
