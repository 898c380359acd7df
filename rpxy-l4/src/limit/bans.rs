//! Source networks that get nothing: from the configuration and by command.
//!
//! Asked about each connection and each first datagram, changed by an operator now and then. So look-ups read a value
//! that is replaced as a whole, and cost one load while nobody is banned; the new value shares most of the old one, so
//! that a ban costs the same whatever number there is. Errs towards refusing: a network is banned as long as one of the
//! two sources says so, or a larger network that contains it is.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::{
        Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
};

use arc_swap::ArcSwap;
use ipnet::IpNet;

use super::networks::Networks;
use crate::config::model::canonical;

/// Origin of a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BanSource {
    /// The configuration file; a reload may lift it.
    Configuration,
    /// A command; it lasts until it is lifted or the daemon ends.
    Command,
}

impl BanSource {
    /// As the admin socket writes it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Configuration => "configuration",
            Self::Command => "command",
        }
    }
}

/// Result of lifting a ban.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unban {
    /// The network is banned no longer.
    Lifted,
    /// The command's ban is gone; this network, itself or a larger one, is still banned.
    Covered(IpNet, BanSource),
    /// No command has banned it; this network, itself or a larger one, is.
    NotByCommand(IpNet, BanSource),
    /// It was not banned.
    NotBanned,
}

/// There are as many bans by command as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are {} bans by command already", Bans::MOST)]
pub(crate) struct TooManyBans;

/// The banned networks.
#[derive(Debug, Default)]
pub(crate) struct Bans {
    /// True if there are any.
    some: AtomicBool,
    in_force: ArcSwap<Networks>,
    lists: Mutex<Lists>,
}

#[derive(Debug, Default)]
struct Lists {
    configured: BTreeSet<IpNet>,
    commanded: BTreeSet<IpNet>,
}

impl Bans {
    /// Bans by command at most.
    pub(crate) const MOST: usize = 65_536;

    /// Returns whether `source` is banned.
    #[must_use]
    pub(crate) fn refuses(&self, source: IpAddr) -> bool {
        self.some.load(Ordering::Relaxed) && self.in_force.load().contains(source.to_canonical())
    }

    /// The smallest banned network that `source` is in, for who asks why it is refused.
    #[must_use]
    pub(crate) fn around(&self, source: IpAddr) -> Option<(IpNet, BanSource)> {
        self.lock().longest_around(source.to_canonical().into())
    }

    /// Replaces the bans of the configuration; those by command stay. Returns whether anything has changed.
    pub(crate) fn set_configured(&self, networks: &[IpNet]) -> bool {
        let configured = networks.iter().copied().map(canonical).collect();
        let mut lists = self.lock();
        let changed = lists.configured != configured;
        lists.configured = configured;
        if changed {
            self.put_in_force(lists.configured.iter().chain(&lists.commanded).copied().collect());
        }
        changed
    }

    /// Bans a network by command. Returns whether that is new.
    ///
    /// # Errors
    ///
    /// There are [`Bans::MOST`] already.
    pub(crate) fn ban(&self, network: IpNet) -> Result<bool, TooManyBans> {
        let network = canonical(network);
        let mut lists = self.lock();
        if lists.commanded.len() >= Self::MOST && !lists.commanded.contains(&network) {
            return Err(TooManyBans);
        }
        let new = lists.commanded.insert(network);
        if new && !lists.configured.contains(&network) {
            self.change(|networks| networks.insert(network));
        }
        Ok(new)
    }

    /// Lifts the ban of a network by command.
    pub(crate) fn unban(&self, network: IpNet) -> Unban {
        let network = canonical(network);
        let mut lists = self.lock();
        let was_there = lists.commanded.remove(&network);
        if was_there && !lists.configured.contains(&network) {
            self.change(|networks| networks.remove(network));
        }
        match (was_there, lists.longest_around(network)) {
            (true, None) => Unban::Lifted,
            (true, Some((around, source))) => Unban::Covered(around, source),
            (false, Some((around, source))) => Unban::NotByCommand(around, source),
            (false, None) => Unban::NotBanned,
        }
    }

    /// All bans in order, each with its origin; the configuration where both asked for it.
    #[must_use]
    pub(crate) fn list(&self) -> Vec<(IpNet, BanSource)> {
        self.lock().all().into_iter().collect()
    }

