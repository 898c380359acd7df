//! Global UDP settings.

use std::num::NonZeroU32;
use std::sync::Arc;

use super::{connections, duration, sources, targets};
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

pub(super) fn udp(
    report: &mut Report<'_>,
    root: &Table<'_>,
    rules: &[(Position, Arc<Rule>)],
    prefix: SourcePrefix,
) -> Udp {
    Udp {
        max_connections: connections::most(report, root, "udp_max_connections"),
        receive_buffer: receive_buffer(report, root),
        new_sessions: sources::new(report, root, ("udp_new_sessions_per_source", "udp_new_sessions_burst"), prefix),
        default: targets::default(report, root, "udp_target", "udp_load_balance"),
        idle_lifetime: duration::limit(report, root, "udp_idle_lifetime", Some(duration::UDP_IDLE)),
        target_retry: duration::or_default(report, root, "udp_target_retry", duration::TARGET_RETRY),
        orphan: orphan(report, root, rules),
        unknown_version: unknown_version(report, root, rules),
        quic_affinity_lifetime: duration::or_default(report, root, "quic_affinity_lifetime", duration::QUIC_AFFINITY),
    }
}

fn receive_buffer(report: &mut Report<'_>, root: &Table<'_>) -> Option<NonZeroU32> {
    let field = root.field("udp_receive_buffer")?;
    field.integer(report, LEAST_BUFFER..=MOST_BUFFER).and_then(NonZeroU32::new)
}

fn orphan(report: &mut Report<'_>, root: &Table<'_>, rules: &[(Position, Arc<Rule>)]) -> Orphan {
    let Some(field) = root.field("orphan") else { return Orphan::default() };
    let orphan = field.word(report, ORPHANS).unwrap_or_default();
    if orphan == Orphan::Drop && !rules.iter().any(|(_, rule)| rule.matcher.is_udp()) {
        report.warn(&field.position, "has no effect, because there is no rule for quic or wireguard");
    }
    orphan
}

fn unknown_version(report: &mut Report<'_>, root: &Table<'_>, rules: &[(Position, Arc<Rule>)]) -> UnknownVersion {
    let Some(field) = root.field("quic_unknown_version") else { return UnknownVersion::default() };
    let unknown_version = field.word(report, UNKNOWN_VERSIONS).unwrap_or_default();
    let is_quic = |(_, rule): &(Position, Arc<Rule>)| matches!(rule.matcher, Matcher::Quic(_));
    if unknown_version == UnknownVersion::Drop && !rules.iter().any(is_quic) {
        let remedy = "without one, QUIC is not told from other datagrams";
        report.warn_with(&field.position, "has no effect, because there is no rule for quic", remedy);
    }
    unknown_version
}
