//! The TCP rules of a listener, compiled for look-up.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use rpxy_l4_proto::tls::ClientHello;

use super::{
    Conditions, EchRoute, Endpoint, Group, NameTable, ShareOf, Targets,
    from::{From, most_specific},
};
use crate::{
    config::model::{Listener, Matcher, Rule, SplicePolicy, Unmatched, Upstream},
    limit::ConnLimit,
    metrics::RuleAccount,
    resolve::Resolver,
};

/// The protocol that a TCP connection speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Protocol {
    /// Not recognised, or not looked at.
    Any,
    /// Cleartext HTTP.
    Http,
    /// TLS.
    Tls,
    /// SSH.
    Ssh,
    /// SOCKS5.
    Socks5,
}

impl Protocol {
    /// As the access log writes it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Any => "tcp",
            Self::Http => "tcp:http",
            Self::Tls => "tcp:tls",
            Self::Ssh => "tcp:ssh",
            Self::Socks5 => "tcp:socks5",
        }
    }
}

/// Destination of the connections of a rule, or of the default.
#[derive(Debug)]
pub(crate) struct Route {
    /// Name of the rule; `None` for the default targets.
    pub rule: Option<Arc<str>>,
    /// The targets.
    pub group: Group,
    /// The connections of the rule, which other routes of it share.
    pub connections: Arc<ConnLimit>,
    /// What the rule carries.
    pub account: Arc<RuleAccount>,
    /// Connections at once; `None` is all places but the shares of others.
    pub max_connections: Option<NonZeroU32>,
    /// When its connections are handed to the kernel.
    pub splice: SplicePolicy,
    /// PROXY header to send.
    #[cfg(feature = "proxy-protocol")]
    pub send_proxy: Option<crate::config::model::ProxyVersion>,
    /// Encrypted Client Hello, for rules about TLS.
    pub ech: Option<EchRoute<Self>>,
}

impl Route {
    /// Its endpoints, and those that decrypted hellos go to.
    fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let private = self.ech.iter().flat_map(EchRoute::iter);
        self.group.endpoints().iter().chain(private.flat_map(|route| route.group.endpoints()))
    }
}

/// The TCP rules of one listener.
#[derive(Debug)]
pub(crate) struct TcpRoutes {
    http: NameTable<Route>,
    /// The HTTP rules in file order, if all of them have the same targets.
    any_http: Vec<(From, Arc<Route>)>,
    tls: NameTable<Route>,
    ssh: NameTable<Route>,
    socks5: NameTable<Route>,
    default: Option<Arc<Route>>,
    unmatched: Unmatched,
}

impl TcpRoutes {
    /// Compiles the TCP rules of `listener`.
    #[must_use]
    pub(crate) fn new(listener: &Listener, targets: &Targets, resolver: &Resolver) -> Self {
        let with_ech = |rule: Option<&Rule>, upstream: &Upstream, ech| {
            let name = rule.map(|rule| &rule.name);
            let share = match name {
                Some(name) => ShareOf::Rule(Arc::clone(name)),
                None => ShareOf::Default(Arc::clone(&listener.name)),
            };
            Arc::new(Route {
                rule: name.cloned(),
                group: Group::new(upstream, targets, resolver),
                connections: targets.of_rule(share.clone()),
                account: targets.accounts().rule(&share.account("tcp_target")),
                max_connections: rule.and_then(|rule| rule.max_connections),
                splice: upstream.splice,
                #[cfg(feature = "proxy-protocol")]
                send_proxy: upstream.send_proxy,
                ech,
            })
        };
        let route = |rule: Option<&Rule>, upstream: &Upstream| with_ech(rule, upstream, None);
        let mut routes = Self {
            http: NameTable::default(),
            any_http: Vec::new(),
            tls: NameTable::default(),
            ssh: NameTable::default(),
            socks5: NameTable::default(),
            default: listener.tcp.default.as_ref().map(|upstream| route(None, upstream)),
            unmatched: listener.unmatched,
        };
        let mut http: Option<&Upstream> = None;
        let mut http_has_one_group = true;
        for rule in &listener.rules {
            let to = || route(Some(rule), &rule.upstream);
            let conditions = Conditions { names: &[], alpns: &[], from: &rule.from };
            match &rule.matcher {
                Matcher::Http { server_names } => {
                    let to = to();
                    routes.http.add(Conditions { names: server_names, ..conditions }, &to);
                    http_has_one_group &= *http.get_or_insert(&rule.upstream) == &rule.upstream;
                    routes.any_http.push((From::new(&rule.from), to));
                }
                Matcher::Tls(tls) => {
                    let private = |upstream: &Upstream| route(Some(rule), upstream);
                    let ech = tls.ech.as_ref().map(|ech| EchRoute::new(ech, private));
                    let to = with_ech(Some(rule), &rule.upstream, ech);
                    routes.tls.add(Conditions { names: &tls.server_names, alpns: &tls.alpns, ..conditions }, &to);
                }
                Matcher::Ssh => routes.ssh.add(conditions, &to()),
                Matcher::Socks5 => routes.socks5.add(conditions, &to()),
                Matcher::WireGuard { .. } | Matcher::Quic(_) => {}
            }
        }
        if !http_has_one_group {
            routes.any_http.clear();
        }
        routes
    }

