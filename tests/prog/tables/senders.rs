//! Whose packets they are: a flow's, a listener's, nobody's; and who is banned from listeners.

use std::net::SocketAddr;

use rpxy_l4_common::verdict::Counter;

use crate::fixture::{NETS, Net, V4, V6, address, from, to};
use crate::packet::Udp;
use crate::rows::{Expected, Row, check};

/// A packet of a sender, to one of our ports.
fn sent_by(net: Net, source: &str, to: u16) -> Udp {
    Udp { source: address(source, from::STRANGER), ..net.packet(from::STRANGER, to, b"datagram") }
}

fn towards(net: Net, from: u16, destination: SocketAddr) -> Udp {
    Udp { destination, ..net.packet(from, to::OURS, b"datagram") }
}

/// Networks that are banned: 198.18.0.0/15, 198.20.0.1, 2001:db8:bad::/48, fd00::1.
const BANS: &[(Net, &str, &str, bool)] = &[
    (V4, "the first address of a banned network", "198.18.0.0", true),
    (V4, "the last address of a banned network", "198.19.255.255", true),
    (V4, "the address before a banned network", "198.17.255.255", false),
    (V4, "the address behind a banned network", "198.20.0.0", false),
    (V4, "a banned address", "198.20.0.1", true),
    (V4, "the address beside a banned one", "198.20.0.2", false),
    (V6, "the first address of a banned network", "2001:db8:bad::", true),
    (V6, "the last address of a banned network", "2001:db8:bad:ffff:ffff:ffff:ffff:ffff", true),
    (V6, "the address before a banned network", "2001:db8:bac:ffff:ffff:ffff:ffff:ffff", false),
    (V6, "the address behind a banned network", "2001:db8:bae::", false),
    (V6, "a banned address", "fd00::1", true),
    (V6, "the address beside a banned one", "fd00::2", false),
    // The same leading bytes as 198.18.0.0/15, in the other family.
    (V6, "a banned network of the other family", "c612::1", false),
];

/// Senders, and whether the lists of [`to::LISTED`] and [`to::DENYING`] take them.
const LISTS: &[(Net, &str, &str, bool, bool)] = &[
    (V4, "named nowhere", "203.0.113.200", false, true),
    (V4, "the first address of an allowed network", "10.0.0.0", true, true),
    (V4, "the last address before a denied network within", "10.0.255.255", true, true),
    (V4, "the first address of a denied network", "10.1.0.0", false, false),
    (V4, "the last address of a denied network", "10.1.255.255", false, false),
    (V4, "the address behind it", "10.2.0.0", true, true),
    (V6, "named nowhere", "2001:db8:b::1", false, true),
    (V6, "allowed", "2001:db8:a:2::1", true, true),
    (V6, "denied", "2001:db8:a:1::1", false, false),
    // The same leading bytes as 10.1.0.0/16, in the other family.
    (V6, "a denied network of the other family", "a01::1", false, true),
];

pub(super) fn rows() -> Vec<Row> {
    let lists = LISTS.iter().flat_map(|(net, name, source, listed, denying)| {
        [(to::LISTED, *listed), (to::DENYING, *denying)].map(|(port, taken)| {
            let expected = if taken { Expected::Pass(Counter::NoFlow) } else { Expected::Drop(Counter::Denied) };
            Row::new(format!("{}: {name}, port {port}", net.name), sent_by(*net, source, port).bytes(), expected)
        })
    });
    let bans = BANS.iter().map(|(net, name, source, banned)| {
        let expected = if *banned { Expected::Drop(Counter::Banned) } else { Expected::Pass(Counter::NoFlow) };
        Row::new(format!("{}: {name}", net.name), sent_by(*net, source, to::OURS).bytes(), expected)
    });
    let everywhere = NETS.into_iter().flat_map(|net| {
        let (banned, own) = if net.name == V4.name { ("198.18.0.1", "0.0.0.0") } else { ("2001:db8:bad::1", "::") };
        let row = |name: &str, udp: Udp, expected| Row::new(format!("{}: {name}", net.name), udp.bytes(), expected);
        let pass = Expected::Pass;
        [
            row("no flow", net.packet(from::STRANGER, to::OURS, b"datagram"), pass(Counter::NoFlow)),
            row("nobody's port", net.packet(from::OPEN, to::FOREIGN, b"datagram"), pass(Counter::Foreign)),
            row(
                "another address, our port",
                towards(net, from::OPEN, address(net.other, to::OURS)),
                pass(Counter::Foreign),
            ),
            row(
                "a flow's ports, another client",
                Udp { source: address(net.other, from::OPEN), ..net.packet(from::OPEN, to::OURS, b"datagram") },
                pass(Counter::NoFlow),
            ),
            row(
                "a flow's packet the wrong way round",
                Udp {
                    source: address(net.ours, to::OURS),
                    destination: address(net.client, from::OPEN),
                    ..net.packet(from::OPEN, to::OURS, b"datagram")
                },
                pass(Counter::Foreign),
            ),
            row(
                "the wildcard's port at an address of ours",
                towards(net, from::STRANGER, address(net.other, to::ANY)),
                pass(Counter::NoFlow),
            ),
            row(
                "the wildcard's port at an address that is not ours",
                towards(net, from::STRANGER, address(net.foreign, to::ANY)),
                pass(Counter::Foreign),
            ),
            row(
                "to the wildcard address itself",
                towards(net, from::STRANGER, address(own, to::OURS)),
                pass(Counter::Foreign),
            ),
            row("banned, by the wildcard", sent_by(net, banned, to::ANY), Expected::Drop(Counter::Banned)),
            row("banned, and of no class wanted", sent_by(net, banned, to::CLOSED), Expected::Drop(Counter::Banned)),
            row("banned, but not for us", sent_by(net, banned, to::FOREIGN), pass(Counter::Foreign)),
        ]
    });
    bans.chain(lists).chain(everywhere).collect()
}

#[test]
fn only_what_is_ours_is_touched() {
    check(rows());
}
