//! One look at a running daemon: what the admin command `overview` answers, what `top` shows and the status page serves.
//!
//! Data alone, without a word about where it comes from: the supervisor fills it in. The configuration file bounds its
//! size, whatever strangers do. Counters only grow while the daemon runs, and [`Overview::uptime_ms`] tells when they
//! were read, so that a reader makes rates of two of them. A reader of another version finds defaults where a daemon says
//! nothing. Names that clients chose are as they came: whoever prints them escapes them.

mod part;

use std::{borrow::Cow, sync::Arc};

pub(crate) use part::{
    Ban, Bans, Bounded, Check, Configuration, Drained, DrainedListener, DrainedTarget, KernelPlane, Listener,
    LoadedFile, Process, Refused, Reload, Tcp, Times, Udp,
};
use serde::{Deserialize, Serialize};

use crate::config::model::Transport;

/// A word of the daemon's own.
pub(crate) type Word = Cow<'static, str>;
/// Counts by the word for what they count, those that are zero left out.
pub(crate) type Counts = std::collections::BTreeMap<Word, u64>;

/// The running daemon at one moment.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Overview {
    /// Of the daemon.
    pub version: Word,
    /// Process ID; another one, or a lower uptime, means that all counters began anew.
    pub pid: u32,
    /// Milliseconds since the daemon started, by a clock that nobody sets.
    pub uptime_ms: u64,
    /// When this was, in UTC (RFC 3339).
    pub time: String,
    /// It takes new traffic.
    pub ready: bool,
    /// Why it does not.
    pub not_ready: Option<Word>,
    /// The file.
    pub config: Configuration,
    /// Threads that forward, of each transport.
    pub workers: usize,
    /// All connections.
    pub tcp: Tcp,
    /// All sessions and datagrams.
    pub udp: Udp,
    /// Those of the file, the top of it first.
    pub listeners: Vec<Listener>,
    /// Those of the file in its order, then the default targets of each listener.
    pub rules: Vec<Rule>,
    /// One for each target of each rule.
    pub targets: Vec<Target>,
    /// The latest refusals that were not too many, the latest first.
    pub refused: Vec<Refused>,
    /// Forwarding in the kernel.
    pub kernel_plane: KernelPlane,
    /// What is out of service by command.
    pub drained: Drained,
    /// Networks that are refused.
    pub bans: Bans,
    /// The process.
    pub process: Process,
    /// Failed name resolutions.
    pub dns_failed: u64,
    /// Lines of logs that could not be written.
    pub log_lines_lost: u64,
}

/// A rule, or the default targets of a listener, with what it carries on all its listeners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Rule {
    /// Its name; of default targets, the key that names them.
    pub name: Arc<str>,
    /// Of what it carries.
    pub transport: Transport,
    /// What it is for: `http`, `tls`, `ssh`, `socks5`, `quic`, `wireguard`, or `any` for default targets.
    #[serde(default)]
    pub protocol: Word,
    /// The listeners that it belongs to.
    #[serde(default)]
    pub listeners: Vec<Arc<str>>,
    /// Connections or sessions with a backend.
    #[serde(default)]
    pub active: u64,
    /// Its own limit of connections.
    #[serde(default)]
    pub max: Option<u32>,
    /// Connections or sessions that got a backend.
    #[serde(default)]
    pub started: u64,
    /// Those that were turned away once the rule was chosen, by reason.
    #[serde(default)]
    pub refused: Counts,
    /// Payload from clients, live connections included.
    #[serde(default)]
    pub bytes_up: u64,
    /// Payload to clients.
    #[serde(default)]
    pub bytes_down: u64,
}

/// A target of a rule. But for `rule`, `backup`, `weight` and the check, what is said is of the target, however many rules
/// name it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Target {
    /// Of what goes there.
    pub transport: Transport,
    /// `None` for the default targets of a listener, and for one that has left the file while it was drained.
    pub rule: Option<Arc<str>>,
    /// The listeners that its rule is on so; empty for one that has left the file.
    #[serde(default)]
    pub listeners: Vec<Arc<str>>,
    /// As the file writes it.
    pub target: String,
    /// It is for when all others are down.
    #[serde(default)]
    pub backup: bool,
    /// Its share against the others.
    #[serde(default)]
    pub weight: u16,
    /// Its own limit of connections.
    #[serde(default)]
    pub max: Option<u32>,
    /// `up`, `down`, `drained`, or `off` for `down = true` in the file.
    #[serde(default)]
    pub state: Word,
    /// Why it is not up.
    #[serde(default)]
    pub reason: Option<String>,
    /// For how long, in milliseconds, where that is known.
    #[serde(default)]
    pub since_ms: Option<u64>,
    /// Connections or sessions that it has, or that are on their way to it.
    #[serde(default)]
    pub active: u32,
    /// How often connections or sessions failed to reach it since the daemon started.
    #[serde(default)]
    pub failures: u64,
    /// What the rule's check has found.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub check: Option<Check>,
    /// Connections or sessions that it got.
    #[serde(default)]
    pub started: u64,
    /// Payload to it, live connections included.
    #[serde(default)]
    pub bytes_up: u64,
    /// Payload from it.
    #[serde(default)]
    pub bytes_down: u64,
    /// How long TCP connections to it took.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub connect: Option<Times>,
    /// How long its first byte took from then on; its first datagram, from the first to it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub first_byte: Option<Times>,
}

impl Rule {
    /// A rule that carries nothing.
    #[must_use]
    pub(crate) fn new(name: Arc<str>, transport: Transport) -> Self {
        Self {
            name,
            transport,
            protocol: Word::default(),
            listeners: Vec::new(),
            active: 0,
            max: None,
            started: 0,
            refused: Counts::new(),
            bytes_up: 0,
            bytes_down: 0,
        }
    }
}

impl Target {
    /// A target of default targets, of which nothing is known.
    #[must_use]
    pub(crate) fn new(transport: Transport, target: String) -> Self {
        Self {
            transport,
            rule: None,
            listeners: Vec::new(),
            target,
            backup: false,
            weight: 1,
            max: None,
            state: Word::default(),
            reason: None,
            since_ms: None,
            active: 0,
            failures: 0,
            check: None,
            started: 0,
            bytes_up: 0,
            bytes_down: 0,
            connect: None,
            first_byte: None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_overview_of_another_version_is_read_as_far_as_it_goes() {
        let text = r#"{"version":"9.9.9","news":[1],"tcp":{"active":3,"more":{}},
            "rules":[{"name":"web","transport":"tcp"}],"targets":[{"transport":"udp","target":"a:1","state":"odd"}]}"#;
        let read: Overview = serde_json::from_str(text).unwrap();
        assert_eq!((&*read.version, read.tcp.active, read.uptime_ms), ("9.9.9", 3, 0));
        assert_eq!((&*read.rules[0].name, read.rules[0].started), ("web", 0));
        assert_eq!((&*read.targets[0].state, &read.targets[0].rule), ("odd", &None));
    }
}