    /// Returns whether the first bytes decide anything.
    #[must_use]
    pub(crate) fn must_probe(&self) -> bool {
        self.looks_for(Protocol::Http)
            || self.looks_for(Protocol::Tls)
            || self.looks_for(Protocol::Ssh)
            || self.looks_for(Protocol::Socks5)
    }

    /// Returns whether some rule is about `protocol`.
    #[must_use]
    pub(crate) fn looks_for(&self, protocol: Protocol) -> bool {
        match protocol {
            Protocol::Any => self.default.is_some(),
            Protocol::Http => !self.http.is_empty(),
            Protocol::Tls => !self.tls.is_empty(),
            Protocol::Ssh => !self.ssh.is_empty(),
            Protocol::Socks5 => !self.socks5.is_empty(),
        }
    }

    /// Returns whether HTTP rules look at the host, so that the head has to be read up to it.
    #[must_use]
    pub(crate) fn needs_http_host(&self) -> bool {
        self.http.has_names()
    }

    /// Returns whether all HTTP rules lead to the same targets.
    #[must_use]
    pub(crate) fn http_has_one_group(&self) -> bool {
        !self.any_http.is_empty()
    }

    /// The rules and the default.
    fn all(&self) -> impl Iterator<Item = &Arc<Route>> {
        let tables = [&self.http, &self.tls, &self.ssh, &self.socks5].into_iter().flat_map(NameTable::iter);
        tables.chain(&self.default)
    }

    /// All endpoints of all rules and of the default.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        self.all().flat_map(|route| route.endpoints())
    }

    /// Returns whether connections of any rule, or of the default, may be handed to the kernel.
    #[must_use]
    pub(crate) fn may_splice(&self) -> bool {
        self.all().any(|route| route.splice != SplicePolicy::Off)
    }

    /// The default targets.
    #[must_use]
    pub(crate) fn default(&self) -> Option<&Arc<Route>> {
        self.default.as_ref()
    }

    /// The rule for HTTP with this host from a client at `source`; `None` when none fits.
    #[must_use]
    pub(crate) fn http(&self, host: Option<&str>, source: IpAddr) -> Option<&Arc<Route>> {
        self.http.find(host, &[], source).or_else(|| self.unmatched())
    }

    /// The rule for HTTP/2 whose client waits for the server before it names a host: where all rules lead to the same
    /// targets, the host makes no difference to them.
    #[must_use]
    pub(crate) fn http2_waiting(&self, source: IpAddr) -> Option<&Arc<Route>> {
        let any = || most_specific(self.any_http.iter().map(|(from, route)| (from, route)), source);
        self.http.find(None, &[], source).or_else(any).or_else(|| self.unmatched())
    }

    /// The rule for TLS with this ClientHello, or with one that cannot be read; `None` when none fits.
    #[must_use]
    pub(crate) fn tls(&self, hello: Option<&ClientHello>, source: IpAddr) -> Option<&Arc<Route>> {
        let alpns: Vec<&[u8]> = hello.into_iter().flat_map(ClientHello::alpn).collect();
        self.tls.find(hello.and_then(ClientHello::server_name), &alpns, source).or_else(|| self.unmatched())
    }

    /// The rule for SSH; `None` when none fits.
    #[must_use]
    pub(crate) fn ssh(&self, source: IpAddr) -> Option<&Arc<Route>> {
        self.ssh.find(None, &[], source).or_else(|| self.unmatched())
    }

    /// The rule for SOCKS5; `None` when none fits.
    #[must_use]
    pub(crate) fn socks5(&self, source: IpAddr) -> Option<&Arc<Route>> {
        self.socks5.find(None, &[], source).or_else(|| self.unmatched())
    }

    fn unmatched(&self) -> Option<&Arc<Route>> {
        match self.unmatched {
            Unmatched::Drop => None,
            Unmatched::Default => self.default.as_ref(),
        }
    }
}
