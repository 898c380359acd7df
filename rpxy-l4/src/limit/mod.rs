//! Caps and rates for what strangers can fill, or cause to be logged.

mod accept_backoff;
mod bans;
mod bucket;
mod by_listener;
mod conn;
mod descriptors;
mod drained;
mod lines;
mod log_throttle;
mod network_set;
mod networks;
mod per_source;
mod prefixes;
mod sources;
mod weak_map;

use std::time::Duration;

pub(crate) use accept_backoff::AcceptBackoff;
pub(crate) use bans::{BanSource, Bans, Unban, network};
pub(crate) use by_listener::ByListener;
pub(crate) use conn::{ConnLimit, ConnPermit};
pub(crate) use descriptors::Descriptors;
pub(crate) use drained::DrainedListeners;
pub(crate) use lines::{LineRate, Lines};
pub(crate) use log_throttle::LogThrottle;
pub(crate) use network_set::{AccessDenied, AccessList, NetworkSet};
pub(crate) use per_source::{PerSource, SourcePermit};
pub(crate) use prefixes::Prefixes;
pub(crate) use sources::{Sources, timing};
pub(crate) use weak_map::WeakMap;

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
