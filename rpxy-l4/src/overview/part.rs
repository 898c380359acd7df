//! The parts of an overview.

use std::sync::Arc;

use serde::{Deserialize, Serialize};

use super::{Counts, Word};
use crate::config::model::Transport;

/// The configuration file.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Configuration {
    /// Where it is.
    pub path: String,
    /// Whether it is what runs.
    pub state: LoadedFile,
    /// The latest reload.
    pub last_reload: Option<Reload>,
}

/// Whether the configuration file is what runs.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum LoadedFile {
    /// It is, as far as the daemon knows.
    #[default]
    InEffect,
    /// Its last reload was refused: what it said before runs.
    Refused,
}

/// A reload.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Reload {
    /// `applied`, `unchanged` or `refused`.
    pub result: Word,
    /// In UTC (RFC 3339).
    pub time: String,
    /// Seconds since then.
    pub age_s: u64,
    /// Why it was refused, the worst first.
    pub problems: Vec<String>,
}

/// All TCP connections.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Tcp {
    /// Open now.
    pub active: u32,
    /// At once at most, over all limits.
    pub max: u64,
    /// At once for which there are descriptors.
    pub room: u32,
    /// Accepted so far.
    pub accepted: u64,
    /// Ended so far, by outcome.
    pub ended: Counts,
    /// Those of them that were turned away, by reason.
    pub refused: Counts,
    /// Failed attempts to reach a target.
    pub connect_failed: u64,
    /// Times that accepting paused because descriptors or memory ran out.
    pub accept_paused: u64,
}

/// All UDP sessions and datagrams.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Udp {
    /// Sessions that have a backend, or are on their way to one.
    pub active: u32,
    /// At once at most, over all limits.
    pub max: u64,
    /// Sessions that got a backend.
    pub started: u64,
    /// Sessions ended, by end.
    pub ended: Counts,
    /// Datagrams discarded, by reason.
    pub dropped: Counts,
    /// Those of them that were turned away, by reason.
    pub refused: Counts,
    /// Datagrams forwarded by the daemon to backends.
    pub datagrams_up: u64,
    /// Datagrams forwarded by the daemon to clients.
    pub datagrams_down: u64,
    /// Datagrams for which a socket had no room.
    pub kernel_drops: u64,
}

/// A listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Listener {
    /// Its name.
    pub name: Arc<str>,
    /// Where it serves TCP.
    pub tcp: Vec<String>,
    /// Where it serves UDP.
    pub udp: Vec<String>,
    /// Number of its rules.
    pub rules: usize,
    /// TCP connections, where it serves any.
    pub connections: Option<Bounded>,
    /// UDP sessions, where it serves any.
    pub sessions: Option<Bounded>,
}

/// Connections or sessions of a listener.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bounded {
    /// Accepted or begun by this listener so far.
    pub started: u64,
    /// Those that exist now under the limit.
    pub active: u32,
    /// The limit.
    pub max: u32,
    /// The limit is shared with all listeners that say none of their own.
    pub shared: bool,
}

/// What a check has found of a target.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Check {
    /// The check's name.
    pub name: Arc<str>,
    /// Checks that passed.
    #[serde(default)]
    pub passed: u64,
    /// Checks that failed.
    #[serde(default)]
    pub failed: u64,
}

/// Times in microseconds. Quantiles are estimated from buckets, over all times since the daemon started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Times {
    /// Number of times.
    pub count: u64,
    /// Their sum: a mean over an interval is the difference of two sums by that of two counts.
    pub sum_us: u64,
    /// Half of them took so long at most.
    pub p50_us: u64,
    /// 90 % of them.
    pub p90_us: u64,
    /// 99 % of them.
    pub p99_us: u64,
}

/// Traffic that was turned away.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Refused {
    /// Milliseconds ago.
    pub age_ms: u64,
    /// `tcp`, `tcp:tls`, `udp:quic`, …
    pub proto: Word,
    /// The client: its address, or the unix socket that it came by.
    pub source: String,
    /// The address that it used of ours, likewise.
    pub listener: String,
    /// Why, as the counters name it.
    pub reason: Word,
    /// The name that the client asked for in the clear, as it came.
    #[serde(default)]
    pub server_name: Option<Arc<str>>,
}

/// Forwarding in the kernel.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct KernelPlane {
    /// `off`, or the hook.
    pub state: Word,
    /// Why it is off.
    pub reason: Option<Word>,
    /// Interfaces with a program, each with its kind of attachment.
    pub interfaces: Vec<String>,
    /// Sessions that are steered; `None` when it is off.
    pub flows: Option<usize>,
    /// As many may be.
    pub max_flows: Option<usize>,
    /// Packets by outcome.
    pub counters: Counts,
    /// How often a session was not taken, by reason.
    pub not_steered: Counts,
    /// TCP connections that are spliced; `None` where none can be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub spliced: Option<usize>,
    /// As many may be.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub max_spliced: Option<u32>,
    /// Packets of those by outcome.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    pub tcp_counters: Counts,
    /// How often a connection was not spliced, by reason.
    #[serde(skip_serializing_if = "Counts::is_empty")]
    pub not_spliced: Counts,
}

/// What is out of service by command.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Drained {
    /// For how many seconds the listeners let nothing new in; `None` when they do.
    pub listeners_s: Option<u64>,
    /// Those that are drained by name.
    #[serde(default)]
    pub listeners: Vec<DrainedListener>,
    /// Targets that get nothing new.
    pub targets: Vec<DrainedTarget>,
}

/// A listener that is drained by name.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DrainedListener {
    /// Its name.
    pub listener: Arc<str>,
    /// For so many seconds.
    pub since_s: u64,
}

/// A target that is drained.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct DrainedTarget {
    /// Of what went there.
    pub transport: Transport,
    /// As the file writes it.
    pub target: String,
    /// Connections or sessions that go on.
    pub active: u32,
    /// For so many seconds.
    pub since_s: u64,
}

/// Networks that are refused.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Bans {
    /// All of them.
    pub count: usize,
    /// The first of them, in order.
    pub first: Vec<Ban>,
}

/// A network that is refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub(crate) struct Ban {
    /// The network.
    pub network: String,
    /// `command` or `configuration`.
    pub source: Word,
}

/// The process.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub(crate) struct Process {
    /// Open descriptors, where the kernel tells.
    pub open_files: Option<u64>,
    /// As many may be open.
    pub max_open_files: Option<u64>,
    /// Bytes of memory in use.
    pub resident_bytes: Option<u64>,
    /// Processor time used, in user and kernel mode.
    pub cpu_ms: u64,
}
