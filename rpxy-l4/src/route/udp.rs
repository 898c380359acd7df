//! The UDP rules of a listener, compiled for look-up.

use std::{
    collections::{HashMap, HashSet},
    net::{IpAddr, SocketAddr},
    num::NonZeroU32,
    sync::Arc,
    time::Duration,
};

use rpxy_l4_common::map::kind;
use rpxy_l4_proto::{tls::ClientHello, wireguard};

use super::{
    Conditions, EchRoute, Endpoint, Group, NameTable, ShareOf, Targets,
    from::{From, most_specific},
    keys::KeyTable,
};
use crate::{
    config::model::{Listener, Matcher, Orphan, Rule, ServerId, Target, UnknownVersion, Unmatched, Upstream},
    limit::ConnLimit,
    metrics::RuleAccount,
    resolve::Resolver,
};

/// The protocol of a UDP session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Datagrams {
    /// Not recognised, or not looked at.
    Any,
    /// QUIC.
    Quic,
    /// WireGuard.
    WireGuard,
}

impl Datagrams {
    /// As the access log writes it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "udp",
            Self::Quic => "udp:quic",
            Self::WireGuard => "udp:wireguard",
        }
    }
}

/// Destination of the sessions of a rule, or of the default.
#[derive(Debug)]
pub(crate) struct UdpRoute {
    /// Name of the rule; `None` for the default targets.
    pub rule: Option<Arc<str>>,
    /// The protocol of its sessions.
    pub carries: Datagrams,
    /// What the rule carries.
    pub account: Arc<RuleAccount>,
    /// The targets.
    pub group: Group,
    /// Time for which a session lasts without a datagram; `None` is for ever.
    pub idle: Option<Duration>,
    /// Encrypted Client Hello, for rules about QUIC.
    pub ech: Option<EchRoute<Self>>,
    /// Only decrypted hellos lead here.
    pub private: bool,
    /// Whether clients that change their address are followed by IDs.
    pub affinity: bool,
    /// Networks that clients of new sessions are in.
    pub from: Arc<From>,
    /// The share that its sessions count to.
    pub share: ShareOf,
    /// The sessions of its rule on all its listeners, or of the default targets of one.
    pub connections: Arc<ConnLimit>,
    /// How many there may be of these; `None` is no limit of its own.
    pub max_connections: Option<NonZeroU32>,
}

/// The destination of QUIC of a version whose hello cannot be read.
#[derive(Debug, Clone, Copy)]
pub(crate) enum UnknownVersionRoute<'a> {
    /// This route.
    To(&'a Arc<UdpRoute>),
    /// None: the client is told which versions there are (RFC 9000 section 6).
    Negotiate,
    /// None, as configured.
    Drop,
}

