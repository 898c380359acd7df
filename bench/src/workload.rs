//! Loads, and the measurements made while a candidate carries one.

use std::{path::Path, time::Duration};

use anyhow::Context as _;

use super::{
    candidate::{Candidate, Daemons},
    far::Far,
    handovers::Handovers,
    procfs,
    rig::{Rig, Service},
    setup::Setup,
};
use rpxy_l4_tests::wait::pause;

/// Time for which idle connections are left alone before memory is read, so that what is given back after a while counts.
const SETTLE: Duration = Duration::from_secs(5);

/// A load with a rate.
#[derive(Debug, Clone, Copy)]
pub struct Workload {
    /// Name on the command line.
    pub name: &'static str,
    /// Heading in the report.
    pub title: &'static str,
    /// Units of its figures.
    pub units: Units,
    /// Its name in the load generator.
    pub mode: &'static str,
    /// Connections or flows that the load generator uses.
    pub clients: usize,
    /// Setup of the candidates.
    pub setup: Setup,
    /// True when the load generator first prepares, and says `ready` when the measurement begins.
    pub prepared: bool,
    /// True when it is measured in the first round only.
    pub once: bool,
    /// The candidates that it means something for; all when empty.
    pub only: &'static [Candidate],
    /// True when hosts keep the system's own settings instead of those of the suite.
    pub untuned: bool,
    /// Where the client is, if not next to the gateway.
    pub far: Option<Far>,
    /// True when one operation at a time is under way, for which one processor is enough and gives steadier figures.
    pub serial: bool,
}

/// Units in which a workload is reported.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Units {
    /// Heading of the rate.
    pub rate: &'static str,
    /// Value of one operation a second in that unit.
    pub rate_factor: f64,
    /// Heading of the processor time.
    pub time: &'static str,
    /// Value of one second an operation in that unit.
    pub time_factor: f64,
    /// True when operations have a latency.
    pub latency: bool,
    /// Fate of operations that failed.
    pub failed: &'static str,
    /// Candidate that ratios compare the others with.
    pub against: Candidate,
    /// True when ratios of processor time are those of the whole rig, because kernels do the work.
    pub whole: bool,
}

/// Figures of one run.
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
    /// Processor seconds of the whole rig an operation, both ends of the load and the kernel's threads included.
    pub machine_time: f64,
    /// Operations that failed.
    pub failures: u64,
    /// Operations that did not.
    pub successes: u64,
    /// What became of connections, where the candidate may splice.
    pub handovers: Option<Handovers>,
}

/// The measurement of memory: what to hold without using it.
#[derive(Debug, Clone, Copy)]
pub struct Idle {
    /// Service behind the candidate.
    pub service: Service,
    /// Connections or flows to hold, where descriptors allow.
    pub most: usize,
    /// Descriptors that each takes.
    pub descriptors: u64,
    /// Word for one of them.
    pub one: &'static str,
    /// Heading in the report.
    pub title: &'static str,
    /// Words of the report after the descriptors that a process may have.
    pub note: &'static str,
    /// True when the kernel's memory counts as well.
    pub kernel: bool,
}

/// Memory of a candidate with idle connections or flows.
#[derive(Debug, Clone, PartialEq)]
pub struct Memory {
    /// Number held.
    pub held: usize,
    /// Before the first of them, in bytes.
    pub before: u64,
    /// With all of them, in bytes.
    pub with: u64,
    /// What the kernel of all hosts has allocated for them in slabs, in bytes: sockets and what belongs to them.
    pub slabs: u64,
}

impl Workload {
    /// Returns true when it means something for `candidate`.
    pub fn is_for(&self, candidate: Candidate) -> bool {
        self.only.is_empty() || self.only.contains(&candidate)
    }

    /// Starts `candidate`, puts the load on it for `window`, and ends it.
    ///
    /// # Errors
    ///
    /// When the candidate or the load fails.
    pub fn measure(
        &self,
        rig: &Rig,
        candidate: Candidate,
        daemons: &Daemons,
        directory: &Path,
        window: Duration,
    ) -> anyhow::Result<Figures> {
        let _untuned = self.untuned.then(|| rig.settings().untuned(candidate.index())).transpose()?;
        let _one = self.serial.then(|| rig.on_one_processor()).transpose()?;
        if let Some(far) = self.far {
            rig.set_far(far)?;
        }
        let running = candidate.start(rig, daemons, directory, self.setup)?;
        let drive = || {
            let machine = procfs::rig_time;
            let mut before = (running.processor_time()?, machine()?);
            let client = rig.client(self.mode, running.target, self.clients, window)?;
            if self.prepared {
                client.wait_for("ready")?;
                before = (running.processor_time()?, machine()?);
            }
            Ok((before, client.outcome()?, (running.processor_time()?, machine()?)))
        };
        let outcome: anyhow::Result<_> = drive();
        let ((proxy_before, machine_before), sample, (proxy_after, machine_after)) =
            outcome.with_context(|| running.explain())?;

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
            handovers: Handovers::of(candidate, rig.gateway()).with_context(|| running.explain())?,
        })
    }
}

impl Idle {
    /// Starts `candidate`, opens as many idle connections or flows as descriptors allow, and reads its memory.
    ///
    /// # Errors
    ///
    /// When the candidate or one of them fails.
    pub fn measure(
        &self,
        rig: &Rig,
        candidate: Candidate,
        daemons: &Daemons,
        directory: &Path,
    ) -> anyhow::Result<Memory> {
        let held = candidate.capacity(rig.descriptors(), self.descriptors).min(self.most);
        let running = candidate.start(
            rig,
            daemons,
            directory,
            Setup { service: self.service, room: held, processes: 1, unanswered: false },
        )?;
        let before = running.memory()?;
        let slabs = procfs::slabs()?;
        let client = rig.client("idle", running.target, held, Duration::ZERO)?;
        client.wait_for("held").with_context(|| running.explain())?;
        pause(SETTLE);
        let slabs = procfs::slabs()?.saturating_sub(slabs);
        let memory = Memory { held, before, with: running.memory()?, slabs };
        Handovers::of(candidate, rig.gateway()).with_context(|| running.explain())?;
        Ok(memory)
    }
}

impl Memory {
    /// Bytes for each.
    pub fn each(&self) -> f64 {
        self.with.saturating_sub(self.before) as f64 / self.held as f64
    }

    /// Bytes of the kernel for each, those of both ends of the load included.
    pub fn slabs_each(&self) -> f64 {
        self.slabs as f64 / self.held as f64
    }
}
