//! The `[protocols.*]` tables.

use std::{sync::Arc, time::Duration};

use super::{
    connections,
    defaults::RuleDefaults,
    duration, matcher,
    protocol::{PROTOCOLS, RuleProtocol},
    server_ids, targets,
};
use crate::config::{
    file::{Field, Table},
    keys::Scope,
    model::{Matcher, Rule, TlsMatcher},
    report::{Position, Report},
};

/// Returns whether the file has any rule, right or wrong.
pub(super) fn any(root: &Table<'_>) -> bool {
    root.field("protocols").is_some_and(|field| !field.is_empty_table())
}

/// The rules in file order, each with its position.
pub(super) fn rules(
    report: &mut Report<'_>,
    root: &Table<'_>,
    defaults: &RuleDefaults<'_>,
) -> Vec<(Position, Arc<Rule>)> {
    let entries = root.field("protocols").and_then(|field| field.named(report)).unwrap_or_default();
    entries.into_iter().filter_map(|(name, field)| rule(report, name, &field, defaults)).collect()
}

/// One rule; `None` when it is so wrong that nothing can be said of what it matches.
fn rule(
    report: &mut Report<'_>,
    name: &str,
    field: &Field<'_>,
    defaults: &RuleDefaults<'_>,
) -> Option<(Position, Arc<Rule>)> {
    let table = field.table(report, Scope::Rule)?;
    let protocol = table.required(report, "protocol").and_then(|field| field.word(report, PROTOCOLS));
    // Everything is looked at even without a protocol: the operator wants to hear of all mistakes at once.
    #[cfg(feature = "proxy-protocol")]
    let defaults = &RuleDefaults { send_proxy: send_proxy(report, &table, protocol, defaults), ..defaults.clone() };
    let mut matcher = matcher::matcher(report, &table, protocol, defaults);
    let upstream = targets::of_rule(report, &table, defaults);
    let upstream = match protocol {
        Some(RuleProtocol::Quic) | None => upstream,
        Some(_) => server_ids::without(report, &field.position, upstream),
    };
    let idle_lifetime = idle_lifetime(report, &table, protocol);
    let affinity = affinity(report, &table, protocol);
    let max_connections = connections::most(report, &table, "max_connections");
    let (upstream, max_connections) = match protocol {
        Some(protocol) if protocol.is_udp() => {
            if let Some(field) = table.field("max_connections") {
                report.warn(&field.position, "has no effect on protocols over UDP, whose rules have shares");
            }
            if let Some(Matcher::Quic(TlsMatcher { ech: Some(ech), .. })) = &mut matcher {
                for private in &mut Arc::make_mut(ech).private {
                    private.upstream = targets::without_limits(report, &field.position, private.upstream.clone());
                }
            }
            (targets::without_limits(report, &field.position, upstream), None)
        }
        Some(_) | None => (upstream, max_connections),
    };
    Some((
        field.position.clone(),
        Arc::new(Rule { name: name.into(), matcher: matcher?, upstream, idle_lifetime, affinity, max_connections }),
    ))
}

fn idle_lifetime(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<RuleProtocol>) -> Option<Duration> {
    let default = protocol.and_then(RuleProtocol::idle_lifetime);
    let lifetime = duration::limit(report, table, "idle_lifetime", default);
    if protocol.is_none_or(RuleProtocol::is_udp) {
        return lifetime;
    }
    if let Some(field) = table.field("idle_lifetime") {
        let remedy = "connections over TCP end by themselves; see tcp_idle_timeout";
        report.warn_with(&field.position, "has no effect on protocols over TCP", remedy);
    }
    None
}

fn affinity(report: &mut Report<'_>, table: &Table<'_>, protocol: Option<RuleProtocol>) -> bool {
    let Some(field) = table.field("affinity") else { return true };
    if protocol.is_some_and(|protocol| !protocol.is_udp()) {
        report.warn(&field.position, "has no effect on protocols over TCP");
    }
    field.boolean(report).unwrap_or(true)
}

#[cfg(feature = "proxy-protocol")]
fn send_proxy(
    report: &mut Report<'_>,
    table: &Table<'_>,
    protocol: Option<RuleProtocol>,
    defaults: &RuleDefaults<'_>,
) -> Option<crate::config::model::ProxyVersion> {
    let own = super::proxy::send(report, table.field("send_proxy_protocol"));
    if !protocol.is_some_and(RuleProtocol::is_udp) {
        return own.unwrap_or(defaults.send_proxy);
    }
    if let Some(field) = table.field("send_proxy_protocol") {
        report.warn(&field.position, "has no effect on protocols over UDP");
    }
    None
}
