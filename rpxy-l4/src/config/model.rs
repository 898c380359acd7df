//! The configuration as the daemon uses it: every value here is valid by construction.
//!
//! `config::check` is the only module that builds these types from a file. Nothing in this module knows TOML;
//! nothing outside `config` knows the file's shape. File order is kept wherever it decides (rules, targets).

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::{IpAddr, Ipv6Addr, SocketAddr, SocketAddrV4, SocketAddrV6},
    num::{NonZeroU16, NonZeroU32, NonZeroUsize},
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;

mod confine;
mod health;
mod listener;
mod rule;
mod status;
mod transport;

pub(crate) use confine::{Confine, User};
pub(crate) use health::{Check, CheckKind, HttpCheck};
pub(crate) use listener::{AccessLists, LimitOf, Listen, ListenAddress, Listener, TOP, UnixListen, canonical};
pub(crate) use rule::{Ech, EchPolicy, EchPrivate, Matcher, NamePattern, Rule, TlsMatcher};
pub(crate) use status::{StatusListen, StatusPage, StatusToken};
pub(crate) use transport::Transport;

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

/// Default directory of pinned programs and flows.
pub(crate) const PIN_PATH: &str = "/sys/fs/bpf/rpxy-l4";

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

/// What a TLS client gets whose hello matches no rule.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum TlsRefused {
    /// The end of the connection, as in 0.2.x.
    #[default]
    Close,
    /// The fatal alert `unrecognized_name` (RFC 6066 section 3) before that.
    Alert,
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

/// TCP settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Tcp {
    /// Length of the kernel's accept queue, in connections.
    pub backlog: u32,
    /// Connections at once.
    pub max_connections: NonZeroU32,
    /// The listeners that `max_connections` is for.
    pub max_connections_of: LimitOf,
    /// Connections at once of one source network; `None` is no other limit than that of all.
    pub max_connections_per_source: Option<NonZeroU32>,
    /// The listeners that `max_connections_per_source` is for.
    pub max_connections_per_source_of: LimitOf,
    /// Rate at which a source network may begin connections; `None` is no limit.
    pub new_connections: Option<NewSessions>,
    /// The listeners that `new_connections` is for.
    pub new_connections_of: LimitOf,
    /// Bits of a source network.
    pub source_prefix: SourcePrefix,
    /// Time for recognising the protocol, from the end of the PROXY header, or from accept without one.
    pub probe_timeout: Duration,
    /// Time for one attempt to connect to one address of a target.
    pub connect_timeout: Duration,
    /// Targets tried for one connection.
    pub connect_attempts: NonZeroU32,
    /// Addresses of this machine that connections to backends of their family come from, in turn, without duplicates; the
    /// kernel's choice for a family that has none. A reload applies to new connections.
    pub source_addresses: Arc<[IpAddr]>,
    /// A relayed connection without a byte in either direction for this long is closed; `None` is never.
    pub idle_timeout: Option<Duration>,
    /// The same once the client has ended its side and the backend has not; `None` is never.
    pub half_closed_timeout: Option<Duration>,
    /// The same once the backend has ended its side and the client has not; `None` is never.
    pub backend_closed_timeout: Option<Duration>,
    /// A relayed connection with bytes that wait for a side that has taken none for this long is closed; `None` is never.
    pub stall_timeout: Option<Duration>,
    /// Time for which a target that could not be reached is tried last.
    pub target_retry: Duration,
    /// Destination of connections that no rule claims; `None` means that they are closed.
    pub default: Option<Upstream>,
    /// What a refused TLS client gets. A reload applies to new connections.
    pub tls_refused: TlsRefused,
    /// Inbound PROXY protocol; `None` means that clients speak first-hand.
    #[cfg(feature = "proxy-protocol")]
    pub receive_proxy: Option<ReceiveProxy>,
}

/// UDP settings.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Udp {
    /// Sessions at once; `None` means as many as the limit on open files has room for, which the supervisor finds out.
    pub max_connections: Option<NonZeroU32>,
    /// The listeners that `max_connections` is for.
    pub max_connections_of: LimitOf,
    /// Receive buffer of each listening socket of each worker, in bytes; `None` means the usual one, as far as the kernel
    /// gives it. A reload applies to the sockets that there are.
    pub receive_buffer: Option<NonZeroU32>,
    /// Limit on new sessions per source network; `None` means no limit.
    pub new_sessions: Option<NewSessions>,
    /// The listeners that `new_sessions` is for.
    pub new_sessions_of: LimitOf,
    /// Destination of datagrams that no rule claims; `None` means that they are dropped.
    pub default: Option<Upstream>,
    /// Idle lifetime of sessions of the default destination; `None` means no limit.
    pub idle_lifetime: Option<Duration>,
    /// Time for which a target that refused is tried last; zero is not at all. Established sessions keep their target.
    pub target_retry: Duration,
    /// Treatment of stray datagrams. A reload applies to the next datagram.
    pub orphan: Orphan,
    /// Treatment of QUIC of a version whose names cannot be read. A reload leaves established sessions alone.
    pub unknown_version: UnknownVersion,
}

