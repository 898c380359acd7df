//! Routes, neighbours and links of this machine, and the flows that depend on them.

mod hop_keys;
mod netlink;
mod scope;
mod session;
mod spliced;
mod table;
mod users;

pub(crate) use netlink::Netlink;
pub(super) use netlink::{Event, Events, Link, Route};
pub(super) use scope::{is_link_local, is_unicast};
pub(super) use session::{Direction, RoutePair, Session};
pub(super) use spliced::{Entry, Link as SpliceLink, Spliced};
pub(super) use table::{Routes, Table};
