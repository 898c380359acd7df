//! From the text of a file to the model: the only module that builds the model's types.
//!
//! Each topic has its file. A value that cannot be used is reported and replaced by its default, so that checking goes
//! on and all mistakes are found in one go; the model is thrown away when anything was an error.

mod admin;
mod connections;
mod defaults;
mod dns;
mod duration;
mod ebpf;
mod ech;
mod listen;
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
mod targets;
mod tcp;
mod udp;

use std::{num::NonZeroUsize, path::Path};

use toml::de::DeTable;

use defaults::RuleDefaults;

use super::{
    file::{Field, Table},
    model::{AccessLogFormat, AccessLogRefused, Config, Unmatched},
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

/// Checks `text`, whose relative paths start at `directory`.
pub(super) fn check(text: &str, directory: &Path) -> Checked {
    let mut report = Report::new(text);
    let config = match DeTable::parse(text) {
        Ok(document) => Some(configuration(&mut report, document.get_ref(), directory)),
        Err(error) => {
            let offset = error.span().map_or(0, |span| span.start);
            report.error(&Position { path: String::new(), offset }, format!("not TOML: {}", error.message()));
            None
        }
    };
    let files = report.take_files();
    let problems = report.finish();
    let usable = problems.iter().all(|problem| problem.severity != Severity::Error);
    let log_format = config.as_ref().map(|config| config.access_log_format).unwrap_or_default();
    Checked { config: config.filter(|_| usable), problems, files, log_format }
}

fn configuration(report: &mut Report<'_>, document: &DeTable<'_>, directory: &Path) -> Config {
    let root = Table::root(report, document);
    let listen = listen::listen(report, &root);
    let defaults = RuleDefaults {
        directory,
        listen_port: listen.ports.first().map_or(0, |port| port.get()),
        #[cfg(feature = "proxy-protocol")]
        send_proxy: proxy::send(report, root.field("tcp_send_proxy_protocol")).flatten(),
    };
    let prefix = sources::prefix(report, &root);
    let tcp = tcp::tcp(report, &root, &defaults, prefix);
    let rules = rules::rules(report, &root, &defaults);
    let udp = udp::udp(report, &root, &rules, prefix);
    own::refuse(report, &root, &listen, (&tcp, &udp), &rules);
    shadow::warn_of_unreachable(report, &rules);
    server_ids::refuse_ambiguous(report, &rules);

    let destination_keys = ["tcp_target", "udp_target"].iter().any(|key| root.field(key).is_some());
    if !destination_keys && !rules::any(&root) {
        let remedy = "give at least one of tcp_target, udp_target and [protocols.\"<name>\"]";
        report.missing(&root.position, "nothing to forward to", &["tcp_target", "udp_target"], Some(remedy));
    }

    Config {
        listen,
        workers: root.field("workers").and_then(|field| workers(report, &field)),
        drain_timeout: duration::or_default(report, &root, "drain_timeout", duration::DRAIN),
        unmatched: root
            .field("unmatched")
            .and_then(|field| field.word(report, &[("drop", Unmatched::Drop), ("default", Unmatched::Default)]))
            .unwrap_or_default(),
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
        admin_socket: root.field("admin_socket").and_then(|field| admin::socket(report, &field)),
        dns: dns::dns(report, &root),
        tcp,
        udp,
        ebpf: ebpf::ebpf(report, &root),
        rules: rules.into_iter().map(|(_, rule)| rule).collect(),
    }
}

const REFUSED: &[(&str, AccessLogRefused)] =
    &[("limited", AccessLogRefused::Limited), ("all", AccessLogRefused::All), ("off", AccessLogRefused::Off)];

/// Far above any machine; a slip of the pen must not start a thread for every kilobyte of memory.
const MOST_WORKERS: usize = 1024;

fn workers(report: &mut Report<'_>, field: &Field<'_>) -> Option<NonZeroUsize> {
    field.integer(report, 1..=MOST_WORKERS).and_then(NonZeroUsize::new)
}
