//! Metrics of the process itself, under the names that Prometheus clients agree on.

use std::{
    fmt::{Debug, Error},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};
use rustix::time::{ClockId, clock_gettime};

use crate::net;

/// The process as a source of metrics.
#[derive(Debug)]
pub(super) struct Process {
    started: Duration,
}

impl Process {
    /// The process, which started just now.
    pub(super) fn new() -> Self {
        Self { started: SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default() }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let cpu = clock_gettime(ClockId::ProcessCPUTime);
        let cpu = Duration::try_from(cpu).unwrap_or_default().as_secs_f64();
        let help = "Processor time used, in user and kernel mode";
        let encoder_of = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(cpu).encode(encoder_of)?;
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
        };
        let [total, resident] = memory().map_or([None; 2], |memory| memory.map(Some));
        gauge("process_resident_memory", "Memory in use", Some(&Unit::Bytes), resident)?;
        gauge("process_virtual_memory", "Address space in use", Some(&Unit::Bytes), total)?;
        gauge("process_open_fds", "Open file descriptors", None, net::open_files().map(as_f64))?;
        gauge("process_max_fds", "Most file descriptors that may be open", None, net::open_files_limit().map(as_f64))?;
        let help = "When the process started, in seconds since 1970";
        gauge("process_start_time", help, Some(&Unit::Seconds), Some(self.started.as_secs_f64()))
    }
}

/// Bytes in all and in memory (proc_pid_status(5)).
fn memory() -> Option<[f64; 2]> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(as_f64(kib.saturating_mul(1024)))
    };
    Some([bytes("VmSize:")?, bytes("VmRSS:")?])
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn as_f64(value: u64) -> f64 {
    value as f64
}
