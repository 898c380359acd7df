//! Routes, neighbours and links of this machine, and the flows that depend on them.

mod hop_keys;
mod netlink;
mod scope;
mod table;

pub(crate) use netlink::Netlink;
pub(super) use netlink::{Event, Events, Link, Route};
pub(super) use scope::{is_link_local, is_unicast};
pub(super) use table::{Direction, RoutePair, Table};
