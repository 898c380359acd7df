//! Groups of targets: where traffic goes and how one of several is chosen.

#[cfg(feature = "proxy-protocol")]
use std::sync::Arc;
use std::{
    net::{Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use super::{admin, connections, defaults::RuleDefaults, health::Health, listen::is_interface, names, server_ids};
#[cfg(feature = "proxy-protocol")]
use crate::config::model::Check;
use crate::config::{
    file::{Field, Table},
    keys::Scope,
    model::{Balance, Host, ServerId, SplicePolicy, Target, Transport, Upstream, is_one_host},
    report::{Position, Report, quote},
};

const BALANCES: &[(&str, Balance)] = &[
    ("none", Balance::None),
    ("source_ip", Balance::SourceIp),
    ("source_socket", Balance::SourceSocket),
    ("random", Balance::Random),
    ("round_robin", Balance::RoundRobin),
    ("least_conn", Balance::LeastConn),
];

/// The weight of a target that does not name one, and of anything that could not be read.
const ONE: NonZeroU16 = NonZeroU16::MIN;
/// The largest weight of a target.
const MAX_WEIGHT: u16 = 256;

/// The group of a rule, or of a part of one, which sends the PROXY header of `defaults` and is checked likewise.
pub(super) fn of_rule(report: &mut Report<'_>, rule: &Table<'_>, defaults: &RuleDefaults<'_>) -> Upstream {
    let field = rule.required(report, "target");
    let upstream = upstream(report, rule, field.as_ref(), "load_balance");
    with_defaults(upstream, defaults)
}

/// Refuses unix sockets among the targets of UDP, and doubts services of the other transport.
pub(super) fn over(report: &mut Report<'_>, position: &Position, transport: Transport, upstream: &Upstream) {
    let (own, other) = match transport {
        Transport::Tcp => ("_tcp", "_udp"),
        Transport::Udp => ("_udp", "_tcp"),
    };
    for target in &upstream.targets {
        match &target.host {
            Host::Unix(_) if transport == Transport::Udp => {
                let target = quote(&target.to_string());
                report.error(position, format!("{target} is for TCP: datagrams are not sent to unix sockets"));
            }
            Host::Srv(name) if name.split('.').nth(1) == Some(other) => {
                let message = format!("{} is the name of a service over the other transport", quote(name));
                report.warn_with(position, message, format!("ask for \"srv:{}\"", name.replacen(other, own, 1)));
            }
            Host::Unix(_) | Host::Srv(_) | Host::Ip { .. } | Host::LinkLocal { .. } | Host::Name(_) => {}
        }
    }
}

/// One target with the PROXY header and the check of `defaults`.
pub(super) fn single(target: Target, defaults: &RuleDefaults<'_>) -> Upstream {
    let upstream = Upstream {
        targets: vec![target],
        balance: Balance::None,
        server_ids: Vec::new(),
        check: None,
        only_healthy: false,
        splice: SplicePolicy::default(),
        #[cfg(feature = "proxy-protocol")]
        send_proxy: None,
    };
    with_defaults(upstream, defaults)
}

fn with_defaults(upstream: Upstream, defaults: &RuleDefaults<'_>) -> Upstream {
    let upstream = Upstream { splice: defaults.splice, ..upstream };
    #[cfg(feature = "proxy-protocol")]
    let upstream = Upstream { send_proxy: defaults.send_proxy, ..upstream };
    checked(upstream, &defaults.health)
}

/// The group with a check, which introduces itself as the group's connections are introduced.
pub(super) fn checked(upstream: Upstream, health: &Health) -> Upstream {
    let Health { check, only_healthy } = health.clone();
    #[cfg(feature = "proxy-protocol")]
    let check = check.map(|check| {
        let send_proxy = upstream.send_proxy.filter(|_| check.port.is_none() && !check.kind.is_udp());
        Arc::new(Check { send_proxy, ..Arc::unwrap_or_clone(check) })
    });
    Upstream { check, only_healthy, ..upstream }
}

/// The default destination at `target_key`, if there is one.
pub(super) fn default(
    report: &mut Report<'_>,
    table: &Table<'_>,
    target_key: &'static str,
    balance_key: &'static str,
) -> Option<Upstream> {
    let field = table.field(target_key);
    let upstream = upstream(report, table, field.as_ref(), balance_key);
    if field.is_none() {
        let (message, remedy) =
            (format!("has no effect, because {target_key} is missing"), "rules have their own load_balance");
        table.warn_unused(report, balance_key, &message, Some(remedy));
    }
    let field = field?;
    Some(server_ids::without(report, &field.position, upstream))
}

/// The group that `field` lists, chosen from by `balance_key`.
fn upstream(
    report: &mut Report<'_>,
    table: &Table<'_>,
    field: Option<&Field<'_>>,
    balance_key: &'static str,
) -> Upstream {
    let balance = table.field(balance_key).and_then(|field| field.word(report, BALANCES)).unwrap_or_default();
    let (targets, server_ids) = field.map(|field| targets(report, field)).unwrap_or_default();
    if let Some(field) = field
        && balance == Balance::None
        && targets.iter().any(|target| target.weight != ONE)
    {
        let remedy = format!("set {balance_key}, for instance to \"round_robin\"");
        report.warn_with(&field.position, "weights have no effect, because the first target is always taken", remedy);
    }
    Upstream {
        targets,
        balance,
        server_ids,
        check: None,
        only_healthy: false,
        splice: SplicePolicy::default(),
        #[cfg(feature = "proxy-protocol")]
        send_proxy: None,
    }
}

/// The targets, and the server IDs of some by their position.
fn targets(report: &mut Report<'_>, field: &Field<'_>) -> (Vec<Target>, Vec<(usize, ServerId)>) {
    let single = field.is_table() || field.as_string().is_some();
    let elements = if single { field.one_or_many(report) } else { field.array(report) }.unwrap_or_default();
    let (targets, ids): (Vec<Target>, Vec<Option<ServerId>>) =
        elements.iter().filter_map(|element| target(report, element)).unzip();
    if field.is_empty_array() {
        report.error(&field.position, "must not be empty");
    } else if !targets.is_empty() && targets.iter().all(|target| target.down) {
        report.warn(&field.position, "nothing can be reached, because every target is marked as down");
    }
    let ids = ids.into_iter().enumerate().filter_map(|(index, id)| Some((index, id?)));
    (targets, ids.collect())
}

/// `host:port`, or a table with that as `address`.
fn target(report: &mut Report<'_>, element: &Field<'_>) -> Option<(Target, Option<ServerId>)> {
    if !element.is_table() {
        let Some(text) = element.as_string() else {
            element.wrong_type(report, "\"host:port\" or a table");
            return None;
        };
        return Some((address(report, &element.position, text)?, None));
    }
    let table = element.table(report, Scope::Target)?;
    let weight =
        table.field("weight").and_then(|field| field.integer(report, 1..=MAX_WEIGHT)).and_then(NonZeroU16::new);
    let mut mark = |key| table.field(key).and_then(|field| field.boolean(report)).unwrap_or(false);
    let (backup, down) = (mark("backup"), mark("down"));
    let max_connections = connections::most(report, &table, "max_connections");
    let server_id = server_ids::of_target(report, &table);
    let field = table.required(report, "address")?;
    let text = field.string(report)?;
    let target = address(report, &field.position, text)?;
    Some((Target { weight: weight.unwrap_or(ONE), backup, down, max_connections, ..target }, server_id))
}

/// Parses `host:port`, with an IPv6 address in brackets, a link-local one with its zone.
///
/// Or `unix:` with the path of a socket, or `srv:` with the name of a service.
pub(super) fn address(report: &mut Report<'_>, position: &Position, text: &str) -> Option<Target> {
    if let Some(name) = text.strip_prefix("srv:") {
        let host = service(report, position, name)?;
        return Some(Target { host, port: 0, weight: ONE, backup: false, down: false, max_connections: None });
    }
    if let Some(path) = text.strip_prefix("unix:") {
        let path = admin::path(report, position, path)?;
        let host = Host::Unix(path.into());
        return Some(Target { host, port: 0, weight: ONE, backup: false, down: false, max_connections: None });
    }
    let (host, port) = match text.parse::<SocketAddr>() {
        Ok(SocketAddr::V6(v6)) if v6.ip().is_unicast_link_local() && v6.scope_id() == 0 => {
            report.error_with(
                position,
                format!("{} is link-local and cannot be reached without a zone", quote(text)),
                format!("name the interface, as in \"[{}%eth0]:{}\"", v6.ip(), v6.port()),
            );
            return None;
        }
        Ok(SocketAddr::V6(v6)) => (Host::Ip { address: (*v6.ip()).into(), scope: v6.scope_id() }, v6.port()),
        Ok(SocketAddr::V4(v4)) => (Host::Ip { address: (*v4.ip()).into(), scope: 0 }, v4.port()),
        Err(_) => match with_zone(text) {
            Some((address, zone, port)) => link_local(report, position, address, zone, port)?,
            None => named(report, position, text)?,
        },
    };
    if let Host::Ip { address, .. } = &host
        && !is_one_host(*address)
    {
        report.error(position, format!("{} is no address of a backend", quote(text)));
        return None;
    }
    if port == 0 {
        report.warn(position, format!("{} can never be reached, because its port is 0", quote(text)));
    }
    Some(Target { host, port, weight: ONE, backup: false, down: false, max_connections: None })
}

/// The name of SRV records.
fn service(report: &mut Report<'_>, position: &Position, text: &str) -> Option<Host> {
    if let Some((name, port)) = text.rsplit_once(':')
        && port.parse::<u16>().is_ok()
    {
        let message = format!("{} has a port, but its SRV records tell the ports", quote(text));
        report.error_with(position, message, format!("write \"srv:{name}\""));
        return None;
    }
    match names::host(text) {
        Ok(name) => {
            if let Some(reason) = names::unresolvable(&name) {
                report.warn(position, format!("{} can never be resolved: {reason}", quote(text)));
            }
            // The dot at the end says that the search list does not hold.
            Some(Host::Srv(if text.ends_with('.') { format!("{name}.").into() } else { name }))
        }
        Err(reason) => {
            let message = format!("{} is not the name of a service: {reason}", quote(text));
            report.error_with(position, message, "write \"srv:_service._tcp.example.com\"");
            None
        }
    }
}

/// The parts of `[fe80::1%eth0]:443`.
fn with_zone(text: &str) -> Option<(Ipv6Addr, &str, &str)> {
    let (inside, port) = text.strip_prefix('[')?.split_once("]:")?;
    let (address, zone) = inside.split_once('%')?;
    Some((address.parse().ok()?, zone, port))
}

fn link_local(
    report: &mut Report<'_>,
    position: &Position,
    address: Ipv6Addr,
    zone: &str,
    port: &str,
) -> Option<(Host, u16)> {
    if !is_interface(zone) {
        report.error(position, format!("{} is not an interface name or index", quote(zone)));
        return None;
    }
    if !address.is_unicast_link_local() {
        report.error(position, format!("{address} cannot have a zone, because it is not link-local"));
        return None;
    }
    Some((Host::LinkLocal { address, zone: zone.into() }, self::port(report, position, port)?))
}

fn port(report: &mut Report<'_>, position: &Position, text: &str) -> Option<u16> {
    let port = text.parse().ok();
    if port.is_none() {
        report.error(position, format!("invalid port {}, expected 0 to 65535", quote(text)));
    }
    port
}

fn named(report: &mut Report<'_>, position: &Position, text: &str) -> Option<(Host, u16)> {
    if text.starts_with('/') {
        report.error_with(position, format!("{} is a path", quote(text)), format!("write \"unix:{text}\""));
        return None;
    }
    let Some((name, port)) = text.rsplit_once(':') else {
        report.error_with(position, format!("{} has no port", quote(text)), "write \"host:port\"");
        return None;
    };
    if text.parse::<Ipv6Addr>().is_ok() || name.parse::<Ipv6Addr>().is_ok() {
        report.error_with(position, format!("{} needs brackets", quote(text)), "write IPv6 addresses as \"[::1]:443\"");
        return None;
    }
    if name.starts_with('[') {
        report.error(position, format!("{} is not an IPv6 address with a port", quote(text)));
        return None;
    }
    let host = match names::host(name) {
        Ok(host) => host,
        Err(reason) => {
            report.error(position, format!("{} is not a host name: {reason}", quote(name)));
            return None;
        }
    };
    let port = self::port(report, position, port)?;
    if host.rsplit('.').next().is_some_and(|label| label.bytes().all(|byte| byte.is_ascii_digit())) {
        report.warn(position, format!("{} is not an IPv4 address and is resolved as a name", quote(name)));
    }
    if let Some(reason) = names::unresolvable(&host) {
        report.warn(position, format!("{} can never be resolved: {reason}", quote(name)));
    }
    // The dot at the end says that the search list does not hold.
    let host = if name.ends_with('.') { format!("{host}.").into() } else { host };
    Some((Host::Name(host), port))
}
