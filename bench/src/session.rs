//! One session: every candidate under every workload, round after round, and the report of it.

use std::{num::NonZeroUsize, path::Path, time::Duration};

use super::{
    candidate::{Candidate, Daemons},
    report::{self, Row},
    rig::Rig,
    suite::Suite,
    workload::{Memory, Workload},
};

/// Plan of a session.
#[derive(Debug, Clone)]
pub struct Plan {
    /// The suite.
    pub suite: &'static Suite,
    /// Programs under test.
    pub daemons: Daemons,
    /// Length of one measurement.
    pub window: Duration,
    /// Number of times that each workload is measured.
    pub rounds: NonZeroUsize,
    /// Names of candidates and workloads; where none of a kind is named, all of it are measured.
    pub only: Vec<String>,
    /// The command that asked for this, for the report.
    pub command: String,
}

/// Outcome of a session.
#[derive(Debug)]
pub struct Outcome {
    /// The report, in Markdown.
    pub text: String,
    /// Measurements that have failed.
    pub failures: Vec<String>,
}

impl Plan {
    /// Measures. `progress` gets a line for each measurement.
    ///
    /// # Errors
    ///
    /// When the rig cannot be built or a peer is not installed. A failed measurement is part of the outcome instead.
    pub fn run(&self, progress: &dyn Fn(&str)) -> anyhow::Result<Outcome> {
        let mut candidates = Vec::new();
        for candidate in self.suite.candidates.iter().copied().filter(|candidate| self.wants_candidate(*candidate)) {
            if let Some(what) = candidate.describe(&self.daemons)? {
                candidates.push((candidate, what));
            }
        }
        let load = std::fs::read_to_string("/proc/loadavg")?;
        let directory = rpxy_l4_tests::owned::directory();
        let rig = Rig::new(self.suite.sysctls, self.suite.idle.service)?;
        let wants_far = |workload: &&Workload| workload.far.is_some() && self.wants_workload(workload.name);
        let far = self.suite.workloads.iter().find(wants_far);
        let far = far.map(|_| Rig::far(self.suite.sysctls, self.suite.idle.service)).transpose()?;
        let mut session = Session {
            plan: self,
            rig: &rig,
            far: far.as_ref(),
            directory: directory.path(),
            progress,
            failures: Vec::new(),
        };
        let tables = session.workloads(&candidates);
        let memory = session.memory(&candidates);

        let mut text = self.introduction(&candidates, &rig, load.split_ascii_whitespace().next().unwrap_or("-"))?;
        for (workload, rows) in &tables {
            text += &format!("\n{}", report::table(workload, rows));
        }
        if !memory.is_empty() {
            text += &format!("\n{}", report::memory_table(&self.suite.idle, &memory));
        }
        text += &self.configurations(&candidates);
        Ok(Outcome { text, failures: session.failures })
    }

    fn wants_candidate(&self, candidate: Candidate) -> bool {
        let named = |other: &Candidate| self.only.iter().any(|name| name == other.name());
        named(&candidate) || !self.suite.candidates.iter().any(named)
    }

    fn wants_workload(&self, name: &str) -> bool {
        let named = |other: &str| self.only.iter().any(|name| name == other);
        named(name) || !(named(Suite::MEMORY) || self.suite.workloads.iter().any(|other| named(other.name)))
    }

    fn introduction(&self, candidates: &[(Candidate, String)], rig: &Rig, load: &str) -> anyhow::Result<String> {
        let cpu = std::fs::read_to_string("/proc/cpuinfo")?;
        let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or(": unknown processor");
        let mut text = format!(
            "# {} side by side\n\n\
             Made by `{}` on {} × {}, Linux {}; load average before the start: {load}.\n\n\
             Client, gateway and backend are network namespaces on one machine, joined by veth pairs; the candidate \
             runs on the gateway and shares the processors with both ends of the load. Candidates alternate in \
             rounds; figures are medians over rounds, ratios are medians of the ratios of single rounds. Rate ratios \
             above 1 and CPU ratios below 1 are in favour of the one compared.\n\n\
             *Proxy CPU* is user and system time of the candidate's processes for one operation; *rig's CPU* is \
             that of both ends of the load and of the kernel's threads for soft interrupts as well; what the kernel does \
             for a datagram is system time of the process that it interrupts. {}\n",
            self.suite.title,
            self.command,
            std::thread::available_parallelism().map_or(1, NonZeroUsize::get),
            model.trim_start_matches([' ', '\t', ':']),
            std::fs::read_to_string("/proc/sys/kernel/osrelease")?.trim(),
            self.suite.method,
        );
        if cfg!(debug_assertions) {
            text += "\n**The load generator is a debug build: these figures mean nothing.**\n";
        }
        if self.daemons.daemon.is_none() {
            text += "\nNo daemon was given (`--daemon`): rpxy-l4 itself is left out.\n";
        }
        if self.wants_workload(Suite::MEMORY) {
            text += &format!(
                "\nMemory is the proportional set size of the candidate's processes, without the kernel's socket \
                 buffers, measured once. A process may have {} descriptors here {}.\n",
                rig.descriptors(),
                self.suite.idle.note,
            );
        }
        text += &format!("\n{}", rig.settings().table());
        text += "\n| candidate | what |\n|---|---|\n";
        for (candidate, what) in candidates {
            text += &format!("| {} | {what} |\n", candidate.name());
        }
        Ok(text)
    }

