//! Caps on what strangers can fill, and the rate at which the daemon speaks of it.

mod bans;
mod sources;

use std::{
    hash::Hasher,
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

pub use bans::{BanSource, Bans, Lifted, TooManyBans, network};
use siphasher::sip::SipHasher13;
pub use sources::{Sources, timing};

/// A count of things that exist now, bounded by a limit that may change on reload.
#[derive(Debug, Default)]
pub struct ConnLimit {
    now: AtomicU32,
    /// Room that somebody would like others to make.
    wanted: AtomicU32,
}

/// One counted thing; dropping it makes room.
#[derive(Debug)]
pub struct ConnPermit {
    gauge: Arc<ConnLimit>,
}

impl ConnLimit {
    const MOST_WANTED: u32 = 16;

    /// Counts one more unless there are `max` already.
    #[must_use]
    pub fn acquire(self: &Arc<Self>, max: u32) -> Option<ConnPermit> {
        // Workers race here; adding first keeps the bound exact without a loop.
        if self.now.fetch_add(1, Ordering::Relaxed) >= max {
            self.now.fetch_sub(1, Ordering::Relaxed);
            return None;
        }
        Some(ConnPermit { gauge: Arc::clone(self) })
    }

    /// Asks whoever holds something less important to give it up. A few such requests are remembered.
    pub fn want(&self) {
        let few = |wanted: u32| (wanted < Self::MOST_WANTED).then_some(wanted + 1);
        let _enough_have_asked = self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, few);
    }

    /// Whether somebody asks for room.
    #[must_use]
    pub fn is_wanted(&self) -> bool {
        self.wanted.load(Ordering::Relaxed) > 0
    }

    /// One thing was given up.
    pub fn give(&self) {
        let less = |wanted: u32| wanted.checked_sub(1);
        let _nobody_asks = self.wanted.fetch_update(Ordering::Relaxed, Ordering::Relaxed, less);
    }

    /// How many there are.
    #[must_use]
    pub fn count(&self) -> u32 {
        self.now.load(Ordering::Relaxed)
    }
}

