//! Caps and rates for what strangers can fill, or cause to be logged.

mod accept_backoff;
mod bans;
mod bucket;
mod by_listener;
mod conn;
mod descriptors;
mod log_throttle;
mod network_set;
mod per_source;
mod prefixes;
mod sources;

use std::time::Duration;

pub(crate) use accept_backoff::AcceptBackoff;
pub(crate) use bans::{BanSource, Bans, Unban, network};
pub(crate) use by_listener::ByListener;
pub(crate) use conn::{ConnLimit, ConnPermit};
pub(crate) use descriptors::Descriptors;
pub(crate) use log_throttle::LogThrottle;
pub(crate) use network_set::{AccessList, NetworkSet};
pub(crate) use per_source::{PerSource, SourcePermit};
pub(crate) use prefixes::Prefixes;
pub(crate) use sources::{Sources, timing};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
