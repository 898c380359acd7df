//! Global UDP settings.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{
    connections, duration,
    health::{Asker, Checks},
    sources, targets,
};
use crate::config::{
    file::Table,
    model::{Matcher, Orphan, Rule, SourcePrefix, Udp, UnknownVersion},
    report::{Position, Report},
};

/// Bytes of a receive buffer: less would not hold a datagram of each kind; more the kernel cannot count (`sock_setsockopt`).
const LEAST_BUFFER: u32 = 4096;
const MOST_BUFFER: u32 = i32::MAX.cast_unsigned() / 2;

const ORPHANS: &[(&str, Orphan)] =
    &[("drop", Orphan::Drop), ("default", Orphan::Default), ("balance", Orphan::Balance)];

const UNKNOWN_VERSIONS: &[(&str, UnknownVersion)] =
    &[("drop", UnknownVersion::Drop), ("default", UnknownVersion::Default)];

/// The settings of the listener `name`, which `table` describes and which has `rules`.
pub(super) fn udp(
    report: &mut Report<'_>,
    table: &Table<'_>,
    name: &Arc<str>,
    rules: &[(Position, Arc<Rule>)],
    checks: &Checks<'_>,
    prefix: SourcePrefix,
) -> Udp {
    let health = ("udp_health", "udp_only_healthy");
    let health = checks.of_default(report, table, "udp_target", health, Asker::Udp);
    let default = targets::default(report, table, "udp_target", "udp_load_balance");
    let limit_of = |keys| sources::limit_of(table, name, keys);
    Udp {
        max_connections: connections::most(report, table, "udp_max_connections"),
        max_connections_of: limit_of(&["udp_max_connections"]),
        receive_buffer: receive_buffer(report, table),
        new_sessions: sources::new(report, table, ("udp_new_sessions_per_source", "udp_new_sessions_burst"), prefix),
        new_sessions_of: limit_of(&[
            "udp_new_sessions_per_source",
            "udp_new_sessions_burst",
            "source_prefix_v4",
            "source_prefix_v6",
        ]),
        default: default.map(|upstream| targets::checked(upstream, &health)),
        idle_lifetime: duration::limit(report, table, "udp_idle_lifetime", Some(duration::UDP_IDLE)),
        target_retry: duration::or_default(report, table, "udp_target_retry", duration::TARGET_RETRY),
        orphan: orphan(report, table, rules),
        unknown_version: unknown_version(report, table, rules),
    }
}

fn receive_buffer(report: &mut Report<'_>, table: &Table<'_>) -> Option<NonZeroU32> {
    let field = table.field("udp_receive_buffer")?;
    field.integer(report, LEAST_BUFFER..=MOST_BUFFER).and_then(NonZeroU32::new)
}

fn orphan(report: &mut Report<'_>, table: &Table<'_>, rules: &[(Position, Arc<Rule>)]) -> Orphan {
    let Some(field) = table.field("orphan") else { return Orphan::default() };
    let orphan = field.word(report, ORPHANS).unwrap_or_default();
    if orphan == Orphan::Drop && !rules.iter().any(|(_, rule)| rule.matcher.is_udp()) {
        let message = "has no effect, because there is no rule for quic or wireguard";
        table.warn_unused(report, "orphan", message, None);
    }
    orphan
}

fn unknown_version(report: &mut Report<'_>, table: &Table<'_>, rules: &[(Position, Arc<Rule>)]) -> UnknownVersion {
    let Some(field) = table.field("quic_unknown_version") else { return UnknownVersion::default() };
    let unknown_version = field.word(report, UNKNOWN_VERSIONS).unwrap_or_default();
    let is_quic = |(_, rule): &(Position, Arc<Rule>)| matches!(rule.matcher, Matcher::Quic(_));
    if unknown_version == UnknownVersion::Drop && !rules.iter().any(is_quic) {
        let remedy = "without one, QUIC is not told from other datagrams";
        let message = "has no effect, because there is no rule for quic";
        table.warn_unused(report, "quic_unknown_version", message, Some(remedy));
    }
    unknown_version
}
