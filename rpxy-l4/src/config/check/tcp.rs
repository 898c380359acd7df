//! Global TCP settings.

use std::{net::IpAddr, num::NonZeroU32, sync::Arc};

use super::{
    connections, defaults::RuleDefaults, duration, health::Asker, listen::without_duplicates, sources, targets,
};
use crate::config::{
    file::{Field, Table},
    model::{SourcePrefix, Tcp, TlsRefused, Upstream, is_one_host},
    report::{Report, quote},
};

const BACKLOG: u32 = 1024;
const MAX_CONNECTIONS: NonZeroU32 = NonZeroU32::new(1024).unwrap();
const ATTEMPTS: NonZeroU32 = NonZeroU32::new(5).unwrap();
const MOST_ATTEMPTS: u32 = 100;

/// The settings of the listener `name`, which `table` describes.
#[cfg_attr(not(feature = "proxy-protocol"), expect(unused_variables, reason = "only PROXY headers need to know"))]
pub(super) fn tcp(
    report: &mut Report<'_>,
    table: &Table<'_>,
    name: &Arc<str>,
    defaults: &RuleDefaults<'_>,
    prefix: SourcePrefix,
    listens_on_ip: bool,
) -> Tcp {
    let max_connections = connections::most(report, table, "tcp_max_connections").unwrap_or(MAX_CONNECTIONS);
    let limit_of = |keys| sources::limit_of(table, name, keys);
    Tcp {
        backlog: table.field("tcp_backlog").and_then(|field| field.integer(report, 0..=u32::MAX)).unwrap_or(BACKLOG),
        max_connections,
        max_connections_of: limit_of(&["tcp_max_connections"]),
        max_connections_per_source: sources::connections(report, table, max_connections),
        max_connections_per_source_of: limit_of(&[
            "tcp_max_connections_per_source",
            "tcp_max_connections",
            "source_prefix_v4",
            "source_prefix_v6",
        ]),
        new_connections: sources::new(
            report,
            table,
            ("tcp_new_connections_per_source", "tcp_new_connections_burst"),
            prefix,
        ),
        new_connections_of: limit_of(&[
            "tcp_new_connections_per_source",
            "tcp_new_connections_burst",
            "source_prefix_v4",
            "source_prefix_v6",
        ]),
        source_prefix: prefix,
        probe_timeout: duration::positive(report, table, "tcp_probe_timeout", duration::PROBE),
        connect_timeout: duration::positive(report, table, "tcp_connect_timeout", duration::CONNECT),
        idle_timeout: duration::limit(report, table, "tcp_idle_timeout", None),
        connect_attempts: table
            .field("tcp_connect_attempts")
            .and_then(|field| field.integer::<u32>(report, 1..=MOST_ATTEMPTS))
            .and_then(NonZeroU32::new)
            .unwrap_or(ATTEMPTS),
        source_addresses: table
            .field("tcp_source_addresses")
            .map(|field| source_addresses(report, &field))
            .unwrap_or_default()
            .into(),
        half_closed_timeout: duration::limit(report, table, "tcp_half_closed_timeout", Some(duration::TCP_HALF_CLOSED)),
        backend_closed_timeout: duration::limit(
            report,
            table,
            "tcp_backend_closed_timeout",
            Some(duration::TCP_BACKEND_CLOSED),
        ),
        stall_timeout: duration::limit(report, table, "tcp_stall_timeout", Some(duration::TCP_STALL)),
        target_retry: duration::or_default(report, table, "tcp_target_retry", duration::TARGET_RETRY),
        default: default_target(report, table, defaults),
        tls_refused: table
            .field("tls_refused")
            .and_then(|field| field.word(report, &[("close", TlsRefused::Close), ("alert", TlsRefused::Alert)]))
            .unwrap_or_default(),
        #[cfg(feature = "proxy-protocol")]
        receive_proxy: super::proxy::receive(report, table, listens_on_ip),
    }
}

/// Addresses that connections to backends come from.
fn source_addresses(report: &mut Report<'_>, field: &Field<'_>) -> Vec<IpAddr> {
    if field.is_empty_array() {
        report.error_with(&field.position, "must not be empty", "without the key, the kernel chooses");
    }
    let mut addresses = Vec::new();
    for (position, text) in field.strings(report).unwrap_or_default() {
        match text.parse().map(|address: IpAddr| address.to_canonical()) {
            Err(_) => report.error(&position, format!("{} is not an IP address", quote(text))),
            Ok(IpAddr::V6(v6)) if v6.is_unicast_link_local() => {
                report.error(&position, format!("{v6} is link-local, from which only one link can be reached"));
            }
            Ok(address) if !is_one_host(address) => {
                report.error(&position, format!("{address} is no address of one host"));
            }
            Ok(address) => addresses.push(address),
        }
    }
    without_duplicates(addresses)
}

fn default_target(report: &mut Report<'_>, table: &Table<'_>, defaults: &RuleDefaults<'_>) -> Option<Upstream> {
    let upstream = targets::default(report, table, "tcp_target", "tcp_load_balance");
    let upstream = upstream.map(|upstream| Upstream { splice: defaults.splice, ..upstream });
    #[cfg(feature = "proxy-protocol")]
    let upstream = upstream.map(|upstream| Upstream { send_proxy: defaults.send_proxy, ..upstream });
    let health = ("tcp_health", "tcp_only_healthy");
    let health = defaults.checks.of_default(report, table, "tcp_target", health, Asker::Tcp);
    upstream.map(|upstream| targets::checked(upstream, &health))
}
