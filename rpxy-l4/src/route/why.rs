//! Why a rule does not get a connection or session, for an operator who asks.
//!
//! Nothing is decided here a second time: the tables that route are asked about the rule alone, about it with fewer
//! conditions, and about it beside the rule that was chosen. What changes their answer is the reason. Takes some
//! look-ups for each rule, so it is for commands only.

use std::{net::IpAddr, sync::Arc};

use ipnet::IpNet;
use rpxy_l4_proto::wireguard::Reserved;

use super::{Conditions, NameTable, from::From, keys::KeyTable};

/// What a client asks for, as far as rules about TLS, QUIC and HTTP look at it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Asked<'a> {
    /// The server name.
    pub name: Option<&'a str>,
    /// The ALPN protocols offered.
    pub alpns: &'a [&'a [u8]],
    /// The client.
    pub source: IpAddr,
}

/// The reason why a rule does not get what was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Misfit {
    /// None of its server names is the one.
    Name,
    /// None of its ALPN protocols is offered.
    Alpn,
    /// The client is in none of its networks.
    From,
    /// The initiation was not made for its public key.
    Key,
    /// It does not take the reserved bytes of the message.
    Reserved,
    /// All of its conditions hold, and the rule that was chosen comes first.
    Outranked(Outranked),
}

/// The first difference between two rules whose conditions hold, in the order in which they count.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Outranked {
    /// The other one has the name, or says more of it.
    Name,
    /// The other one has an ALPN condition.
    Alpn,
    /// The other one has a key.
    Key,
    /// The other one has a smaller network.
    Network,
    /// The other one is further up in the file.
    Order,
}

