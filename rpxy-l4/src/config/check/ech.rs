//! The `[protocols."<name>".ech]` table.

use super::{names, targets};
use crate::config::{
    ech::{ConfigList, EchKeys},
    file::{Field, Table},
    keys::Scope,
    model::{Ech, EchPrivate, Host, NamePattern, Target},
    report::Report,
};

pub(super) fn ech(
    report: &mut Report<'_>,
    field: &Field<'_>,
    server_names: &[NamePattern],
    listen_port: u16,
) -> Option<Ech> {
    let table = field.table(report, Scope::Ech)?;
    let keys = keys(report, &table);
    let private = private(report, &table, listen_port);
    let keys = keys?;
    let public_names = || keys.iter().map(|key| key.config().public_name.to_ascii_lowercase());
    let reached = |name: String| server_names.iter().any(|pattern| names::covers(pattern, &name));
    if !server_names.is_empty() && !keys.is_empty() && !public_names().any(reached) {
        let public_names: Vec<String> = public_names().collect();
        report.warn(
            &table.place,
            format!("never used: server_names holds no public name of ech_config_list ({})", public_names.join(", ")),
        );
    }
    Some(Ech { keys, private: private? })
}

/// The configurations of the list that have a private key. Every key must belong to one.
fn keys(report: &mut Report<'_>, table: &Table<'_>) -> Option<EchKeys> {
    let list_field = table.required(report, "ech_config_list");
    let keys_field = table.required(report, "private_keys");
    let list = list_field.as_ref().and_then(|field| {
        let text = field.string(report)?;
        match ConfigList::from_base64(text) {
            Ok(list) => Some((field, list)),
            Err(error) => {
                report.error(&field.place, error.to_string());
                None
            }
        }
    });
    let keys_field = keys_field?;
    let private_keys = keys_field.strings(report)?;
    if keys_field.is_empty_array() {
        report.error(&keys_field.place, "must not be empty");
    }
    let (list_field, list) = list?;
    let mut found = Vec::new();
    for (place, text) in private_keys {
        match list.with_private_key(text) {
            Ok(keys) => found.extend(keys),
            Err(error) => report.error(&place, error.to_string()),
        }
    }
    let keys = EchKeys::from(found);
    let without_key = list.len().saturating_sub(keys.iter().len());
    if without_key > 0 && !keys.is_empty() {
        report.warn_with(
            &list_field.place,
            format!("{without_key} of {} configurations have no private key here", list.len()),
            "add their keys, or take them out of the list",
        );
    }
    Some(keys)
}

fn private(report: &mut Report<'_>, table: &Table<'_>, listen_port: u16) -> Option<Vec<EchPrivate>> {
    let field = table.required(report, "private_server_names")?;
    let elements = field.strings(report)?;
    if field.is_empty_array() {
        report.error(&field.place, "must not be empty");
    }
    let mut private: Vec<EchPrivate> = Vec::with_capacity(elements.len());
    for (place, text) in elements {
        let target = if text.contains(':') {
            targets::address(report, &place, text)
        } else {
            targets::address(report, &place, &format!("{text}:{listen_port}"))
        };
        let Some(target) = target else { continue };
        let name = inner_name(&target);
        if private.iter().any(|earlier| earlier.name == name) {
            report.warn(&place, format!("{name} is listed twice: the first entry wins"));
        } else {
            private.push(EchPrivate { name, target });
        }
    }
    Some(private)
}

/// The name to match in the inner hello is the host that is dialled.
fn inner_name(target: &Target) -> std::sync::Arc<str> {
    match &target.host {
        Host::Ip { address, .. } => address.to_string().into(),
        Host::Name(name) => name.clone(),
    }
}
