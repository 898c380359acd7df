//! Targets that are checked: which those are, and what is told of them.

use super::daemon::KnownTargets;
use crate::{
    health::Subject,
    metrics::{CheckedTargets, TargetCheck},
    route::{CheckedTarget, Targets},
    tcp, udp,
};

/// The targets that a configuration asks to be checked, those of several rules more than once.
pub(super) fn subjects(tcp: &tcp::Snapshot, udp: &udp::Snapshot) -> Vec<Subject> {
    tcp.endpoints().chain(udp.endpoints()).filter_map(Subject::of).collect()
}

impl CheckedTargets for KnownTargets {
    fn targets(&self) -> Vec<TargetCheck> {
        let of = |transport: &'static str, targets: &Targets| {
            targets.list_checked().into_iter().map(move |CheckedTarget { target, check, checked }| {
                let (passed, failed) = checked.counts();
                TargetCheck { transport, target, check: check.to_string(), up: !checked.is_down(), passed, failed }
            })
        };
        of("tcp", &self.tcp).chain(of("udp", &self.udp)).collect()
    }
}
