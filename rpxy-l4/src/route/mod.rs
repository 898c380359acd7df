//! From what was recognised to where it goes: rule tables, balancing, health of targets.

mod balance;
mod ech;
mod health;
mod names;
mod table;
mod udp;

pub use balance::{Endpoint, Group, Tried};
pub use ech::EchRoute;
pub use health::{Busy, DownTarget, Health, State, Targets};
pub use names::{Conditions, NameTable};
pub use table::{Protocol, Route, TcpRoutes};
pub use udp::{Datagrams, UdpRoute, UdpRoutes};
