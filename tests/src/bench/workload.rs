//! What the candidates have to carry, and what is measured while they do.

use std::{path::Path, time::Duration};

use anyhow::Context as _;

use super::{
    candidate::{Candidate, Daemons},
    procfs,
    rig::{Rig, Service},
};
use crate::wait::pause;

/// Idle connections to hold, where descriptors allow.
pub const IDLE_CONNECTIONS: usize = 10_000;

/// How long idle connections are left alone before memory is read, so that what is given back after a while counts.
const SETTLE: Duration = Duration::from_secs(5);

/// A load with a rate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Workload {
    /// Ping-pong of 64 bytes over 16 connections.
    Ping,
    /// Connect, one exchange of 64 bytes, close; 32 in flight.
    Connect,
    /// Download over one connection.
    BulkOne,
    /// Download over four connections.
    BulkFour,
}

/// Units in which a workload is reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Units {
    /// Heading of the rate.
    pub rate: &'static str,
    /// What one operation a second is in that unit.
    pub rate_factor: f64,
    /// Heading of the processor time.
    pub time: &'static str,
    /// What one second an operation is in that unit.
    pub time_factor: f64,
    /// Whether operations have a latency.
    pub latency: bool,
}

/// What one run has shown.
#[derive(Debug, Clone, PartialEq)]
pub struct Figures {
    /// Operations a second.
    pub rate: f64,
    /// Median latency in microseconds.
    pub p50_us: f64,
    /// 99th percentile of latency in microseconds.
    pub p99_us: f64,
    /// Processor seconds of the candidate's processes an operation; `None` when the kernel alone does the work.
    pub proxy_time: Option<f64>,
    /// Processor seconds of the whole machine an operation, both ends of the load included.
    pub machine_time: f64,
    /// Operations that failed.
    pub failures: u64,
    /// Operations that did not.
    pub successes: u64,
}

/// Memory of a candidate with idle connections.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Connections held.
    pub connections: usize,
    /// Before the first of them, in bytes.
    pub before: u64,
    /// With all of them, in bytes.
    pub with: u64,
}

impl Workload {
    /// All, in the order of the report.
    pub const ALL: [Self; 4] = [Self::Ping, Self::Connect, Self::BulkOne, Self::BulkFour];

    /// Name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Ping => "ping",
            Self::Connect => "connect",
            Self::BulkOne => "bulk-1",
            Self::BulkFour => "bulk-4",
        }
    }

    /// Heading in the report.
    pub fn title(self) -> &'static str {
        match self {
            Self::Ping => "Request and response: 64 bytes, 16 connections",
            Self::Connect => "Connect rate: connect, 64 bytes each way, close; 32 in flight",
            Self::BulkOne => "Bulk: download over 1 connection",
            Self::BulkFour => "Bulk: download over 4 connections",
        }
    }

    /// How its figures are shown.
    pub fn units(self) -> Units {
        match self {
            Self::Ping => Units { rate: "exchanges/s", rate_factor: 1.0, time: "µs", time_factor: 1e6, latency: true },
            Self::Connect => {
                Units { rate: "connections/s", rate_factor: 1.0, time: "µs", time_factor: 1e6, latency: true }
            }
            // Operations are bytes.
            Self::BulkOne | Self::BulkFour => {
                Units { rate: "Gbit/s", rate_factor: 8e-9, time: "s/GB", time_factor: 1e9, latency: false }
            }
        }
    }

    /// Starts `candidate`, puts the load on it for `window`, and ends it.
    ///
    /// # Errors
    ///
    /// When the candidate or the load fails.
    pub fn measure(
        self,
        rig: &Rig,
        candidate: Candidate,
        daemons: &Daemons,
        directory: &Path,
        window: Duration,
    ) -> anyhow::Result<Figures> {
        let (mode, service, connections) = match self {
            Self::Ping => ("ping", Service::Echo, 16),
            Self::Connect => ("connect", Service::Echo, 32),
            Self::BulkOne => ("download", Service::Source, 1),
            Self::BulkFour => ("download", Service::Source, 4),
        };
        // Connections that are being closed count against a candidate's own limits too.
        let running = candidate.start(rig, daemons, directory, service, 1000)?;
        let used = || running.pid().map(procfs::processor_time).transpose();
        let (proxy_before, machine_before) = (used()?, procfs::machine_time()?);
        let sample = rig.drive(mode, running.target, connections, window).with_context(|| running.explain())?;
        let (proxy_after, machine_after) = (used()?, procfs::machine_time()?);

        let all = sample.all_operations as f64;
        let proxy_time = proxy_after.zip(proxy_before).map(|(after, before)| (after - before).as_secs_f64() / all);
        Ok(Figures {
            rate: sample.rate(),
            p50_us: sample.p50_us,
            p99_us: sample.p99_us,
            proxy_time,
            machine_time: (machine_after - machine_before).as_secs_f64() / all,
            failures: sample.failures,
            successes: sample.all_operations,
        })
    }
}

impl Memory {
    /// Bytes a connection.
    pub fn per_connection(&self) -> f64 {
        self.with.saturating_sub(self.before) as f64 / self.connections as f64
    }

    /// Starts `candidate`, opens as many idle connections as descriptors allow, and reads its memory.
    ///
    /// # Errors
    ///
    /// When the candidate or a connection fails.
    pub fn measure(rig: &Rig, candidate: Candidate, daemons: &Daemons, directory: &Path) -> anyhow::Result<Self> {
        let connections = candidate.capacity(rig.descriptors()).min(IDLE_CONNECTIONS);
        let running = candidate.start(rig, daemons, directory, Service::Echo, connections)?;
        let pid = running.pid().context("the kernel has no process to look at")?;
        let before = procfs::memory(pid)?;
        let _held = rig.hold(running.target, connections).with_context(|| running.explain())?;
        pause(SETTLE);
        Ok(Self { connections, before, with: procfs::memory(pid)? })
    }
}
