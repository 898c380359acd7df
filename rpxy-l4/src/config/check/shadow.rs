//! Rules that can never be chosen, because an earlier one takes all that they match.

use std::sync::Arc;

use ipnet::IpNet;

use crate::config::{
    model::{Matcher, NamePattern, Rule, TlsMatcher},
    report::{Position, Report, quote},
};

/// Warns of each rule that an earlier rule of the same protocol and precedence makes unreachable.
pub(super) fn warn_of_unreachable(report: &mut Report<'_>, rules: &[(Position, Arc<Rule>)]) {
    for (index, (position, rule)) in rules.iter().enumerate() {
        let earlier = rules
            .iter()
            .take(index)
            .find(|(_, earlier)| from_covers(&earlier.from, &rule.from) && shadows(&earlier.matcher, &rule.matcher));
        if let Some((_, earlier)) = earlier {
            let name = quote(&earlier.name);
            report.warn(position, format!("never used: protocols.{name} matches the same and comes first in the file"));
        }
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
