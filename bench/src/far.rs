//! The distance of clients.

use std::time::Duration;

/// A client that is far from the gateway.
#[derive(Debug, Clone, Copy)]
pub struct Far {
    /// Time to the gateway and back.
    pub round_trip: Duration,
    /// Share of segments lost on the way, in thousandths, in each direction.
    pub lost: u64,
    /// Congestion control of the backend, and of the gateway.
    pub congestion: &'static str,
}
