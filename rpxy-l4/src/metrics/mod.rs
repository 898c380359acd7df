//! Counters: every connection ends in exactly one [`Outcome`], and each outcome has a counter.
//!
//! The registry is a value made by the supervisor and handed down; nothing here is global. Names and labels are listed
//! in docs/metrics.md, and a test holds the two together.

mod accounts;
mod ech;
mod endpoint;
mod format;
mod kernel;
mod outcome;
mod process;
mod readiness;
mod sample;
mod series;
mod splice;
mod targets;
mod text;
mod times;
mod totals;
mod udp;

use std::{
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

#[cfg(test)]
pub(crate) use accounts::rule_refusals;
pub(crate) use accounts::{Accounts, Carried, RuleAccount, TargetAccount};
use ech::Ech;
pub(crate) use ech::EchState;
pub(crate) use kernel::{KernelPackets, KernelPlane};
pub(crate) use outcome::Outcome;
use process::Process;
use prometheus_client::{
    encoding::{EncodeLabelSet, text::encode},
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{ConstGauge, Gauge},
    },
    registry::{Registry, Unit},
};
pub(crate) use readiness::Readiness;
pub(crate) use sample::Sample;
use series::Series;
pub(crate) use targets::{CheckedTargets, TargetCheck};
use udp::Udp;
pub(crate) use udp::{AffinityEvent, DatagramDrop, SessionEnd};

use crate::config::model::{TOP, Transport};

/// Result of a reload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Reload {
    /// The new configuration is in effect.
    Applied,
    /// The file means what it meant before.
    Unchanged,
    /// The file is invalid or a port cannot be had; the old configuration stays.
    Refused,
}

