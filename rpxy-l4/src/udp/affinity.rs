//! The backends that know connection IDs and tunnel indices, so that a client that comes back from another address finds
//! the one that knows it (NAT rebinding, migration, roaming).
//!
//! Shared by all workers: a changed port may hash to another worker's socket. Only first datagrams of a flow, newly seen
//! IDs and what no session owns by its ID come here.
//!
//! Everything in here was said by somebody, so that each kind of claim has its bound:
//!
//! - *Stated*: a backend put the ID into a long header of a session that was routed to it. It leads there from everywhere,
//!   also for a while after the session.
//! - *Used*: a client went on to use the ID. It leads anywhere only from the network of that client, or where a datagram
//!   can be nothing else, and only while the session lives. Where the client had several connections on that socket, it
//!   leads to all that it may be of.
//! - *Index*: a WireGuard backend answered an initiation with it.
//!
//! Each backend has a budget of entries, which is given back with them. An ID in use is never given to another backend.
//! IDs that look like the constant bytes of another protocol lead nowhere, whoever names them ([`shape`]).

mod claim;
mod shape;

use std::{
    collections::HashMap,
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError, Weak,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
    time::Duration,
};

use claim::Claim;
pub(super) use claim::Network;
use rpxy_l4_proto::quic::ConnectionId;
pub(super) use shape::{SHORTEST, is_unmistakable};

use crate::{
    config::model::Target,
    metrics::{AffinityEvent, Metrics},
};

/// Locks that the table is spread over.
const SHARDS: usize = 16;
/// Entries at most.
pub(crate) const CAPACITY: usize = 1 << 17;
/// Entries of one backend at most: an eighth is what a hostile one can take of the table.
pub(crate) const BUDGET: u32 = 16_384;
/// Claims on one key at most: some servers count their indices up from the same number.
const CLAIMS: usize = 4;
/// Interval at which a full table is searched for what has expired.
const SEARCH_AGAIN: Duration = Duration::from_secs(1);
/// Lifetime of an index: the session behind it ends 180 s after its handshake, whatever happens (REJECT_AFTER_TIME,
/// WireGuard whitepaper section 6.1). The rest is for a slow clock.
pub(crate) const INDEX_LIFETIME: Duration = Duration::from_secs(200);

/// An ID together with the kind of claim that there is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Key {
    /// A QUIC connection ID that a backend stated.
    Stated(ConnectionId),
    /// A QUIC connection ID that a client went on to use.
    Used(ConnectionId),
    /// A WireGuard receiver index.
    Index(u32),
}

/// A backend that sessions can be sent to again.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Backend {
    /// Name of the rule; `None` for the default targets.
    pub rule: Option<Arc<str>>,
    /// The target, to be found again in a later configuration.
    pub target: Target,
    /// The address that it had.
    pub address: SocketAddr,
}

impl Backend {
    /// Weight and role of a target may change with the configuration; it is the same backend.
    fn is(&self, other: &Self) -> bool {
        self.rule == other.rule
            && self.address == other.address
            && self.target.host == other.target.host
            && self.target.port == other.target.port
    }
}

/// A backend with what it has claimed. There is one for all sessions with the same backend.
#[derive(Debug)]
pub(crate) struct Owner {
    /// The backend.
    pub backend: Backend,
    entries: AtomicU32,
}

impl PartialEq for Owner {
    fn eq(&self, other: &Self) -> bool {
        self.backend.is(&other.backend)
    }
}

/// Owners by rule and address.
type Owners = HashMap<(Option<Arc<str>>, SocketAddr), Weak<Owner>>;

/// The table. Times are the daemon's uptime.
#[derive(Debug)]
pub(crate) struct Affinity {
    hasher: RandomState,
    shards: [Mutex<Shard>; SHARDS],
    owners: Mutex<Owners>,
    per_shard: usize,
    budget: u32,
    /// Bit n is set when an ID of n bytes was learned.
    lengths: AtomicU32,
    metrics: Arc<Metrics>,
    /// Time for which stated IDs outlive their session, in milliseconds.
    linger: AtomicU64,
}

/// A part of the table under one lock.
#[derive(Debug, Default)]
struct Shard {
    entries: HashMap<Key, Vec<Claim>>,
    /// When a full one was last searched for what has expired.
    searched: Option<Duration>,
}

impl Affinity {
    /// An empty table whose stated connection IDs outlive their session by `linger`.
    #[must_use]
    pub(crate) fn new(linger: Duration, metrics: Arc<Metrics>) -> Self {
        Self::with_capacity(linger, metrics, CAPACITY, BUDGET)
    }

    pub(super) fn with_capacity(linger: Duration, metrics: Arc<Metrics>, capacity: usize, budget: u32) -> Self {
        let affinity = Self {
            hasher: RandomState::new(),
            shards: std::array::from_fn(|_| Mutex::default()),
            owners: Mutex::default(),
            per_shard: capacity.div_ceil(SHARDS),
            budget,
            lengths: AtomicU32::new(0),
            metrics,
            linger: AtomicU64::new(0),
        };
        affinity.set_linger(linger);
        affinity
    }

