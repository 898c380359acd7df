//! Ports and addresses to listen on.

use std::{
    collections::{HashMap, HashSet},
    hash::Hash,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    num::NonZeroU16,
    ops::RangeInclusive,
    path::Path,
};

use super::{admin, group};
use crate::config::{
    file::{Field, Table},
    model::{Listen, ListenAddress, Listener, Transport, UnixListen},
    report::{Position, Report, quote},
};

/// Ports of a listener at most, over all its ranges.
const MOST_PORTS: usize = 4096;

/// Permissions of a unix socket for the daemon's user alone.
const PRIVATE: u32 = 0o600;

const TRANSPORTS: &[(&str, Transport)] = &[("tcp", Transport::Tcp), ("udp", Transport::Udp)];

/// The sockets of the listener that `table` describes.
pub(super) fn listen(report: &mut Report<'_>, table: &Table<'_>) -> Listen {
    let mut addresses = v4(report, table);
    addresses.extend(v6(report, table));
    let unix = unix(report, table);
    let ports = ports(report, table);
    let only_unix = (has_unix(table) && ports.is_empty()).then_some(Transport::Tcp);
    let listen = Listen {
        ports,
        addresses,
        transport: table.field("transport").and_then(|field| field.word(report, TRANSPORTS)).or(only_unix),
        unix,
        free_bind: table.field("free_bind").and_then(|field| field.boolean(report)).unwrap_or(false),
        reuse_port: table.field("reuse_port").and_then(|field| field.boolean(report)).unwrap_or(false),
    };
    let mut switched_off = ["listen_address_v4", "listen_address_v6"]
        .into_iter()
        .filter_map(|key| table.field(key).filter(Field::is_empty_array));
    if listen.addresses.is_empty()
        && !has_unix(table)
        && let Some(field) = switched_off.next_back()
    {
        report.error_with(
            &field.position,
            "there is no address left to listen on",
            "[] switches a family off; give the other one an address",
        );
    }
    listen
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

/// The unix socket.
fn unix(report: &mut Report<'_>, table: &Table<'_>) -> Option<UnixListen> {
    let path = table.field("listen_unix").and_then(|field| admin::socket(report, &field));
    let mode = table.field("listen_unix_mode").and_then(|field| mode(report, &field)).unwrap_or(PRIVATE);
    let group = table.field("listen_unix_group").and_then(|field| group::group(report, &field));
    for key in ["listen_unix_mode", "listen_unix_group"] {
        if !has_unix(table) {
            table.warn_unused(report, key, "has no effect, because there is no listen_unix", None);
        }
    }
    Some(UnixListen { path: path?.into(), mode, group })
}

/// Returns whether there is to be one.
fn has_unix(table: &Table<'_>) -> bool {
    table.field("listen_unix").is_some()
}

/// Permissions in octal, as chmod(1) takes them.
fn mode(report: &mut Report<'_>, field: &Field<'_>) -> Option<u32> {
    let text = field.string(report)?;
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o777 && text.len() >= 3);
    if mode.is_none() {
        let message = format!("{} does not give permissions in octal", quote(text));
        report.error_with(&field.position, message, "as in \"0660\"");
    }
    mode
}

/// The ports; not required of a listener with a unix socket, which has none then.
fn ports(report: &mut Report<'_>, table: &Table<'_>) -> Vec<NonZeroU16> {
    // Beside other listeners, the top of the file need not be one.
    let field = match (has_unix(table), table.has_heirs()) {
        (true, _) => table.own("listen_port"),
        (false, true) => table.field("listen_port"),
        (false, false) => table.required_port(report),
    };
    let Some(field) = field else { return Vec::new() };
    let elements = if field.is_integer() || field.as_string().is_some() {
        field.one_or_many(report)
    } else {
        field.array_of(report, "an integer, a range such as \"8000-8010\" or an array of them")
    };
    let Some(elements) = elements else { return Vec::new() };
    if elements.is_empty() {
        report.error(&field.position, "must not be empty");
    }
    let mut ports: Vec<NonZeroU16> = Vec::new();
    let mut seen = HashSet::new();
    for range in elements.iter().filter_map(|element| range(report, element)) {
        ports.extend(range.filter_map(NonZeroU16::new).filter(|port| seen.insert(*port)));
    }
    if ports.len() > MOST_PORTS {
        let message = format!("{} ports are more than the {MOST_PORTS} that a listener can have", ports.len());
        report.error(&field.position, message);
    }
    ports
}

