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

/// What the process uses now.
#[derive(Debug, Clone, Copy)]
pub(super) struct Usage {
    /// Processor time so far.
    pub(super) cpu: Duration,
    /// Bytes of memory and of address space.
    pub(super) memory: Option<Memory>,
    pub(super) open_files: Option<u64>,
    pub(super) max_open_files: Option<u64>,
}

/// Memory of the process, in bytes.
#[derive(Debug, Clone, Copy)]
pub(super) struct Memory {
    pub(super) resident: u64,
    pub(super) address_space: u64,
}

impl Usage {
    /// Asks the kernel.
    pub(super) fn now() -> Self {
        Self {
            cpu: Duration::try_from(clock_gettime(ClockId::ProcessCPUTime)).unwrap_or_default(),
            memory: memory(),
            open_files: net::open_files(),
            max_open_files: net::open_files_limit(),
        }
    }
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let Usage { cpu, memory, open_files, max_open_files } = Usage::now();
        let cpu = cpu.as_secs_f64();
        let help = "Processor time used, in user and kernel mode";
        let encoder_of = encoder.encode_descriptor("process_cpu", help, Some(&Unit::Seconds), MetricType::Counter)?;
        ConstCounter::new(cpu).encode(encoder_of)?;
        let mut gauge = |name: &str, help: &str, unit: Option<&Unit>, value: Option<f64>| {
            let Some(value) = value else { return Ok(()) };
            ConstGauge::new(value).encode(encoder.encode_descriptor(name, help, unit, MetricType::Gauge)?)
        };
        let bytes = |of: fn(Memory) -> u64| memory.map(of).map(as_f64);
        gauge("process_resident_memory", "Memory in use", Some(&Unit::Bytes), bytes(|memory| memory.resident))?;
        gauge(
            "process_virtual_memory",
            "Address space in use",
            Some(&Unit::Bytes),
            bytes(|memory| memory.address_space),
        )?;
        gauge("process_open_fds", "Open file descriptors", None, open_files.map(as_f64))?;
        gauge("process_max_fds", "Most file descriptors that may be open", None, max_open_files.map(as_f64))?;
        let help = "When the process started, in seconds since 1970";
        gauge("process_start_time", help, Some(&Unit::Seconds), Some(self.started.as_secs_f64()))
    }
}

/// What proc_pid_status(5) tells.
fn memory() -> Option<Memory> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let bytes = |field: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(field))?;
        let kib: u64 = line.trim().strip_suffix(" kB")?.parse().ok()?;
        Some(kib.saturating_mul(1024))
    };
    Some(Memory { resident: bytes("VmRSS:")?, address_space: bytes("VmSize:")? })
}

#[expect(clippy::cast_precision_loss, reason = "exact up to 2^53")]
fn as_f64(value: u64) -> f64 {
    value as f64
}
