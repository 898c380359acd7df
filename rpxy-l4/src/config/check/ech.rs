//! The `[protocols."<name>".ech]` table.

use rpxy_l4_proto::ech::{EchKey, EchKeys};

use super::{
    defaults::RuleDefaults,
    names::{self, Addresses},
    server_ids, targets,
};
use crate::config::{
    ech::{ConfigList, read_key_file},
    file::{Field, Table},
    keys::Scope,
    model::{Ech, EchPolicy, EchPrivate, Host, NamePattern, Target},
    report::Report,
};

const POLICIES: &[(&str, EchPolicy)] =
    &[("allowed", EchPolicy::Allowed), ("required", EchPolicy::Required), ("rejected", EchPolicy::Rejected)];

pub(super) fn ech(
    report: &mut Report<'_>,
    field: &Field<'_>,
    server_names: &[NamePattern],
    defaults: &RuleDefaults<'_>,
) -> Option<Ech> {
    let table = field.table(report, Scope::Ech)?;
    let keys = keys(report, &table, defaults);
    let private = private(report, &table, defaults);
    let policy = table.field("policy").and_then(|field| field.word(report, POLICIES)).unwrap_or_default();
    let keys = keys?;
    let public_names = || keys.iter().map(|key| key.config().public_name.to_ascii_lowercase());
    let reached = |name: String| server_names.iter().any(|pattern| names::covers(pattern, &name));
    if !server_names.is_empty() && !keys.is_empty() && !public_names().any(reached) {
        let public_names: Vec<String> = public_names().collect();
        report.warn(
            &table.position,
            format!(
                "never used: server_names has none of the public names of the configurations ({})",
                public_names.join(", ")
            ),
        );
    }
    Some(Ech { keys, policy, private: private? })
}

/// The keys of the table itself, then those of files.
fn keys(report: &mut Report<'_>, table: &Table<'_>, defaults: &RuleDefaults<'_>) -> Option<EchKeys> {
    let files = table.field("config_files");
    let inline = ["ech_config_list", "private_keys"].iter().any(|key| table.field(key).is_some());
    let own = if inline || files.is_none() { Some(inline_keys(report, table)) } else { None };
    let from_files = files.map(|files| file_keys(report, &files, defaults));
    let mut keys = Vec::new();
    for source in [own, from_files].into_iter().flatten() {
        keys.extend(source?);
    }
    Some(keys.into_iter().collect())
}

/// The configurations of the list that have a private key. Every key must belong to one.
fn inline_keys(report: &mut Report<'_>, table: &Table<'_>) -> Option<Vec<EchKey>> {
    let list_field = table.required(report, "ech_config_list");
    let keys_field = table.required(report, "private_keys");
    let list = list_field.as_ref().and_then(|field| {
        let text = field.string(report)?;
        match ConfigList::from_base64(text) {
            Ok(list) => Some((field, list)),
            Err(error) => {
                report.error(&field.position, error.to_string());
                None
            }
        }
    });
    let keys_field = keys_field?;
    let private_keys = keys_field.strings(report)?;
    if let Some(mode) = report.open_to_others(&keys_field.position) {
        let message = format!("private keys in a file that is open to everybody (mode {mode:04o})");
        report.warn_with(&keys_field.position, message, "chmod o-rwx on this file");
    }
    if keys_field.is_empty_array() {
        report.error(&keys_field.position, "must not be empty");
    }
    let (list_field, list) = list?;
    let mut found = Vec::new();
    for (position, text) in private_keys {
        match list.with_private_key(text) {
            Ok(keys) => found.extend(keys),
            Err(error) => report.error(&position, error.to_string()),
        }
    }
    let keys = list.in_order(found);
    let without_key = list.len().saturating_sub(keys.len());
    if without_key > 0 && !keys.is_empty() {
        report.warn_with(
            &list_field.position,
            format!("{without_key} of {} configurations have no private key here", list.len()),
            "add their keys, or take them out of the list",
        );
    }
    Some(keys)
}