impl Drop for ConnPermit {
    fn drop(&mut self) {
        self.gauge.now.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Lets one message through per interval and counts the rest.
#[derive(Debug)]
pub struct LogThrottle {
    started: Instant,
    interval: Duration,
    /// Milliseconds since `started` before which nothing is said.
    quiet_until: AtomicU64,
    withheld: AtomicU64,
}

impl LogThrottle {
    /// At most one message per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { started: Instant::now(), interval, quiet_until: AtomicU64::new(0), withheld: AtomicU64::new(0) }
    }

    /// Whether to speak now; then with how many messages were withheld since the last.
    #[must_use]
    pub fn speak(&self, now: Instant) -> Option<u64> {
        let now = millis(now.saturating_duration_since(self.started));
        let quiet_until = self.quiet_until.load(Ordering::Relaxed);
        let next = now.saturating_add(millis(self.interval));
        let won = now >= quiet_until
            && self.quiet_until.compare_exchange(quiet_until, next, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if won {
            Some(self.withheld.swap(0, Ordering::Relaxed))
        } else {
            self.withheld.fetch_add(1, Ordering::Relaxed);
            None
        }
    }
}

/// File descriptors or memory ran out: nothing new is begun for a moment, so that what was accepted gets what it needs.
#[derive(Debug)]
pub struct AcceptBackoff {
    started: Instant,
    /// Milliseconds since `started`.
    until: AtomicU64,
    said: LogThrottle,
}

impl AcceptBackoff {
    /// How long one shortage holds up new work. It is short: descriptors come back whenever a connection ends.
    pub const PAUSE: Duration = Duration::from_millis(100);

    /// No shortage; one is spoken of at most once per `interval`.
    #[must_use]
    pub fn new(interval: Duration) -> Self {
        Self { started: Instant::now(), until: AtomicU64::new(0), said: LogThrottle::new(interval) }
    }

    /// `error` said that something ran out at `now`.
    pub fn noted(&self, error: &std::io::Error, now: Instant) {
        let until = millis(now.saturating_duration_since(self.started).saturating_add(Self::PAUSE));
        self.until.fetch_max(until, Ordering::Relaxed);
        if let Some(withheld) = self.said.speak(now) {
            tracing::warn!(
                "accepting pauses: {error}; raise the limit on open files (LimitNOFILE=, ulimit -n) or lower \
                 tcp_max_connections ({withheld} more not shown)"
            );
        }
    }

    /// How much longer to begin nothing new; `None` when all is well. The clock is read only after a shortage.
    pub fn pause(&self, clock: impl FnOnce() -> Instant) -> Option<Duration> {
        let until = self.until.load(Ordering::Relaxed);
        if until == 0 {
            return None;
        }
        let left = Duration::from_millis(until).checked_sub(clock().saturating_duration_since(self.started));
        if left.is_none() {
            // Over. A shortage noted in between is noted again by whoever meets it.
            self.until.store(0, Ordering::Relaxed);
        }
        left.filter(|left| !left.is_zero())
    }
}

/// Token buckets by source prefix (/32 of IPv4, /56 of IPv6), in a table of fixed size: it cannot be filled.
///
/// Errs towards limiting: prefixes that fall into the same slot share its bucket, so that nobody gets a fresh one by
/// sending from elsewhere. The hash is keyed, so that collisions cannot be computed.
#[derive(Debug)]
pub struct Prefixes {
    key: u64,
    slots: Box<[Bucket]>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: u32,
    /// When tokens were last added, in milliseconds.
    filled: u64,
}

impl Prefixes {
    const SLOTS: usize = 1024;
    /// Events at once.
    const BURST: u32 = 200;
    /// Milliseconds until one more is allowed.
    const REFILL: u64 = 10;

    /// All buckets full.
    #[must_use]
    pub fn new(key: u64) -> Self {
        let full = Bucket { tokens: Self::BURST, filled: 0 };
        Self { key, slots: vec![full; Self::SLOTS].into_boxed_slice() }
    }

    /// Whether `source` may do one more thing at `now` (any monotonic time), which is not done yet.
    pub fn would_allow(&mut self, source: IpAddr, now: Duration) -> bool {
        self.bucket(source, now).is_some_and(|bucket| bucket.tokens > 0)
    }

    /// The bucket of `source`, filled up to `now`.
    fn bucket(&mut self, source: IpAddr, now: Duration) -> Option<&mut Bucket> {
        let index = usize::try_from(self.hash(source) % Self::SLOTS as u64).unwrap_or(0);
        let bucket = self.slots.get_mut(index)?;
        let now = millis(now);
        let gained = now.saturating_sub(bucket.filled) / Self::REFILL;
        bucket.filled = bucket.filled.saturating_add(gained * Self::REFILL);
        let gained = u32::try_from(gained).unwrap_or(u32::MAX);
        bucket.tokens = bucket.tokens.saturating_add(gained).min(Self::BURST);
        Some(bucket)
    }

    /// Whether `source` may do one more thing at `now` (any monotonic time), which it does.
    pub fn allow(&mut self, source: IpAddr, now: Duration) -> bool {
        let Some(bucket) = self.bucket(source, now) else { return false };
        match bucket.tokens.checked_sub(1) {
            Some(left) => {
                bucket.tokens = left;
                true
            }
            None => false,
        }
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

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gauge_never_exceeds_its_limit_and_gives_room_back() {
        let gauge = Arc::new(ConnLimit::default());
        let first = gauge.acquire(2).unwrap();
        let second = gauge.acquire(2).unwrap();
        assert!(gauge.acquire(2).is_none());
        assert_eq!(gauge.count(), 2);
        drop(first);
        let third = gauge.acquire(2);
        assert!(third.is_some());
        assert!(gauge.acquire(1).is_none(), "a lowered limit holds for the next one");
        drop((second, third));
        assert_eq!(gauge.count(), 0);
    }

    #[test]
    fn a_shortage_pauses_for_a_moment() {
        let shortage = AcceptBackoff::new(Duration::from_secs(10));
        let at = |millis| shortage.started + Duration::from_millis(millis);
        assert_eq!(shortage.pause(|| at(0)), None);
        shortage.noted(&std::io::Error::other("too many open files"), at(1000));
        assert_eq!(shortage.pause(|| at(1000)), Some(AcceptBackoff::PAUSE));
        assert_eq!(shortage.pause(|| at(1040)), Some(Duration::from_millis(60)));
        assert_eq!(shortage.pause(|| at(1100)), None);
    }

    #[test]
    fn seldom_speaks_once_per_interval_and_tells_what_it_withheld() {
        let seldom = LogThrottle::new(Duration::from_secs(10));
        let start = seldom.started;
        assert_eq!(seldom.speak(start), Some(0));
        assert_eq!(seldom.speak(start + Duration::from_secs(1)), None);
        assert_eq!(seldom.speak(start + Duration::from_secs(9)), None);
        assert_eq!(seldom.speak(start + Duration::from_secs(10)), Some(2));
        assert_eq!(seldom.speak(start + Duration::from_secs(11)), None);
    }

    #[test]
    fn a_prefix_has_a_burst_and_a_rate_and_leaves_others_alone() {
        let mut prefixes = Prefixes::new(1);
        let at = Duration::from_millis;
        let count = |prefixes: &mut Prefixes, source: &str, now| {
            (0..1000).filter(|_| prefixes.allow(source.parse().unwrap(), at(now))).count()
        };
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
            assert_eq!(count(&mut prefixes, source, now), expected, "{row}");
        }
    }
}
