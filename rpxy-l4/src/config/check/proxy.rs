//! PROXY protocol: versions to send, peers to receive from.

use super::network::network;
use crate::config::{
    file::{Field, Table},
    model::{ProxyVersion, ReceiveProxy},
    report::Report,
};

const VERSIONS: &[(&str, Option<ProxyVersion>)] = &[
    ("none", None),
    ("v1", Some(ProxyVersion::V1)),
    ("v2", Some(ProxyVersion::V2)),
    ("1", Some(ProxyVersion::V1)),
    ("2", Some(ProxyVersion::V2)),
];

/// The version at `field`: `None` when absent or wrong, `Some(None)` for `none`.
pub(super) fn send(report: &mut Report<'_>, field: Option<Field<'_>>) -> Option<Option<ProxyVersion>> {
    field?.word(report, VERSIONS)
}

/// Reads the settings of inbound headers. Who may connect to a unix socket is a matter of its permissions, so that only one
/// that `listens_on_ip` needs a list.
pub(super) fn receive(report: &mut Report<'_>, table: &Table<'_>, listens_on_ip: bool) -> Option<ReceiveProxy> {
    let receive_field = table.field("tcp_recv_proxy_protocol");
    let (receive, optional) = match &receive_field {
        Some(field) if field.is_string() => match field.word(report, &[("optional", ())]) {
            Some(()) => (true, true),
            None => (false, false),
        },
        Some(field) => (field.boolean(report).unwrap_or(false), false),
        None => (false, false),
    };
    let trusted_field = table.field("tcp_trusted_proxies");
    match (receive, trusted_field) {
        (false, None) => None,
        (false, Some(field)) => {
            // 0.2.x does not look at the list either, but refuses other types.
            field.strings(report);
            let message = "has no effect, because tcp_recv_proxy_protocol is off";
            table.warn_unused(report, "tcp_trusted_proxies", message, None);
            None
        }
        (true, None) if !listens_on_ip => Some(ReceiveProxy { trusted: Vec::new(), optional }),
        (true, None) => {
            if let Some(field) = receive_field {
                report.error_with(
                    &field.position,
                    "tcp_trusted_proxies is missing: nobody could connect",
                    "list the addresses of your load balancers, as in [\"10.0.0.0/8\"]",
                );
            }
            None
        }
        (true, Some(field)) => {
            let elements = field.strings(report)?;
            if field.is_empty_array() {
                report.error(&field.position, "must not be empty when tcp_recv_proxy_protocol is on");
            }
            let trusted = elements.into_iter().filter_map(|(position, text)| network(report, &position, text));
            Some(ReceiveProxy { trusted: trusted.collect(), optional })
        }
    }
}
