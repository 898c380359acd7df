//! Caps and rates for what strangers can fill, or cause to be logged.

mod accept_backoff;
mod bans;
mod bucket;
mod conn;
mod log_throttle;
mod prefixes;
mod sources;

use std::time::Duration;

pub use accept_backoff::AcceptBackoff;
pub use bans::{BanSource, Bans, Lifted, TooManyBans, network};
pub use conn::{ConnLimit, ConnPermit};
pub use log_throttle::LogThrottle;
pub use prefixes::Prefixes;
pub use sources::{Sources, timing};

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}
