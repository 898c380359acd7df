//! The choice among the targets of a group, and the next one when a target cannot be reached.

use std::{io, net::SocketAddr, path::Path, sync::Arc, time::Duration};

use super::{
    health::{Checked, Health, State, Targets},
    random::mixed,
    rendezvous::{self, Rendezvous},
    turns::Turns,
};
use crate::{
    config::model::{Balance, Check, Host, Target, Upstream},
    limit::ConnLimit,
    metrics::TargetAccount,
    net,
    resolve::{Lookup, Place, Resolver},
};

/// A group of targets with its balancing state.
#[derive(Debug)]
pub(crate) struct Group {
    endpoints: Vec<Endpoint>,
    pub(super) balance: Balance,
    /// Those that are tried first.
    ordinary: Class,
    backups: Class,
    /// What is down is not tried at all.
    pub(super) only_healthy: bool,
    /// A target has a limit of its own.
    limited: bool,
    reaching: Arc<ConnLimit>,
}

/// A target that was picked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pick {
    /// Its index.
    pub index: usize,
    /// False if it could not be reached not long ago.
    pub up: bool,
}

/// Targets of equal standing; those marked as down belong to none.
#[derive(Debug)]
struct Class {
    /// Indices in file order, each with the sum of the weights up to it.
    members: Vec<(usize, u64)>,
    rendezvous: Rendezvous,
    turns: Turns,
}

/// The question that a pick answers.
#[derive(Debug, Clone, Copy)]
struct Question<'a> {
    balance: Balance,
    client: SocketAddr,
    /// Uniform.
    random: u64,
    /// Time since the daemon's start.
    now: Duration,
    tried: &'a Tried,
    /// The answer leaves no trace: it takes neither turns nor tries.
    rehearsed: bool,
}

impl Question<'_> {
    /// Takes the one try of a target that is due; false when somebody else has it.
    fn claims(&self, endpoint: &Endpoint) -> bool {
        self.rehearsed || endpoint.health.claim(self.now)
    }
}

/// One target of a group.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// The target as configured.
    pub target: Target,
    /// The same as the file writes it.
    pub text: Arc<str>,
    /// Its state.
    pub health: Arc<Health>,
    /// What it carries.
    pub account: Arc<TargetAccount>,
    /// What a check says of it, if its rule has one.
    pub active: Option<Active>,
    /// What tells its addresses; `None` where it has them.
    lookup: Option<Lookup>,
    /// Hash of the target's text form.
    hash: u64,
}

/// A check of a target.
#[derive(Debug, Clone)]
pub(crate) struct Active {
    /// The check.
    pub check: Arc<Check>,
    /// What it has found.
    pub checked: Arc<Checked>,
}

/// The targets of a group that a connection has tried without success.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tried {
    targets: Vec<usize>,
    /// Of the target that is being tried.
    addresses: Vec<SocketAddr>,
}

impl Tried {
    /// Marks `index` as tried, with all its addresses.
    pub(crate) fn add(&mut self, index: usize) {
        self.addresses.clear();
        if !self.targets.contains(&index) {
            self.targets.push(index);
        }
    }

    /// Returns whether `index` was tried.
    #[must_use]
    pub(crate) fn holds(&self, index: usize) -> bool {
        self.targets.contains(&index)
    }

    /// Marks one address of the target that is being tried.
    pub(crate) fn add_address(&mut self, address: SocketAddr) {
        let address = bare(address);
        if !self.addresses.contains(&address) {
            self.addresses.push(address);
        }
    }

    /// Those of `places` that were not tried.
    #[must_use]
    pub(crate) fn untried(&self, mut places: Vec<Place>) -> Vec<Place> {
        places.retain(|place| !self.addresses.contains(&place.address));
        places
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
        let endpoints = upstream.targets.iter().map(|target| {
            let text: Arc<str> = target.to_string().into();
            Endpoint {
                health: targets.health(target),
                account: targets.accounts().target(&text),
                active: upstream
                    .check
                    .as_ref()
                    .map(|check| Active { check: Arc::clone(check), checked: targets.checked(target, check) }),
                lookup: match &target.host {
                    Host::Ip { .. } | Host::LinkLocal { .. } | Host::Unix(_) => None,
                    Host::Name(name) => Some(Lookup::Name(resolver.name(name), target.port)),
                    Host::Srv(name) => Some(Lookup::Service(resolver.service(name))),
                },
                hash: rendezvous::hash(&[text.as_bytes()]),
                text,
                target: target.clone(),
            }
        });
        Self { only_healthy: upstream.only_healthy, ..Self::of(endpoints.collect(), upstream.balance) }
    }

