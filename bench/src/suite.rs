//! Suites: their candidates and loads, and the words of their reports.
//!
//! A suite is data. [`super::tcp`] and [`super::udp`] hold one each; everything else serves both.

use super::{
    candidate::Candidate,
    setup::Setup,
    workload::{Idle, Workload},
};

/// A set of measurements that make one report.
#[derive(Debug)]
pub struct Suite {
    /// Its name as `cargo xtask bench` takes it.
    pub name: &'static str,
    /// Subject of the heading.
    pub title: &'static str,
    /// Candidates in the order of the report.
    pub candidates: &'static [Candidate],
    /// The loads, in the order of the report.
    pub workloads: &'static [Workload],
    /// The measurement of memory.
    pub idle: Idle,
    /// Default number of rounds.
    pub rounds: &'static str,
    /// Keys under `/proc/sys/net` of all hosts and their values.
    pub sysctls: &'static [(&'static str, &'static str)],
    /// Explanation of the load for readers of the report.
    pub method: &'static str,
    /// The setup whose configurations are shown.
    pub shown: Setup,
    /// Name of that setup, and differences of the others.
    pub shown_note: &'static str,
}

impl Suite {
    /// Name of the memory measurement, next to those of the workloads.
    pub const MEMORY: &'static str = "memory";

    /// Names of candidates and of what is measured, as the command line takes them.
    pub fn names(&self) -> Vec<&'static str> {
        let candidates = self.candidates.iter().map(|candidate| candidate.name());
        candidates.chain(self.workloads.iter().map(|workload| workload.name)).chain([Self::MEMORY]).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use crate::{offload, spliced, tcp, udp};

    #[test]
    fn every_name_of_a_suite_is_unique() {
        for suite in [&tcp::SUITE, &udp::SUITE, &offload::SUITE, &spliced::SUITE] {
            let names: BTreeSet<_> = suite.names().into_iter().collect();
            assert_eq!(names.len(), suite.candidates.len() + suite.workloads.len() + 1, "{}", suite.name);
        }
    }
}
