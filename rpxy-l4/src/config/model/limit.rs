//! Limits: whose they are, and those on source networks.

use std::{num::NonZeroU32, sync::Arc};

/// Whose a limit is: of the listener that says it, or, for `None`, shared by all that say none of their own.
pub(crate) type LimitOf = Option<Arc<str>>;

/// Leading bits of an address that make a source network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourcePrefix {
    /// Of an IPv4 address, 1 to 32.
    pub v4: u8,
    /// Of an IPv6 address, 1 to 128.
    pub v6: u8,
}

/// Limit on new sessions or connections per source network. A reload fills all buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewSessions {
    /// Sessions a second, in the long run.
    pub rate: NonZeroU32,
    /// Sessions at once.
    pub burst: NonZeroU32,
    /// Bits of a source network.
    pub prefix: SourcePrefix,
}
