//! Which backend has chosen which connection ID or tunnel index, so that a client that comes back from another address
//! finds the backend that knows it (NAT rebinding, migration, roaming).
//!
//! Shared by all workers: a changed port may hash to another worker's socket. First datagrams of a flow, newly seen IDs
//! and what no session owns by its ID come here, the traffic of identified sessions does not. It errs towards not knowing: an ID in use is never given to
//! another backend, and what does not fit is not learned. A forged ID gains nothing, because what it reaches is a new
//! upstream port of the same backend, which sees an ordinary change of path and validates it.

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use rpxy_l4_proto::quic::ConnectionId;

use crate::{
    config::model::Target,
    metrics::{AffinityEvent, Metrics},
};

/// Locks that the table is spread over.
const SHARDS: usize = 16;
/// IDs remembered at most.
const CAPACITY: usize = 1 << 17;
/// Backends remembered for one tunnel index: some servers count them up from the same number.
const OWNERS: usize = 4;
/// Lengths of connection IDs that short headers are searched for, since a short header does not tell its own.
const MOST_LENGTHS: u32 = 4;
/// The shortest connection ID that is learned, in bytes: shorter ones would collide.
const SHORTEST: usize = 4;
/// How soon a full table is searched again for what has expired.
const SEARCH_AGAIN: Duration = Duration::from_secs(1);
/// How long an index is remembered: the session behind it ends 180 s after its handshake, whatever happens
/// (REJECT_AFTER_TIME, WireGuard whitepaper section 6.1). The rest is for a slow clock.
pub(crate) const INDEX_LIFETIME: Duration = Duration::from_secs(200);

/// What a server chooses to be addressed by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A QUIC connection ID.
    ConnectionId(ConnectionId),
    /// A WireGuard receiver index.
    Index(u32),
}

/// A backend that sessions can be sent to again.
#[derive(Debug, Clone)]
pub(crate) struct Backend {
    /// Name of the rule; `None` for the default targets.
    pub rule: Option<Arc<str>>,
    /// The target, to be found again in a later configuration.
    pub target: Target,
    /// The address that it had.
    pub address: SocketAddr,
}

/// Weight and role of a target may change with the configuration; it is the same backend.
impl PartialEq for Backend {
    fn eq(&self, other: &Self) -> bool {
        let target = |backend: &Self| (backend.target.host.clone(), backend.target.port);
        self.rule == other.rule && self.address == other.address && target(self) == target(other)
    }
}

impl Eq for Backend {}

/// The table. Times are the daemon's uptime.
#[derive(Debug)]
pub(crate) struct Affinity {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    per_shard: usize,
    /// Bit n is set when an ID of n bytes was learned.
    lengths: AtomicU32,
    metrics: Arc<Metrics>,
    /// How long connection IDs outlive their session, in milliseconds.
    linger: AtomicU64,
}

/// A part of the table under one lock.
#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Vec<Entry>>,
    /// When a full one was last searched for what has expired.
    searched: Option<Duration>,
}

#[derive(Debug)]
struct Entry {
    backend: Arc<Backend>,
    /// Sessions that use it now.
    live: u32,
    /// Until when it holds without any.
    until: Duration,
}

impl Affinity {
    /// An empty table whose connection IDs outlive their session by `linger`.
    #[must_use]
    pub(crate) fn new(linger: Duration, metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(linger, metrics, CAPACITY)
    }