/// The keys of files, in order.
fn file_keys(report: &mut Report<'_>, field: &Field<'_>, defaults: &RuleDefaults<'_>) -> Option<Vec<EchKey>> {
    let mut keys = Vec::new();
    for (position, name) in field.strings(report)? {
        let path = defaults.directory.join(name);
        report.reads(&path);
        match read_key_file(&path) {
            Ok(file) => {
                if let Some(mode) = file.exposed {
                    // The daemon's group is meant to read it where root owns it.
                    let remedy = format!("chmod o-rwx {}", path.display());
                    report.warn_with(&position, format!("key file is open to everybody (mode {mode:04o})"), remedy);
                }
                keys.extend(file.keys);
            }
            Err(error) => report.error(&position, error.to_string()),
        }
    }
    if field.is_empty_array() {
        report.error(&field.position, "must not be empty");
    }
    Some(keys)
}

/// Destinations of decrypted hellos: the names that are dialled themselves, then the groups.
fn private(report: &mut Report<'_>, table: &Table<'_>, defaults: &RuleDefaults<'_>) -> Option<Vec<EchPrivate>> {
    let groups = table.field("private");
    let names = match &groups {
        Some(_) => table.field("private_server_names"),
        None => Some(table.required(report, "private_server_names")?),
    };
    let mut private = names.map(|names| dialled(report, &names, defaults)).unwrap_or_default();
    if let Some(groups) = groups {
        for group in groups.array_of(report, "an array of tables")?.iter() {
            private.extend(self::group(report, group, defaults));
        }
        if groups.is_empty_array() {
            report.error(&groups.position, "must not be empty");
        }
    }
    Some(private)
}

/// `private_server_names`: each name is also what is dialled.
fn dialled(report: &mut Report<'_>, field: &Field<'_>, defaults: &RuleDefaults<'_>) -> Vec<EchPrivate> {
    let elements = field.strings(report).unwrap_or_default();
    if field.is_empty_array() {
        report.error(&field.position, "must not be empty");
    }
    let mut private: Vec<EchPrivate> = Vec::with_capacity(elements.len());
    for (position, text) in elements {
        if text.starts_with("*.") {
            let remedy = "give it a target of its own: [[protocols.\"<name>\".ech.private]]";
            report.error_with(&position, "a wildcard is not a name to connect to", remedy);
            continue;
        }
        let target = if text.contains(':') {
            targets::address(report, &position, text)
        } else {
            targets::address(report, &position, &format!("{text}:{}", defaults.listen_port))
        };
        let Some(target) = target else { continue };
        if matches!(target.host, Host::Unix(_) | Host::Srv(_)) {
            let remedy = "give unix sockets and services a private table of their own";
            report.error_with(&position, "is not the name of a host", remedy);
            continue;
        }
        let name = NamePattern::Exact(inner_name(&target));
        if private.iter().any(|earlier| earlier.server_names.contains(&name)) {
            report.warn(&position, format!("{} is listed twice: the first entry wins", inner_name(&target)));
        } else {
            let upstream = targets::single(target, defaults);
            private.push(EchPrivate { server_names: vec![name], alpns: Vec::new(), upstream });
        }
    }
    private
}

/// The name to match in the inner hello is the host that is dialled.
fn inner_name(target: &Target) -> std::sync::Arc<str> {
    match &target.host {
        Host::Ip { address, .. } => address.to_string().into(),
        Host::LinkLocal { address, .. } => address.to_string().into(),
        Host::Name(name) | Host::Srv(name) => name.strip_suffix('.').unwrap_or(name).into(),
        Host::Unix(path) => path.display().to_string().into(),
    }
}

/// A `[[protocols."<name>".ech.private]]` table.
fn group(report: &mut Report<'_>, field: &Field<'_>, defaults: &RuleDefaults<'_>) -> Option<EchPrivate> {
    let table = field.table(report, Scope::EchPrivate)?;
    let names = table.required(report, "server_names");
    let server_names =
        names.as_ref().map(|names| names::patterns(report, names, Addresses::Nameless)).unwrap_or_default();
    if let Some(names) = names.filter(Field::is_empty_array) {
        report.error(&names.position, "must not be empty");
    }
    let alpns = names::alpns(report, &table, |_, _| {});
    let upstream = targets::of_rule(report, &table, defaults);
    let upstream = server_ids::without(report, &table.position, upstream);
    Some(EchPrivate { server_names, alpns, upstream })
}
