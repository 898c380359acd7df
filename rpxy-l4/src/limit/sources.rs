//! The rate at which each source network may begin sessions.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use super::bucket::{Bucket, Rate};
use crate::config::model::{NewSessions, SourcePrefix};

/// Token buckets by source network, shared by all workers without a lock, in a table of fixed size.
///
/// Errs towards allowing: networks that fall into the same slot take it from each other with a full bucket, and what
/// races is charged once. So strangers who fill the table cannot shut others out. The hash is keyed.
#[derive(Debug)]
pub(crate) struct Sources {
    limit: NewSessions,
    key: RandomState,
    slots: Box<[Slot]>,
}

#[derive(Debug, Default)]
struct Slot {
    /// Hash of the network; 0 is none.
    network: AtomicU64,
    bucket: Bucket,
}

impl Sources {
    const SLOTS: usize = 1 << 14;

    /// Creates full buckets.
    #[must_use]
    pub(crate) fn new(limit: NewSessions) -> Self {
        Self::sized(limit, Self::SLOTS)
    }

    /// The same in a table of `slots`.
    pub(super) fn sized(limit: NewSessions, slots: usize) -> Self {
        let slots = (0..slots).map(|_| Slot::default()).collect();
        Self { limit, key: RandomState::new(), slots }
    }

    /// Charges a session that begins at `now` (any monotonic time) to the network of `source`; returns whether it may.
    pub(crate) fn allow(&self, source: IpAddr, now: Duration) -> bool {
        let Some((hash, slot)) = self.slot(source) else { return true };
        if slot.network.swap(hash, Ordering::Relaxed) != hash {
            slot.bucket.fill();
        }
        slot.bucket.take(now, Rate::from_timing(timing(&self.limit, 1)))
    }

    /// Returns whether [`Sources::allow`] would allow it, and charges nobody.
    #[must_use]
    pub(crate) fn would_allow(&self, source: IpAddr, now: Duration) -> bool {
        self.slot(source).is_none_or(|(hash, slot)| {
            slot.network.load(Ordering::Relaxed) != hash
                || slot.bucket.has_room(now, Rate::from_timing(timing(&self.limit, 1)))
        })
    }

    /// The limit.
    #[must_use]
    pub(crate) fn limit(&self) -> &NewSessions {
        &self.limit
    }

    /// The slot of a network, with the hash of that.
    fn slot(&self, source: IpAddr) -> Option<(u64, &Slot)> {
        let hash = self.key.hash_one(network(source, self.limit.prefix)) | 1;
        let index = usize::try_from(hash >> 32).unwrap_or_default() % self.slots.len().max(1);
        self.slots.get(index).map(|slot| (hash, slot))
    }
}

/// Family and leading bits of an address.
pub(super) fn network(source: IpAddr, prefix: SourcePrefix) -> (bool, u128) {
    match source.to_canonical() {
        IpAddr::V4(address) => (true, leading(address.to_bits().into(), 32, prefix.v4)),
        IpAddr::V6(address) => (false, leading(address.to_bits(), 128, prefix.v6)),
    }
}

fn leading(address: u128, len: u32, bits: u8) -> u128 {
    address.checked_shr(len - u32::from(bits)).unwrap_or_default()
}

/// Interval and window, in nanoseconds, of a bucket ([`rpxy_l4_common::bucket`]) that allows `times` what `limit` says.
#[must_use]
pub(crate) fn timing(limit: &NewSessions, times: u32) -> (u32, u64) {
    let interval = (1_000_000_000 / limit.rate.get().saturating_mul(times)).max(1);
    (interval, u64::from(interval) * u64::from(limit.burst.get()) * u64::from(times))
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn limit(v4: u8, v6: u8) -> NewSessions {
        let number = |number| NonZeroU32::new(number).unwrap();
        NewSessions { rate: number(100), burst: number(200), prefix: SourcePrefix { v4, v6 } }
    }

    #[test]
    fn a_network_has_a_burst_and_a_rate_and_leaves_others_alone() {
        let sources = Sources::new(limit(32, 56));
        let count = |source: &str, now| {
            let now = Duration::from_millis(now);
            (0..1000).filter(|_| sources.allow(source.parse().unwrap(), now)).count()
        };
        for (row, source, now, expected) in [
            ("a burst", "192.0.2.1", 5000, 200),
            ("nothing right after", "192.0.2.1", 5009, 0),
            ("one each ten milliseconds", "192.0.2.1", 5030, 3),
            ("another address", "192.0.2.2", 5030, 200),
            ("the v4-mapped form is the same", "::ffff:192.0.2.2", 5030, 0),
            ("full again after two seconds", "192.0.2.1", 8000, 200),
            ("an IPv6 network", "2001:db8:0:1::1", 8000, 200),
            ("the same /56", "2001:db8:0:ff::7", 8000, 0),
            ("another /56", "2001:db8:0:100::1", 8000, 200),
        ] {
            assert_eq!(count(source, now), expected, "{row}");
        }
    }

    #[test]
    fn networks_are_as_large_as_configured() {
        let same = |limit: NewSessions, one: &str, other: &str| {
            let network = |text: &str| network(text.parse().unwrap(), limit.prefix);
            network(one) == network(other)
        };
        for (row, v4, v6, one, other, expected) in [
            ("/24", 24, 56, "192.0.2.1", "192.0.2.255", true),
            ("another /24", 24, 56, "192.0.2.1", "192.0.3.1", false),
            ("/1", 1, 56, "1.0.0.0", "127.0.0.0", true),
            ("/128", 32, 128, "2001:db8::1", "2001:db8::2", false),
            ("/1 of IPv6", 32, 1, "2001:db8::1", "7fff::2", true),
            ("families", 1, 1, "1.0.0.0", "::1", false),
        ] {
            assert_eq!(same(limit(v4, v6), one, other), expected, "{row}");
        }
    }

    #[test]
    fn a_flood_from_everywhere_shuts_nobody_out() {
        let sources = Sources::new(limit(32, 56));
        let now = Duration::from_secs(9);
        for address in 0..200_000_u32 {
            sources.allow(IpAddr::V4(address.into()), now);
        }
        assert!(sources.allow("203.0.113.1".parse().unwrap(), now));
    }
}
