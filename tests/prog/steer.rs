//! Packets of flows, and packets of none.

use std::net::SocketAddr;

use rpxy_l4_common::map::{Flow, Hop};
use rpxy_l4_common::verdict::Counter;

use crate::kernel::{Action, Kernel, Program};
use crate::maps::{Maps, key, socket};
use crate::packet::{ROUTER, STATION, Udp};
use crate::rows::{Expected, Row, check};

/// The loopback interface, by which test packets arrive.
const HERE: u32 = 1;
const ELSEWHERE: u32 = 77;
const NEIGHBOUR: [u8; 6] = [2, 0, 0, 0, 0, 9];

const CLIENT_V4: &str = "192.0.2.10:4433";
const OURS_V4: &str = "203.0.113.1:443";
const UPSTREAM_V4: &str = "198.51.100.1:50000";
const BACKEND_V4: &str = "198.51.100.10:8443";
const CLIENT_V6: &str = "[2001:db8:1::10]:4433";
const OURS_V6: &str = "[2001:db8:1::1]:443";
const UPSTREAM_V6: &str = "[2001:db8:2::1]:50000";
const BACKEND_V6: &str = "[2001:db8:2::10]:8443";

fn address(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn flow(source: &str, destination: &str, hop: u32, interface: u32) -> Flow {
    let (source, destination) = (socket(address(source)), socket(address(destination)));
    Flow { source, destination, hop, interface, ..Flow::default() }
}

/// Two flows, one of which turns round, and a listener of each family.
fn maps() -> Maps {
    let hop = |interface| Hop { interface, mtu: 1500, destination: NEIGHBOUR, source: STATION, ..Hop::default() };
    Maps {
        flows: vec![
            (key(address(CLIENT_V4), address(OURS_V4)), flow(UPSTREAM_V4, BACKEND_V4, 5, ELSEWHERE)),
            (key(address(CLIENT_V6), address(OURS_V6)), flow(UPSTREAM_V6, BACKEND_V6, 6, HERE)),
        ],
        hops: vec![(5, hop(ELSEWHERE)), (6, hop(HERE))],
        listeners: vec![(socket(address(OURS_V4)), 0), (socket(address("[::]:443")), 0)],
        local: vec![address(OURS_V6).ip()],
        banned: vec![(address("198.18.0.0:0").ip(), 15)],
        ..Maps::default()
    }
}

/// What is sent for a packet: other addresses, one hop less, from this station to the neighbour.
fn sent(before: &Udp, source: &str, destination: &str) -> Vec<u8> {
    let (source, destination) = (address(source), address(destination));
    Udp { link: (NEIGHBOUR, STATION), source, destination, ttl: before.ttl - 1, ..before.clone() }.bytes()
}

#[test]
fn packets_of_a_flow_are_rewritten_and_sent_on() {
    let v4 = Udp::new(CLIENT_V4, OURS_V4, b"datagram");
    let odd = Udp::new(CLIENT_V4, OURS_V4, b"odd");
    let unsummed = Udp { checksum: false, ..v4.clone() };
    let v6 = Udp::new(CLIENT_V6, OURS_V6, b"datagram");
    let empty = Udp::new(CLIENT_V6, OURS_V6, b"");
    let to_v4 = |udp: &Udp| Expected::Steer(Action::Redirect, sent(udp, UPSTREAM_V4, BACKEND_V4));
    let to_v6 = |udp: &Udp| Expected::Steer(Action::Back, sent(udp, UPSTREAM_V6, BACKEND_V6));
    check(
        &maps(),
        &[
            Row::new("IPv4 to another interface", v4.bytes(), to_v4(&v4)),
            Row::new("a payload of odd length", odd.bytes(), to_v4(&odd)),
            Row::new("no checksum stays none", unsummed.bytes(), to_v4(&unsummed)),
            Row::new("IPv6 back to where it came from", v6.bytes(), to_v6(&v6)),
            Row::new("no payload", empty.bytes(), to_v6(&empty)),
        ],
    );
}

#[test]
fn other_packets_are_left_alone_or_dropped() {
    let stranger = Udp::new("192.0.2.11:4433", OURS_V4, b"datagram");
    let at_its_end = Udp { ttl: 1, ..Udp::new(CLIENT_V4, OURS_V4, b"datagram") };
    let mut tcp = stranger.bytes();
    tcp[14 + 9] = 6;
    let arp = [&[0xff; 6], &ROUTER, &[0x08, 0x06][..], &[0; 28]].concat();
    check(
        &maps(),
        &[
            Row::new("no flow", stranger.bytes(), Expected::Pass(Counter::NoFlow)),
            Row::new(
                "no flow, by the wildcard address",
                Udp::new("[2001:db8:1::11]:4433", OURS_V6, b"datagram").bytes(),
                Expected::Pass(Counter::NoFlow),
            ),
            Row::new(
                "another port",
                Udp::new(CLIENT_V4, "203.0.113.1:444", b"datagram").bytes(),
                Expected::Pass(Counter::Foreign),
            ),
            Row::new(
                "banned",
                Udp::new("198.19.255.255:4433", OURS_V4, b"datagram").bytes(),
                Expected::Drop(Counter::Banned),
            ),
            Row::new(
                "banned, but not for us",
                Udp::new("198.19.255.255:4433", "203.0.113.2:443", b"datagram").bytes(),
                Expected::Pass(Counter::Foreign),
            ),
            Row::new("the last hop", at_its_end.bytes(), Expected::Pass(Counter::Ttl)),
            Row::new("TCP", tcp, Expected::Pass(Counter::NotUdp)),
            Row::new("a broadcast", arp, Expected::Pass(Counter::LinkGroup)),
        ],
    );
}

#[test]
fn steered_packets_are_accounted_in_their_flow() {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    kernel.fill(&maps());
    let packet = Udp::new(CLIENT_V4, OURS_V4, b"datagram");
    let key = key(packet.source, packet.destination);
    assert_eq!(kernel.account(&key), [0; 3]);
    for (count, program) in (1..).zip(Program::ALL) {
        kernel.run(program, &packet.bytes());
        let [last_seen, packets, bytes] = kernel.account(&key);
        assert!(last_seen > 0);
        assert_eq!((packets, bytes), (count, 8 * count), "{program:?}");
    }
}
