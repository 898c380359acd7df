//! The rules of a configuration, compiled for look-up.

use std::{num::NonZeroU32, sync::Arc};

use rpxy_l4_proto::tls::ClientHello;

use super::{Conditions, EchRoute, Endpoint, Group, NameTable, Targets};
use crate::{
    config::model::{Config, Matcher, Rule, Unmatched, Upstream},
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

/// The TCP rules of one configuration.
#[derive(Debug)]
pub(crate) struct TcpRoutes {
    http: NameTable<Route>,
    /// The first HTTP rule, if all of them have the same targets.
    any_http: Option<Arc<Route>>,
    tls: NameTable<Route>,
    ssh: Option<Arc<Route>>,
    socks5: Option<Arc<Route>>,
    default: Option<Arc<Route>>,
    unmatched: Unmatched,
    /// Rules and default targets.
    count: u32,
}

impl TcpRoutes {
    /// Compiles the TCP rules of `config`.
    #[must_use]
    pub(crate) fn new(config: &Config, targets: &Targets, resolver: &Resolver) -> Self {
        let with_ech = |rule: Option<&Rule>, upstream: &Upstream, ech| {
            let name = rule.map(|rule| &rule.name);
            Arc::new(Route {
                rule: name.cloned(),
                group: Group::new(upstream, targets, resolver),
                connections: targets.of_rule(name),
                account: targets.accounts().rule(name),
                max_connections: rule.and_then(|rule| rule.max_connections),
                #[cfg(feature = "proxy-protocol")]
                send_proxy: upstream.send_proxy,
                ech,
            })
        };
        let route = |rule: Option<&Rule>, upstream: &Upstream| with_ech(rule, upstream, None);
        let of_tcp =
            config.rules.iter().filter(|rule| !rule.matcher.is_udp()).count() + config.tcp.default.iter().len();
        let mut routes = Self {
            http: NameTable::default(),
            any_http: None,
            tls: NameTable::default(),
            ssh: None,
            socks5: None,
            default: config.tcp.default.as_ref().map(|upstream| route(None, upstream)),
            unmatched: config.unmatched,
            count: u32::try_from(of_tcp).unwrap_or(u32::MAX),
        };
        let mut http: Option<(&Upstream, Arc<Route>)> = None;
        let mut http_has_one_group = true;
        for rule in &config.rules {
            let to = || route(Some(rule), &rule.upstream);
            match &rule.matcher {
                Matcher::Http { server_names } => {
                    let to = to();
                    routes.http.add(Conditions { names: server_names, alpns: &[] }, &to);
                    let (upstream, _) = http.get_or_insert((&rule.upstream, to));
                    http_has_one_group &= **upstream == rule.upstream;
                }
                Matcher::Tls(tls) => {
                    let private = |upstream: &Upstream| route(Some(rule), upstream);
                    let ech = tls.ech.as_ref().map(|ech| EchRoute::new(ech, private));
                    let to = with_ech(Some(rule), &rule.upstream, ech);
                    routes.tls.add(Conditions { names: &tls.server_names, alpns: &tls.alpns }, &to);
                }
                // The first in the file wins; `config` has warned of the others.
                Matcher::Ssh => routes.ssh = routes.ssh.take().or_else(|| Some(to())),
                Matcher::Socks5 => routes.socks5 = routes.socks5.take().or_else(|| Some(to())),
                Matcher::WireGuard { .. } | Matcher::Quic(_) => {}
            }
        }
        routes.any_http = http.filter(|_| http_has_one_group).map(|(_, route)| route);
        routes
    }

    /// Returns whether there is nowhere to send a TCP connection.
    #[must_use]
    pub(crate) fn is_empty(&self) -> bool {
        self.default.is_none() && !self.must_probe()
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
            Protocol::Ssh => self.ssh.is_some(),
            Protocol::Socks5 => self.socks5.is_some(),
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
        self.any_http.is_some()
    }

    /// All endpoints of all rules and of the default.
    pub(crate) fn endpoints(&self) -> impl Iterator<Item = &Endpoint> {
        let single = [&self.ssh, &self.socks5, &self.default].into_iter().flatten();
        self.http.iter().chain(self.tls.iter()).chain(single).flat_map(|route| route.endpoints())
    }

    /// The number of rules, the default targets counted as one.
    #[must_use]
    pub(crate) fn count(&self) -> u32 {
        self.count
    }

    /// The default targets.
    #[must_use]
    pub(crate) fn default(&self) -> Option<&Arc<Route>> {
        self.default.as_ref()
    }

    /// The rule for HTTP with this host; `None` when none fits.
    #[must_use]
    pub(crate) fn http(&self, host: Option<&str>) -> Option<&Arc<Route>> {
        self.http.find(host, &[]).or_else(|| self.unmatched())
    }

    /// The rule for HTTP/2 whose client waits for the server before it names a host: where all rules lead to the same
    /// targets, the host makes no difference to them.
    #[must_use]
    pub(crate) fn http2_waiting(&self) -> Option<&Arc<Route>> {
        self.http.find(None, &[]).or(self.any_http.as_ref()).or_else(|| self.unmatched())
    }

    /// The rule for TLS with this ClientHello, or with one that cannot be read; `None` when none fits.
    #[must_use]
    pub(crate) fn tls(&self, hello: Option<&ClientHello>) -> Option<&Arc<Route>> {
        let alpns: Vec<&[u8]> = hello.into_iter().flat_map(ClientHello::alpn).collect();
        self.tls.find(hello.and_then(ClientHello::server_name), &alpns).or_else(|| self.unmatched())
    }

    /// The rule for SSH.
    #[must_use]
    pub(crate) fn ssh(&self) -> Option<&Arc<Route>> {
        self.ssh.as_ref()
    }

    /// The rule for SOCKS5.
    #[must_use]
    pub(crate) fn socks5(&self) -> Option<&Arc<Route>> {
        self.socks5.as_ref()
    }

    fn unmatched(&self) -> Option<&Arc<Route>> {
        match self.unmatched {
            Unmatched::Drop => None,
            Unmatched::Default => self.default.as_ref(),
        }
    }
}
