//! The choice among the targets of a group, and the next one when a target cannot be reached.
//!
//! Hashing is by rendezvous (highest random weight) under a fixed key: the same client goes to the same target after a
//! restart, a reload and on another machine with the same targets, and a target added or removed moves only the
//! clients that it gains or had.

use std::{
    hash::Hasher,
    io,
    net::{IpAddr, SocketAddr},
    sync::{
        Arc,
        atomic::{self, AtomicUsize},
    },
    time::Duration,
};

use siphasher::sip::SipHasher13;

use super::health::{Health, State, Targets};
use crate::{
    config::model::{Balance, Host, Target, Upstream},
    net,
    resolve::{Name, Resolver},
};

/// Key of the rendezvous hash. It is part of the contract: changing it moves every client to another target.
const HASH_KEY: (u64, u64) = (0x7270_7879_2d6c_3400, 0x7265_6e64_657a_766f);
/// Turns of a weighted round that are laid out ahead; larger sums of weights are scaled down to fit.
const MAX_ROUND: u32 = 4096;

/// A group of targets with its balancing state.
#[derive(Debug)]
pub(crate) struct Group {
    endpoints: Vec<Endpoint>,
    balance: Balance,
    /// Round robin: endpoint indices in turn, heavier ones more often and spread out.
    round: Vec<usize>,
    turn: AtomicUsize,
}

/// One target of a group.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The target as configured.
    pub target: Target,
    /// Its state.
    pub health: Arc<Health>,
    /// The name to resolve; `None` for a literal address.
    name: Option<Arc<Name>>,
    /// Hash of the target's text form.
    hash: u64,
}

/// The targets of a group that a connection has tried without success.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tried {
    targets: Vec<usize>,
    /// Of the target that is being tried.
    addresses: Vec<IpAddr>,
}

impl Tried {
    /// Marks `index` as tried, with all its addresses.
    pub(crate) fn add(&mut self, index: usize) {
        self.addresses.clear();
        if !self.targets.contains(&index) {
            self.targets.push(index);
        }
    }

    /// Marks one address of the target that is being tried.
    pub(crate) fn add_address(&mut self, address: IpAddr) {
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// Those of `addresses` that were not tried.
    #[must_use]
    pub(crate) fn untried(&self, addresses: &[IpAddr]) -> Vec<IpAddr> {
        addresses.iter().filter(|address| !self.addresses.contains(address)).copied().collect()
    }

    /// Returns whether none was tried.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.targets.is_empty() && self.addresses.is_empty()
    }
}

impl Group {
    /// The group of `upstream`; names begin to resolve, known states are found again in `targets`.
    #[must_use]
    pub(crate) fn new(upstream: &Upstream, targets: &Targets, resolver: &Resolver) -> Self {
        let endpoints = upstream.targets.iter().map(|target| Endpoint {
            health: targets.health(target),
            name: match &target.host {
                Host::Ip { .. } | Host::LinkLocal { .. } => None,
                Host::Name(name) => Some(resolver.name(name)),
            },
            hash: hash(&[target.to_string().as_bytes()]),
            target: target.clone(),
        });
        Self::of(endpoints.collect(), upstream.balance)
    }

    fn of(endpoints: Vec<Endpoint>, balance: Balance) -> Self {
        let weights: Vec<u32> = endpoints.iter().map(|endpoint| endpoint.target.weight.get().into()).collect();
        let round = if balance == Balance::RoundRobin { round(&weights) } else { Vec::new() };
        Self { endpoints, balance, round, turn: AtomicUsize::new(0) }
    }

    /// The endpoint at `index`.
    #[must_use]
    pub(crate) fn endpoint(&self, index: usize) -> Option<&Endpoint> {
        self.endpoints.get(index)
    }

