//! Ports and addresses to listen on.

use std::{
    collections::HashSet,
    hash::Hash,
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
};

use crate::config::{
    file::{Field, Table},
    model::{Listen, ListenAddress},
    report::{Position, Report, quote},
};

pub(super) fn listen(report: &mut Report<'_>, root: &Table<'_>) -> Listen {
    let mut addresses = v4(report, root);
    addresses.extend(v6(report, root));
    Listen {
        ports: ports(report, root),
        addresses,
        reuse_port: root.field("reuse_port").and_then(|field| field.boolean(report)).unwrap_or(false),
    }
}

/// An address and port, such as that of the metrics.
pub(super) fn socket_address(report: &mut Report<'_>, field: &Field<'_>) -> Option<SocketAddr> {
    let text = field.string(report)?;
    let parsed = text.parse().ok();
    if parsed.is_none() {
        report.error_with(
            &field.position,
            format!("{} is not an address with a port", quote(text)),
            "as in \"127.0.0.1:9100\" or \"[::1]:9100\"",
        );
    }
    parsed
}

fn ports(report: &mut Report<'_>, root: &Table<'_>) -> Vec<NonZeroU16> {
    let Some(field) = root.field("listen_port") else {
        let position = Position { path: "listen_port".to_owned(), offset: 0 };
        report.missing(&position, "required key is missing", &["listen_port"], None);
        return Vec::new();
    };
    if field.is_integer() {
        return field.integer(report, 1..=u16::MAX).and_then(NonZeroU16::new).into_iter().collect();
    }
    let Some(elements) = field.array_of(report, "an integer or an array of integers") else { return Vec::new() };
    if elements.is_empty() {
        report.error(&field.position, "must not be empty");
    }
    let ports = elements.iter().filter_map(|element| element.integer(report, 1..=u16::MAX));
    without_duplicates(ports.filter_map(NonZeroU16::new).collect())
}

fn v4(report: &mut Report<'_>, root: &Table<'_>) -> Vec<ListenAddress> {
    let Some(field) = root.field("listen_address_v4") else {
        return vec![ListenAddress::V4(Ipv4Addr::UNSPECIFIED)];
    };
    addresses(report, &field, &ListenAddress::V4(Ipv4Addr::UNSPECIFIED), |report, element| {
        let text = element.string(report)?;
        let parsed = text.parse().ok();
        if parsed.is_none() {
            report.error(&element.position, format!("{} is not an IPv4 address", quote(text)));
        }
        parsed.map(ListenAddress::V4)
    })
}

fn v6(report: &mut Report<'_>, root: &Table<'_>) -> Vec<ListenAddress> {
    let everywhere = ListenAddress::V6 { address: Ipv6Addr::UNSPECIFIED, zone: None };
    let switch_field = root.field("listen_ipv6");
    let switch = switch_field.as_ref().and_then(|field| field.boolean(report));
    let Some(field) = root.field("listen_address_v6") else {
        return if switch == Some(true) { vec![everywhere] } else { Vec::new() };
    };
    if let (Some(switch_field), Some(false)) = (&switch_field, switch) {
        report.warn(&switch_field.position, "has no effect, because listen_address_v6 is given");
    }
    addresses(report, &field, &everywhere, v6_address)
}

/// `::1`, `[::1]`, `fe80::1%eth0`, `[fe80::1%eth0]`.
fn v6_address(report: &mut Report<'_>, element: &Field<'_>) -> Option<ListenAddress> {
    let text = element.string(report)?;
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let (address, zone) = match bare.split_once('%') {
        Some((address, zone)) => (address, Some(zone)),
        None => (bare, None),
    };
    let Ok(address) = address.parse::<Ipv6Addr>() else {
        report.error(&element.position, format!("{} is not an IPv6 address", quote(text)));
        return None;
    };
    match zone {
        Some(zone) if !is_interface(zone) => {
            report.error(&element.position, format!("{} is not an interface name or index", quote(zone)));
        }
        Some(_) if !address.is_unicast_link_local() => {
            report.error(&element.position, format!("{address} cannot have a zone, because it is not link-local"));
        }
        None if address.is_unicast_link_local() => report.warn_with(
            &element.position,
            format!("{address} is link-local and cannot be listened on without a zone"),
            format!("name the interface, as in \"{address}%eth0\""),
        ),
        _ => {}
    }
    Some(ListenAddress::V6 { address, zone: zone.map(str::to_owned) })
}

/// Returns whether Linux accepts `name` for an interface: up to 15 bytes, no slash, colon or space.
pub(super) fn is_interface(name: &str) -> bool {
    (1..=15).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic() && !b"/:%[]".contains(&byte))
}

fn addresses(
    report: &mut Report<'_>,
    field: &Field<'_>,
    everywhere: &ListenAddress,
    read: impl Fn(&mut Report<'_>, &Field<'_>) -> Option<ListenAddress>,
) -> Vec<ListenAddress> {
    let Some(elements) = field.one_or_many(report) else { return Vec::new() };
    if elements.is_empty() {
        report.error(&field.position, "must not be empty");
    }
    let read = elements.iter().filter_map(|element| read(report, element)).collect();
    let addresses = without_duplicates(read);
    if addresses.len() > 1 && addresses.contains(everywhere) {
        report.error(&field.position, format!("{everywhere} means every address and cannot be combined with others"));
    }
    addresses
}

/// Keeps the first of equal elements.
pub(super) fn without_duplicates<T: Clone + Eq + Hash>(mut elements: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::with_capacity(elements.len());
    elements.retain(|element| seen.insert(element.clone()));
    elements
}