    /// The first `most` of them.
    #[must_use]
    pub(crate) fn first(&self, most: usize) -> Vec<(IpNet, BanSource)> {
        let lists = self.lock();
        let source = |network| match lists.configured.contains(network) {
            true => BanSource::Configuration,
            false => BanSource::Command,
        };
        let first = lists.commanded.union(&lists.configured).take(most);
        first.map(|network| (*network, source(network))).collect()
    }

    /// All banned networks in order, for the kernel plane.
    #[must_use]
    pub(crate) fn networks(&self) -> Vec<IpNet> {
        self.lock().all().into_keys().collect()
    }

    /// Returns whether this very network is on a list.
    #[must_use]
    pub(crate) fn lists(&self, network: IpNet) -> bool {
        let (lists, network) = (self.lock(), canonical(network));
        lists.configured.contains(&network) || lists.commanded.contains(&network)
    }

    /// Number of banned networks.
    #[must_use]
    pub(crate) fn count(&self) -> usize {
        let lists = self.lock();
        let mut both = [&lists.commanded, &lists.configured];
        both.sort_by_key(|list| list.len());
        let [few, many] = both;
        many.len() + few.difference(many).count()
    }

    /// Only with the lists locked, so that no change is lost.
    fn change(&self, change: impl FnOnce(&mut Networks)) {
        let mut networks = Networks::clone(&self.in_force.load());
        change(&mut networks);
        self.put_in_force(networks);
    }

    fn put_in_force(&self, networks: Networks) {
        let some = !networks.is_empty();
        self.in_force.store(networks.into());
        self.some.store(some, Ordering::Relaxed);
    }

