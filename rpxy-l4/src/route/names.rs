//! Rules of one protocol by server name and ALPN, for TLS, QUIC and HTTP.
//!
//! Precedence: name and ALPN, name, ALPN, neither; inside each an exact name before a wildcard, a longer wildcard before
//! a shorter one, and then the order of the file. Both conditions of a rule must hold.

use std::{collections::HashMap, sync::Arc};

use crate::config::model::NamePattern;

/// The conditions of one rule. An empty list holds for anything.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Conditions<'a> {
    /// Server names.
    pub names: &'a [NamePattern],
    /// ALPN protocol names.
    pub alpns: &'a [Arc<[u8]>],
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
        let entry = || Entry { alpns: conditions.alpns.to_vec(), to: Arc::clone(to) };
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

    /// The rule for a server name and the ALPN protocols offered with it.
    #[must_use]
    pub(crate) fn find(&self, name: Option<&str>, alpns: &[&[u8]]) -> Option<&Arc<T>> {
        let name = name.map(normal).unwrap_or_default();
        let offered = |entry: &&Entry<T>| entry.alpns.iter().any(|alpn| alpns.contains(&&**alpn));
        let any_alpn = |entry: &&Entry<T>| entry.alpns.is_empty();
        let found = self
            .named(&name)
            .find(offered)
            .or_else(|| self.named(&name).find(any_alpn))
            .or_else(|| self.unnamed.iter().find(offered))
            .or_else(|| self.unnamed.iter().find(any_alpn))?;
        Some(&found.to)
    }

    /// Entries whose name condition holds, best first.
    fn named<'s, 'n>(&'s self, name: &'n str) -> impl Iterator<Item = &'s Entry<T>> + use<'s, 'n, T> {
        let exact = self.exact.get(name).into_iter().flatten();
        let suffixes =
            name.match_indices('.').filter_map(|(dot, _)| name.get(dot + 1..)).filter(|_| !self.wildcard.is_empty());
        exact.chain(suffixes.filter_map(|suffix| self.wildcard.get(suffix)).flatten())
    }
}

/// Names compare without case and without a trailing dot.
fn normal(name: &str) -> String {
    name.strip_suffix('.').unwrap_or(name).to_ascii_lowercase()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Rules as `(label, names, alpns)`; `*.x` is a wildcard.
    fn table(rules: &[(&'static str, &[&str], &[&str])]) -> NameTable<&'static str> {
        let mut table = NameTable::default();
        for (label, names, alpns) in rules {
            let names: Vec<_> = names
                .iter()
                .map(|name| match name.strip_prefix("*.") {
                    Some(suffix) => NamePattern::Wildcard(suffix.into()),
                    None => NamePattern::Exact((*name).into()),
                })
                .collect();
            let alpns: Vec<Arc<[u8]>> = alpns.iter().map(|alpn| alpn.as_bytes().into()).collect();
            table.add(Conditions { names: &names, alpns: &alpns }, &Arc::new(*label));
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
            let found = all.find(name, &alpns);
            assert_eq!(found.map(|to| **to), Some(expected), "{case}");
        }
    }

    #[test]
    fn without_a_catch_all_the_rest_is_unmatched() {
        let named = table(&[("a", &["a.com"], &["h2"])]);
        assert!(named.find(Some("a.com"), &[]).is_none(), "the name alone is not enough");
        assert!(named.find(None, &[b"h2"]).is_none(), "the ALPN alone is not enough");
        assert!(named.find(Some("a.com"), &[b"h2"]).is_some());
        assert!(!named.is_empty() && named.has_names());
        assert!(NameTable::<()>::default().is_empty());
    }
}
