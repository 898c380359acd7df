//! Rendezvous hashing (highest random weight) under a fixed key.
//!
//! The same client goes to the same target after a restart, a reload and on another machine with the same targets, and a
//! target added or removed moves only the clients that it gains or had.

use std::{
    hash::Hasher,
    net::{IpAddr, SocketAddr},
    sync::atomic::{self, AtomicU64},
};

use siphasher::sip::SipHasher13;

/// Key of the hash. It is part of the contract: changing it moves every client to another target.
const HASH_KEY: (u64, u64) = (0x7270_7879_2d6c_3400, 0x7265_6e64_657a_766f);

/// The targets of one class.
#[derive(Debug)]
pub(super) struct Rendezvous {
    /// By weight, because among targets of one weight the hash alone decides, which saves a logarithm for each.
    weights: Vec<Weight>,
    /// The first choices of some clients, where there are so many targets that it is worth it.
    choices: Choices,
}

#[derive(Debug)]
struct Weight {
    weight: u64,
    /// Hash and index, in file order.
    targets: Vec<(u64, usize)>,
}

impl Rendezvous {
    /// Targets by index, weight and hash.
    pub(super) fn new(targets: impl Iterator<Item = (usize, u64, u64)>) -> Self {
        let mut weights: Vec<Weight> = Vec::new();
        for (index, weight, hash) in targets {
            match weights.iter_mut().find(|known| known.weight == weight) {
                Some(known) => known.targets.push((hash, index)),
                None => weights.push(Weight { weight, targets: vec![(hash, index)] }),
            }
        }
        let count = weights.iter().map(|weight| weight.targets.len()).sum();
        Self { weights, choices: Choices::new(count) }
    }

    /// The first `eligible` target in the order of `client`, a hash ([`client`]).
    pub(super) fn pick(&self, client: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        if self.choices.is_empty() {
            return self.best(client, eligible);
        }
        let first = match self.choices.get(client) {
            Some(known) => known,
            None => {
                let first = self.best(client, |_| true)?;
                self.choices.put(client, first);
                first
            }
        };
        if eligible(first) { Some(first) } else { self.best(client, eligible) }
    }

    fn best(&self, client: u64, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let mut begun = hasher();
        begun.write(&client.to_be_bytes());
        let best_of = |weight: &Weight| {
            let mut best: Option<(u64, usize)> = None;
            for (target, index) in &weight.targets {
                let mut hasher = begun;
                hasher.write(&target.to_be_bytes());
                let bits = significant(hasher.finish());
                // Of equals the first.
                if best.is_none_or(|(most, _)| bits > most) && eligible(*index) {
                    best = Some((bits, *index));
                }
            }
            best.map(|(bits, index)| (score(bits, weight.weight), index))
        };
        let better = |(a, i): &(f64, usize), (b, j): &(f64, usize)| a.total_cmp(b).then(j.cmp(i));
        self.weights.iter().filter_map(best_of).max_by(better).map(|(_, index)| index)
    }
}

/// First choices by client, in a table of fixed size where the latest of a slot stays. A choice depends on nothing that
/// changes, so it is never out of date.
#[derive(Debug)]
struct Choices(Box<[AtomicU64]>);

impl Choices {
    /// Fewer targets are as fast to hash.
    const LEAST_TARGETS: usize = 16;
    const SLOTS: usize = 4096;
    /// Bits of a slot for the index; the others tell the client.
    const INDEX: u64 = 0xffff;

    fn new(targets: usize) -> Self {
        let of_use = targets > Self::LEAST_TARGETS && targets as u64 <= Self::INDEX;
        Self((0..if of_use { Self::SLOTS } else { 0 }).map(|_| AtomicU64::new(0)).collect())
    }

    fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn slot(&self, client: u64) -> Option<&AtomicU64> {
        // The low bits, which the slot does not hold.
        self.0.get(usize::try_from(client % Self::SLOTS as u64).ok()?)
    }

    fn get(&self, client: u64) -> Option<usize> {
        let held = self.slot(client)?.load(atomic::Ordering::Relaxed);
        let mine = (held ^ client) & !Self::INDEX == 0;
        // 0 is an empty slot.
        usize::try_from(held & Self::INDEX).ok().filter(|_| mine)?.checked_sub(1)
    }

    fn put(&self, client: u64, index: usize) {
        let Some(index) = u64::try_from(index).ok().filter(|index| *index < Self::INDEX) else { return };
        if let Some(slot) = self.slot(client) {
            slot.store((client & !Self::INDEX) | (index + 1), atomic::Ordering::Relaxed);
        }
    }
}

/// The hash of a client, with its port or without.
pub(super) fn client(client: SocketAddr, with_port: bool) -> u64 {
    let port = if with_port { client.port() } else { 0 };
    hash(&[&octets(client.ip()), &port.to_be_bytes()])
}

/// The hash that orders the addresses of one target for `client`.
pub(super) fn of_address(client: u64, address: IpAddr) -> u64 {
    hash(&[&client.to_be_bytes(), &octets(address)])
}

/// The score of an SRV record, whose highest comes first, so that the first of several is one by weight. `seed` is a client's
/// hash, or random.
pub(super) fn of_record(seed: u64, host: &str, port: u16, weight: u16) -> f64 {
    /// Against weights of 1 and more, those of 0 have "a very small chance" (RFC 2782).
    const ONE: u64 = 100;
    let bits = significant(hash(&[&seed.to_be_bytes(), &port.to_be_bytes(), host.as_bytes()]));
    score(bits, if weight == 0 { 1 } else { u64::from(weight) * ONE })
}

pub(super) fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = hasher();
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

fn hasher() -> SipHasher13 {
    SipHasher13::new_with_keys(HASH_KEY.0, HASH_KEY.1)
}

/// A v4-mapped address is its IPv4 address: a client is the same client through either socket.
fn octets(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// The bits of a hash that count: 53 fit a double exactly.
fn significant(hash: u64) -> u64 {
    hash >> 11
}

/// Weighted rendezvous score (Schindelhauer and Schomaker's logarithmic method): `-weight / ln(u)`, `u` in (0, 1).
fn score(bits: u64, weight: u64) -> f64 {
    // The half keeps both ends out.
    let u = (bits as f64 + 0.5) / (1_u64 << 53) as f64;
    -(weight as f64) / u.ln()
}
