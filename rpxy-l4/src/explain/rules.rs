//! Each rule of a listener, and why it is chosen or not.

use std::{collections::BTreeMap, fmt, net::IpAddr, sync::Arc};

use serde::Serialize;

use super::few;
use crate::{
    config::model::{Listener, Matcher, NamePattern, Rule},
    route::{Asked, Conditions, KeyConditions, Misfit, Outranked, of_hello, of_initiation},
};

/// What was recognised, as far as rules ask for it.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Seen<'a> {
    /// Nothing that rules are about.
    Nothing,
    Http(Asked<'a>),
    /// HTTP whose host does not matter.
    AnyHttp(Asked<'a>),
    Tls(Asked<'a>),
    Ssh(IpAddr),
    Socks5(IpAddr),
    Quic(Asked<'a>),
    /// An initiation and its client.
    WireGuard(&'a [u8], IpAddr),
    /// Of a protocol with rules, but nothing that rules choose by.
    Undecided(&'static str),
}

/// A rule that is not chosen.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct OtherRule {
    pub rule: Arc<str>,
    pub protocol: &'static str,
    /// In a word: `protocol`, `server_name`, `alpn`, `from`, `public_key`, `reserved`, `outranked`.
    pub why: &'static str,
    /// In words.
    pub because: String,
}

/// Why a rule is chosen: what of it holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Matched(pub String);

/// All rules of a listener.
#[derive(Debug, Default)]
pub(crate) struct Rules {
    /// What holds of the chosen one.
    pub matched: Option<Matched>,
    pub others: Vec<OtherRule>,
    /// Of those that are not listed.
    pub not_listed: BTreeMap<&'static str, usize>,
}

impl Seen<'_> {
    fn protocol(&self) -> &'static str {
        match self {
            Self::Nothing => "",
            Self::Http(_) | Self::AnyHttp(_) => "http",
            Self::Tls(_) => "tls",
            Self::Ssh(_) => "ssh",
            Self::Socks5(_) => "socks5",
            Self::Quic(_) => "quic",
            Self::WireGuard(..) => "wireguard",
            Self::Undecided(protocol) => protocol,
        }
    }
}

/// Explains the rules of `listener` for what was `seen`, of which `chosen` is the one, if any. Of the others, `limit` are
/// listed, those of the same protocol first; or only the one named `only`.
pub(crate) fn explain_rules(
    listener: &Listener,
    udp: bool,
    seen: Seen<'_>,
    chosen: Option<&str>,
    only: Option<&str>,
    limit: usize,
) -> Rules {
    let of_transport = || listener.rules.iter().filter(|rule| rule.matcher.is_udp() == udp);
    let winner = chosen.and_then(|name| of_transport().find(|rule| &*rule.name == name));
    let mut rules = Rules { matched: winner.map(|rule| matched(rule, seen)), ..Rules::default() };
    // Those of another protocol say least.
    let same = |rule: &&Arc<Rule>| protocol(&rule.matcher) == seen.protocol();
    let ordered = of_transport().filter(same).chain(of_transport().filter(|rule| !same(rule)));
    for rule in ordered.filter(|rule| winner.is_none_or(|winner| winner.name != rule.name)) {
        let (why, because) = why_not(rule, winner.map(|rule| &**rule), seen);
        if only.is_some_and(|only| *rule.name != *only) {
            continue;
        }
        if rules.others.len() < limit {
            let protocol = protocol(&rule.matcher);
            rules.others.push(OtherRule { rule: Arc::clone(&rule.name), protocol, why, because: because() });
        } else {
            *rules.not_listed.entry(why).or_default() += 1;
        }
    }
    rules
}

fn protocol(matcher: &Matcher) -> &'static str {
    match matcher {
        Matcher::Http { .. } => "http",
        Matcher::Tls(_) => "tls",
        Matcher::Ssh => "ssh",
        Matcher::Socks5 => "socks5",
        Matcher::WireGuard { .. } => "wireguard",
        Matcher::Quic(_) => "quic",
    }
}

/// The conditions of a rule but for its protocol and key.
fn conditions_of(rule: &Rule) -> Conditions<'_> {
    let from = &rule.from;
    match &rule.matcher {
        Matcher::Http { server_names } => Conditions { names: server_names, alpns: &[], from },
        Matcher::Tls(tls) | Matcher::Quic(tls) => Conditions { names: &tls.server_names, alpns: &tls.alpns, from },
        Matcher::Ssh | Matcher::Socks5 | Matcher::WireGuard { .. } => Conditions { names: &[], alpns: &[], from },
    }
}

fn key_of(rule: &Rule) -> Option<KeyConditions<'_>> {
    match &rule.matcher {
        Matcher::WireGuard { public_key, reserved } => {
            Some(KeyConditions { key: public_key.as_ref(), reserved: *reserved, from: &rule.from })
        }
        Matcher::Http { .. } | Matcher::Tls(_) | Matcher::Ssh | Matcher::Socks5 | Matcher::Quic(_) => None,
    }
}

/// What rules ask of a protocol without names.
fn nameless(source: IpAddr) -> Asked<'static> {
    Asked { name: None, alpns: &[], source }
}

