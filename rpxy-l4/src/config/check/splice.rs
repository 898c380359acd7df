//! When TCP connections are handed to the kernel: `tcp_splice` of a listener, and `splice` of a rule.

use super::{defaults::RuleDefaults, protocol::RuleProtocol};
use crate::config::{file::Table, model::SplicePolicy, report::Report};

const POLICIES: &[(&str, SplicePolicy)] =
    &[("auto", SplicePolicy::Auto), ("first", SplicePolicy::First), ("off", SplicePolicy::Off)];

/// The policy of a listener, which holds for its rules unless they say otherwise.
pub(super) fn of_listener(report: &mut Report<'_>, table: &Table<'_>) -> SplicePolicy {
    table.field("tcp_splice").and_then(|field| field.word(report, POLICIES)).unwrap_or_default()
}

/// The policy of a rule.
pub(super) fn of_rule(
    report: &mut Report<'_>,
    table: &Table<'_>,
    protocol: Option<RuleProtocol>,
    defaults: &RuleDefaults<'_>,
) -> SplicePolicy {
    let Some(field) = table.field("splice") else { return defaults.splice };
    if protocol.is_some_and(RuleProtocol::is_udp) {
        report.warn(&field.position, "has no effect on protocols over UDP");
    }
    field.word(report, POLICIES).unwrap_or(defaults.splice)
}
