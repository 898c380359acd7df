//! Rules of one protocol by server name and ALPN, for TLS, QUIC and HTTP.
//!
//! Precedence: name and ALPN, name, ALPN, neither; inside each an exact name before a wildcard, a longer wildcard before
//! a shorter one; then the smallest network that the client is in; and then the order of the file. All conditions of a
//! rule must hold.

use std::{collections::HashMap, net::IpAddr, sync::Arc};

use ipnet::IpNet;

use super::from::{From, most_specific};
use crate::config::model::NamePattern;

/// The conditions of one rule. An empty list holds for anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions<'a> {
    /// Server names.
    pub names: &'a [NamePattern],
    /// ALPN protocol names.
    pub alpns: &'a [Arc<[u8]>],
    /// Networks of clients.
    pub from: &'a [IpNet],
}

/// Rules of one protocol, each leading to a `T`.
#[derive(Debug)]
pub(crate) struct NameTable<T> {
    exact: HashMap<Arc<str>, Vec<Entry<T>>>,
    /// By the suffix behind `*.`.
    wildcard: HashMap<Arc<str>, Vec<Entry<T>>>,
    unnamed: Vec<Entry<T>>,
    rules: usize,
}

#[derive(Debug)]
struct Entry<T> {
    alpns: Vec<Arc<[u8]>>,
    from: Arc<From>,
    to: Arc<T>,
}

impl<T> Default for NameTable<T> {
    fn default() -> Self {
        Self { exact: HashMap::new(), wildcard: HashMap::new(), unnamed: Vec::new(), rules: 0 }
    }
}

impl<T> NameTable<T> {
    /// Adds a rule behind those added before.
    pub(crate) fn add(&mut self, conditions: Conditions<'_>, to: &Arc<T>) {
        self.rules += 1;
        let from = Arc::new(From::new(conditions.from));
        let entry = || Entry { alpns: conditions.alpns.to_vec(), from: Arc::clone(&from), to: Arc::clone(to) };
        for name in conditions.names {
            match name {
                NamePattern::Exact(name) => self.exact.entry(Arc::clone(name)).or_default().push(entry()),
                NamePattern::Wildcard(suffix) => self.wildcard.entry(Arc::clone(suffix)).or_default().push(entry()),
            }
        }
        if conditions.names.is_empty() {
            self.unnamed.push(entry());
        }
    }

    /// The destinations of the rules; a rule with several names comes several times.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &Arc<T>> {
        self.exact.values().chain(self.wildcard.values()).chain([&self.unnamed]).flatten().map(|entry| &entry.to)
    }

    /// Returns whether there is no rule at all.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.rules == 0
    }

    /// Returns whether any rule looks at names.
    #[must_use]
    pub(crate) fn has_names(&self) -> bool {
        !self.exact.is_empty() || !self.wildcard.is_empty()
    }

    /// The rule for a server name and the ALPN protocols offered with it by a client at `source`.
    #[must_use]
    pub(crate) fn find(&self, name: Option<&str>, alpns: &[&[u8]], source: IpAddr) -> Option<&Arc<T>> {
        let name = name.map(normal).unwrap_or_default();
        let named = |offered| self.named(&name).find_map(|entries| best(entries, offered, source));
        named(Some(alpns))
            .or_else(|| named(None))
            .or_else(|| best(&self.unnamed, Some(alpns), source))
            .or_else(|| best(&self.unnamed, None, source))
    }

    /// Groups of entries whose name condition holds, best first.
    fn named<'s, 'n>(&'s self, name: &'n str) -> impl Iterator<Item = &'s [Entry<T>]> + use<'s, 'n, T> {
        let exact = self.exact.get(name).into_iter();
        let suffixes =
            name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..)).filter(|_| !self.wildcard.is_empty());
        exact.chain(suffixes.filter_map(|suffix| self.wildcard.get(suffix))).map(Vec::as_slice)
    }
}

/// Of entries whose name condition holds alike, the one that fits a client at `source` best: of those about ALPN if it
/// `offered` any, otherwise of those that are not.
fn best<'e, T>(entries: &'e [Entry<T>], offered: Option<&[&[u8]]>, source: IpAddr) -> Option<&'e Arc<T>> {
    let fits = |entry: &&Entry<T>| match offered {
        Some(offered) => entry.alpns.iter().any(|alpn| offered.contains(&&**alpn)),
        None => entry.alpns.is_empty(),
    };
    most_specific(entries.iter().filter(fits).map(|entry| (&*entry.from, &entry.to)), source)
}

