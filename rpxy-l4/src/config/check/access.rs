//! Networks that clients must, or must not, come from.

use std::collections::HashSet;

use ipnet::IpNet;

use super::network::network;
use crate::config::{
    file::{Field, Table},
    model::AccessLists,
    report::Report,
};

/// The access lists of a listener.
pub(super) fn lists(report: &mut Report<'_>, table: &Table<'_>) -> AccessLists {
    let allow = table.field("allow").map(|field| not_empty(report, &field, "nobody could connect"));
    let deny = table.field("deny").map(|field| networks(report, &field)).unwrap_or_default();
    AccessLists { allow, deny }
}

/// The networks of a rule's clients; empty is any.
pub(super) fn from(report: &mut Report<'_>, rule: &Table<'_>) -> Vec<IpNet> {
    rule.field("from").map(|field| not_empty(report, &field, "the rule would match nobody")).unwrap_or_default()
}

fn not_empty(report: &mut Report<'_>, field: &Field<'_>, consequence: &str) -> Vec<IpNet> {
    if field.is_empty_array() {
        let remedy = "without the key, or with [\"0.0.0.0/0\", \"::/0\"], it is everybody";
        report.error_with(&field.position, format!("must not be empty: {consequence}"), remedy);
    }
    networks(report, field)
}

/// One network or several, without duplicates.
fn networks(report: &mut Report<'_>, field: &Field<'_>) -> Vec<IpNet> {
    let texts = field.one_or_many_strings(report).unwrap_or_default();
    let mut seen = HashSet::new();
    let networks = texts.into_iter().filter_map(|(position, text)| network(report, &position, text));
    networks.filter(|network| seen.insert(*network)).collect()
}