impl Reload {
    /// The result as labels and `status` write it.
    #[must_use]
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Unchanged => "unchanged",
            Self::Refused => "refused",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByDirection {
    direction: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByListener {
    listener: String,
    transport: &'static str,
}

/// Counts the connections, or the sessions, of one listener.
#[derive(Debug, Clone, Default)]
pub(crate) struct ListenerCount(Counter);

impl ListenerCount {
    /// One more.
    pub(crate) fn add(&self) {
        self.0.inc();
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByResult {
    result: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    version: &'static str,
}

/// The daemon's metrics. Counters are made once, so that counting is one atomic addition.
#[derive(Debug)]
pub(crate) struct Metrics {
    registry: Registry,
    tcp_accepted: Counter,
    /// In the order of [`Outcome::ALL`], which is that of the discriminants.
    tcp_ended: [Counter; Outcome::ALL.len()],
    tcp_active: Gauge,
    tcp_bytes_up: Counter,
    tcp_bytes_down: Counter,
    tcp_connect_failed: Counter,
    accept_paused: Counter,
    splice: splice::Splice,
    listener_connections: Family<ByListener, Counter>,
    reloads: Family<ByResult, Counter>,
    reload_successful: Gauge,
    reload_success_time: Gauge,
    dns_failed: Counter,
    log_lines_lost: Counter,
    udp: Udp,
    ech: Ech,
    kernel: kernel::KernelSource,
    tcp_max: Gauge,
    tcp_room: Gauge,
    udp_max: Gauge,
    accounts: Series,
    readiness: readiness::Current,
    targets: targets::TargetSource,
}

impl Metrics {
    /// All counters at zero, registered.
    #[must_use]
    pub(crate) fn new() -> Arc<Self> {
        let mut all = Registry::default();
        all.register_collector(Box::new(Process::new()));
        let registry = all.sub_registry_with_prefix("rpxy_l4");
        let ended = Family::<ByOutcome, Counter>::default();
        let bytes = Family::<ByDirection, Counter>::default();
        let metrics = Self {
            tcp_accepted: Counter::default(),
            tcp_ended: Outcome::ALL.map(|outcome| member(&ended, &ByOutcome { outcome: outcome.name() })),
            tcp_active: Gauge::default(),
            tcp_bytes_up: member(&bytes, &ByDirection { direction: "up" }),
            tcp_bytes_down: member(&bytes, &ByDirection { direction: "down" }),
            tcp_connect_failed: Counter::default(),
            accept_paused: Counter::default(),
            splice: splice::Splice::new(registry),
            listener_connections: Family::default(),
            reloads: Family::default(),
            reload_successful: Gauge::default(),
            reload_success_time: Gauge::default(),
            dns_failed: Counter::default(),
            log_lines_lost: Counter::default(),
            udp: Udp::new(registry),
            ech: Ech::new(registry),
            kernel: kernel::KernelSource::default(),
            tcp_max: Gauge::default(),
            tcp_room: Gauge::default(),
            udp_max: Gauge::default(),
            accounts: Series::default(),
            readiness: readiness::Current::default(),
            targets: targets::TargetSource::default(),
            registry: Registry::default(),
        };
        for result in [Reload::Applied, Reload::Unchanged, Reload::Refused] {
            drop(metrics.reloads.get_or_create(&ByResult { result: result.name() }));
        }
        for transport in [Transport::Tcp, Transport::Udp] {
            drop(metrics.of_listener(TOP, transport));
        }
        let r = registry;
        let build = Family::<Build, ConstGauge<i64>>::new_with_constructor(|| ConstGauge::new(1));
        drop(build.get_or_create(&Build { version: env!("CARGO_PKG_VERSION") }));
        r.register("build_info", "1, with the version that runs", build);
        r.register("tcp_accepted", "TCP connections accepted", metrics.tcp_accepted.clone());
        r.register("tcp_ended", "TCP connections ended, by outcome", ended);
        r.register("tcp_active", "TCP connections open now", metrics.tcp_active.clone());
        let help = "Payload relayed over TCP, counted when a connection ends";
        r.register_with_unit("tcp_relayed", help, Unit::Bytes, bytes);
        r.register("tcp_connect_failed", "Failed attempts to reach a target", metrics.tcp_connect_failed.clone());
        let help = "Times that accepting paused because file descriptors or memory ran out";
        r.register("accept_paused", help, metrics.accept_paused.clone());
        let help = "TCP connections accepted and UDP sessions begun, by listener";
        r.register("listener_connections", help, metrics.listener_connections.clone());
        r.register("reloads", "Configuration reloads, by result", metrics.reloads.clone());
        let help = "1 while the configuration file is what runs, 0 after a refused reload";
        r.register("config_last_reload_successful", help, metrics.reload_successful.clone());
        let help = "When the configuration in effect was read last";
        let time = metrics.reload_success_time.clone();
        r.register_with_unit("config_last_reload_success_timestamp", help, Unit::Seconds, time);
        metrics.configured();
        r.register("log_lines_lost", "Log lines that could not be written", metrics.log_lines_lost.clone());
        r.register("dns_failed", "Failed name resolutions", metrics.dns_failed.clone());
        r.register("tcp_max_connections", "Most TCP connections at once, as configured", metrics.tcp_max.clone());
        let help = "TCP connections at once for which there are file descriptors";
        r.register("tcp_descriptor_room", help, metrics.tcp_room.clone());
        r.register("udp_max_connections", "Most UDP sessions at once", metrics.udp_max.clone());
        r.register_collector(metrics.accounts.collector());
        r.register_collector(Box::new(metrics.kernel.clone()));
        r.register_collector(Box::new(metrics.targets.clone()));
        Arc::new(Self { registry: all, ..metrics })
    }

    /// A TCP connection was accepted.
    pub(crate) fn tcp_accepted(&self) {
        self.tcp_accepted.inc();
        self.tcp_active.inc();
    }

    /// The count of the listener called `name` for `transport`. It goes on across reloads.
    #[must_use]
    pub(crate) fn of_listener(&self, name: &str, transport: Transport) -> ListenerCount {
        let labels = ByListener { listener: name.to_owned(), transport: transport.name() };
        ListenerCount(member(&self.listener_connections, &labels))
    }

    /// An accepted TCP connection is gone.
    pub(crate) fn tcp_ended(&self, outcome: Outcome, bytes_up: u64, bytes_down: u64) {
        self.tcp_active.dec();
        if let Some(counter) = self.tcp_ended.get(outcome as usize) {
            counter.inc();
        }
        self.tcp_bytes_up.inc_by(bytes_up);
        self.tcp_bytes_down.inc_by(bytes_down);
    }

    /// One attempt to reach a target failed.
    pub(crate) fn tcp_connect_failed(&self) {
        self.tcp_connect_failed.inc();
    }

    /// Accepting had to pause.
    pub(crate) fn accept_paused(&self) {
        self.accept_paused.inc();
    }

    /// The counters of UDP.
    #[must_use]
    pub(crate) fn udp(&self) -> &Udp {
        &self.udp
    }

    /// Counts what the kernel plane does from now on.
    pub(crate) fn set_kernel(&self, plane: Arc<dyn KernelPlane>) {
        self.kernel.fill(plane);
    }

    /// The accounts of rules and targets over TCP.
    #[must_use]
    pub(crate) fn tcp_accounts(&self) -> &Arc<Accounts> {
        &self.accounts.tcp
    }

    /// The accounts of rules and targets over UDP.
    #[must_use]
    pub(crate) fn udp_accounts(&self) -> &Arc<Accounts> {
        &self.accounts.udp
    }

    /// The limits in effect, over all listeners: TCP connections, those for which there are descriptors, and UDP sessions.
    pub(crate) fn set_limits(&self, tcp: u64, room: u64, udp: u64) {
        for (gauge, limit) in [(&self.tcp_max, tcp), (&self.tcp_room, room), (&self.udp_max, udp)] {
            gauge.set(i64::try_from(limit).unwrap_or(i64::MAX));
        }
    }

    /// From now on `/readyz` answers so.
    pub(crate) fn set_readiness(&self, readiness: Readiness) {
        self.readiness.set(readiness);
    }

    /// Whether the daemon takes new traffic.
    #[must_use]
    pub(crate) fn readiness(&self) -> Readiness {
        self.readiness.load()
    }

    /// Returns whether the file is not what runs, because its last reload was refused.
    #[must_use]
    pub(crate) fn is_file_refused(&self) -> bool {
        self.reload_successful.get() == 0
    }

    /// Shows the health of `targets` from now on.
    pub(crate) fn set_targets(&self, targets: Arc<dyn CheckedTargets>) {
        self.targets.fill(targets);
    }

    /// A reload ended.
    pub(crate) fn reloaded(&self, result: Reload) {
        self.reloads.get_or_create(&ByResult { result: result.name() }).inc();
        match result {
            Reload::Applied | Reload::Unchanged => self.configured(),
            Reload::Refused => drop(self.reload_successful.set(0)),
        }
    }

    /// The file is what runs.
    fn configured(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.reload_successful.set(1);
        self.reload_success_time.set(i64::try_from(now.as_secs()).unwrap_or(i64::MAX));
    }

    /// So many log lines could not be written.
    pub(crate) fn log_lines_lost(&self, count: u64) {
        self.log_lines_lost.inc_by(count);
    }

    /// A name did not resolve.
    pub(crate) fn dns_failed(&self) {
        self.dns_failed.inc();
    }

    /// The registry as `OpenMetrics` 1.0 text.
    pub(crate) fn encode(&self) -> Result<String, std::fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// The counter of one set of labels. The family's lock is let go on return: two such guards in one statement deadlock.
fn member<S>(family: &Family<S, Counter>, labels: &S) -> Counter
where
    S: Clone + std::hash::Hash + Eq,
{
    family.get_or_create(labels).clone()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn outcomes_are_listed_in_the_order_of_their_discriminants() {
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(*outcome as usize, index, "{}", outcome.name());
        }
    }

    #[test]
    fn counters_show_in_the_text_under_their_documented_names() {
        let metrics = Metrics::new();
        metrics.tcp_accepted();
        metrics.tcp_accepted();
        metrics.tcp_ended(Outcome::Unreachable, 3, 0);
        metrics.tcp_connect_failed();
        metrics.accept_paused();
        metrics.reloaded(Reload::Refused);
        metrics.dns_failed();
        metrics.of_listener("wg", Transport::Udp).add();
        metrics.of_listener("wg", Transport::Udp).add();
        metrics.log_lines_lost(3);
        let text = metrics.encode().unwrap();
        for line in [
            "rpxy_l4_tcp_accepted_total 2",
            "rpxy_l4_tcp_active 1",
            "rpxy_l4_tcp_ended_total{outcome=\"unreachable\"} 1",
            "rpxy_l4_tcp_relayed_bytes_total{direction=\"up\"} 3",
            "rpxy_l4_tcp_connect_failed_total 1",
            "rpxy_l4_accept_paused_total 1",
            "rpxy_l4_reloads_total{result=\"refused\"} 1",
            "rpxy_l4_dns_failed_total 1",
            "rpxy_l4_listener_connections_total{listener=\"wg\",transport=\"udp\"} 2",
            "rpxy_l4_log_lines_lost_total 3",
            "rpxy_l4_config_last_reload_successful 0",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
    }
}
