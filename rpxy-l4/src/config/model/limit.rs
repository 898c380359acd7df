//! Limits on source networks.

use std::num::NonZeroU32;

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
