//! The `[protocols.*]` tables.

use std::{collections::HashMap, sync::Arc, time::Duration};

use super::{
    access, connections,
    defaults::RuleDefaults,
    duration,
    health::Asker,
    listeners::Draft,
    matcher,
    protocol::{PROTOCOLS, RuleProtocol},
    server_ids, splice, targets,
};
use crate::config::{
    file::{Field, Table},
    keys::{self, Scope},
    model::Rule,
    report::{Position, Report, quote},
};

/// The rules of one listener in file order, each with its position.
pub(super) type Placed = Vec<(Position, Arc<Rule>)>;

/// The rules `entries` of each of `listeners`. One that belongs to several is the same in those whose defaults for it are alike.
pub(super) fn rules(report: &mut Report<'_>, entries: &[(&str, Field<'_>)], listeners: &[Draft<'_>]) -> Vec<Placed> {
    let mut placed: Vec<Placed> = listeners.iter().map(|_| Placed::new()).collect();
    let by_name: HashMap<&str, usize> = listeners.iter().enumerate().map(|(index, of)| (&*of.name, index)).collect();
    for (name, field) in entries {
        let Some(table) = field.table(report, Scope::Rule) else { continue };
        let mut made: Vec<(&RuleDefaults<'_>, Option<Arc<Rule>>)> = Vec::new();
        for index in belongs_to(report, &table, &by_name) {
            let (Some(listener), Some(rules)) = (listeners.get(index), placed.get_mut(index)) else { continue };
            let known = made.iter().find(|(defaults, _)| **defaults == listener.defaults);
            let rule = match known {
                Some((_, rule)) => rule.clone(),
                None => {
                    let rule = rule(report, name, &table, &listener.defaults).map(Arc::new);
                    made.push((&listener.defaults, rule.clone()));
                    rule
                }
            };
            rules.extend(rule.map(|rule| (field.position.clone(), rule)));
        }
    }
    placed
}

/// The positions of the listeners that a rule names; that of `default` if it names none.
fn belongs_to(report: &mut Report<'_>, rule: &Table<'_>, by_name: &HashMap<&str, usize>) -> Vec<usize> {
    let Some(field) = rule.field("listeners") else { return vec![0] };
    if field.is_empty_array() {
        let remedy = "without the key, the rule belongs to the listener default";
        report.error_with(&field.position, "must not be empty", remedy);
    }
    let mut indices = Vec::new();
    for (position, name) in field.one_or_many_strings(report).unwrap_or_default() {
        match by_name.get(name) {
            Some(index) if indices.contains(index) => {}
            Some(index) => indices.push(*index),
            None => {
                let near = keys::nearest(name, by_name.keys().copied());
                let message = format!("there is no listener {}", quote(name));
                match near {
                    Some(near) => report.error_with(&position, message, format!("did you mean {}?", quote(near))),
                    None => report.error_with(&position, message, format!("add a table [listeners.{}]", quote(name))),
                }
            }
        }
    }
    // Its other mistakes are told, too.
    if indices.is_empty() { vec![0] } else { indices }
}

/// One rule; `None` when it is so wrong that nothing can be said of what it matches.
fn rule(report: &mut Report<'_>, name: &str, table: &Table<'_>, defaults: &RuleDefaults<'_>) -> Option<Rule> {
    let protocol = table.required(report, "protocol").and_then(|field| field.word(report, PROTOCOLS));
    // Everything is looked at even without a protocol: the operator wants to hear of all mistakes at once.
    #[cfg(feature = "proxy-protocol")]
    let defaults = &RuleDefaults { send_proxy: send_proxy(report, table, protocol, defaults), ..defaults.clone() };
    let defaults = &RuleDefaults { splice: splice::of_rule(report, table, protocol, defaults), ..defaults.clone() };
    let health = defaults.checks.of(report, table, ("health", "only_healthy"), protocol.map(Asker::from));
    let defaults = &RuleDefaults { health, ..defaults.clone() };
    let matcher = matcher::matcher(report, table, protocol, defaults);
    let from = access::from(report, table);
    let upstream = targets::of_rule(report, table, defaults);
    let upstream = match protocol {
        Some(RuleProtocol::Quic) | None => upstream,
        Some(_) => server_ids::without(report, &table.position, upstream),
    };
    let idle_lifetime = idle_lifetime(report, table, protocol);
    let affinity = affinity(report, table, protocol);
    let max_connections = connections::most(report, table, "max_connections");
    Some(Rule { name: name.into(), matcher: matcher?, from, upstream, idle_lifetime, affinity, max_connections })
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