/// Treatment of stray datagrams, which belong to a QUIC connection or WireGuard tunnel that no known session has: short
/// headers with an unknown connection ID, and WireGuard types 2 to 4 with an unknown index. Only where there are rules
/// for the protocol; without any, they are like all other datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum Orphan {
    /// Dropped.
    Drop,
    /// Sent to the default destination; dropped where there is none. The default, since a first byte of 0x40 to 0x7f is
    /// all that marks a short header: with `Drop`, other protocols behind `udp_target` would lose one datagram in four.
    #[default]
    Default,
    /// QUIC: sent to the target that `source_ip` gives, if one rule alone is about QUIC, so that several gateways with the
    /// same file agree without sharing state. Otherwise as by default.
    Balance,
}

/// Treatment of QUIC long headers of a version other than 1 and 2, where there are QUIC rules. Without any, they are
/// like all other datagrams.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum UnknownVersion {
    /// Dropped.
    Drop,
    /// Sent to the first QUIC rule with neither server names nor ALPNs, or else to the default destination; dropped
    /// where there is neither.
    #[default]
    Default,
}

/// Leading bits of an address that make a source network.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SourcePrefix {
    /// Of an IPv4 address, 1 to 32.
    pub v4: u8,
    /// Of an IPv6 address, 1 to 128.
    pub v6: u8,
}

/// Limit on new sessions or connections per source network. A reload fills all buckets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct NewSessions {
    /// Sessions a second, in the long run.
    pub rate: NonZeroU32,
    /// Sessions at once.
    pub burst: NonZeroU32,
    /// Leading bits of an IPv4 address that make a network, 1 to 32.
    pub prefix_v4: u8,
    /// Leading bits of an IPv6 address that make a network, 1 to 128.
    pub prefix_v6: u8,
}

/// The `[ebpf]` table: what the kernel does for established UDP sessions and with datagrams nobody wants.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ebpf {
    /// The hook, or off. Read at start only.
    pub mode: EbpfMode,
    /// Names of the interfaces to attach to, without duplicates; empty means every interface that is up, has an address
    /// and is not a loopback. Read at start only.
    pub interfaces: Vec<String>,
    /// Sessions that the kernel steers at once; those beyond stay in the daemon. Read at start only.
    pub max_flows: NonZeroU32,
    /// TCP connections may be handed to the kernel. Read at start only.
    pub tcp: bool,
    /// TCP connections that the kernel forwards at once; those beyond stay relayed. Read at start only.
    pub max_spliced: NonZeroU32,
    /// Drop in the kernel what the configuration gives no destination. A reload applies to the next datagram.
    pub early_drop: bool,
    /// Source networks whose datagrams are dropped, without duplicates. A reload applies to the next datagram, and
    /// leaves steered sessions alone.
    pub ban: Vec<IpNet>,
    /// Programs and flows outlive the daemon, for the next one to inherit. Read at start only.
    pub pin: bool,
    /// Their directory: one of its own in a BPF file system. Read at start only.
    pub pin_path: PathBuf,
}

/// When TCP connections are handed to the kernel, where `ebpf.tcp` lets them be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum SplicePolicy {
    /// Where it is known not to be slower than relaying.
    #[default]
    Auto,
    /// Always, and as early as possible.
    First,
    /// Never.
    Off,
}

/// The hook of the kernel plane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) enum EbpfMode {
    /// Not at all: all datagrams pass through the daemon.
    #[default]
    Off,
    /// Native XDP where all interfaces are physical and their drivers take it, otherwise TC.
    Auto,
    /// Native XDP on every interface; TC where one refuses.
    Xdp,
    /// Generic XDP on every interface; TC where one refuses.
    XdpGeneric,
    /// TC.
    Tc,
}

/// Inbound TCP connections come from trusted peers alone, and start with a PROXY header.
#[cfg(feature = "proxy-protocol")]
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ReceiveProxy {
    /// Peers that may connect at all by IP; not empty, unless only a unix socket is listened on.
    pub trusted: Vec<IpNet>,
    /// A connection may also start without one.
    pub optional: bool,
}

/// A PROXY protocol version to send.
#[cfg(feature = "proxy-protocol")]
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum ProxyVersion {
    /// The text form.
    V1,
    /// The binary form.
    V2,
}

