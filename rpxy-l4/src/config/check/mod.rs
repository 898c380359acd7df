//! From the text of a file to the model: the only module that builds the model's types.
//!
//! Each topic has its file. A value that cannot be used is reported and replaced by its default, so that checking goes
//! on and all mistakes are found in one go; the model is thrown away when anything was an error.

mod access;
mod admin;
mod bytes;
mod confine;
mod connections;
mod defaults;
mod dns;
mod duration;
mod ebpf;
mod ech;
mod group;
mod health;
mod include;
mod listen;
mod listeners;
mod matcher;
mod names;
mod network;
mod own;
mod protocol;
#[cfg(feature = "proxy-protocol")]
mod proxy;
mod rules;
mod server_ids;
mod shadow;
mod sources;
mod splice;
mod status;
mod targets;
mod tcp;
mod udp;

use std::{num::NonZeroUsize, path::Path};

use health::Checks;
pub(super) use include::MOST_BYTES;
use toml::{Spanned, de::DeTable};

use super::{
    file::{Entries, Field, Table},
    model::{AccessLogFormat, AccessLogRefused, Config},
    problem::{Problem, Severity},
    report::{Position, Report},
    watch::Seen,
};

/// Result of checking a text.
pub(super) struct Checked {
    /// There is a configuration exactly when none of the problems is an error.
    pub(super) config: Option<Config>,
    pub(super) problems: Vec<Problem>,
    /// Other files that were read, or would have been.
    pub(super) files: Vec<Seen>,
    /// The form of the access log that the text asks for, also where it cannot be used.
    pub(super) log_format: AccessLogFormat,
}

/// Checks `text`, whose relative paths start at `directory`, with the files that it includes. Its own file has the mode `mode`,
/// or 0 where there is none.
pub(super) fn check(text: &str, directory: &Path, mode: u32) -> Checked {
    let mut report = Report::of_file(text, mode);
    let config = document(&mut report, text, 0).and_then(|main| {
        let included = include::files(&mut report, main.get_ref(), directory);
        let documents: Option<Vec<_>> =
            included.iter().map(|file| Some((document(&mut report, &file.text, file.base)?, file.base))).collect();
        let files = documents?;
        let entries = files.iter().map(|(document, base)| Entries { table: document.get_ref(), base: *base });
        let files: Vec<_> = std::iter::once(Entries { table: main.get_ref(), base: 0 }).chain(entries).collect();
        include::refuse_nested(&mut report, &files);
        configuration(&mut report, files, directory)
    });
    let files = report.take_files();
    let problems = report.finish();
    let usable = problems.iter().all(|problem| problem.severity != Severity::Error);
    let log_format = config.as_ref().map(|config| config.access_log_format).unwrap_or_default();
    Checked { config: config.filter(|_| usable), problems, files, log_format }
}

/// One file, which begins at `base`.
fn document<'t>(report: &mut Report<'_>, text: &'t str, base: usize) -> Option<Spanned<DeTable<'t>>> {
    let parsed = DeTable::parse(text);
    if let Err(error) = &parsed {
        let offset = base + error.span().map_or(0, |span| span.start);
        report.error(&Position { path: String::new(), offset }, format!("not TOML: {}", error.message()));
    }
    parsed.ok()
}

fn configuration<'t>(report: &mut Report<'_>, files: Vec<Entries<'t>>, directory: &'t Path) -> Option<Config> {
    let root = Table::root(report, files);
    let protocols = root.named(report, "protocols");
    let checks = Checks::new(report, &root);
    let drafts = listeners::drafts(report, &root, &checks, directory);
    let rules = rules::rules(report, &protocols, &drafts);
    let mut all = Vec::with_capacity(drafts.len());
    for (draft, rules) in drafts.iter().zip(&rules) {
        all.push(listeners::listener(report, draft, rules));
        shadow::warn_of_unreachable(report, rules);
        server_ids::refuse_ambiguous(report, rules);
    }
    checks.warn_of_unused(report);
    own::refuse(report, &drafts, &all, &rules);
    listeners::check_together(report, &drafts, &all);

    let has_targets = |table: &Table<'_>| ["tcp_target", "udp_target"].iter().any(|key| table.own(key).is_some());
    if !root.has_any("protocols") && !drafts.iter().any(|draft| has_targets(&draft.table)) {
        let remedy = "give at least one of tcp_target, udp_target and [protocols.\"<name>\"]";
        report.missing(&root.position, "nothing to forward to", &["tcp_target", "udp_target"], Some(remedy));
    }

    let mut all = all.into_iter();
    let top = all.next()?;
    let config = Config {
        top,
        named: all.collect(),
        rules: protocols.len(),
        workers: root.field("workers").and_then(|field| workers(report, &field)),
        drain_timeout: duration::or_default(report, &root, "drain_timeout", duration::DRAIN),
        upgrade_timeout: duration::or_default(report, &root, "upgrade_timeout", duration::UPGRADE),
        access_log_format: root
            .field("access_log_format")
            .and_then(|field| {
                field.word(
                    report,
                    &[("text", AccessLogFormat::Text), ("json", AccessLogFormat::Json), ("off", AccessLogFormat::Off)],
                )
            })
            .unwrap_or_default(),
        access_log_refused: root
            .field("access_log_refused")
            .and_then(|field| field.word(report, REFUSED))
            .unwrap_or_default(),
        metrics_listen: root.field("metrics_listen").and_then(|field| listen::socket_address(report, &field)),
        status: status::status(report, &root, directory),
        admin_socket: root.field("admin_socket").and_then(|field| admin::socket(report, &field)),
        admin_group: admin::readers(report, &root),
        dns: dns::dns(report, &root),
        confine: confine::confine(report, &root),
        ebpf: ebpf::ebpf(report, &root),
        quic_affinity_lifetime: duration::or_default(report, &root, "quic_affinity_lifetime", duration::QUIC_AFFINITY),
    };
    own::refuse_shared(report, &root, &config);
    Some(config)
}

const REFUSED: &[(&str, AccessLogRefused)] =
    &[("limited", AccessLogRefused::Limited), ("all", AccessLogRefused::All), ("off", AccessLogRefused::Off)];

/// Far above any machine; a slip of the pen must not start a thread for every kilobyte of memory.
const MOST_WORKERS: usize = 1024;

fn workers(report: &mut Report<'_>, field: &Field<'_>) -> Option<NonZeroUsize> {
    field.integer(report, 1..=MOST_WORKERS).and_then(NonZeroUsize::new)
}
