//! Rules that can never be chosen, because an earlier one takes all that they match.

use std::{collections::HashMap, mem, sync::Arc};

use ipnet::IpNet;

use crate::config::{
    model::{Matcher, NamePattern, Rule, TlsMatcher},
    report::{Position, Report, quote},
};

/// Warns of each rule that an earlier rule of the same protocol and precedence makes unreachable.
pub(super) fn warn_of_unreachable(report: &mut Report<'_>, rules: &[(Position, Arc<Rule>)]) {
    // Rules that can be reached, by each of their conditions. What takes everything of a rule has all of its conditions,
    // so it is among those that have the rarest of them.
    let mut reachable: HashMap<Condition<'_>, Vec<&Rule>> = HashMap::new();
    for (position, rule) in rules {
        let conditions = Condition::of(&rule.matcher);
        let candidates = conditions.iter().map(|condition| reachable.get(condition).map_or(&[][..], Vec::as_slice));
        let fewest = candidates.min_by_key(|candidates| candidates.len()).unwrap_or_default();
        let covers =
            |earlier: &&&Rule| from_covers(&earlier.from, &rule.from) && shadows(&earlier.matcher, &rule.matcher);
        if let Some(earlier) = fewest.iter().find(covers) {
            let name = quote(&earlier.name);
            report.warn(position, format!("never used: protocols.{name} matches the same and comes first in the file"));
            // Nor is it needed here: what it would shadow, the earlier one does.
            continue;
        }
        for condition in conditions {
            reachable.entry(condition).or_default().push(rule);
        }
    }
}

/// One condition of a rule of one protocol.
#[derive(Debug, PartialEq, Eq, Hash)]
enum Condition<'r> {
    /// There is none.
    None(mem::Discriminant<Matcher>),
    Name(mem::Discriminant<Matcher>, &'r NamePattern),
    Alpn(mem::Discriminant<Matcher>, &'r [u8]),
    Key(Option<&'r [u8; 32]>),
}

impl<'r> Condition<'r> {
    /// All conditions of a rule, at least one.
    fn of(matcher: &'r Matcher) -> Vec<Self> {
        let protocol = mem::discriminant(matcher);
        let (names, alpns): (&[NamePattern], &[Arc<[u8]>]) = match matcher {
            Matcher::Http { server_names } => (server_names, &[]),
            Matcher::Tls(hello) | Matcher::Quic(hello) => (&hello.server_names, &hello.alpns),
            Matcher::WireGuard { public_key, .. } => return vec![Self::Key(public_key.as_ref())],
            Matcher::Ssh | Matcher::Socks5 => (&[], &[]),
        };
        let names = names.iter().map(|name| Self::Name(protocol, name));
        let all: Vec<Self> = names.chain(alpns.iter().map(|alpn| Self::Alpn(protocol, alpn))).collect();
        if all.is_empty() { vec![Self::None(protocol)] } else { all }
    }
}

/// Returns whether `first` takes everything that `second`, further down in the file, would match.
fn shadows(first: &Matcher, second: &Matcher) -> bool {
    match (first, second) {
        (Matcher::Http { server_names: first }, Matcher::Http { server_names: second }) => names_cover(first, second),
        (Matcher::Tls(first), Matcher::Tls(second)) | (Matcher::Quic(first), Matcher::Quic(second)) => {
            hello_covers(first, second)
        }
        (Matcher::WireGuard { public_key: first, .. }, Matcher::WireGuard { public_key: second, .. }) => {
            // A key belongs to one server, whatever its clients put into the reserved bytes.
            first == second
        }
        (Matcher::Ssh, Matcher::Ssh) | (Matcher::Socks5, Matcher::Socks5) => true,
        (
            Matcher::Http { .. }
            | Matcher::Tls(_)
            | Matcher::Ssh
            | Matcher::Socks5
            | Matcher::WireGuard { .. }
            | Matcher::Quic(_),
            _,
        ) => false,
    }
}

/// Rules that differ in whether they ask where clients come from differ in precedence.
fn from_covers(first: &[IpNet], second: &[IpNet]) -> bool {
    first.is_empty() == second.is_empty() && second.iter().all(|network| first.contains(network))
}

fn hello_covers(first: &TlsMatcher, second: &TlsMatcher) -> bool {
    // Rules that differ in which conditions they have differ in precedence, and the file's order does not decide.
    let alpns =
        first.alpns.is_empty() == second.alpns.is_empty() && second.alpns.iter().all(|alpn| first.alpns.contains(alpn));
    names_cover(&first.server_names, &second.server_names) && alpns
}

fn names_cover(first: &[NamePattern], second: &[NamePattern]) -> bool {
    first.is_empty() == second.is_empty() && second.iter().all(|name| first.contains(name))
}