/// `443`, or `"8000-8010"`.
fn range(report: &mut Report<'_>, element: &Field<'_>) -> Option<RangeInclusive<u16>> {
    let Some(text) = element.as_string() else {
        return element.integer(report, 1..=u16::MAX).map(|port| port..=port);
    };
    let number = |text: &str| text.parse::<u16>().ok().filter(|port| *port > 0);
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (number(first), number(last)),
        None => (None, None),
    };
    match (first, last) {
        (Some(first), Some(last)) if first <= last => Some(first..=last),
        _ => {
            let remedy = "a range is \"8000-8010\", a port a number such as 443";
            report.error_with(&element.position, format!("{} is not a range of ports", quote(text)), remedy);
            None
        }
    }
}

fn v4(report: &mut Report<'_>, table: &Table<'_>) -> Vec<ListenAddress> {
    let Some(field) = table.field("listen_address_v4") else {
        return vec![ListenAddress::V4(Ipv4Addr::UNSPECIFIED)];
    };
    addresses(report, &field, &ListenAddress::V4(Ipv4Addr::UNSPECIFIED), |report, element| {
        let text = element.string(report)?;
        let parsed: Option<Ipv4Addr> = text.parse().ok();
        match parsed {
            None => report.error(&element.position, format!("{} is not an IPv4 address", quote(text))),
            Some(address) => warn_of_groups(report, element, address.into()),
        }
        parsed.map(ListenAddress::V4)
    })
}

fn v6(report: &mut Report<'_>, table: &Table<'_>) -> Vec<ListenAddress> {
    let everywhere = ListenAddress::V6 { address: Ipv6Addr::UNSPECIFIED, zone: None };
    let switch = table.field("listen_ipv6").and_then(|field| field.boolean(report));
    // Which of the two says more is told by where they stand.
    let inherited = table.own("listen_address_v6").is_none() && table.own("listen_ipv6").is_some();
    let Some(field) = table.field("listen_address_v6").filter(|_| !inherited) else {
        return if switch == Some(true) { vec![everywhere] } else { Vec::new() };
    };
    if switch == Some(false) {
        table.warn_unused(report, "listen_ipv6", "has no effect, because listen_address_v6 is given", None);
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
    if let Some(mapped) = address.to_ipv4_mapped() {
        let remedy = format!("write listen_address_v4 = \"{mapped}\"");
        report.error_with(&element.position, format!("{} is an IPv4 address", quote(text)), remedy);
    }
    warn_of_groups(report, element, address.into());
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

/// Tells of an address that the kernel lets a socket have, and to which nobody can connect.
fn warn_of_groups(report: &mut Report<'_>, element: &Field<'_>, address: IpAddr) {
    if address.is_multicast() || address == IpAddr::V4(Ipv4Addr::BROADCAST) {
        report.warn(
            &element.position,
            format!("{address} is not the address of one machine: clients cannot connect to it"),
        );
    }
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
    let read = elements.iter().filter_map(|element| read(report, element)).collect();
    let addresses = without_duplicates(read);
    if addresses.len() > 1 && addresses.contains(everywhere) {
        report.error(&field.position, format!("{everywhere} means every address and cannot be combined with others"));
    }
    addresses
}

/// Sockets that two listeners would share. `listeners` come with their places.
pub(super) fn refuse_overlaps(report: &mut Report<'_>, listeners: &[(Position, &Listener)]) {
    let mut taken: HashMap<(Transport, &ListenAddress, NonZeroU16), &str> = HashMap::new();
    let mut paths: HashMap<&Path, &str> = HashMap::new();
    for (position, listener) in listeners {
        if let Some(unix) = &listener.listen.unix
            && let Some(other) = paths.insert(&unix.path, &listener.name)
        {
            let message = format!("{} belongs to the listener {} already", unix.path.display(), quote(other));
            report.error_with(position, message, "give them different paths");
        }
        let both = listener.sockets().find_map(|socket| Some((socket, *taken.get(&socket)?)));
        if let Some(((transport, address, port), other)) = both {
            let message = format!("{address}:{port} ({transport}) belongs to the listener {} already", quote(other));
            report.error_with(position, message, "give them different ports or addresses, or a transport each");
        } else {
            taken.extend(listener.sockets().map(|socket| (socket, &*listener.name)));
        }
    }
}

/// Keeps the first of equal elements.
pub(super) fn without_duplicates<T: Clone + Eq + Hash>(mut elements: Vec<T>) -> Vec<T> {
    let mut seen = HashSet::with_capacity(elements.len());
    elements.retain(|element| seen.insert(element.clone()));
    elements
}
