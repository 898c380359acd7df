//! The connections that the limit on open files leaves room for.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use crate::net;

/// Room for connections, less a reserve for everything else: metrics, the admin socket, a reload, logs, name servers.
#[derive(Debug)]
pub(crate) struct Descriptors {
    /// Open files without any connection.
    others: AtomicU64,
    room: AtomicU32,
}

/// Descriptors of a connection: its two sockets. Pipes come out of the pool that they share.
const OF_CONNECTION: u64 = 2;

impl Descriptors {
    /// Room without end, until told otherwise.
    #[must_use]
    pub(crate) const fn new() -> Self {
        Self { others: AtomicU64::new(0), room: AtomicU32::new(u32::MAX) }
    }

    /// From now on, `others` files are open, or promised to something else, besides those of connections.
    pub(crate) fn set_others(&self, others: u64) {
        self.others.store(others, Ordering::Relaxed);
        self.measure();
    }

    /// The number of connections for which there is room.
    #[must_use]
    pub(crate) fn room(&self) -> u32 {
        self.room.load(Ordering::Relaxed)
    }

    /// The same, after looking at the limit, which may have changed.
    pub(crate) fn measure(&self) -> u32 {
        let room = room(net::open_files_limit(), self.others.load(Ordering::Relaxed));
        self.room.store(room, Ordering::Relaxed);
        room
    }
}

/// Connections for which a `limit` has room beside `others`; one at least.
#[must_use]
pub(crate) fn room(limit: Option<u64>, others: u64) -> u32 {
    let Some(limit) = limit else { return u32::MAX };
    let free = limit.saturating_sub(others).saturating_sub(reserve(limit));
    u32::try_from(free / OF_CONNECTION).unwrap_or(u32::MAX).max(1)
}

/// An eighth of the limit, but enough for a reload and not more than anything needs.
fn reserve(limit: u64) -> u64 {
    (limit / 8).clamp(8, 64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_left_is_for_connections() {
        for (row, limit, others, expected) in [
            ("no limit", None, 40, u32::MAX),
            ("a small limit", Some(120), 41, 32),
            ("the usual one", Some(1024), 40, 460),
            ("a large one", Some(1 << 20), 40, 524_236),
            ("none left", Some(30), 40, 1),
        ] {
            assert_eq!(room(limit, others), expected, "{row}");
        }
    }
}