    /// Changes the time for which stated connection IDs outlive their session.
    pub(crate) fn set_linger(&self, linger: Duration) {
        self.linger.store(u64::try_from(linger.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }

    /// The owner that stands for `backend`.
    #[must_use]
    pub(crate) fn owner(&self, backend: Backend) -> Arc<Owner> {
        let mut owners = lock(&self.owners);
        let key = (backend.rule.clone(), backend.address);
        if let Some(owner) = owners.get(&key).and_then(Weak::upgrade).filter(|owner| owner.backend.is(&backend)) {
            return owner;
        }
        if owners.len() == owners.capacity() {
            owners.retain(|_, owner| owner.strong_count() > 0);
        }
        let owner = Arc::new(Owner { backend, entries: AtomicU32::new(0) });
        owners.insert(key, Arc::downgrade(&owner));
        owner
    }

    /// A session with `owner` goes by `key` from now on, until [`Affinity::release`]; for a used ID, from the network of
    /// `client` alone.
    /// False when the ID could be another protocol's, belongs to another backend, or there is no room: then there is
    /// nothing to release.
    #[must_use]
    pub(crate) fn hold(&self, key: Key, owner: &Arc<Owner>, client: SocketAddr, now: Duration) -> bool {
        let socket = match key {
            Key::Stated(id) | Key::Used(id) if !is_unmistakable(&id) => return false,
            Key::Stated(id) | Key::Used(id) => {
                self.lengths.fetch_or(1 << id.len(), Ordering::Relaxed);
                matches!(key, Key::Used(_)).then_some(client)
            }
            Key::Index(_) => None,
        };
        let network = socket.map(|socket| socket.ip().into());
        let held = self.with(key, |shard| {
            if !make_room(shard, key, self.per_shard, now) {
                return false;
            }
            let claims = shard.entries.entry(key).or_default();
            claims.retain(|claim| claim.holds(now));
            if let Some(same) = claims.iter_mut().find(|claim| claim.owner == *owner && claim.network == network) {
                same.live += 1;
                return true;
            }
            // A stated ID has one owner. One that nobody uses any more gives way to another backend of its rule, which may
            // be the same server at another address; a client may still come back with it, whom no other rule gets.
            let most = if network.is_some() { CLAIMS } else { 1 };
            if claims.len() >= most {
                let of_rule = |claim: &Claim| claim.live == 0 && claim.owner.backend.rule == owner.backend.rule;
                let Some(idle) = claims.iter().position(of_rule) else { return false };
                claims.remove(idle);
            }
            let claim = Claim::new(owner, self.budget, 1, now, socket);
            let taken = claim.is_some();
            add(claims, claim);
            if claims.is_empty() {
                shard.entries.remove(&key);
            }
            taken
        });
        if !held {
            self.metrics.udp().affinity(AffinityEvent::Refused);
        }
        held
    }

    /// A session no longer holds `key`: it has ended, and its client may come back, or (without `linger`) there is no
    /// reason to expect that. Used IDs never linger.
    pub(crate) fn release(&self, key: Key, owner: &Owner, network: Network, linger: bool, now: Duration) {
        let network = matches!(key, Key::Used(_)).then_some(network);
        let linger = if linger && network.is_none() { self.linger.load(Ordering::Relaxed) } else { 0 };
        self.with(key, |shard| {
            let Some(claims) = shard.entries.get_mut(&key) else { return };
            for claim in claims.iter_mut().filter(|claim| *claim.owner == *owner && claim.network == network) {
                claim.live = claim.live.saturating_sub(1);
                claim.until = claim.until.max(now.saturating_add(Duration::from_millis(linger)));
            }
            claims.retain(|claim| claim.holds(now));
            if claims.is_empty() {
                shard.entries.remove(&key);
            }
        });
    }

    /// A WireGuard server has answered an initiation with `index`; it is remembered for [`INDEX_LIFETIME`].
    pub(crate) fn learn_index(&self, index: u32, owner: &Arc<Owner>, now: Duration) {
        let key = Key::Index(index);
        let until = now.saturating_add(INDEX_LIFETIME);
        let learned = self.with(key, |shard| {
            if !make_room(shard, key, self.per_shard, now) {
                return false;
            }
            let claims = shard.entries.entry(key).or_default();
            claims.retain(|claim| claim.holds(now));
            if let Some(same) = claims.iter_mut().find(|claim| claim.owner == *owner) {
                same.until = until;
                return true;
            }
            let claim = (claims.len() < CLAIMS).then(|| Claim::new(owner, self.budget, 0, until, None)).flatten();
            let learned = claim.is_some();
            // Behind those that were there before: nobody's index is taken away by claiming it again.
            add(claims, claim);
            if claims.is_empty() {
                shard.entries.remove(&key);
            }
            learned
        });
        if !learned {
            self.metrics.udp().affinity(AffinityEvent::Refused);
        }
    }

    /// The backend that a stated ID or an index leads to; of several that claim an index, the first.
    #[must_use]
    pub(crate) fn find(&self, key: Key, now: Duration) -> Option<Arc<Owner>> {
        self.find_from(key, None, now)?.into_iter().next()
    }

    /// The backends that a short header leads to, at least one, and the ID that told them. Longer IDs are tried first,
    /// stated before used ones. The latter lead only from their own `network`, or from everywhere if that is `None`, and to
    /// all that claim them on the same client socket. Whether a datagram without the fixed bit may be one (RFC 9287) is the
    /// caller's to know.
    #[must_use]
    pub(crate) fn find_short(
        &self,
        datagram: &[u8],
        network: Option<Network>,
        now: Duration,
    ) -> Option<(Key, Vec<Arc<Owner>>)> {
        let lengths = self.lengths.load(Ordering::Relaxed);
        (SHORTEST..=20).rev().filter(|len| lengths & (1 << len) != 0).find_map(|len| {
            let id = ConnectionId::new(datagram.get(1..1 + len)?).filter(is_unmistakable)?;
            let stated = self.find_from(Key::Stated(id), None, now).map(|owners| (Key::Stated(id), owners));
            stated.or_else(|| Some((Key::Used(id), self.find_from(Key::Used(id), network, now)?)))
        })
    }

    fn find_from(&self, key: Key, network: Option<Network>, now: Duration) -> Option<Vec<Arc<Owner>>> {
        let leads = |claim: &&Claim| {
            claim.holds(now) && (claim.network.is_none() || network.is_none() || claim.network == network)
        };
        self.with(key, |shard| {
            let claims = shard.entries.get(&key)?;
            let first = claims.iter().find(leads)?;
            let same = |claim: &&Claim| claim.holds(now) && claim.socket == first.socket;
            Some(claims.iter().filter(same).map(|claim| Arc::clone(&claim.owner)).collect())
        })
    }

    /// Counts a session that found its backend here.
    pub(crate) fn followed(&self) {
        self.metrics.udp().affinity(AffinityEvent::Followed);
    }

    /// Number of keys that are remembered now.
    #[cfg(test)]
    pub(crate) fn len(&self) -> usize {
        self.shards.iter().map(|shard| lock(shard).entries.len()).sum()
    }

    /// Entries of the backend at this address.
    #[cfg(test)]
    pub(super) fn entries_at(&self, address: SocketAddr) -> u32 {
        let of_it = self.budgets().into_iter().filter(|(backend, ..)| backend.address == address);
        of_it.map(|(_, entries, _)| entries).sum()
    }

    /// Backends with their entries, as counted by them and as found in the table.
    #[cfg(test)]
    pub(super) fn budgets(&self) -> Vec<(Backend, u32, usize)> {
        let owners: Vec<Arc<Owner>> = lock(&self.owners).values().filter_map(Weak::upgrade).collect();
        let claims = |owner: &Arc<Owner>| {
            let of_shard = |shard: &Mutex<Shard>| {
                lock(shard).entries.values().flatten().filter(|claim| Arc::ptr_eq(&claim.owner, owner)).count()
            };
            self.shards.iter().map(of_shard).sum()
        };
        let budget = |owner: &Arc<Owner>| (owner.backend.clone(), owner.entries.load(Ordering::Relaxed), claims(owner));
        owners.iter().map(budget).collect()
    }

    fn with<T>(&self, key: Key, action: impl FnOnce(&mut Shard) -> T) -> T {
        let index = usize::try_from(self.hasher.hash_one(key) % SHARDS as u64).unwrap_or(0);
        // The remainder is an index.
        let [first, ..] = &self.shards;
        action(&mut lock(self.shards.get(index).unwrap_or(first)))
    }
}

/// Returns whether `key` can be put into `shard`, after what has expired is gone. Searching a full one costs much more
/// than anything else here, so it is done once a second at most.
fn make_room(shard: &mut Shard, key: Key, most: usize, now: Duration) -> bool {
    if shard.entries.len() < most || shard.entries.contains_key(&key) {
        return true;
    }
    if shard.searched.is_some_and(|searched| now < searched.saturating_add(SEARCH_AGAIN)) {
        return false;
    }
    shard.searched = Some(now);
    shard.entries.retain(|_, claims| {
        claims.retain(|claim| claim.holds(now));
        !claims.is_empty()
    });
    shard.entries.len() < most
}

/// Adds a claim. Most keys have one for good, and a [`Vec`] would make room for four.
fn add(claims: &mut Vec<Claim>, claim: Option<Claim>) {
    claims.reserve_exact(1);
    claims.extend(claim);
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests;