/// A group of targets and how one is chosen.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Upstream {
    /// Not empty, in file order, at least one of them not a backup.
    pub targets: Vec<Target>,
    /// The choice among them.
    pub balance: Balance,
    /// For QUIC: the server's part of connection IDs by position of the target, where it is told.
    pub server_ids: Vec<(usize, ServerId)>,
    /// How they are asked whether they live; `None` is not at all.
    pub check: Option<Arc<Check>>,
    /// What is down is not tried at all, instead of last.
    pub only_healthy: bool,
    /// When connections to these targets are handed to the kernel (TCP only), inheritance already resolved.
    pub splice: SplicePolicy,
    /// PROXY header to send to these targets (TCP only), inheritance already resolved.
    #[cfg(feature = "proxy-protocol")]
    pub send_proxy: Option<ProxyVersion>,
}

/// The part of a QUIC connection ID that tells its server, behind the first byte; 1 to 15 bytes.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ServerId(Box<[u8]>);

impl ServerId {
    /// The longest, in bytes (draft-ietf-quic-load-balancers section 3.1).
    pub(crate) const LONGEST: usize = 15;

    /// `None` when there are too few or too many bytes.
    #[must_use]
    pub(crate) fn new(bytes: &[u8]) -> Option<Self> {
        (1..=Self::LONGEST).contains(&bytes.len()).then(|| Self(bytes.into()))
    }

    /// The bytes.
    #[must_use]
    pub(crate) fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// One destination.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Target {
    /// Address or name.
    pub host: Host,
    /// Port. 0 is accepted as 0.2.x does (with a warning): such a target can never be reached.
    pub port: u16,
    /// Share of the connections relative to the other targets of the group; 1 unless told. 1 to 256.
    pub weight: NonZeroU16,
    /// Used only when no target without this mark can be reached.
    pub backup: bool,
    /// Never chosen, but known: what it has already goes on.
    pub down: bool,
    /// Connections or sessions at once, of all rules over its transport that name it with this limit; `None` is no other limit than theirs. A reload
    /// closes none.
    pub max_connections: Option<NonZeroU32>,
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip { address, scope } => socket_address(*address, *scope, self.port).fmt(f),
            Host::LinkLocal { address, zone } => write!(f, "[{address}%{zone}]:{}", self.port),
            Host::Name(name) => write!(f, "{name}:{}", self.port),
            Host::Srv(name) => write!(f, "srv:{name}"),
            Host::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

impl Target {
    /// The socket address, when neither a name nor an interface has to be looked up.
    #[must_use]
    pub(crate) fn literal(&self) -> Option<SocketAddr> {
        match self.host {
            Host::Ip { address, scope } => Some(socket_address(address, scope, self.port)),
            Host::LinkLocal { .. } | Host::Name(_) | Host::Srv(_) | Host::Unix(_) => None,
        }
    }
}

/// The socket address of these parts; the scope is that of a link-local one.
#[must_use]
pub(crate) fn socket_address(address: IpAddr, scope: u32, port: u16) -> SocketAddr {
    match address {
        IpAddr::V4(address) => SocketAddrV4::new(address, port).into(),
        IpAddr::V6(address) => SocketAddrV6::new(address, port, 0, scope).into(),
    }
}

/// Returns whether a backend can have this address: not one that means any, many or all hosts.
#[must_use]
pub(crate) fn is_one_host(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => !(v4.is_unspecified() || v4.is_multicast() || v4.is_broadcast()),
        IpAddr::V6(v6) => !(v6.is_unspecified() || v6.is_multicast()),
    }
}

/// Address or name of a target.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Host {
    /// A literal address.
    Ip {
        /// The address.
        address: IpAddr,
        /// IPv6 scope id (`sin6_scope_id`) of a link-local address; 0 otherwise.
        scope: u32,
    },
    /// A link-local address on an interface that is known by its name; its index is looked up for each connection and session,
    /// since interfaces come and go.
    LinkLocal {
        /// The address.
        address: Ipv6Addr,
        /// Name of the interface.
        zone: Arc<str>,
    },
    /// A name to resolve; lower case, without a trailing dot.
    Name(Arc<str>),
    /// A name whose SRV records tell hosts and ports; lower case, without a trailing dot unless it is complete. The port is 0.
    Srv(Arc<str>),
    /// A unix socket (TCP only), by an absolute path of [`MAX_SOCKET_PATH`] bytes at most. Its port is 0.
    Unix(Arc<Path>),
}

/// The choice among several targets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub(crate) enum Balance {
    /// The first that can be reached.
    #[default]
    None,
    /// Rendezvous hash of the client's address.
    SourceIp,
    /// Rendezvous hash of the client's address and port.
    SourceSocket,
    /// At random, by weight.
    Random,
    /// In turn, by weight.
    RoundRobin,
    /// The one with the fewest connections for its weight.
    LeastConn,
}
