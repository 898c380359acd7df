//! The listeners: the top of the file, called `default`, and the `[listeners.*]` tables, which inherit from it.

use std::{path::Path, sync::Arc};

use super::{
    access,
    defaults::RuleDefaults,
    health::{Checks, Health},
    listen::{self, listen},
    sources, splice, tcp, udp,
};
use crate::config::{
    file::Table,
    model::{Listen, Listener, Rule, TOP, Transport, Unmatched},
    report::{Position, Report, quote},
};

/// Longest name of a listener in bytes: it is a label of metrics and a part of log lines.
const LONGEST_NAME: usize = 64;

const UNMATCHED: &[(&str, Unmatched)] = &[("drop", Unmatched::Drop), ("default", Unmatched::Default)];

/// A listener before its rules are known.
#[derive(Debug)]
pub(super) struct Draft<'t> {
    pub(super) name: Arc<str>,
    pub(super) table: Table<'t>,
    pub(super) listen: Listen,
    /// For its rules.
    pub(super) defaults: RuleDefaults<'t>,
}

/// The listeners in file order, `default` first. It may have no ports where there are others.
pub(super) fn drafts<'t>(
    report: &mut Report<'_>,
    root: &Table<'t>,
    checks: &'t Checks<'t>,
    directory: &'t Path,
) -> Vec<Draft<'t>> {
    let mut drafts = vec![draft(report, TOP, root.clone(), checks, directory)];
    for (name, field) in root.named(report, "listeners") {
        if name == TOP {
            let remedy = "write its keys at the top of the file, above the first [table]";
            report.error_with(&field.position, "the listener default is the top of the file", remedy);
        } else if name.is_empty() || name.len() > LONGEST_NAME || name.chars().any(char::is_control) {
            let message =
                format!("the name of a listener has 1 to {LONGEST_NAME} bytes, none of them a control character");
            report.error(&field.position, message);
        }
        if let Some(table) = field.listener(report, root) {
            drafts.push(draft(report, name, table, checks, directory));
        }
    }
    drafts
}

fn draft<'t>(
    report: &mut Report<'_>,
    name: &str,
    table: Table<'t>,
    checks: &'t Checks<'t>,
    directory: &'t Path,
) -> Draft<'t> {
    let listen = listen(report, &table);
    let defaults = RuleDefaults {
        directory,
        checks,
        health: Health::default(),
        splice: splice::of_listener(report, &table),
        listen_port: listen.ports.first().map_or(0, |port| port.get()),
        #[cfg(feature = "proxy-protocol")]
        send_proxy: super::proxy::send(report, table.field("tcp_send_proxy_protocol")).flatten(),
    };
    Draft { name: name.into(), table, listen, defaults }
}

/// A listener with its rules.
pub(super) fn listener(report: &mut Report<'_>, draft: &Draft<'_>, rules: &[(Position, Arc<Rule>)]) -> Listener {
    let Draft { name, table, listen, defaults } = draft;
    let prefix = sources::prefix(report, table);
    let listener = Listener {
        name: Arc::clone(name),
        listen: listen.clone(),
        access: access::lists(report, table),
        unmatched: table.field("unmatched").and_then(|field| field.word(report, UNMATCHED)).unwrap_or_default(),
        tcp: tcp::tcp(report, table, name, defaults, prefix, !listen.ports.is_empty() || listen.unix.is_none()),
        udp: udp::udp(report, table, name, rules, defaults.checks, prefix),
        rules: rules.iter().map(|(_, rule)| Arc::clone(rule)).collect(),
    };
    refuse_contradictions(report, draft, rules);
    listener
}

/// Destinations that no socket can lead to, and sockets without any destination.
fn refuse_contradictions(report: &mut Report<'_>, draft: &Draft<'_>, rules: &[(Position, Arc<Rule>)]) {
    let Draft { name, table, listen, .. } = draft;
    let is_top = &**name == TOP;
    if listen.ports.is_empty() && table.field("listen_unix").is_none() && is_top && table.has_heirs() {
        let remedy = "give the top of the file a listen_port, or use another listener";
        for field in ["tcp_target", "udp_target"].into_iter().filter_map(|key| table.own(key)) {
            report.error_with(&field.position, "nothing is listened on: there is no listen_port above", remedy);
        }
        for (position, _) in rules {
            let message = "belongs to the listener default, which has no listen_port";
            report.error_with(position, message, "name other listeners, as in listeners = [\"name\"]");
        }
    }
    let Some(only) = listen.transport else { return };
    for (key, wants) in [("tcp_target", Transport::Tcp), ("udp_target", Transport::Udp)] {
        if let Some(field) = table.own(key).filter(|_| wants != only) {
            report.error(&field.position, format!("is over {wants}, and transport is {}", quote(only.name())));
        }
    }
    for (position, rule) in rules {
        let wants = if rule.matcher.is_udp() { Transport::Udp } else { Transport::Tcp };
        if wants != only {
            let message = format!("is over {wants}, and the listener {} serves {only} alone", quote(name));
            report.error_with(position, message, "choose other listeners, or another transport");
        }
    }
}

/// Checks what several listeners, or their targets, must not have in common.
pub(super) fn check_together(report: &mut Report<'_>, drafts: &[Draft<'_>], listeners: &[Listener]) {
    let placed: Vec<(Position, &Listener)> =
        drafts.iter().map(|draft| draft.table.position.clone()).zip(listeners).collect();
    listen::refuse_overlaps(report, &placed);
    for (position, listener) in placed.iter().skip(1) {
        if !listener.serves(Transport::Tcp) && !listener.serves(Transport::Udp) {
            let remedy = "give it tcp_target or udp_target, or name it in a rule, as in listeners = [..]";
            report.warn_with(position, "is not opened: it has neither rules nor default targets", remedy);
        }
    }
}
