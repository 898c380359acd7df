//! Counters of the kernel plane, read when a scraper asks: the programs count, nobody polls.

use std::{
    fmt::{Debug, Error},
    sync::{Arc, OnceLock},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
};

/// Packets that had one outcome, over all interfaces, since the maps were made.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct KernelPackets {
    /// `steer`, `pass` or `drop`.
    pub action: &'static str,
    /// The outcome, as `rpxy-l4 status` names it.
    pub outcome: &'static str,
    /// Packets. A buffer of several datagrams (GRO) is one.
    pub count: u64,
}

/// The kernel plane as it is counted.
pub(crate) trait KernelPlane: Debug + Send + Sync {
    /// Every outcome, each once.
    fn packets(&self) -> Vec<KernelPackets>;
    /// Sessions that are installed now.
    fn flows(&self) -> u64;
    /// TCP connections that are spliced now; `None` where none can be.
    fn spliced(&self) -> Option<u64>;
    /// Packets of those, by outcome, each once. A buffer of several segments (GRO) is one.
    fn tcp_packets(&self) -> Vec<(&'static str, u64)>;
}

/// The kernel plane as a source of metrics; empty without one.
#[derive(Debug, Clone, Default)]
pub(super) struct KernelSource(Arc<OnceLock<Arc<dyn KernelPlane>>>);

impl KernelSource {
    /// Counts `plane` from now on. There is one in the life of a daemon.
    pub(super) fn fill(&self, plane: Arc<dyn KernelPlane>) {
        let _second = self.0.set(plane);
    }

    /// Packets that it has forwarded.
    pub(super) fn steered(&self) -> u64 {
        let packets = self.0.get().map(|plane| plane.packets()).unwrap_or_default();
        packets.iter().filter(|packets| packets.action == "steer").map(|packets| packets.count).sum()
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Labels {
    action: &'static str,
    outcome: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByOutcome {
    outcome: &'static str,
}

impl Collector for KernelSource {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Some(plane) = self.0.get() else { return Ok(()) };
        let help = "Packets that the programs have seen, by outcome";
        let mut family = encoder.encode_descriptor("kernel_packets", help, None, MetricType::Counter)?;
        for KernelPackets { action, outcome, count } in plane.packets() {
            ConstCounter::new(count).encode(family.encode_family(&Labels { action, outcome })?)?;
        }
        let flows = ConstGauge::new(i64::try_from(plane.flows()).unwrap_or(i64::MAX));
        let help = "UDP sessions that the kernel steers now";
        flows.encode(encoder.encode_descriptor("kernel_flows", help, None, flows.metric_type())?)?;
        let Some(spliced) = plane.spliced() else { return Ok(()) };
        let spliced = ConstGauge::new(i64::try_from(spliced).unwrap_or(i64::MAX));
        let help = "TCP connections that the kernel forwards now";
        spliced.encode(encoder.encode_descriptor("kernel_spliced", help, None, spliced.metric_type())?)?;
        let help = "Packets of spliced connections that the programs have seen, by outcome";
        let mut family = encoder.encode_descriptor("kernel_tcp_packets", help, None, MetricType::Counter)?;
        for (outcome, count) in plane.tcp_packets() {
            ConstCounter::new(count).encode(family.encode_family(&ByOutcome { outcome })?)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use rpxy_l4_common::{tcp::counter::TcpCounter, verdict};

    use super::*;
    use crate::{metrics::Metrics, offload::NotSpliced};

    #[derive(Debug)]
    struct Counted;

    impl KernelPlane for Counted {
        fn packets(&self) -> Vec<KernelPackets> {
            let of = |counter: &verdict::Counter| KernelPackets {
                action: counter.action().name(),
                outcome: counter.name(),
                count: counter.index().into(),
            };
            verdict::Counter::ALL.iter().map(of).collect()
        }

        fn flows(&self) -> u64 {
            12
        }

        fn spliced(&self) -> Option<u64> {
            Some(34)
        }

        fn tcp_packets(&self) -> Vec<(&'static str, u64)> {
            TcpCounter::ALL.iter().map(|counter| (counter.name(), counter.index().into())).collect()
        }
    }

    #[test]
    fn what_the_programs_count_shows_under_its_documented_names() {
        let metrics = Metrics::new();
        assert!(!metrics.encode().unwrap().contains("rpxy_l4_kernel"), "there is none");
        metrics.set_kernel(Arc::new(Counted));
        let text = metrics.encode().unwrap();
        for line in [
            "# TYPE rpxy_l4_kernel_packets counter",
            "rpxy_l4_kernel_packets_total{action=\"steer\",outcome=\"steered\"} 0",
            "rpxy_l4_kernel_packets_total{action=\"pass\",outcome=\"truncated\"} 1",
            "rpxy_l4_kernel_packets_total{action=\"drop\",outcome=\"banned\"} 29",
            "# TYPE rpxy_l4_kernel_flows gauge",
            "rpxy_l4_kernel_flows 12",
            "# TYPE rpxy_l4_kernel_spliced gauge",
            "rpxy_l4_kernel_spliced 34",
            "rpxy_l4_kernel_tcp_packets_total{outcome=\"forwarded\"} 0",
            "rpxy_l4_kernel_tcp_packets_total{outcome=\"silenced\"} 11",
        ] {
            assert!(text.lines().any(|l| l == line), "{line} is missing in\n{text}");
        }
        let documentation = include_str!("../../../docs/metrics.md");
        for name in [
            "rpxy_l4_kernel_packets_total",
            "rpxy_l4_kernel_flows",
            "rpxy_l4_kernel_spliced",
            "rpxy_l4_kernel_tcp_packets_total",
        ] {
            assert!(documentation.contains(&format!("| `{name}` |")), "docs/metrics.md does not name {name}");
        }
        for counter in verdict::Counter::ALL {
            let row = format!("| `{}` | {} |", counter.name(), counter.action().name());
            assert!(documentation.contains(&row), "docs/metrics.md does not have {row}");
        }
        let guide = include_str!("../../../docs/tcp-in-the-kernel.md");
        for name in TcpCounter::ALL.iter().map(|counter| counter.name()) {
            assert!(guide.contains(&format!("| `{name}` |")), "docs/tcp-in-the-kernel.md does not explain {name}");
        }
        for name in NotSpliced::ALL.iter().map(|reason| reason.name()) {
            assert!(guide.contains(&format!("| `{name}` |")), "docs/tcp-in-the-kernel.md does not explain {name}");
        }
    }
}