    fn lock(&self) -> MutexGuard<'_, Lists> {
        self.lists.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lists {
    fn all(&self) -> BTreeMap<IpNet, BanSource> {
        let commanded = self.commanded.iter().map(|network| (*network, BanSource::Command));
        commanded.chain(self.configured.iter().map(|network| (*network, BanSource::Configuration))).collect()
    }

    /// The smallest banned network that contains `network`.
    fn longest_around(&self, network: IpNet) -> Option<(IpNet, BanSource)> {
        let mut around = Some(network);
        while let Some(candidate) = around {
            if self.configured.contains(&candidate) {
                return Some((candidate, BanSource::Configuration));
            }
            if self.commanded.contains(&candidate) {
                return Some((candidate, BanSource::Command));
            }
            around = candidate.supernet();
        }
        None
    }
}

/// A network in CIDR notation; a bare address is that host alone. Bits beyond the prefix are cleared.
#[must_use]
pub(crate) fn network(text: &str) -> Option<IpNet> {
    let host = || text.parse::<IpAddr>().ok().map(IpNet::from);
    text.parse::<IpNet>().ok().or_else(host).map(|network| network.trunc())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn net(text: &str) -> IpNet {
        network(text).unwrap()
    }

    fn refused(bans: &Bans, sources: &[&str]) -> Vec<bool> {
        sources.iter().map(|source| bans.refuses(source.parse().unwrap())).collect()
    }

    #[test]
    fn networks_are_read_as_written_by_people() {
        for (text, expected) in [
            ("192.0.2.7", Some("192.0.2.7/32")),
            ("192.0.2.7/24", Some("192.0.2.0/24")),
            ("2001:db8::7", Some("2001:db8::7/128")),
            ("::/0", Some("::/0")),
            ("192.0.2.0/33", None),
            ("[::1]", None),
            ("example.net", None),
            ("", None),
        ] {
            assert_eq!(network(text).map(|network| network.to_string()).as_deref(), expected, "{text}");
        }
    }

    #[test]
    fn an_address_is_refused_exactly_when_a_banned_network_contains_it() {
        let bans = Bans::default();
        assert_eq!(refused(&bans, &["192.0.2.1", "::1"]), [false, false], "nobody is banned");
        for network in ["192.0.2.0/25", "192.0.2.64/26", "192.0.2.200/32", "10.0.0.0/8", "2001:db8::/32"] {
            assert_eq!(bans.ban(net(network)), Ok(true), "{network}");
        }
        for (source, expected) in [
            ("192.0.1.255", false),
            ("192.0.2.0", true),
            ("192.0.2.64", true),
            ("192.0.2.127", true),
            ("192.0.2.128", false),
            ("192.0.2.199", false),
            ("192.0.2.200", true),
            ("192.0.2.201", false),
            ("9.255.255.255", false),
            ("10.255.255.255", true),
            ("11.0.0.0", false),
            ("::ffff:10.0.0.1", true),
            ("2001:db8::1", true),
            ("2001:db9::1", false),
            ("::", false),
            ("0.0.0.0", false),
            ("255.255.255.255", false),
        ] {
            assert_eq!(bans.refuses(source.parse().unwrap()), expected, "{source}");
        }
    }

    #[test]
    fn bans_by_command_outlive_those_of_the_configuration() {
        let bans = Bans::default();
        assert!(bans.set_configured(&[net("10.0.0.0/8"), net("192.0.2.1")]));
        assert!(!bans.set_configured(&[net("192.0.2.1"), net("10.0.0.0/8")]), "the same in another order");
        assert_eq!(bans.ban(net("198.51.100.0/24")), Ok(true));
        assert_eq!(bans.ban(net("198.51.100.9/24")), Ok(false), "the same network");
        let sources = ["10.0.0.1", "192.0.2.1", "198.51.100.1"];
        assert_eq!(refused(&bans, &sources), [true, true, true]);
        assert!(bans.set_configured(&[]));
        assert_eq!(refused(&bans, &sources), [false, false, true]);
        assert_eq!(bans.list(), [(net("198.51.100.0/24"), BanSource::Command)]);
        assert_eq!((bans.networks(), bans.count()), (vec![net("198.51.100.0/24")], 1));
        assert_eq!(["198.51.100.0/24", "198.51.100.0/25"].map(|network| bans.lists(net(network))), [true, false]);
    }

    #[test]
    fn unbanning_tells_what_still_holds() {
        let bans = Bans::default();
        bans.set_configured(&[net("10.0.0.0/8")]);
        for network in ["10.1.0.0/16", "192.0.2.0/24", "192.0.2.1", "::ffff:203.0.113.0/120"] {
            bans.ban(net(network)).unwrap();
        }
        for (network, expected) in [
            ("10.1.0.0/16", Unban::Covered(net("10.0.0.0/8"), BanSource::Configuration)),
            ("10.1.0.0/16", Unban::NotByCommand(net("10.0.0.0/8"), BanSource::Configuration)),
            ("10.0.0.0/8", Unban::NotByCommand(net("10.0.0.0/8"), BanSource::Configuration)),
            ("192.0.2.1", Unban::Covered(net("192.0.2.0/24"), BanSource::Command)),
            ("192.0.2.7", Unban::NotByCommand(net("192.0.2.0/24"), BanSource::Command)),
            ("192.0.2.0/24", Unban::Lifted),
            ("192.0.2.0/24", Unban::NotBanned),
            ("203.0.113.0/24", Unban::Lifted),
        ] {
            assert_eq!(bans.unban(net(network)), expected, "{network}");
        }
        assert!(!bans.refuses("192.0.2.1".parse().unwrap()));
        bans.set_configured(&[]);
        assert!(!bans.refuses("10.1.0.1".parse().unwrap()));
    }

    #[test]
    fn what_both_ask_for_is_banned_until_neither_does() {
        let bans = Bans::default();
        let (network, source) = (net("192.0.2.0/24"), ["192.0.2.1"]);
        bans.set_configured(&[network]);
        bans.ban(network).unwrap();
        assert_eq!(bans.count(), 1);
        assert_eq!(bans.unban(network), Unban::Covered(network, BanSource::Configuration));
        assert_eq!(refused(&bans, &source), [true]);
        bans.ban(network).unwrap();
        bans.set_configured(&[]);
        assert_eq!(refused(&bans, &source), [true], "the command's is left");
        assert_eq!(bans.unban(network), Unban::Lifted);
        assert_eq!(refused(&bans, &source), [false]);
    }

    #[test]
    fn bans_by_command_are_bounded() {
        let bans = Bans::default();
        let address = |n: usize| IpNet::from(IpAddr::V4(u32::try_from(n).unwrap().into()));
        bans.lock().commanded = (0..Bans::MOST - 1).map(address).collect();
        assert_eq!(bans.ban(address(Bans::MOST)), Ok(true));
        assert_eq!(bans.ban(address(Bans::MOST + 1)), Err(TooManyBans));
        assert_eq!(bans.ban(address(0)), Ok(false), "one that is there already");
        assert_eq!(bans.unban(address(1)), Unban::Lifted);
        assert_eq!(bans.ban(address(Bans::MOST + 1)), Ok(true));
    }
}
