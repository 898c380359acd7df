//! Sets of networks that clients are looked up in.

use std::{collections::HashSet, net::IpAddr};

use ipnet::IpNet;

use crate::config::model::{AccessLists, canonical};

/// Networks, looked up by the longest that contains an address. The cost is one look for each prefix length in the set,
/// however many networks there are.
#[derive(Debug, Clone, Default)]
pub(crate) struct NetworkSet {
    networks: HashSet<IpNet>,
    /// The prefix lengths of each family, the longest first.
    v4: Vec<u8>,
    v6: Vec<u8>,
}

impl NetworkSet {
    /// The set of `networks`.
    #[must_use]
    pub(crate) fn new(networks: &[IpNet]) -> Self {
        let networks: HashSet<IpNet> = networks.iter().copied().map(canonical).collect();
        let lengths = |v4: bool| {
            let of_family = networks.iter().filter(|network| network.addr().is_ipv4() == v4);
            let mut lengths: Vec<u8> = of_family.map(IpNet::prefix_len).collect();
            lengths.sort_unstable_by(|a, b| b.cmp(a));
            lengths.dedup();
            lengths
        };
        Self { v4: lengths(true), v6: lengths(false), networks }
    }

    /// Returns whether there is no network.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.networks.is_empty()
    }

    /// The prefix length of the smallest network that contains `address`.
    #[must_use]
    pub(crate) fn longest(&self, address: IpAddr) -> Option<u8> {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        lengths
            .iter()
            .copied()
            .find(|length| IpNet::new(address, *length).is_ok_and(|network| self.networks.contains(&network.trunc())))
    }

    /// The networks, in no order; IPv4 in IPv6 clothes is IPv4.
    pub(crate) fn iter(&self) -> impl Iterator<Item = IpNet> {
        self.networks.iter().copied()
    }

    /// Returns whether a network of the set is, or contains, all of `network`.
    #[must_use]
    pub(crate) fn contains_all_of(&self, network: IpNet) -> bool {
        let mut around = Some(network);
        while let Some(candidate) = around {
            if self.networks.contains(&candidate) {
                return true;
            }
            around = candidate.supernet();
        }
        false
    }

    /// Returns whether a network contains `address`.
    #[must_use]
    pub(crate) fn contains(&self, address: IpAddr) -> bool {
        self.longest(address).is_some()
    }
}

/// Why a client is not taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AccessDenied {
    /// It is in no network of `allow`.
    Outside,
    /// It is in a network of `deny` with a prefix of this length.
    Inside(u8),
}

/// The access lists of a listener. Errs towards refusing: `deny` wins over `allow`.
#[derive(Debug, Default)]
pub(crate) struct AccessList {
    /// `None` is everybody.
    allow: Option<NetworkSet>,
    deny: NetworkSet,
}

impl AccessList {
    /// The lists as configured.
    #[must_use]
    pub(crate) fn new(lists: &AccessLists) -> Self {
        Self { allow: lists.allow.as_deref().map(NetworkSet::new), deny: NetworkSet::new(&lists.deny) }
    }

    /// Returns whether the listener does not take a client at `source`.
    #[must_use]
    pub(crate) fn refuses(&self, source: IpAddr) -> bool {
        self.why(source).is_some()
    }

    /// Why the listener does not take a client at `source`; `None` if it does.
    #[must_use]
    pub(crate) fn why(&self, source: IpAddr) -> Option<AccessDenied> {
        if self.allow.as_ref().is_some_and(|allow| !allow.contains(source)) {
            return Some(AccessDenied::Outside);
        }
        let length = if self.deny.is_empty() { None } else { self.deny.longest(source) };
        length.map(AccessDenied::Inside)
    }

    /// Returns whether there is neither list.
    #[must_use]
    pub(crate) fn is_open(&self) -> bool {
        self.allow.is_none() && self.deny.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn networks(texts: &[&str]) -> Vec<IpNet> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    #[test]
    fn the_longest_network_is_found() {
        let set = NetworkSet::new(&networks(&["10.0.0.0/8", "10.1.0.0/16", "192.0.2.7/32", "2001:db8::/32", "::/0"]));
        for (row, address, expected) in [
            ("inside one", "10.2.0.1", Some(8)),
            ("inside two", "10.1.0.1", Some(16)),
            ("v4-mapped", "::ffff:10.1.0.1", Some(16)),
            ("a host", "192.0.2.7", Some(32)),
            ("its neighbour", "192.0.2.8", None),
            ("IPv6", "2001:db8::1", Some(32)),
            ("all of IPv6", "2001:db9::1", Some(0)),
        ] {
            assert_eq!(set.longest(address.parse().unwrap()), expected, "{row}");
        }
        assert!(NetworkSet::new(&[]).is_empty());
        assert_eq!(NetworkSet::default().longest([10, 0, 0, 1].into()), None);
    }

    #[test]
    fn deny_wins_over_allow() {
        let list = |allow: Option<&[&str]>, deny: &[&str]| {
            AccessList::new(&AccessLists { allow: allow.map(networks), deny: networks(deny) })
        };
        for (row, list, source, refused) in [
            ("no lists", list(None, &[]), "192.0.2.1", false),
            ("allowed", list(Some(&["192.0.2.0/24"]), &[]), "192.0.2.1", false),
            ("not allowed", list(Some(&["192.0.2.0/24"]), &[]), "192.0.3.1", true),
            ("the other family is not allowed", list(Some(&["192.0.2.0/24"]), &[]), "2001:db8::1", true),
            ("nobody is allowed", list(Some(&[]), &[]), "192.0.2.1", true),
            ("denied", list(None, &["192.0.2.0/24"]), "192.0.2.1", true),
            ("not denied", list(None, &["192.0.2.0/24"]), "192.0.3.1", false),
            ("denied within what is allowed", list(Some(&["192.0.2.0/24"]), &["192.0.2.7/32"]), "192.0.2.7", true),
            ("allowed within what is denied", list(Some(&["192.0.2.7/32"]), &["192.0.2.0/24"]), "192.0.2.7", true),
            ("v4-mapped", list(None, &["192.0.2.0/24"]), "::ffff:192.0.2.1", true),
        ] {
            assert_eq!(list.refuses(source.parse().unwrap()), refused, "{row}");
        }
    }
}