fn matched(rule: &Rule, seen: Seen<'_>) -> Matched {
    let Conditions { names, alpns, from } = conditions_of(rule);
    let mut holds = Vec::new();
    if let Seen::Http(asked) | Seen::Tls(asked) | Seen::Quic(asked) = seen {
        let holds_alone = |alone: Conditions<'_>| of_hello(alone, None, asked).is_none();
        let name =
            |name: &&NamePattern| holds_alone(Conditions { names: std::slice::from_ref(*name), alpns: &[], from: &[] });
        // The one that says most of the name is the one that counts.
        let best = names.iter().filter(name).max_by_key(|name| match name {
            NamePattern::Exact(_) => usize::MAX,
            NamePattern::Wildcard(suffix) => suffix.len(),
        });
        holds.extend(best.map(|name| format!("server name {}", Pattern(name))));
        let offered = alpns.iter().filter(|alpn| asked.alpns.contains(&&***alpn)).map(|alpn| readable(alpn));
        let offered: Vec<String> = offered.collect();
        if !offered.is_empty() {
            holds.push(format!("ALPN {}", few(offered)));
        }
    }
    if let Some(KeyConditions { key: Some(_), .. }) = key_of(rule) {
        holds.push("its public key".to_owned());
    }
    if !from.is_empty() {
        holds.push(format!("a client in {}", few(from)));
    }
    Matched(if holds.is_empty() { format!("any {}", protocol(&rule.matcher)) } else { holds.join(", ") })
}

/// Why a rule is not chosen: in a word, and in words.
fn why_not<'r>(
    rule: &'r Rule,
    winner: Option<&'r Rule>,
    seen: Seen<'_>,
) -> (&'static str, Box<dyn FnOnce() -> String + 'r>) {
    let own = protocol(&rule.matcher);
    if own != seen.protocol() {
        return ("protocol", Box::new(move || format!("is for {own}")));
    }
    let of_names = |asked| of_hello(conditions_of(rule), winner.map(conditions_of), asked);
    let misfit = match seen {
        Seen::Http(asked) | Seen::Tls(asked) | Seen::Quic(asked) => of_names(asked),
        Seen::AnyHttp(asked) => any_host(rule, winner, asked),
        Seen::Ssh(source) | Seen::Socks5(source) => of_names(nameless(source)),
        Seen::WireGuard(initiation, source) => {
            key_of(rule).and_then(|rule| of_initiation(rule, winner.and_then(key_of), initiation, source))
        }
        Seen::Nothing | Seen::Undecided(_) => None,
    };
    let Some(misfit) = misfit else {
        return ("undecided", Box::new(|| "is not asked: these bytes tell nothing that rules choose by".to_owned()));
    };
    let why = match misfit {
        Misfit::Name => "server_name",
        Misfit::Alpn => "alpn",
        Misfit::From => "from",
        Misfit::Key => "public_key",
        Misfit::Reserved => "reserved",
        Misfit::Outranked(_) => "outranked",
    };
    (why, Box::new(move || words(misfit, rule, winner)))
}

/// Where the host is not known, a rule that needs none comes first; and then any does.
fn any_host(rule: &Rule, winner: Option<&Rule>, asked: Asked<'_>) -> Option<Misfit> {
    let is_named = |rule: &Rule| !conditions_of(rule).names.is_empty();
    if winner.is_none_or(is_named) {
        let unnamed = |rule| Conditions { names: &[], ..conditions_of(rule) };
        return of_hello(unnamed(rule), winner.map(unnamed), asked);
    }
    of_hello(conditions_of(rule), winner.map(conditions_of), asked)
}

fn words(misfit: Misfit, rule: &Rule, winner: Option<&Rule>) -> String {
    let Conditions { names, alpns, from } = conditions_of(rule);
    let winner = winner.map_or("another rule", |winner| &*winner.name);
    match misfit {
        Misfit::Name => format!("takes server name {} only", few(names.iter().map(Pattern))),
        Misfit::Alpn => format!("takes ALPN {} only", few(alpns.iter().map(|alpn| readable(alpn)))),
        Misfit::From => format!("takes clients in {} only", few(from)),
        Misfit::Key => "is for another public key".to_owned(),
        Misfit::Reserved => "takes no reserved bytes but zero".to_owned(),
        Misfit::Outranked(Outranked::Name) => format!("would match, but {winner} says more of the server name"),
        Misfit::Outranked(Outranked::Alpn) => format!("would match, but {winner} asks for ALPN, too"),
        Misfit::Outranked(Outranked::Key) => format!("would match, but {winner} has the public key"),
        Misfit::Outranked(Outranked::Network) => format!("would match, but {winner} asks for a smaller network"),
        Misfit::Outranked(Outranked::Order) => format!("would match, but {winner} comes first in the file"),
    }
}

/// An ALPN protocol name, of any bytes.
fn readable(alpn: &[u8]) -> String {
    alpn.escape_ascii().to_string()
}

/// A server name as the file writes it.
struct Pattern<'a>(&'a NamePattern);

impl fmt::Display for Pattern<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            NamePattern::Exact(name) => f.write_str(name),
            NamePattern::Wildcard(suffix) => write!(f, "*.{suffix}"),
        }
    }
}
