//! How a connection with a backend ends, relayed or spliced.

use crate::metrics::Outcome;

/// End of a connection.
#[derive(Debug)]
pub(super) struct End {
    pub(super) outcome: Outcome,
    /// The side that gets a reset, because its stream is cut off.
    pub(super) reset: Option<Side>,
}

/// Sides of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Side {
    Client,
    Backend,
    Both,
}
