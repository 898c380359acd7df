//! The configuration as the daemon uses it: every value here is valid by construction.
//!
//! `config::check` is the only module that builds these types from a file. Nothing in this module knows TOML;
//! nothing outside `config` knows the file's shape. File order is kept wherever it decides (rules, targets).

use std::{
    collections::{HashMap, HashSet},
    net::SocketAddr,
    num::{NonZeroU32, NonZeroUsize},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

mod confine;
mod ebpf;
mod health;
mod limit;
mod listener;
#[cfg(feature = "proxy-protocol")]
mod proxy;
mod rule;
mod status;
mod target;
mod tcp;
mod transport;
mod udp;
mod upstream;

pub(crate) use confine::{Confine, User};
pub(crate) use ebpf::{Ebpf, EbpfMode, PIN_PATH, SplicePolicy};
pub(crate) use health::{Check, CheckKind, HttpCheck};
pub(crate) use limit::{LimitOf, NewSessions, SourcePrefix};
pub(crate) use listener::{AccessLists, Listen, ListenAddress, Listener, TOP, UnixListen, canonical};
#[cfg(feature = "proxy-protocol")]
pub(crate) use proxy::{ProxyVersion, ReceiveProxy};
pub(crate) use rule::{Ech, EchPolicy, EchPrivate, Matcher, NamePattern, Rule, TlsMatcher};
pub(crate) use status::{StatusListen, StatusPage, StatusToken};
pub(crate) use target::{Host, ServerId, Target, is_one_host, socket_address};
pub(crate) use tcp::{Tcp, TlsRefused};
pub(crate) use transport::Transport;
pub(crate) use udp::{Orphan, Udp, UnknownVersion};
pub(crate) use upstream::{Balance, Upstream};

/// One whole configuration file.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Config {
    /// The listener `default`: the keys at the top of the file. Without ports it has no rules and no default targets.
    pub top: Listener,
    /// The `[listeners.*]` tables, in file order.
    pub named: Vec<Listener>,
    /// Number of `[protocols.*]` tables.
    pub rules: usize,
    /// Worker threads; `None` means one per available core. Read at start only.
    pub workers: Option<NonZeroUsize>,
    /// Time for which established connections may go on after SIGTERM before they are closed.
    pub drain_timeout: Duration,
    /// Time for which established connections may go on in a daemon whose successor serves.
    pub upgrade_timeout: Duration,
    /// Format of the access log.
    pub access_log_format: AccessLogFormat,
    /// Lines of the access log about traffic that is turned away.
    pub access_log_refused: AccessLogRefused,
    /// Address at which `GET /metrics` is answered (OpenMetrics text format); `None` is off.
    pub metrics_listen: Option<SocketAddr>,
    /// The status page; `None` is off.
    pub status: Option<StatusPage>,
    /// Absolute path of the unix socket that takes commands of `rpxy-l4 status` and the like, of [`MAX_SOCKET_PATH`]
    /// bytes at most; `None` is off. A reload opens, moves or removes it; bans stay.
    pub admin_socket: Option<PathBuf>,
    /// ID of the group whose members may read through that socket, and through a unix socket of the status page; `None` is
    /// none.
    pub admin_group: Option<u32>,
    /// Name resolution.
    pub dns: Dns,
    /// What the process gives up. Read at start only.
    pub confine: Confine,
    /// The kernel plane.
    pub ebpf: Ebpf,
    /// Time for which the connection IDs of a QUIC session are remembered after it has ended, so that a client that
    /// comes back from another address reaches the same backend; zero is not at all. A reload applies to sessions that
    /// end after it.
    pub quic_affinity_lifetime: Duration,
}

impl Config {
    /// All listeners, `default` first.
    pub(crate) fn listeners(&self) -> impl Iterator<Item = &Listener> + Clone {
        std::iter::once(&self.top).chain(&self.named)
    }

    /// The same, to be changed.
    pub(crate) fn listeners_mut(&mut self) -> impl Iterator<Item = &mut Listener> {
        std::iter::once(&mut self.top).chain(&mut self.named)
    }

    /// Returns whether there are secrets: private keys, or the token of the status page.
    #[must_use]
    pub(crate) fn has_secrets(&self) -> bool {
        let has_keys = |rule: &Arc<Rule>| match &rule.matcher {
            Matcher::Tls(tls) | Matcher::Quic(tls) => tls.ech.is_some(),
            Matcher::Http { .. } | Matcher::Ssh | Matcher::Socks5 | Matcher::WireGuard { .. } => false,
        };
        let has_token = self.status.as_ref().is_some_and(|page| page.token.is_some());
        has_token || self.listeners().any(|listener| listener.rules.iter().any(has_keys))
    }

    /// TCP connections at once, over all limits.
    #[must_use]
    pub(crate) fn tcp_connections(&self) -> u64 {
        let own = self.named.iter().filter(|listener| listener.tcp.max_connections_of.is_some());
        let all = std::iter::once(&self.top).chain(own);
        all.map(|listener| u64::from(listener.tcp.max_connections.get())).sum()
    }

    /// TCP rules and default targets under one limit of connections. A rule on several listeners counts for each.
    #[must_use]
    pub(crate) fn sharers(&self, of: &LimitOf) -> u32 {
        let under = self.listeners().filter(|listener| listener.tcp.max_connections_of == *of);
        let count = under.map(|listener| {
            listener.rules.iter().filter(|rule| !rule.matcher.is_udp()).count() + listener.tcp.default.iter().len()
        });
        u32::try_from(count.sum::<usize>()).unwrap_or(u32::MAX)
    }