/// The destination of a datagram from the middle of an unknown connection or tunnel.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stray<'a> {
    /// The default targets.
    Default(&'a Arc<UdpRoute>),
    /// The one rule and target that it can belong to.
    Only(&'a Arc<UdpRoute>),
    /// The target that the client's address gives, the same on every gateway with the same file.
    Balance(&'a Arc<UdpRoute>),
    /// Nowhere.
    Drop,
}

/// The UDP rules of one listener.
#[derive(Debug, Default)]
pub(crate) struct UdpRoutes {
    quic: NameTable<UdpRoute>,
    /// The QUIC rules without conditions on the hello, in file order.
    quic_any: Vec<Arc<UdpRoute>>,
    wireguard: KeyTable<UdpRoute>,
    default: Option<Arc<UdpRoute>>,
    /// A datagram that may be a short header of QUIC can be of the one rule for it, and nothing else.
    only_quic: bool,
    /// The one rule for QUIC, and that for WireGuard, where there is one alone that does not decrypt.
    only: [Option<Arc<UdpRoute>>; 2],
    by_name: HashMap<Arc<str>, Arc<UdpRoute>>,
    /// Targets by the server's part of connection IDs; none begins another one.
    by_server_id: HashMap<ServerId, (Arc<UdpRoute>, usize)>,
    unmatched: Unmatched,
    orphan: Orphan,
    unknown_version: UnknownVersion,
}

impl UdpRoutes {
    /// Compiles the UDP rules of `listener`.
    #[must_use]
    pub(crate) fn new(listener: &Listener, targets: &Targets, resolver: &Resolver) -> Self {
        let share = |rule: Option<&Rule>| match rule {
            Some(rule) => ShareOf::Rule(Arc::clone(&rule.name)),
            None => ShareOf::Default(Arc::clone(&listener.name)),
        };
        let route = |rule: Option<&Rule>, carries, upstream: &Upstream| UdpRoute {
            account: targets.accounts().rule(&share(rule).account("udp_target")),
            rule: rule.map(|rule| Arc::clone(&rule.name)),
            carries,
            group: Group::new(upstream, targets, resolver),
            idle: rule.map_or(listener.udp.idle_lifetime, |rule| rule.idle_lifetime),
            ech: None,
            private: false,
            affinity: rule.is_none_or(|rule| rule.affinity),
            share: share(rule),
            connections: targets.of_rule(share(rule)),
            max_connections: rule.and_then(|rule| rule.max_connections),
            from: Arc::new(rule.map(|rule| From::new(&rule.from)).unwrap_or_default()),
        };
        let default = listener.udp.default.as_ref();
        let mut routes = Self {
            default: default.map(|upstream| route(None, Datagrams::Any, upstream).into()),
            unmatched: listener.unmatched,
            orphan: listener.udp.orphan,
            unknown_version: listener.udp.unknown_version,
            ..<Self as Default>::default()
        };
        // Keys with the networks that they are for.
        let mut keys = HashSet::new();
        for rule in &listener.rules {
            let to = |carries| route(Some(rule), carries, &rule.upstream);
            let compiled = match &rule.matcher {
                Matcher::Quic(tls) => {
                    let private = |upstream: &Upstream| {
                        let to = route(Some(rule), Datagrams::Quic, upstream);
                        Arc::new(UdpRoute { private: true, ..to })
                    };
                    let ech = tls.ech.as_ref().map(|ech| EchRoute::new(ech, private));
                    let to = Arc::new(UdpRoute { ech, ..to(Datagrams::Quic) });
                    let conditions = Conditions { names: &tls.server_names, alpns: &tls.alpns, from: &rule.from };
                    routes.quic.add(conditions, &to);
                    if tls.server_names.is_empty() && tls.alpns.is_empty() {
                        routes.quic_any.push(Arc::clone(&to));
                    }
                    to
                }
                Matcher::WireGuard { public_key, reserved } => {
                    let to = Arc::new(to(Datagrams::WireGuard));
                    // Key and networks alone tell rules apart; of equals the first wins, as `config` has warned.
                    let key = public_key.as_ref();
                    if !keys.insert((key, &rule.from)) {
                        routes.by_name.insert(Arc::clone(&rule.name), to);
                        continue;
                    }
                    routes.wireguard.add(key, *reserved, &to.from, &to);
                    to
                }
                Matcher::Http { .. } | Matcher::Tls(_) | Matcher::Ssh | Matcher::Socks5 => continue,
            };
            for (target, id) in &rule.upstream.server_ids {
                routes.by_server_id.entry(id.clone()).or_insert_with(|| (Arc::clone(&compiled), *target));
            }
            routes.by_name.insert(Arc::clone(&rule.name), compiled);
        }
        let quic = routes.by_name.values().filter(|route| route.carries == Datagrams::Quic);
        routes.only_quic = routes.default.is_none() && quic.count() == 1;
        routes.only = [Datagrams::Quic, Datagrams::WireGuard].map(|carries| {
            let mut rules = routes.by_name.values().filter(|route| route.carries == carries);
            let only = rules.next().filter(|route| rules.next().is_none() && route.ech.is_none());
            only.cloned()
        });
        routes
    }

    /// The rule that a flow of `mark` goes by, and which of its targets `backend` is.
    #[must_use]
    pub(crate) fn marked(&self, mark: u16, backend: SocketAddr) -> Option<(Arc<UdpRoute>, usize)> {
        let all = self.by_name.values().chain(&self.default).flat_map(UdpRoute::all);
        let mut routes = all.filter(|route| route.mark() == mark);
        routes.find_map(|route| Some((Arc::clone(route), route.group.position_at(backend)?)))
    }

    /// Returns whether some rule is about QUIC.
    #[must_use]
    pub(crate) fn has_quic(&self) -> bool {
        !self.quic.is_empty()
    }

    /// Returns whether a datagram that may be a short header can only be of the one rule for QUIC.
    #[must_use]
    pub(crate) fn is_only_quic(&self) -> bool {
        self.only_quic
    }

    /// The rule and target whose server has made the connection ID of a short header, as far as the ID says in clear: three
    /// bits of a configuration's number, which is 0, five bits, then the server's ID (draft-ietf-quic-load-balancers
    /// section 5.2).
    #[must_use]
    pub(crate) fn by_server_id(&self, datagram: &[u8], source: IpAddr) -> Option<(Arc<UdpRoute>, usize)> {
        let [0..0x80, 0..0x20, id @ ..] = datagram else { return None };
        if self.by_server_id.is_empty() {
            return None;
        }
        let longest = id.len().min(ServerId::LONGEST);
        let found = (1..=longest).find_map(|len| self.by_server_id.get(&ServerId::new(id.get(..len)?)?));
        found.filter(|(route, _)| route.from.holds(source)).map(|(route, target)| (Arc::clone(route), *target))
    }

    /// Returns whether some rule is about WireGuard.
    #[must_use]
    pub(crate) fn has_wireguard(&self) -> bool {
        !self.wireguard.is_empty()
    }

    /// A WireGuard message that some rule may be about.
    #[must_use]
    pub(crate) fn wireguard_message(&self, datagram: &[u8]) -> Option<wireguard::Message> {
        self.wireguard.message(datagram)
    }

    /// The default targets.
    #[must_use]
    pub(crate) fn default(&self) -> Option<&Arc<UdpRoute>> {
        self.default.as_ref()
    }

    /// The rule of this name, the default targets for `None`.
    #[must_use]
    pub(crate) fn named(&self, rule: Option<&str>) -> Option<&Arc<UdpRoute>> {
        match rule {
            Some(name) => self.by_name.get(name),
            None => self.default.as_ref(),
        }
    }

    /// The route of the rule of this name, or of the default for `None`, that leads to `target`, with the index of that
    /// in its group. Of a rule that decrypts, the same kind of route as before if there is one.
    #[must_use]
    pub(crate) fn leading_to(
        &self,
        rule: Option<&str>,
        target: &Target,
        private: bool,
    ) -> Option<(&Arc<UdpRoute>, usize)> {
        let all = || self.named(rule).into_iter().flat_map(UdpRoute::all);
        let find = |route: &'_ Arc<UdpRoute>| route.group.position(target);
        let same = all().filter(|route| route.private == private).find_map(|route| Some((route, find(route)?)));
        same.or_else(|| all().find_map(|route| Some((route, find(route)?))))
    }

    /// The rule for a QUIC connection of a client at `source` with this ClientHello, or with one that cannot be read; `None`
    /// when none fits.
    #[must_use]
    pub(crate) fn quic(&self, hello: Option<&ClientHello>, source: IpAddr) -> Option<&Arc<UdpRoute>> {
        let alpns: Vec<&[u8]> = hello.into_iter().flat_map(ClientHello::alpn).collect();
        self.quic.find(hello.and_then(ClientHello::server_name), &alpns, source).or_else(|| self.unmatched())
    }

    /// The destination of QUIC of a version whose hello cannot be read.
    #[must_use]
    pub(crate) fn unknown_version(&self, source: IpAddr) -> UnknownVersionRoute<'_> {
        match self.unknown_version {
            UnknownVersion::Drop => UnknownVersionRoute::Drop,
            UnknownVersion::Default => most_specific(self.quic_any.iter().map(|route| (&*route.from, route)), source)
                .or(self.default.as_ref())
                .map_or(UnknownVersionRoute::Negotiate, UnknownVersionRoute::To),
        }
    }

    /// The rule for a WireGuard handshake initiation of a client at `source`; `None` when none fits.
    #[must_use]
    pub(crate) fn wireguard(&self, initiation: &[u8], source: IpAddr) -> Option<&Arc<UdpRoute>> {
        self.wireguard.find(initiation, source).or_else(|| self.unmatched())
    }

    /// The destination of a datagram from the middle of an unknown connection or tunnel, which carries QUIC or
    /// WireGuard and came from a client at `source`.
    #[must_use]
    pub(crate) fn stray(&self, carries: Datagrams, source: IpAddr) -> Stray<'_> {
        let only = self.only.iter().flatten().find(|route| route.carries == carries);
        let only = only.filter(|route| route.from.holds(source));
        match self.orphan {
            Orphan::Drop => Stray::Drop,
            Orphan::Balance => match only {
                Some(route) if carries == Datagrams::Quic => Stray::Balance(route),
                Some(_) | None => self.default.as_ref().map_or(Stray::Drop, Stray::Default),
            },
            Orphan::Default => match (&self.default, only) {
                (Some(route), _) => Stray::Default(route),
                (None, Some(route)) if route.group.endpoints().len() == 1 => Stray::Only(route),
                (None, _) => Stray::Drop,
            },
        }
    }

    /// Datagrams of a session of `carries` that the kernel may steer, as bits of `map::kind`. `by_id` says whether it knows
    /// those of QUIC by an ID that no other protocol's bytes could be.
    #[must_use]
    pub(crate) fn steerable(&self, carries: Datagrams, by_id: bool) -> u8 {
        let unless = |asked: bool, bit: u8| if asked { bit } else { 0 };
        let wireguard = unless(self.has_wireguard(), kind::NO_WIREGUARD_INITIATION);
        match carries {
            Datagrams::Any => wireguard | unless(self.has_quic(), kind::NO_QUIC_VERSION),
            Datagrams::Quic => {
                let others = !by_id && (self.default.is_some() || self.has_wireguard());
                wireguard | kind::NO_QUIC_LONG | unless(others, kind::NO_OTHER_PROTOCOL)
            }
            Datagrams::WireGuard => kind::ONLY_WIREGUARD_TRANSPORT,
        }
    }

    /// All endpoints of all rules and of the default.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.by_name.values().chain(&self.default).flat_map(UdpRoute::all).flat_map(|route| route.group.endpoints())
    }

    fn unmatched(&self) -> Option<&Arc<UdpRoute>> {
        match self.unmatched {
            Unmatched::Drop => None,
            Unmatched::Default => self.default.as_ref(),
        }
    }
}