    fn of(endpoints: Vec<Endpoint>, balance: Balance) -> Self {
        let class = |backup| Class::new(&endpoints, balance, |target| target.backup == backup && !target.down);
        let (ordinary, backups) = (class(false), class(true));
        let limited = endpoints.iter().any(|endpoint| endpoint.target.max_connections.is_some());
        Self { endpoints, balance, ordinary, backups, only_healthy: false, limited, reaching: Arc::default() }
    }

    /// The endpoint at `index`.
    #[must_use]
    pub(crate) fn endpoint(&self, index: usize) -> Option<&Endpoint> {
        self.endpoints.get(index)
    }

    /// Index of the target that has this address, as far as its addresses are known.
    #[must_use]
    pub(crate) fn position_at(&self, address: SocketAddr) -> Option<usize> {
        self.endpoints.iter().position(|endpoint| match endpoint.lookup() {
            None => endpoint.address().is_some_and(|own| own.is_ok_and(|own| own == address)),
            Some(lookup) => lookup.leads_to(address) == Some(true),
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
    /// daemon's start. Order: targets that are up, backups that are up, targets that are down, backups that are down,
    /// these two unless only healthy targets count; drained ones never.
    #[must_use]
    pub(crate) fn pick(&self, client: SocketAddr, random: u64, now: Duration, tried: &Tried) -> Option<usize> {
        self.pick_told(client, random, now, tried).map(|pick| pick.index)
    }

    /// The same, and whether it is known to be down.
    #[must_use]
    pub(crate) fn pick_told(&self, client: SocketAddr, random: u64, now: Duration, tried: &Tried) -> Option<Pick> {
        self.answer(Question { balance: self.balance, client, random, now, tried, rehearsed: false })
    }

    /// The answer that [`Group::pick_told`] would give, without taking a turn or a try.
    #[must_use]
    pub(crate) fn rehearse(&self, client: SocketAddr, random: u64, now: Duration, tried: &Tried) -> Option<Pick> {
        self.answer(Question { balance: self.balance, client, random, now, tried, rehearsed: true })
    }

    /// The same for [`Group::pick_by_source`].
    #[must_use]
    pub(crate) fn rehearse_by_source(&self, client: SocketAddr, now: Duration, tried: &Tried) -> Option<Pick> {
        self.answer(Question { balance: Balance::SourceIp, client, random: 0, now, tried, rehearsed: true })
    }

    /// The targets that may be picked in place of `first`, that one included: those that balancing by chance, turn or
    /// number of connections chooses among. In file order.
    #[must_use]
    pub(crate) fn alternatives(&self, first: Pick, now: Duration) -> Vec<usize> {
        let stands = |index: usize| {
            let endpoint = self.endpoints.get(index)?;
            let up = match endpoint.state(now) {
                State::Up | State::Due => true,
                State::Down => false,
                State::Drained => return None,
            };
            Some((up, endpoint.target.backup, endpoint.target.down || endpoint.is_full()))
        };
        let own = self.endpoints.get(first.index).map(|endpoint| (first.up, endpoint.target.backup, false));
        (0..self.endpoints.len()).filter(|index| *index == first.index || stands(*index) == own).collect()
    }

    /// How one of several targets is chosen.
    #[must_use]
    pub(crate) fn balance(&self) -> Balance {
        self.balance
    }

    /// The same, by the client's address whatever the group's balancing is.
    #[must_use]
    pub(crate) fn pick_by_source(&self, client: SocketAddr, now: Duration, tried: &Tried) -> Option<usize> {
        let by_source = Question { balance: Balance::SourceIp, client, random: 0, now, tried, rehearsed: false };
        self.answer(by_source).map(|pick| pick.index)
    }

    /// The targets, with their indices, that could be chosen at `now`, but for their `max_connections`.
    pub(crate) fn full(&self, now: Duration) -> impl Iterator<Item = (usize, &Endpoint)> {
        self.endpoints.iter().enumerate().filter(move |(_, endpoint)| {
            let in_service = match endpoint.state(now) {
                State::Up | State::Due => true,
                State::Down => !self.only_healthy,
                State::Drained => false,
            };
            in_service && !endpoint.target.down && endpoint.is_full()
        })
    }

    /// Returns whether one of the targets has a limit of its own.
    #[must_use]
    pub(crate) fn is_limited(&self) -> bool {
        self.limited
    }

    /// The number of connections that are being established to a target of the group.
    #[must_use]
    pub(crate) fn reaching(&self) -> &Arc<ConnLimit> {
        &self.reaching
    }

    /// Returns whether only targets that are up are tried.
    #[must_use]
    pub(crate) fn only_healthy(&self) -> bool {
        self.only_healthy
    }

    fn answer(&self, question: Question<'_>) -> Option<Pick> {
        if let [(only, _)] = self.ordinary.members.as_slice()
            && self.backups.members.is_empty()
        {
            let endpoint = self.endpoints.get(*only)?;
            let eligible = question.tried.targets.is_empty();
            return match endpoint.state(question.now) {
                // The one try of a target that is due is counted only where it decides who is refused.
                State::Due if self.only_healthy && eligible && !question.claims(endpoint) => None,
                State::Up | State::Due => eligible.then_some(Pick { index: *only, up: true }),
                State::Down if self.only_healthy => None,
                State::Down => eligible.then_some(Pick { index: *only, up: false }),
                State::Drained => None,
            };
        }
        // Targets that are due, for the one try of another connection.
        let mut taken = Vec::new();
        let order = [(true, &self.ordinary), (true, &self.backups), (false, &self.ordinary), (false, &self.backups)];
        let order = order.into_iter().filter(|(up, _)| *up || !self.only_healthy);
        order.into_iter().find_map(|(up, class)| {
            loop {
                let eligible = |index: usize| {
                    let wanted = |endpoint: &Endpoint| match endpoint.state(question.now) {
                        State::Up | State::Due => taken.contains(&index) != up,
                        State::Down => !up,
                        State::Drained => false,
                    };
                    !question.tried.targets.contains(&index)
                        && self.endpoints.get(index).is_some_and(|endpoint| wanted(endpoint) && !endpoint.is_full())
                };
                let index = class.pick(&self.endpoints, question, eligible)?;
                let endpoint = self.endpoints.get(index)?;
                // A target that is due counts as up for the one connection that finds out.
                if !up || endpoint.state(question.now) != State::Due || question.claims(endpoint) {
                    return Some(Pick { index, up });
                }
                taken.push(index);
            }
        })
    }
}

impl Class {
    fn new(endpoints: &[Endpoint], balance: Balance, belongs: impl Fn(&Target) -> bool) -> Self {
        let all = || endpoints.iter().enumerate().filter(|(_, endpoint)| belongs(&endpoint.target));
        let weight = |endpoint: &Endpoint| endpoint.target.weight.get();
        let mut sum = 0;
        let members = all().map(|(index, endpoint)| {
            sum += u64::from(weight(endpoint));
            (index, sum)
        });
        let members = members.collect();
        let in_turn = all().filter(|_| balance == Balance::RoundRobin);
        let turns: Vec<_> = in_turn.map(|(index, endpoint)| (index, weight(endpoint).into())).collect();
        let rendezvous = Rendezvous::new(all().map(|(index, e)| (index, weight(e).into(), e.hash)));
        Self { members, rendezvous, turns: Turns::new(&turns) }
    }

    fn pick(&self, endpoints: &[Endpoint], question: Question<'_>, eligible: impl Fn(usize) -> bool) -> Option<usize> {
        let members = || self.members.iter().map(|(index, _)| *index);
        let weight = |index: usize| endpoints.get(index).map_or(1, |endpoint| u64::from(endpoint.target.weight.get()));
        let Question { balance, client, random, tried, rehearsed, .. } = question;
        match balance {
            Balance::None => members().find(|index| eligible(*index)),
            Balance::SourceIp | Balance::SourceSocket => {
                self.rendezvous.pick(rendezvous::client(client, balance == Balance::SourceSocket), eligible)
            }
            Balance::Random => self
                .draw(random)
                .filter(|index| eligible(*index))
                .or_else(|| by_weight(members, weight, mixed(random), &eligible)),
            Balance::RoundRobin if rehearsed => self.turns.peek(tried.is_empty(), eligible),
            Balance::RoundRobin => self.turns.pick(tried.is_empty(), eligible),
            Balance::LeastConn => {
                let active = |index: usize| endpoints.get(index).map_or(0, |e| u64::from(e.health.active()));
                let fewest = members().filter(|index| eligible(*index)).map(|index| (active(index), weight(index)));
                let (fewest, of_weight) = fewest.min_by(|(a, v), (b, w)| (a * w).cmp(&(b * v)))?;
                // Among equals by weight: otherwise all first connections would meet at one target.
                let equal = |index: usize| active(index) * of_weight <= fewest * weight(index) && eligible(index);
                by_weight(members, weight, random, equal).or_else(|| members().find(|index| eligible(*index)))
            }
        }
    }

    /// A member at random, by weight.
    fn draw(&self, random: u64) -> Option<usize> {
        let (_, sum) = self.members.last()?;
        let drawn = random.checked_rem(*sum)?;
        let at = self.members.partition_point(|(_, sum)| *sum <= drawn);
        self.members.get(at).map(|(index, _)| *index)
    }
}

/// One of the eligible `members` at random, by weight.
fn by_weight<I: Iterator<Item = usize>>(
    members: impl Fn() -> I,
    weight: impl Fn(usize) -> u64,
    random: u64,
    eligible: impl Fn(usize) -> bool,
) -> Option<usize> {
    let mut left = random.checked_rem(members().filter(|index| eligible(*index)).map(&weight).sum())?;
    members().filter(|index| eligible(*index)).find(|index| match left.checked_sub(weight(*index)) {
        Some(rest) => {
            left = rest;
            false
        }
        None => true,
    })
}

impl Endpoint {
    /// Its state at `now` (time since the daemon's start), as the check of its rule says as well.
    #[must_use]
    pub(crate) fn state(&self, now: Duration) -> State {
        let state = self.health.state(now);
        let found_down = || self.active.as_ref().is_some_and(|active| active.checked.is_down());
        match state {
            State::Up | State::Due if found_down() => State::Down,
            State::Up | State::Due | State::Down | State::Drained => state,
        }
    }

    /// It could not be reached at `now`: it is checked soon. Returns whether the log should say so.
    pub(crate) fn failed(&self, now: Duration, retry: Duration) -> bool {
        if let Some(active) = &self.active {
            active.checked.doubt();
        }
        self.health.failed(now, retry)
    }

    /// Since when `address`, one of its own, is down by a check that ends sessions.
    #[must_use]
    pub(crate) fn fallen_since(&self, address: SocketAddr) -> Option<Duration> {
        let active = self.active.as_ref().filter(|active| active.check.close)?;
        active.checked.down_since(Some(bare(address)))
    }

    /// One of its addresses could not be reached at `now`, which is remembered where others take its place.
    pub(crate) fn missed(&self, address: SocketAddr, now: Duration, retry: Duration) {
        if let Some(Lookup::Service(_)) = self.lookup {
            self.health.missed().add(address, now, retry);
        }
    }

    /// One of its addresses was reached.
    pub(crate) fn reached_at(&self, address: SocketAddr) {
        if let Some(Lookup::Service(_)) = self.lookup {
            self.health.missed().reached(address);
        }
    }

    /// Returns whether the target has as many connections as it may have.
    #[must_use]
    pub(crate) fn is_full(&self) -> bool {
        self.target.max_connections.is_some_and(|most| self.health.active() >= most.get())
    }

    /// Returns whether the target has one part in `part` of the connections that it may have.
    #[must_use]
    pub(crate) fn is_filled(&self, part: u32) -> bool {
        self.target.max_connections.is_some_and(|most| self.health.active() >= most.get() / part)
    }

    /// The address, if it need not be looked up by DNS.
    ///
    /// # Errors
    ///
    /// There is no interface of its zone now.
    pub(crate) fn address(&self) -> Option<io::Result<SocketAddr>> {
        match &self.target.host {
            Host::Ip { .. } => self.target.literal().map(Ok),
            Host::LinkLocal { address, zone } => Some(net::link_local(*address, zone, self.target.port)),
            Host::Name(_) | Host::Srv(_) | Host::Unix(_) => None,
        }
    }

    /// The path, if the target is a unix socket.
    #[must_use]
    pub(crate) fn path(&self) -> Option<&Arc<Path>> {
        match &self.target.host {
            Host::Unix(path) => Some(path),
            Host::Ip { .. } | Host::LinkLocal { .. } | Host::Name(_) | Host::Srv(_) => None,
        }
    }

    /// What tells its addresses, if the target is a name or a service.
    #[must_use]
    pub(crate) fn lookup(&self) -> Option<&Lookup> {
        self.lookup.as_ref()
    }
}

/// The address without the interface that it was reached by.
#[must_use]
pub(crate) fn bare(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip(), address.port())
}

#[cfg(test)]
#[path = "balance_tests.rs"]
pub(super) mod tests;