    /// UDP sessions at once, over all limits; 0 where none is set yet.
    #[must_use]
    pub(crate) fn udp_sessions(&self) -> u64 {
        let own = self.named.iter().filter(|listener| listener.udp.max_connections_of.is_some());
        let all = std::iter::once(&self.top).chain(own);
        all.map(|listener| u64::from(listener.udp.max_connections.map_or(0, NonZeroU32::get))).sum()
    }
}

/// A group of targets: its transport, the name of its rule, and the names of the listeners that it is on.
pub(crate) type PlacedUpstream<'a> = (Transport, Option<&'a Arc<str>>, Vec<&'a Arc<str>>, &'a Upstream);

impl Config {
    /// All groups of targets, those of decrypted hellos included, each with its transport and the name of its rule; `None`
    /// for the default targets of a listener. A rule on several listeners comes once; the default targets come last.
    pub(crate) fn upstreams(&self) -> impl Iterator<Item = (Transport, Option<&Arc<str>>, &Upstream)> {
        let mut seen = HashSet::new();
        let rules = self.listeners().flat_map(|listener| &listener.rules);
        let rules = rules.filter(move |rule| seen.insert(&rule.name));
        let of_rules =
            rules.flat_map(|rule| rule.upstreams().map(move |upstream| (rule.transport(), Some(&rule.name), upstream)));
        of_rules.chain(
            self.listeners().flat_map(Listener::defaults).map(|(transport, upstream)| (transport, None, upstream)),
        )
    }

    /// The same with the names of the listeners that a rule or default target is on. A rule comes again for listeners on which
    /// their settings have made another one of it.
    pub(crate) fn placed_upstreams(&self) -> Vec<PlacedUpstream<'_>> {
        let mut rules: Vec<(&Arc<Rule>, Vec<&Arc<str>>)> = Vec::new();
        let mut by_name: HashMap<&Arc<str>, Vec<usize>> = HashMap::new();
        for listener in self.listeners() {
            for rule in &listener.rules {
                let known = by_name.entry(&rule.name).or_default();
                let same = known.iter().copied().find(|index| {
                    rules.get(*index).is_some_and(|(other, _)| Arc::ptr_eq(other, rule) || *other == rule)
                });
                match same.and_then(|index| rules.get_mut(index)) {
                    Some((_, listeners)) => listeners.push(&listener.name),
                    None => {
                        known.push(rules.len());
                        rules.push((rule, vec![&listener.name]));
                    }
                }
            }
        }
        let of_rules = rules.into_iter().flat_map(|(rule, listeners)| {
            rule.upstreams().map(move |upstream| (rule.transport(), Some(&rule.name), listeners.clone(), upstream))
        });
        let defaults = self.listeners().flat_map(|listener| {
            listener.defaults().map(|(transport, upstream)| (transport, None, vec![&listener.name], upstream))
        });
        of_rules.chain(defaults).collect()
    }
}

impl Rule {
    fn transport(&self) -> Transport {
        if self.matcher.is_udp() { Transport::Udp } else { Transport::Tcp }
    }

    /// Its targets, and those of its decrypted hellos.
    fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        let ech = match &self.matcher {
            Matcher::Tls(tls) | Matcher::Quic(tls) => tls.ech.as_ref(),
            Matcher::Http { .. } | Matcher::Ssh | Matcher::Socks5 | Matcher::WireGuard { .. } => None,
        };
        let private = ech.into_iter().flat_map(|ech| ech.private.iter().map(|private| &private.upstream));
        std::iter::once(&self.upstream).chain(private)
    }
}

impl Listener {
    /// Its default targets.
    fn defaults(&self) -> impl Iterator<Item = (Transport, &Upstream)> {
        let tcp = self.tcp.default.iter().map(|upstream| (Transport::Tcp, upstream));
        tcp.chain(self.udp.default.iter().map(|upstream| (Transport::Udp, upstream)))
    }
}

/// Path of the admin socket where a command is not told another one. The daemon has none unless its file says so.
pub(crate) const ADMIN_SOCKET: &str = "/run/rpxy-l4/admin.sock";

/// The longest path of a unix socket in bytes: `sun_path` less its final zero (unix(7)).
pub(crate) const MAX_SOCKET_PATH: usize = 107;

/// Treatment of traffic of a protocol that has rules, none of which fits.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Unmatched {
    /// Closed (TCP) or dropped (UDP), as 0.2.x does.
    #[default]
    Drop,
    /// Sent to the default target where there is one.
    Default,
}

/// Form of the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum AccessLogFormat {
    /// `[start] tcp: src -> dst` and `[finish] …`.
    #[default]
    Text,
    /// One JSON object a line.
    Json,
    /// No access log.
    Off,
}

/// Which traffic that is turned away gets a line in the access log.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum AccessLogRefused {
    /// Some of it: so many lines for each source network and in all.
    #[default]
    Limited,
    /// All of it.
    All,
    /// None.
    Off,
}

/// Bounds on how long a DNS answer is used. `min_ttl <= max_ttl`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Dns {
    /// A shorter TTL is raised to this.
    pub min_ttl: Duration,
    /// A longer TTL is cut to this.
    pub max_ttl: Duration,
}
