//! A bound on the connections of each source network, shared by all workers.

use std::{
    collections::{HashMap, hash_map::Entry},
    hash::{BuildHasher as _, BuildHasherDefault, Hasher, RandomState},
    net::IpAddr,
    num::NonZeroU32,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use super::{LogThrottle, sources::network};
use crate::config::model::SourcePrefix;

/// Interval of messages about refused networks.
const SAY_AGAIN: Duration = Duration::from_secs(10);

/// Connections by source network. Networks without one are forgotten, so there are never more entries than connections.
#[derive(Debug)]
pub(crate) struct PerSource {
    /// Networks are told apart by a keyed hash of 64 bits: nobody can choose two that collide.
    key: RandomState,
    /// Tells that a limit of one is reached.
    said: LogThrottle,
    shards: Box<[Shard]>,
}

type Shard = Mutex<HashMap<u64, u32, BuildHasherDefault<AsItIs>>>;

/// The place of one connection of a source; dropping it frees the place.
#[derive(Debug)]
pub(crate) struct SourcePermit {
    sources: Arc<PerSource>,
    network: u64,
}

impl PerSource {
    /// Workers meet at the same one seldom.
    const SHARDS: usize = 64;

    /// No connection yet.
    #[must_use]
    pub(crate) fn new() -> Self {
        let shards = (0..Self::SHARDS).map(|_| Shard::default()).collect();
        Self { key: RandomState::new(), said: LogThrottle::new(SAY_AGAIN), shards }
    }

    /// What lets the log say so often that a network is refused, whatever happens at other listeners.
    #[must_use]
    pub(crate) fn said(&self) -> &LogThrottle {
        &self.said
    }

    /// Counts one more of the network of `source`, unless it has `max` already.
    #[must_use]
    pub(crate) fn acquire(
        self: &Arc<Self>,
        source: IpAddr,
        prefix: SourcePrefix,
        max: NonZeroU32,
    ) -> Option<SourcePermit> {
        let hash = self.hash(source, prefix);
        let mut shard = self.shard(hash)?;
        let count = shard.entry(hash).or_default();
        if *count >= max.get() {
            return None;
        }
        *count += 1;
        drop(shard);
        Some(SourcePermit { sources: Arc::clone(self), network: hash })
    }

    /// Connections of the network of `source`.
    #[must_use]
    pub(crate) fn count(&self, source: IpAddr, prefix: SourcePrefix) -> u32 {
        let hash = self.hash(source, prefix);
        self.shard(hash).and_then(|shard| shard.get(&hash).copied()).unwrap_or(0)
    }

    fn hash(&self, source: IpAddr, prefix: SourcePrefix) -> u64 {
        self.key.hash_one(network(source, prefix))
    }

    fn shard(&self, hash: u64) -> Option<MutexGuard<'_, HashMap<u64, u32, BuildHasherDefault<AsItIs>>>> {
        // High bits: the map goes by the low ones.
        let shard = self.shards.get(usize::try_from(hash >> 32).unwrap_or(0) % Self::SHARDS)?;
        Some(shard.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for SourcePermit {
    fn drop(&mut self) {
        let Some(mut shard) = self.sources.shard(self.network) else { return };
        if let Entry::Occupied(mut entry) = shard.entry(self.network) {
            *entry.get_mut() = entry.get().saturating_sub(1);
            if *entry.get() == 0 {
                entry.remove();
            }
        }
    }
}

/// Takes a hash for its own hash.
#[derive(Debug, Default)]
struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 << 8) | u64::from(*byte);
        }
    }

    fn write_u64(&mut self, hash: u64) {
        self.0 = hash;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_network_has_its_own_places_and_none_is_kept_without_one() {
        let sources = Arc::new(PerSource::new());
        let (prefix, max) = (SourcePrefix { v4: 24, v6: 56 }, NonZeroU32::new(2).unwrap());
        let acquire = |source: &str| sources.acquire(source.parse().unwrap(), prefix, max);
        let mut held = Vec::new();
        for (row, source, expected) in [
            ("the first", "192.0.2.1", true),
            ("the second, of the same network", "::ffff:192.0.2.9", true),
            ("the third", "192.0.2.1", false),
            ("another network", "192.0.3.1", true),
            ("IPv6", "2001:db8::1", true),
        ] {
            let permit = acquire(source);
            assert_eq!(permit.is_some(), expected, "{row}");
            held.extend(permit);
        }
        drop(held.remove(0));
        held.extend(acquire("192.0.2.7"));
        assert_eq!(held.len(), 4, "the place that came free is taken");
        assert!(acquire("192.0.2.8").is_none());
        drop(held);
        assert!(sources.shards.iter().all(|shard| shard.lock().unwrap().is_empty()));
    }
}