    /// Index of the target that has this address, as far as its addresses are known.
    #[must_use]
    pub(crate) fn position_at(&self, address: SocketAddr) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| match endpoint.name() {
            None => endpoint.address().is_some_and(|own| own.is_ok_and(|own| own == address)),
            Some(name) => {
                endpoint.target.port == address.port()
                    && name.known().is_some_and(|known| known.contains(&address.ip()))
            }
        })
    }

    /// Index of the endpoint of `target`, if it is one of these.
    #[must_use]
    pub(crate) fn position(&self, target: &Target) -> Option<usize> {
        self.endpoints.iter().position(|other| other.target.host == target.host && other.target.port == target.port)
    }

    /// All endpoints, in file order.
    #[must_use]
    pub(crate) fn endpoints(&self) -> &[Endpoint] {
        &self.endpoints
    }

    /// The endpoint to try next for `client`, `None` when all were tried. `random` is uniform, `now` the time since the
    /// daemon's start. Order: targets that are up, backups that are up, targets that are down, backups that are down.
    #[must_use]
    pub(crate) fn pick(&self, client: SocketAddr, random: u64, now: Duration, tried: &Tried) -> Option<usize> {
        self.pick_by(self.balance, client, random, now, tried)
    }

    /// The same, by the client's address whatever the group's balancing is.
    #[must_use]
    pub(crate) fn pick_by_source(&self, client: SocketAddr, now: Duration, tried: &Tried) -> Option<usize> {
        self.pick_by(Balance::SourceIp, client, 0, now, tried)
    }

    fn pick_by(
        &self,
        balance: Balance,
        client: SocketAddr,
        random: u64,
        now: Duration,
        tried: &Tried,
    ) -> Option<usize> {
        if self.endpoints.len() == 1 {
            return tried.targets.is_empty().then_some(0);
        }
        let mut up: Vec<bool> =
            self.endpoints.iter().map(|endpoint| endpoint.health.state(now) != State::Down).collect();
        loop {
            let index = self.pick_by_class(balance, client, random, &up, tried)?;
            let health = &self.endpoints.get(index)?.health;
            // A target that is due counts as up for the one connection that finds out.
            let mine = health.state(now) != State::Due || health.claim(now);
            match up.get_mut(index) {
                Some(up) if *up && !mine => *up = false,
                _ => return Some(index),
            }
        }
    }

    fn pick_by_class(
        &self,
        balance: Balance,
        client: SocketAddr,
        random: u64,
        up: &[bool],
        tried: &Tried,
    ) -> Option<usize> {
        [(true, false), (true, true), (false, false), (false, true)].into_iter().find_map(|(wanted, backup)| {
            let eligible = |index: &usize| {
                let same = |endpoint: &Endpoint| endpoint.target.backup == backup;
                self.endpoints.get(*index).is_some_and(same)
                    && up.get(*index) == Some(&wanted)
                    && !tried.targets.contains(index)
            };
            self.pick_among(balance, client, random, eligible)
        })
    }

    fn pick_among(
        &self,
        balance: Balance,
        client: SocketAddr,
        random: u64,
        eligible: impl Fn(&usize) -> bool,
    ) -> Option<usize> {
        let mut among = (0..self.endpoints.len()).filter(|index| eligible(index));
        let weight =
            |index: usize| self.endpoints.get(index).map_or(1, |endpoint| u64::from(endpoint.target.weight.get()));
        match balance {
            Balance::None => among.next(),
            Balance::SourceIp | Balance::SourceSocket => {
                let port = if balance == Balance::SourceIp { 0 } else { client.port() };
                let client = hash(&[&octets(client.ip()), &port.to_be_bytes()]);
                let scored = among.map(|index| {
                    let target = self.endpoints.get(index).map_or(0, |endpoint| endpoint.hash);
                    (score(hash(&[&client.to_be_bytes(), &target.to_be_bytes()]), weight(index)), index)
                });
                // Of equals the first.
                scored.max_by(|(a, i), (b, j)| a.total_cmp(b).then(j.cmp(i))).map(|(_, index)| index)
            }
            Balance::Random => {
                let sum: u64 = (0..self.endpoints.len()).filter(|index| eligible(index)).map(weight).sum();
                let mut left = random.checked_rem(sum)?;
                among.find(|index| match left.checked_sub(weight(*index)) {
                    Some(rest) => {
                        left = rest;
                        false
                    }
                    None => true,
                })
            }
            Balance::RoundRobin => {
                let turn = self.turn.fetch_add(1, atomic::Ordering::Relaxed).checked_rem(self.round.len())?;
                let (before, from) = self.round.split_at(turn);
                from.iter().chain(before).copied().find(|index| eligible(index))
            }
            Balance::LeastConn => {
                let active =
                    |index: usize| self.endpoints.get(index).map_or(0, |endpoint| u64::from(endpoint.health.active()));
                // Among equals, at random: otherwise all first connections would meet at the first target.
                let start = usize::try_from(random % (self.endpoints.len() as u64)).unwrap_or(0);
                let rank = |index: usize| (index + self.endpoints.len() - start) % self.endpoints.len();
                among.min_by(|a, b| {
                    let (left, right) = ((active(*a) + 1) * weight(*b), (active(*b) + 1) * weight(*a));
                    left.cmp(&right).then(rank(*a).cmp(&rank(*b)))
                })
            }
        }
    }

    /// Orders the addresses of one target: by rendezvous where the client's address decides, otherwise as DNS gave them
    /// (`none`) or from a random one on; then the families alternate, the first address's family first (RFC 8305
    /// section 4).
    #[must_use]
    pub(crate) fn order(&self, addresses: &[IpAddr], client: SocketAddr, random: u64) -> Vec<IpAddr> {
        let mut ordered = addresses.to_vec();
        if ordered.len() == 1 {
            return ordered;
        }
        match self.balance {
            Balance::None => {}
            Balance::SourceIp | Balance::SourceSocket => {
                let port = if self.balance == Balance::SourceIp { 0 } else { client.port() };
                let client = hash(&[&octets(client.ip()), &port.to_be_bytes()]);
                ordered.sort_by_key(|address| std::cmp::Reverse(hash(&[&client.to_be_bytes(), &octets(*address)])));
            }
            Balance::Random | Balance::RoundRobin | Balance::LeastConn => {
                if let Some(shift) = usize::try_from(random >> 32).ok().and_then(|r| r.checked_rem(ordered.len())) {
                    ordered.rotate_left(shift);
                }
            }
        }
        let first_is_v6 = ordered.first().is_some_and(IpAddr::is_ipv6);
        let (first, second): (Vec<_>, Vec<_>) =
            ordered.into_iter().partition(|address| address.is_ipv6() == first_is_v6);
        let (mut first, mut second) = (first.into_iter(), second.into_iter());
        let mut alternating = Vec::with_capacity(addresses.len());
        while first.len() + second.len() > 0 {
            alternating.extend(first.next());
            alternating.extend(second.next());
        }
        alternating
    }
}