    fn configurations(&self, candidates: &[(Candidate, String)]) -> String {
        let note = self.suite.shown_note;
        let mut text = format!("\n## Configurations\n\n{note} rpxy-l4 runs with `RUST_LOG=warn`.\n");
        for (candidate, _) in candidates {
            let configuration = candidate.configuration(self.suite.shown);
            if !configuration.is_empty() {
                text += &format!("\n{}:\n\n```text\n{}\n```\n", candidate.name(), configuration.trim_end());
            }
        }
        text
    }
}

struct Session<'plan> {
    plan: &'plan Plan,
    rig: &'plan Rig,
    /// With a wire, if a workload wants one.
    far: Option<&'plan Rig>,
    directory: &'plan Path,
    progress: &'plan dyn Fn(&str),
    failures: Vec<String>,
}

impl Session<'_> {
    fn workloads(&mut self, candidates: &[(Candidate, String)]) -> Vec<(&'static Workload, Vec<Row>)> {
        let row = |(candidate, _): &(Candidate, String)| Row { candidate: *candidate, rounds: Vec::new() };
        let mut tables: Vec<(&Workload, Vec<Row>)> = self
            .plan
            .suite
            .workloads
            .iter()
            .filter(|workload| self.plan.wants_workload(workload.name))
            .map(|workload| {
                (workload, candidates.iter().filter(|(candidate, _)| workload.is_for(*candidate)).map(row).collect())
            })
            .collect();
        for round in 0..self.plan.rounds.get() {
            for (workload, rows) in tables.iter_mut().filter(|(workload, _)| round == 0 || !workload.once) {
                // Each round begins with another candidate: what the one before leaves behind hits each of them.
                let first = round % rows.len().max(1);
                let (late, early) = rows.split_at_mut(first);
                for row in early.iter_mut().chain(late) {
                    let name = format!("round {}: {} {}", round + 1, workload.name, row.candidate.name());
                    let rig = workload.far.and(self.far).unwrap_or(self.rig);
                    let figures =
                        workload.measure(rig, row.candidate, &self.plan.daemons, self.directory, self.plan.window);
                    let units = workload.units;
                    row.rounds.push(self.note(name, figures, |figures| {
                        format!("{:.2} {}", figures.rate * units.rate_factor, units.rate)
                    }));
                }
            }
        }
        tables
    }

    fn memory(&mut self, candidates: &[(Candidate, String)]) -> Vec<(Candidate, Result<Memory, String>)> {
        if !self.plan.wants_workload(Suite::MEMORY) {
            return Vec::new();
        }
        let counts = |candidate: &Candidate| candidate.is_proxy() || self.plan.suite.idle.kernel;
        let proxies: Vec<_> = candidates.iter().map(|(candidate, _)| *candidate).filter(counts).collect();
        let mut rows = Vec::new();
        for candidate in proxies {
            let idle = &self.plan.suite.idle;
            let memory = idle.measure(self.rig, candidate, &self.plan.daemons, self.directory);
            let name = format!("{} {}", Suite::MEMORY, candidate.name());
            let memory = self.note(name, memory, |memory| format!("{:.0} B a {}", memory.each(), idle.one));
            rows.push((candidate, memory));
        }
        rows
    }

    /// Tells the outcome of one measurement and keeps the name of a failed one.
    fn note<T>(
        &mut self,
        name: String,
        outcome: anyhow::Result<T>,
        show: impl FnOnce(&T) -> String,
    ) -> Result<T, String> {
        match outcome {
            Ok(value) => {
                (self.progress)(&format!("{name}: {}", show(&value)));
                Ok(value)
            }
            Err(error) => {
                let error = format!("{error:#}");
                (self.progress)(&format!("{name}: FAILED: {error}"));
                self.failures.push(name);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tcp;

    #[test]
    fn naming_one_of_a_kind_leaves_out_the_rest_of_that_kind() {
        // (names, is HAProxy measured, is nginx measured, is ping measured, is memory measured)
        let rows: [(&[&str], [bool; 4]); 4] = [
            (&[], [true, true, true, true]),
            (&["haproxy"], [true, false, true, true]),
            (&["memory"], [true, true, false, true]),
            (&["nginx", "ping"], [false, true, true, false]),
        ];
        for (names, expected) in rows {
            let plan = Plan {
                suite: &tcp::SUITE,
                daemons: Daemons::default(),
                window: Duration::from_secs(1),
                rounds: NonZeroUsize::MIN,
                only: names.iter().map(|name| (*name).to_owned()).collect(),
                command: String::new(),
            };
            let found = [
                plan.wants_candidate(Candidate::Haproxy),
                plan.wants_candidate(Candidate::Nginx),
                plan.wants_workload("ping"),
                plan.wants_workload(Suite::MEMORY),
            ];
            assert_eq!(found, expected, "{names:?}");
        }
    }
}