/// Names compare without case and without a trailing dot.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANYWHERE: IpAddr = IpAddr::V4(std::net::Ipv4Addr::new(192, 0, 2, 1));

    /// Rules as `(label, names, alpns)`; `*.x` is a wildcard.
    fn table(rules: &[(&'static str, &[&str], &[&str])]) -> NameTable<&'static str> {
        let rules: Vec<_> = rules.iter().map(|(label, names, alpns)| (*label, *names, *alpns, [].as_slice())).collect();
        table_from(&rules)
    }

    /// A rule as `(label, names, alpns, networks of clients)`.
    type Row<'a> = (&'static str, &'a [&'a str], &'a [&'a str], &'a [&'a str]);

    /// The same with the networks of each rule's clients behind.
    fn table_from(rules: &[Row<'_>]) -> NameTable<&'static str> {
        let mut table = NameTable::default();
        for (label, names, alpns, from) in rules {
            let names: Vec<_> = names
                .iter()
                .map(|name| match name.strip_prefix("*.") {
                    Some(suffix) => NamePattern::Wildcard(suffix.into()),
                    None => NamePattern::Exact((*name).into()),
                })
                .collect();
            let alpns: Vec<Arc<[u8]>> = alpns.iter().map(|alpn| alpn.as_bytes().into()).collect();
            let from: Vec<IpNet> = from.iter().map(|network| network.parse().unwrap()).collect();
            table.add(Conditions { names: &names, alpns: &alpns, from: &from }, &Arc::new(*label));
        }
        table
    }

    #[test]
    fn precedence() {
        let all = table(&[
            ("any", &[], &[]),
            ("any again", &[], &[]),
            ("h2", &[], &["h2"]),
            ("*.com", &["*.com"], &[]),
            ("*.a.com", &["*.a.com"], &[]),
            ("a.com", &["a.com", "b.com"], &[]),
            ("a.com again", &["a.com"], &[]),
            ("a.com h2", &["a.com"], &["h2", "h3"]),
            ("*.a.com h2", &["*.a.com"], &["h2"]),
            ("x.a.com", &["x.a.com"], &[]),
        ]);
        for (case, name, alpns, expected) in [
            ("nothing offered", None, &[] as &[&str], "any"),
            ("only ALPN", None, &["h2"], "h2"),
            ("one of several ALPNs", None, &["http/1.1", "h2"], "h2"),
            ("ALPN that no rule names", None, &["http/1.1"], "any"),
            ("ALPN compares with case", None, &["H2"], "any"),
            ("name before ALPN", Some("b.com"), &["h2"], "a.com"),
            ("name and ALPN before name", Some("a.com"), &["h2"], "a.com h2"),
            ("second ALPN of a rule", Some("a.com"), &["h3"], "a.com h2"),
            ("first of equal rules", Some("a.com"), &[], "a.com"),
            ("case", Some("A.Com"), &[], "a.com"),
            ("trailing dot", Some("a.com."), &[], "a.com"),
            ("exact before wildcard", Some("x.a.com"), &[], "x.a.com"),
            ("wildcard with ALPN before exact without", Some("x.a.com"), &["h2"], "*.a.com h2"),
            ("longer wildcard first", Some("y.a.com"), &[], "*.a.com"),
            ("wildcard over several labels", Some("z.y.a.com"), &[], "*.a.com"),
            ("shorter wildcard", Some("c.com"), &[], "*.com"),
            ("a wildcard needs a label in front", Some("com"), &[], "any"),
            ("unknown name", Some("example.org"), &[], "any"),
            ("empty name", Some(""), &[], "any"),
            ("only a dot", Some("."), &[], "any"),
        ] {
            let alpns: Vec<&[u8]> = alpns.iter().map(|alpn| alpn.as_bytes()).collect();
            let found = all.find(name, &alpns, ANYWHERE);
            assert_eq!(found.map(|to| **to), Some(expected), "{case}");
        }
    }

    #[test]
    fn the_smallest_network_decides_among_equals() {
        let all = table_from(&[
            ("any", &[], &[], &[]),
            ("lan", &[], &[], &["10.0.0.0/8", "2001:db8::/32"]),
            ("office", &[], &[], &["10.1.0.0/16"]),
            ("office again", &[], &[], &["10.1.0.0/16"]),
            ("a.com", &["a.com"], &[], &[]),
            ("a.com lan", &["a.com"], &[], &["10.0.0.0/8"]),
            ("a.com h2", &["a.com"], &["h2"], &["192.0.2.0/24"]),
            ("b.com lan", &["b.com"], &[], &["10.0.0.0/8"]),
            ("*.com office", &["*.com"], &[], &["10.1.0.0/16"]),
        ]);
        for (case, name, alpns, source, expected) in [
            ("in no network", None, &[] as &[&str], "192.0.2.1", "any"),
            ("in one", None, &[], "10.2.0.1", "lan"),
            ("in two: the smaller, and the first in the file", None, &[], "10.1.0.1", "office"),
            ("IPv6", None, &[], "2001:db8::1", "lan"),
            ("v4-mapped", None, &[], "::ffff:10.1.0.1", "office"),
            ("a name", Some("a.com"), &[], "192.0.2.1", "a.com"),
            ("a name, and a network", Some("a.com"), &[], "10.1.0.1", "a.com lan"),
            ("ALPN counts for more than a network", Some("a.com"), &["h2"], "192.0.2.1", "a.com h2"),
            ("ALPN of a rule for others", Some("a.com"), &["h2"], "10.1.0.1", "a.com lan"),
            ("an exact name counts for more than a network", Some("b.com"), &[], "10.1.0.1", "b.com lan"),
            ("a rule for others falls through to a wildcard", Some("c.com"), &[], "10.1.0.1", "*.com office"),
            ("and to one without a name", Some("b.com"), &[], "192.0.2.1", "any"),
            ("a name counts for more than a network", Some("a.com"), &[], "2001:db8::1", "a.com"),
        ] {
            let alpns: Vec<&[u8]> = alpns.iter().map(|alpn| alpn.as_bytes()).collect();
            let found = all.find(name, &alpns, source.parse().unwrap());
            assert_eq!(found.map(|to| **to), Some(expected), "{case}");
        }
        let only = table_from(&[("lan", &[], &[], &["10.0.0.0/8"])]);
        assert!(only.find(None, &[], ANYWHERE).is_none(), "no rule is for this client");
    }

    #[test]
    fn without_a_catch_all_the_rest_is_unmatched() {
        let named = table(&[("a", &["a.com"], &["h2"])]);
        assert!(named.find(Some("a.com"), &[], ANYWHERE).is_none(), "the name alone is not enough");
        assert!(named.find(None, &[b"h2"], ANYWHERE).is_none(), "the ALPN alone is not enough");
        assert!(named.find(Some("a.com"), &[b"h2"], ANYWHERE).is_some());
        assert!(!named.is_empty() && named.has_names());
        assert!(NameTable::<()>::default().is_empty());
    }
}