/// Why a rule about TLS, QUIC or HTTP with these conditions is not chosen, while one with the conditions of `chosen` is, if
/// any; `None` if nothing speaks against it.
#[must_use]
pub(crate) fn of_hello(rule: Conditions<'_>, chosen: Option<Conditions<'_>>, asked: Asked<'_>) -> Option<Misfit> {
    let holds = |conditions: Conditions<'_>| first_of(&[conditions], asked).is_some();
    let any = Conditions { names: &[], alpns: &[], from: &[] };
    if !holds(Conditions { names: rule.names, ..any }) {
        return Some(Misfit::Name);
    }
    if !holds(Conditions { alpns: rule.alpns, ..any }) {
        return Some(Misfit::Alpn);
    }
    if !holds(Conditions { from: rule.from, ..any }) {
        return Some(Misfit::From);
    }
    let chosen = chosen?;
    // Beside the chosen one it would win if it came first in the file, or with fewer conditions on both.
    let wins = |of: fn(Conditions<'_>) -> Conditions<'_>| first_of(&[of(rule), of(chosen)], asked) == Some(0);
    let outranked = if wins(|all| all) {
        Outranked::Order
    } else if wins(|all| Conditions { from: &[], ..all }) {
        Outranked::Network
    } else if wins(|all| Conditions { from: &[], alpns: &[], ..all }) {
        Outranked::Alpn
    } else {
        Outranked::Name
    };
    Some(Misfit::Outranked(outranked))
}

/// Which of `rules`, in file order, gets what was asked for.
fn first_of(rules: &[Conditions<'_>], asked: Asked<'_>) -> Option<usize> {
    let mut table = NameTable::default();
    for (index, conditions) in rules.iter().enumerate() {
        table.add(*conditions, &Arc::new(index));
    }
    table.find(asked.name, asked.alpns, asked.source).map(|index| **index)
}

/// The conditions of a rule about WireGuard.
#[derive(Debug, Clone, Copy)]
pub(crate) struct KeyConditions<'a> {
    /// The public key of the server.
    pub key: Option<&'a [u8; 32]>,
    /// Reserved bytes that it takes.
    pub reserved: Reserved,
    /// Networks of clients.
    pub from: &'a [IpNet],
}

/// The same for a rule about WireGuard and an initiation from `source`.
#[must_use]
pub(crate) fn of_initiation(
    rule: KeyConditions<'_>,
    chosen: Option<KeyConditions<'_>>,
    initiation: &[u8],
    source: IpAddr,
) -> Option<Misfit> {
    let first_of = |rules: &[KeyConditions<'_>]| {
        let mut table = KeyTable::default();
        for (index, rule) in rules.iter().enumerate() {
            table.add(rule.key, rule.reserved, &Arc::new(From::new(rule.from)), &Arc::new(index));
        }
        table.find(initiation, source).map(|index| **index)
    };
    let holds = |conditions| first_of(&[conditions]).is_some();
    let any = KeyConditions { key: None, reserved: Reserved::Any, from: &[] };
    if !holds(KeyConditions { reserved: rule.reserved, ..any }) {
        return Some(Misfit::Reserved);
    }
    if !holds(KeyConditions { key: rule.key, ..any }) {
        return Some(Misfit::Key);
    }
    if !holds(KeyConditions { from: rule.from, ..any }) {
        return Some(Misfit::From);
    }
    let chosen = chosen?;
    let wins = |of: fn(KeyConditions<'_>) -> KeyConditions<'_>| first_of(&[of(rule), of(chosen)]) == Some(0);
    let outranked = if wins(|all| all) {
        Outranked::Order
    } else if wins(|all| KeyConditions { from: &[], ..all }) {
        Outranked::Network
    } else {
        Outranked::Key
    };
    Some(Misfit::Outranked(outranked))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::NamePattern;

    /// A rule as `(names, alpns, networks of clients)`.
    type Row<'a> = (&'a [&'a str], &'a [&'a str], &'a [&'a str]);

    struct Owned(Vec<NamePattern>, Vec<Arc<[u8]>>, Vec<IpNet>);

    impl Owned {
        fn new((names, alpns, from): Row<'_>) -> Self {
            let pattern = |name: &&str| match name.strip_prefix("*.") {
                Some(suffix) => NamePattern::Wildcard(suffix.into()),
                None => NamePattern::Exact((*name).into()),
            };
            Self(
                names.iter().map(pattern).collect(),
                alpns.iter().map(|alpn| alpn.as_bytes().into()).collect(),
                from.iter().map(|network| network.parse().unwrap()).collect(),
            )
        }

        fn conditions(&self) -> Conditions<'_> {
            Conditions { names: &self.0, alpns: &self.1, from: &self.2 }
        }
    }

    #[test]
    fn each_misfit_has_its_reason() {
        use Misfit::{Alpn, From, Name, Outranked as By};
        let any: Row<'_> = (&[], &[], &[]);
        let asked: (Option<&str>, &[&[u8]]) = (Some("a.example.com"), &[b"h2"]);
        for (case, rule, chosen, expected) in [
            ("another name", (&["b.com"] as &[_], &[] as &[_], &[] as &[_]), Some(any), Some(Name)),
            ("another name and network", (&["b.com"], &[], &["192.0.2.0/24"]), None, Some(Name)),
            ("another ALPN", (&[], &["h3"], &[]), Some(any), Some(Alpn)),
            ("another network", (&[], &[], &["192.0.2.0/24"]), Some(any), Some(From)),
            ("nothing is chosen", (&["a.example.com"], &[], &["192.0.2.0/24"]), None, Some(From)),
            (
                "less of the name",
                (&["*.example.com"], &[], &[]),
                Some((&["a.example.com"], &[], &[])),
                Some(By(Outranked::Name)),
            ),
            (
                "a shorter wildcard",
                (&["*.com"], &[], &[]),
                Some((&["*.example.com"], &[], &[])),
                Some(By(Outranked::Name)),
            ),
            ("no name", (&[], &["h2"], &["10.0.0.0/8"]), Some((&["*.com"], &[], &[])), Some(By(Outranked::Name))),
            (
                "no ALPN",
                (&["a.example.com"], &[], &["10.0.0.0/8"]),
                Some((&["*.com"], &["h2"], &[])),
                Some(By(Outranked::Alpn)),
            ),
            (
                "a larger network",
                (&[], &[], &["10.0.0.0/8"]),
                Some((&[], &[], &["10.0.0.0/16"])),
                Some(By(Outranked::Network)),
            ),
            ("no network", any, Some((&[], &[], &["10.0.0.0/8"])), Some(By(Outranked::Network))),
            ("the same", any, Some(any), Some(By(Outranked::Order))),
            (
                "equally specific",
                (&["a.example.com", "x"], &[], &[]),
                Some((&["a.example.com"], &[], &[])),
                Some(By(Outranked::Order)),
            ),
            ("nothing speaks against it", any, None, None),
        ] {
            let (rule, chosen) = (Owned::new(rule), chosen.map(Owned::new));
            let asked = Asked { name: asked.0, alpns: asked.1, source: [10, 0, 0, 1].into() };
            let misfit = of_hello(rule.conditions(), chosen.as_ref().map(Owned::conditions), asked);
            assert_eq!(misfit, expected, "{case}");
        }
    }

    #[test]
    fn of_wireguard_as_well() {
        use Misfit::{From, Key, Outranked as By};
        let (key, other) = ([7; 32], [8; 32]);
        let mut initiation = vec![1; 148];
        initiation[1..4].fill(0);
        rpxy_l4_common::mac1::Mac1Key::new(&key).sign(initiation.as_mut_slice().try_into().unwrap());
        let network = ["10.0.0.0/8".parse().unwrap()];
        let elsewhere = ["192.0.2.0/24".parse().unwrap()];
        let rule = |key, from| KeyConditions { key, reserved: Reserved::Zero, from };
        for (case, asked, chosen, expected) in [
            ("another key", rule(Some(&other), &[] as &[IpNet]), None, Some(Key)),
            ("another network", rule(Some(&key), &elsewhere), None, Some(From)),
            ("no key", rule(None, &network), Some(rule(Some(&key), &[])), Some(By(Outranked::Key))),
            ("no network", rule(Some(&key), &[]), Some(rule(Some(&key), &network)), Some(By(Outranked::Network))),
            ("the same", rule(Some(&key), &network), Some(rule(Some(&key), &network)), Some(By(Outranked::Order))),
            ("nothing speaks against it", rule(Some(&key), &network), None, None),
        ] {
            assert_eq!(of_initiation(asked, chosen, &initiation, [10, 0, 0, 1].into()), expected, "{case}");
        }
        initiation[1] = 9;
        let reserved = of_initiation(rule(None, &[]), None, &initiation, [10, 0, 0, 1].into());
        assert_eq!(reserved, Some(Misfit::Reserved));
    }
}
