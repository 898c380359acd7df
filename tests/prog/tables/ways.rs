//! The way out: TTL, family, next hop, MTU; and buffers of several datagrams, which TC meets.

use rpxy_l4_common::verdict::Counter::{
    self, FlowFamily, Mtu, NoFlow, NoHop, OtherInterface, OtherStation, Short, Ttl,
};

use crate::fixture::{NARROW, NETS, Net, from, to};
use crate::packet::Udp;
use crate::rows::{Expected, Row, check};

fn pass(name: &str, port: u16, change: fn(Udp) -> Udp, reason: Counter) -> impl Iterator<Item = Row> {
    Row::both(name, move |net| (change(net.packet(port, to::OURS, b"datagram")), Expected::Pass(reason)))
}

/// A packet as large as the narrow way takes, and so many bytes more.
fn narrow(net: Net, more: usize) -> Udp {
    let udp = net.packet(from::NARROW, to::OURS, b"");
    Udp { payload: vec![0x5a; NARROW - 8 - udp.header_len() + more], ..udp }
}

/// A buffer of datagrams that are all alike but for the last one, which may be shorter.
fn buffer(net: Net, port: u16, datagrams: &[&[u8]]) -> Udp {
    net.packet(port, to::OURS, &datagrams.concat())
}

fn segments(net: Net) -> Vec<Row> {
    let row = |name: &str, udp: &Udp, segment: u32, reason: Option<Counter>| {
        let expected = match reason {
            None => Expected::Steer(net.sent(udp).bytes()),
            Some(reason) => Expected::Pass(reason),
        };
        Row::segments(format!("{}: {name}", net.name), udp.bytes(), segment, expected)
    };
    let (short, long) = (&[0x47; 20][..], &[0xc3; 20][..]);
    let ours = [&[0x47, 0xc1, 2, 3, 4, 5, 6, 7, 0xc8][..], &[0; 12]].concat();
    let headers = 8 + net.packet(1, 1, b"").header_len();
    let fits = u32::try_from(NARROW - headers).unwrap();
    let wide = narrow(net, 600);
    let drop = |name: &str, port: u16, datagrams: &[&[u8]], segment: u32, expected: Expected| {
        let udp = Udp { payload: datagrams.concat(), ..net.packet(from::STRANGER, port, b"") };
        Row::segments(format!("{}: {name}", net.name), udp.bytes(), segment, expected)
    };
    let unknown = Expected::Drop(Counter::DroppedUnknown);
    vec![
        row("one short header", &buffer(net, from::QUIC, &[short]), 20, None),
        row("sixty-four short headers", &buffer(net, from::QUIC, &[short; 64]), 20, None),
        row("as many as there may be", &buffer(net, from::QUIC, &[short; 128]), 20, None),
        row(
            "four short headers, the last one shorter",
            &buffer(net, from::QUIC, &[short, short, short, b"G"]),
            20,
            None,
        ),
        row("more than there may be", &buffer(net, from::QUIC, &[short; 129]), 20, Some(Counter::Segments)),
        row(
            "a long header at the end of many",
            &buffer(net, from::QUIC, &[&[short; 127][..], &[long]].concat()),
            20,
            Some(Counter::QuicLong),
        ),
        row("five datagrams of an open flow", &buffer(net, from::OPEN, &[short; 5]), 20, None),
        row("a long header at the front", &buffer(net, from::QUIC, &[long, short]), 20, Some(Counter::QuicLong)),
        row(
            "a long header in the middle",
            &buffer(net, from::QUIC, &[short, long, short]),
            20,
            Some(Counter::QuicLong),
        ),
        row(
            "a long header at the end",
            &buffer(net, from::QUIC, &[short, short, short, long]),
            20,
            Some(Counter::QuicLong),
        ),
        row("connection IDs that are all right", &buffer(net, from::CID_8, &[&ours[..]; 64]), 21, None),
        row(
            "another connection ID at the end of many",
            &buffer(net, from::CID_8, &[&[&ours[..]; 63][..], &[&[0x41; 21]]].concat()),
            21,
            Some(Counter::ConnectionId),
        ),
        row("a segment longer than the payload", &buffer(net, from::QUIC, &[short]), 21, None),
        row(
            "a handshake of WireGuard at the end",
            &buffer(net, from::WIREGUARD, &[&[4; 40], &[1; 40]]),
            40,
            Some(Counter::NotWireGuardTransport),
        ),
        row("no payload", &buffer(net, from::QUIC, &[]), 20, Some(Short)),
        row("datagrams that fit one by one", &wide, fits, None),
        row("datagrams that do not fit one by one", &wide, fits + 1, Some(Mtu)),
        drop("as many first datagrams as there may be", to::CLOSED, &[&b"unknown!"[..]; 128], 8, unknown),
        drop(
            "more first datagrams than there may be",
            to::CLOSED,
            &[&b"unknown!"[..]; 129],
            8,
            Expected::Pass(Counter::Segments),
        ),
        drop(
            "first datagrams, the last one wanted",
            to::ONLY + 4,
            &[&[0; 40], &[0x47; 40]],
            40,
            Expected::Pass(NoFlow),
        ),
    ]
}

pub(super) fn rows() -> Vec<Row> {
    let mut rows: Vec<Row> = NETS.into_iter().flat_map(segments).collect();
    for (way, port) in [("to another interface", from::OPEN), ("turning round", from::BACK)] {
        rows.extend(pass(&format!("the last hop, {way}"), port, |udp| Udp { ttl: 1, ..udp }, Ttl));
        rows.extend(pass(&format!("no hop left, {way}"), port, |udp| Udp { ttl: 0, ..udp }, Ttl));
    }
    rows.extend(pass("the last hop, no flow", from::STRANGER, |udp| Udp { ttl: 1, ..udp }, NoFlow));
    rows.extend(Row::both("back by a redirect", |net| {
        let udp = net.packet(from::REDIRECTED, to::OURS, b"datagram");
        let sent = net.sent(&udp).bytes();
        (udp, Expected::Steer(sent))
    }));
    rows.extend(pass("by another interface", from::ANOTHER_WAY, |udp| udp, OtherInterface));
    rows.extend(pass(
        "by another interface, on its last hop",
        from::ANOTHER_WAY,
        |udp| Udp { ttl: 1, ..udp },
        OtherInterface,
    ));
    rows.extend(pass("to another station", from::NEIGHBOURS, |udp| udp, OtherStation));
    rows.extend(pass("the source of the other family", from::MIXED_SOURCE, |udp| udp, FlowFamily));
    rows.extend(pass("the destination of the other family", from::MIXED_DESTINATION, |udp| udp, FlowFamily));
    rows.extend(Row::both("as large as the way takes", |net| {
        let udp = narrow(net, 0);
        let sent = net.sent(&udp).bytes();
        (udp, Expected::Steer(sent))
    }));
    rows.extend(Row::both("a byte larger than the way takes", |net| (narrow(net, 1), Expected::Pass(Mtu))));
    rows.extend(Row::both("a byte larger, on its last hop", |net| {
        (Udp { ttl: 1, ..narrow(net, 1) }, Expected::Pass(Ttl))
    }));
    // TC asks the kernel for the neighbour when it sends.
    rows.extend(NETS.into_iter().map(|net| {
        let udp = net.packet(from::LOST, to::OURS, b"datagram");
        let sent = Expected::Steer(net.sent(&udp).bytes());
        Row::apart(format!("{}: no next hop", net.name), udp.bytes(), Expected::Pass(NoHop), sent)
    }));
    rows
}

#[test]
fn a_packet_is_steered_where_its_way_is_known_and_wide_enough() {
    check(rows());
}
