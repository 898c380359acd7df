//! The server's part of QUIC connection IDs: a key of targets, and what several of them must not have in common.

use std::{collections::BTreeMap, sync::Arc};

use super::bytes;
use crate::config::{
    file::Table,
    model::{Rule, ServerId, Upstream},
    report::{Position, Report, quote},
};

/// Bytes from which on other servers' random IDs do not have it by chance.
const UNLIKELY: usize = 4;

/// The key of one target.
pub(super) fn of_target(report: &mut Report<'_>, target: &Table<'_>) -> Option<ServerId> {
    let field = target.field("quic_server_id")?;
    let id = bytes::hexadecimal(field.string(report)?).and_then(|bytes| ServerId::new(&bytes));
    match &id {
        None => {
            let expected = format!("expected 1 to {} bytes, as two hexadecimal digits each", ServerId::LONGEST);
            report.error(&field.position, expected);
        }
        Some(id) if id.as_bytes().len() < UNLIKELY => {
            let remedy = format!("use {UNLIKELY} bytes or more");
            report.warn_with(
                &field.position,
                "is so short that connection IDs of other servers have it by chance",
                remedy,
            );
        }
        Some(_) => {}
    }
    id
}

/// Takes them from targets that are of no rule for QUIC, where they mean nothing.
pub(super) fn without(report: &mut Report<'_>, position: &Position, mut upstream: Upstream) -> Upstream {
    if !upstream.server_ids.is_empty() {
        report.warn(position, "quic_server_id has no effect here, only on the targets of a rule for quic");
        upstream.server_ids.clear();
    }
    upstream
}

/// Reports IDs that lead to two places. What belongs to one tenant must not be another one's by a line in the file.
pub(super) fn refuse_ambiguous(report: &mut Report<'_>, rules: &[(Position, Arc<Rule>)]) {
    // In order, so that what begins with an ID follows it.
    let mut known: BTreeMap<&[u8], (&Rule, String)> = BTreeMap::new();
    for (position, rule) in rules {
        for (index, id) in &rule.upstream.server_ids {
            let id = id.as_bytes();
            let address = rule.upstream.targets.get(*index).map(ToString::to_string).unwrap_or_default();
            let beginnings = (1..id.len()).filter_map(|len| known.get(id.get(..len)?));
            let longer = known.range(id..).take_while(|(other, _)| other.starts_with(id)).map(|(_, place)| place);
            match beginnings.chain(longer).find(|(_, other)| *other != address) {
                Some((other, _)) => {
                    let other = quote(&other.name);
                    let path = format!("{}.target[{index}].quic_server_id", position.path);
                    report.error(
                        &Position { path, offset: position.offset },
                        format!("is, or begins, that of another target, of protocols.{other}"),
                    );
                }
                None => drop(known.entry(id).or_insert((rule, address))),
            }
        }
    }
}