    fn with_capacity(linger: Duration, metrics: Arc<Metrics>, capacity: usize) -> Self {
        let affinity = Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            per_shard: capacity.div_ceil(SHARDS),
            lengths: AtomicU32::new(0),
            metrics,
            linger: AtomicU64::new(0),
        };
        affinity.set_linger(linger);
        affinity
    }

    /// Changes how long connection IDs outlive their session.
    pub(crate) fn set_linger(&self, linger: Duration) {
        self.linger.store(u64::try_from(linger.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// A session uses `key` of `backend` from now on, until [`Affinity::release`]. False when it belongs to another
    /// backend or the table is full: then there is nothing to release.
    #[must_use]
    pub(crate) fn hold(&self, key: Key, backend: &Arc<Backend>, now: Duration) -> bool {
        if let Key::ConnectionId(id) = key {
            if id.len() < SHORTEST {
                return false;
            }
            if !self.admit_length(id.len()) {
                self.metrics.udp().affinity(AffinityEvent::Refused);
                return false;
            }
        }
        let held = self.with(key, |shard| {
            if !make_room(shard, key, self.per_shard, now) {
                return false;
            }
            let entries = shard.entries.entry(key).or_default();
            entries.retain(|entry| entry.holds(now));
            match entries.first_mut() {
                None => entries.push(Entry { backend: Arc::clone(backend), live: 1, until: now }),
                Some(entry) if entry.backend == *backend => entry.live += 1,
                // Nobody uses it any more, so the newcomer is the likelier owner.
                Some(entry) if entry.live == 0 => *entry = Entry { backend: Arc::clone(backend), live: 1, until: now },
                Some(_) => return false,
            }
            true
        });
        if !held {
            self.metrics.udp().affinity(AffinityEvent::Refused);
        }
        held
    }

    /// A session no longer holds `key`: it has ended, and its client may come back, or (without `linger`) there is no
    /// reason to expect that.
    pub(crate) fn release(&self, key: Key, backend: &Backend, linger: bool, now: Duration) {
        let linger = if linger { Duration::from_millis(self.linger.load(Ordering::Relaxed)) } else { Duration::ZERO };
        self.with(key, |shard| {
            let Some(entries) = shard.entries.get_mut(&key) else { return };
            for entry in entries.iter_mut().filter(|entry| *entry.backend == *backend) {
                entry.live = entry.live.saturating_sub(1);
                entry.until = entry.until.max(now.saturating_add(linger));
            }
            entries.retain(|entry| entry.holds(now));
            if entries.is_empty() {
                shard.entries.remove(&key);
            }
        });
    }

    /// A WireGuard server has chosen `index`; it is remembered for [`INDEX_LIFETIME`].
    pub(crate) fn learn_index(&self, index: u32, backend: &Arc<Backend>, now: Duration) {
        let key = Key::Index(index);
        let until = now.saturating_add(INDEX_LIFETIME);
        let full = self.with(key, |shard| {
            if !make_room(shard, key, self.per_shard, now) {
                return true;
            }
            let entries = shard.entries.entry(key).or_default();
            entries.retain(|entry| entry.holds(now) && entry.backend != *backend);
            // The latest stands first.
            entries.truncate(OWNERS - 1);
            entries.insert(0, Entry { backend: Arc::clone(backend), live: 0, until });
            false
        });
        if full {
            self.metrics.udp().affinity(AffinityEvent::Refused);
        }
    }

    /// The backend that `key` belongs to; of several the one that chose it last.
    #[must_use]
    pub(crate) fn find(&self, key: Key, now: Duration) -> Option<Arc<Backend>> {
        self.with(key, |shard| {
            let entry = shard.entries.get(&key)?.iter().find(|entry| entry.holds(now))?;
            Some(Arc::clone(&entry.backend))
        })
    }

    /// The backend of a datagram with a short header, and the connection ID that told it. Longer IDs are tried first.
    #[must_use]
    pub(crate) fn find_short(&self, datagram: &[u8], now: Duration) -> Option<(ConnectionId, Arc<Backend>)> {
        let lengths = self.lengths.load(Ordering::Relaxed);
        (SHORTEST..=20).rev().filter(|len| lengths & (1 << len) != 0).find_map(|len| {
            let id = ConnectionId::new(datagram.get(1..1 + len)?)?;
            self.find(Key::ConnectionId(id), now).map(|backend| (id, backend))
        })
    }

    /// Counts a session that found its backend here.
    pub(crate) fn followed(&self) {
        self.metrics.udp().affinity(AffinityEvent::Followed);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// Lengths are few in practice, one for each implementation; a fifth would make every search longer.
    fn admit_length(&self, len: usize) -> bool {
        let bit = 1_u32 << len;
        let admit = |lengths: u32| {
            let known = lengths & bit != 0;
            (known || lengths.count_ones() < MOST_LENGTHS).then_some(lengths | bit)
        };
        self.lengths.fetch_update(Ordering::Relaxed, Ordering::Relaxed, admit).is_ok()
    }

    fn with<T>(&self, key: Key, action: impl FnOnce(&mut Shard) -> T) -> T {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // The remainder is an index.
        let [first, ..] = &self.shards;
        action(&mut lock(self.shards.get(index).unwrap_or(first)))
    }
}

impl Entry {
    fn holds(&self, now: Duration) -> bool {
        self.live > 0 || now < self.until
    }
}

/// Whether `key` can be put into `shard`, after what has expired is gone. Searching a full one costs much more than
/// anything else here, so it is done once a second at most.
fn make_room(shard: &mut Shard, key: Key, most: usize, now: Duration) -> bool {
    if shard.entries.len() < most || shard.entries.contains_key(&key) {
        return true;
    }
    if shard.searched.is_some_and(|searched| now < searched.saturating_add(SEARCH_AGAIN)) {
        return false;
    }
    shard.searched = Some(now);
    shard.entries.retain(|_, entries| entries.iter().any(|entry| entry.holds(now)));
    shard.entries.len() < most
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU16;

    use super::*;
    use crate::config::model::Host;

    const LINGER: Duration = Duration::from_secs(300);

    fn backend(port: u16) -> Arc<Backend> {
        let address = SocketAddr::from(([198, 51, 100, 10], port));
        let host = Host::Ip { address: address.ip(), scope: 0 };
        let target = Target { host, port, weight: NonZeroU16::MIN, backup: false };
        Arc::new(Backend { rule: Some("rule".into()), target, address })
    }

    fn id(bytes: &[u8]) -> ConnectionId {
        ConnectionId::new(bytes).unwrap()
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn short(id: &[u8]) -> Vec<u8> {
        [&[0x40], id, &[0; 30]].concat()
    }

    #[test]
    fn an_id_lives_with_its_sessions_and_lingers_after_the_last() {
        let table = Affinity::new(LINGER, Metrics::new());
        let (one, key) = (backend(1), Key::ConnectionId(id(b"abcdefgh")));
        assert!(table.hold(key, &one, at(0)));
        assert!(table.hold(key, &one, at(100)), "a second session of the same connection");
        table.release(key, &one, true, at(1000));
        assert_eq!(table.find(key, at(9000)), Some(Arc::clone(&one)), "the other session still holds it");
        table.release(key, &one, true, at(10_000));
        assert_eq!(table.find(key, at(10_299)), Some(one));
        assert_eq!(table.find(key, at(10_300)), None);
    }

    #[test]
    fn an_id_in_use_is_never_given_to_another_backend() {
        let table = Affinity::new(LINGER, Metrics::new());
        let (one, two, key) = (backend(1), backend(2), Key::ConnectionId(id(b"abcd")));
        assert!(table.hold(key, &one, at(0)));
        assert!(!table.hold(key, &two, at(1)));
        assert_eq!(table.find(key, at(2)), Some(Arc::clone(&one)));
        table.release(key, &one, true, at(3));
        assert!(table.hold(key, &two, at(4)), "nobody uses it any more");
        assert_eq!(table.find(key, at(5)), Some(two));
    }

    #[test]
    fn short_headers_are_searched_for_the_longest_known_id_first() {
        let table = Affinity::new(LINGER, Metrics::new());
        let (one, two) = (backend(1), backend(2));
        assert!(table.hold(Key::ConnectionId(id(b"abcd")), &one, at(0)));
        assert!(table.hold(Key::ConnectionId(id(b"abcdefgh")), &two, at(0)));
        for (row, bytes, expected) in [
            ("long one", b"abcdefgh", Some((&b"abcdefgh"[..], &two))),
            ("short one", b"abcdxxxx", Some((&b"abcd"[..], &one))),
            ("unknown", b"xbcdefgh", None),
            ("known bytes in another place", b"xabcdefg", None),
        ] {
            let found = table.find_short(&short(bytes), at(1));
            let expected = expected.map(|(bytes, backend)| (id(bytes), Arc::clone(backend)));
            assert_eq!(found, expected, "{row}");
        }
        assert_eq!(table.find_short(&[0x40, b'a', b'b'], at(1)), None, "cut");
    }

    #[test]
    fn ids_that_would_collide_and_a_fifth_length_are_not_learned() {
        let table = Affinity::new(LINGER, Metrics::new());
        for (row, len, expected) in [
            ("three bytes", 3, false),
            ("four bytes", 4, true),
            ("second length", 8, true),
            ("third length", 18, true),
            ("fourth length", 20, true),
            ("fifth length", 10, false),
            ("a known length again", 8, true),
        ] {
            assert_eq!(table.hold(Key::ConnectionId(id(&vec![7; len])), &backend(1), at(0)), expected, "{row}");
        }
    }

    #[test]
    fn an_index_expires_by_itself_and_the_latest_server_that_chose_it_is_preferred() {
        let table = Affinity::new(LINGER, Metrics::new());
        let (one, two) = (backend(1), backend(2));
        table.learn_index(7, &one, at(0));
        table.learn_index(7, &two, at(10));
        assert_eq!(table.find(Key::Index(7), at(11)), Some(Arc::clone(&two)));
        table.learn_index(7, &one, at(20));
        assert_eq!(table.find(Key::Index(7), at(211)), Some(one));
        assert_eq!(table.find(Key::Index(7), at(220)), None);
        assert_eq!(table.find(Key::Index(8), at(11)), None);
    }

    #[test]
    fn a_full_table_keeps_what_it_has_and_forgets_what_has_expired() {
        let table = Affinity::with_capacity(LINGER, Metrics::new(), 64);
        let key = |n: u32| Key::ConnectionId(id(&n.to_be_bytes()));
        let held = (0..1000).filter(|n| table.hold(key(*n), &backend(1), at(0))).count();
        assert!((32..=64).contains(&held) && table.len() == held, "{held}");
        let first = (0..1000).find(|n| table.find(key(*n), at(0)).is_some()).unwrap();
        for n in 0..1000 {
            if table.find(key(n), at(0)).is_some() {
                table.release(key(n), &backend(1), true, at(1));
            }
        }
        assert!(table.find(key(first), at(300)).is_some());
        let again = (2000..3000).filter(|n| table.hold(key(*n), &backend(2), at(302))).count();
        assert!(again >= 32, "{again}");
        assert!(table.len() <= 64);
    }
}
