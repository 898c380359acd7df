//! Token buckets by source prefix with fixed numbers, for what costs the daemon much.

use std::{hash::Hasher as _, net::IpAddr, time::Duration};

use siphasher::sip::SipHasher13;

use super::bucket::{Bucket, Rate};

/// Token buckets by source prefix (/32 of IPv4, /56 of IPv6), in a table of fixed size: it cannot be filled.
///
/// Errs towards limiting: prefixes that fall into the same slot share its bucket, so that nobody gets a fresh one by
/// sending from elsewhere. The hash is keyed, so that collisions cannot be computed.
#[derive(Debug)]
pub(crate) struct Prefixes {
    key: u64,
    slots: Box<[Bucket]>,
}

impl Prefixes {
    const SLOTS: usize = 1024;
    /// A burst of 200 events, then one each 10 ms.
    const RATE: Rate = Rate::new(10_000_000, 200);

    /// Creates full buckets.
    #[must_use]
    pub(crate) fn new(key: u64) -> Self {
        Self { key, slots: (0..Self::SLOTS).map(|_| Bucket::default()).collect() }
    }

    /// Returns whether [`allow`](Self::allow) would allow `source` an event at `now`, without charging it.
    pub(crate) fn would_allow(&self, source: IpAddr, now: Duration) -> bool {
        self.bucket(source).is_some_and(|bucket| bucket.has_room(now, Self::RATE))
    }

    /// Charges one event at `now` (any monotonic time) to the prefix of `source`, and returns whether it is allowed.
    pub(crate) fn allow(&self, source: IpAddr, now: Duration) -> bool {
        self.bucket(source).is_some_and(|bucket| bucket.take(now, Self::RATE))
    }

    fn bucket(&self, source: IpAddr) -> Option<&Bucket> {
        let index = usize::try_from(self.hash(source) % Self::SLOTS as u64).unwrap_or(0);
        self.slots.get(index)
    }

    fn hash(&self, source: IpAddr) -> u64 {
        let mut hasher = SipHasher13::new_with_keys(self.key, Self::SLOTS as u64);
        match source.to_canonical() {
            IpAddr::V4(address) => hasher.write(&address.octets()),
            // The first 56 bits: what one subscriber usually has.
            IpAddr::V6(address) => hasher.write(address.octets().split_at(7).0),
        }
        hasher.finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_has_a_burst_and_a_rate_and_leaves_others_alone() {
        let prefixes = Prefixes::new(1);
        let at = Duration::from_millis;
        let count = |source: &str, now| (0..1000).filter(|_| prefixes.allow(source.parse().unwrap(), at(now))).count();
        // (source, time, allowed of 1000)
        for (row, source, now, expected) in [
            ("a burst", "192.0.2.1", 0, 200),
            ("nothing right after", "192.0.2.1", 9, 0),
            ("one each ten milliseconds", "192.0.2.1", 30, 3),
            ("another address", "192.0.2.2", 30, 200),
            ("the v4-mapped form is the same", "::ffff:192.0.2.2", 30, 0),
            ("full again after two seconds", "192.0.2.1", 3000, 200),
            ("an IPv6 network", "2001:db8:0:1::1", 3000, 200),
            ("the same /56", "2001:db8:0:ff::7", 3000, 0),
            ("another /56", "2001:db8:0:100::1", 3000, 200),
        ] {
            assert_eq!(count(source, now), expected, "{row}");
        }
    }
}