impl Endpoint {
    /// The address, if the target is no name.
    ///
    /// # Errors
    ///
    /// There is no interface of its zone now.
    pub(crate) fn address(&self) -> Option<io::Result<SocketAddr>> {
        match &self.target.host {
            Host::Ip { .. } => self.target.literal().map(Ok),
            Host::LinkLocal { address, zone } => Some(net::link_local(*address, zone, self.target.port)),
            Host::Name(_) => None,
        }
    }

    /// The name, if the target is one.
    #[must_use]
    pub(crate) fn name(&self) -> Option<&Arc<Name>> {
        self.name.as_ref()
    }
}

fn hash(parts: &[&[u8]]) -> u64 {
    let mut hasher = SipHasher13::new_with_keys(HASH_KEY.0, HASH_KEY.1);
    for part in parts {
        hasher.write(part);
    }
    hasher.finish()
}

/// A v4-mapped address is its IPv4 address: a client is the same client through either socket.
fn octets(address: IpAddr) -> [u8; 16] {
    match address.to_canonical() {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

/// Weighted rendezvous score (Schindelhauer and Schomaker's logarithmic method): `-weight / ln(u)`, `u` in (0, 1).
fn score(hash: u64, weight: u64) -> f64 {
    // 53 bits fit a double exactly; the half keeps both ends out.
    let u = ((hash >> 11) as f64 + 0.5) / (1_u64 << 53) as f64;
    -(weight as f64) / u.ln()
}

/// A smooth weighted round: each index as often as its weight says, as far apart as can be.
fn round(weights: &[u32]) -> Vec<usize> {
    let divisor = weights.iter().copied().fold(0, gcd).max(1);
    let mut weights: Vec<u32> = weights.iter().map(|weight| weight / divisor).collect();
    while weights.iter().sum::<u32>() > MAX_ROUND && weights.iter().any(|weight| *weight > 1) {
        weights = weights.iter().map(|weight| (weight / 2).max(1)).collect();
    }
    let sum: i64 = weights.iter().copied().map(i64::from).sum();
    let mut credit = vec![0_i64; weights.len()];
    let turn = |_| {
        for (credit, weight) in credit.iter_mut().zip(&weights) {
            *credit += i64::from(*weight);
        }
        let (best, most) = credit.iter_mut().enumerate().max_by(|(i, a), (j, b)| a.cmp(b).then(j.cmp(i)))?;
        *most -= sum;
        Some(best)
    };
    (0..sum).filter_map(turn).collect()
}

fn gcd(a: u32, b: u32) -> u32 {
    if b == 0 { a } else { gcd(b, a % b) }
}

#[cfg(test)]
#[path = "balance_tests.rs"]
mod tests;
