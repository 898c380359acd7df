//! What is not plain UDP in one piece is left alone, although there is a flow for it; each header has its reasons.

use rpxy_l4_common::verdict::Counter;

use crate::fixture::{V4, V6, from, to};
use crate::packet::{ROUTER, STATION};
use crate::rows::{Expected, Row, check};

/// Bytes that are replaced, offsets counted from the IP header.
type Changes = &'static [(usize, &'static [u8])];

const IPV4: &[(&str, Changes, Counter)] = &[
    ("version 5", &[(0, &[0x55])], Counter::IpVersion),
    ("version 6 behind the type of IPv4", &[(0, &[0x65])], Counter::IpVersion),
    ("TCP", &[(9, &[6])], Counter::NotUdp),
    ("UDP-Lite", &[(9, &[136])], Counter::NotUdp),
    ("SCTP", &[(9, &[132])], Counter::NotUdp),
    ("IPv6 in IPv4", &[(9, &[41])], Counter::NotUdp),
    ("ICMP", &[(9, &[1])], Counter::Icmp),
    ("ICMP, too big", &[(9, &[1]), (20, &[3, 4])], Counter::IcmpTooBig),
    ("ICMP, unreachable for another reason", &[(9, &[1]), (20, &[3, 3])], Counter::Icmp),
    ("ICMP, options before what would be too big", &[(0, &[0x46]), (9, &[1]), (20, &[3, 4])], Counter::Icmp),
    ("ICMPv6 over IPv4", &[(9, &[58])], Counter::NotUdp),
    ("TCP with options", &[(0, &[0x46]), (9, &[6])], Counter::NotUdp),
    ("one word of options", &[(0, &[0x46])], Counter::IpOptions),
    ("as many options as there can be", &[(0, &[0x4f])], Counter::IpOptions),
    ("options in a fragment", &[(0, &[0x46]), (6, &[0x20, 0])], Counter::IpOptions),
    ("a header of 16 bytes", &[(0, &[0x44])], Counter::IpHeaderLength),
    ("a header of no bytes", &[(0, &[0x40])], Counter::IpHeaderLength),
    ("the first fragment", &[(6, &[0x20, 0])], Counter::Fragment),
    ("a fragment in the middle", &[(6, &[0x20, 1])], Counter::Fragment),
    ("the last fragment", &[(6, &[0x00, 1])], Counter::Fragment),
    ("the last fragment, high bits of its offset", &[(6, &[0x1f, 0])], Counter::Fragment),
    ("a total length of 0", &[(2, &[0, 0])], Counter::IpLength),
    ("a total length within the UDP header", &[(2, &[0, 27])], Counter::IpLength),
    ("a total length one beyond the frame", &[(2, &[0, 37])], Counter::Truncated),
    ("a total length of all there can be", &[(2, &[0xff, 0xff])], Counter::Truncated),
    ("a UDP length of 0", &[(24, &[0, 0])], Counter::UdpLength),
    ("a UDP length one too short", &[(24, &[0, 15])], Counter::UdpLength),
    ("a UDP length one too long", &[(24, &[0, 17])], Counter::UdpLength),
    ("a total length that is not UDP's", &[(2, &[0, 35])], Counter::UdpLength),
];

const IPV6: &[(&str, Changes, Counter)] = &[
    ("version 7", &[(0, &[0x70])], Counter::IpVersion),
    ("version 4 behind the type of IPv6", &[(0, &[0x45])], Counter::IpVersion),
    ("TCP", &[(6, &[6])], Counter::NotUdp),
    ("UDP-Lite", &[(6, &[136])], Counter::NotUdp),
    ("ESP", &[(6, &[50])], Counter::NotUdp),
    ("nothing behind", &[(6, &[59])], Counter::NotUdp),
    ("ICMPv6", &[(6, &[58])], Counter::Icmp),
    ("ICMPv6, too big", &[(6, &[58]), (40, &[2, 0])], Counter::IcmpTooBig),
    ("ICMPv6, unreachable", &[(6, &[58]), (40, &[1, 0])], Counter::Icmp),
    ("ICMP over IPv6", &[(6, &[1])], Counter::NotUdp),
    ("a fragment header", &[(6, &[44])], Counter::Fragment),
    ("hop-by-hop options", &[(6, &[0])], Counter::ExtensionHeader),
    ("a routing header", &[(6, &[43])], Counter::ExtensionHeader),
    ("an authentication header", &[(6, &[51])], Counter::ExtensionHeader),
    ("destination options", &[(6, &[60])], Counter::ExtensionHeader),
    ("a mobility header", &[(6, &[135])], Counter::ExtensionHeader),
    ("a HIP header", &[(6, &[139])], Counter::ExtensionHeader),
    ("a Shim6 header", &[(6, &[140])], Counter::ExtensionHeader),
    ("a payload length of 0, as of jumbograms", &[(4, &[0, 0])], Counter::IpLength),
    ("a payload length within the UDP header", &[(4, &[0, 7])], Counter::IpLength),
    ("a payload length one beyond the frame", &[(4, &[0, 17])], Counter::Truncated),
    ("a payload length of all there can be", &[(4, &[0xff, 0xff])], Counter::Truncated),
    ("a UDP length of 0", &[(44, &[0, 0])], Counter::UdpLength),
    ("a UDP length one too short", &[(44, &[0, 15])], Counter::UdpLength),
    ("a UDP length one too long", &[(44, &[0, 17])], Counter::UdpLength),
    ("a payload length that is not UDP's", &[(4, &[0, 15])], Counter::UdpLength),
    ("no checksum", &[(46, &[0, 0])], Counter::NoChecksum),
];

/// What stands in an Ethernet header, and behind it.
const LINKS: &[(&str, [u8; 6], [u8; 2], Counter)] = &[
    ("a broadcast", [0xff; 6], [0x08, 0x00], Counter::LinkGroup),
    ("an IPv4 multicast", [0x01, 0x00, 0x5e, 0, 0, 1], [0x08, 0x00], Counter::LinkGroup),
    ("an IPv6 multicast", [0x33, 0x33, 0, 0, 0, 1], [0x86, 0xdd], Counter::LinkGroup),
    ("ARP", STATION, [0x08, 0x06], Counter::NotIp),
    ("MPLS", STATION, [0x88, 0x47], Counter::NotIp),
    ("PPPoE", STATION, [0x88, 0x64], Counter::NotIp),
    ("a frame with a length, no type", STATION, [0x00, 0x2e], Counter::NotIp),
    ("a tag of the old provider bridges", STATION, [0x91, 0x00], Counter::NotIp),
];

pub(super) fn rows() -> Vec<Row> {
    let nets = [(V4, IPV4), (V6, IPV6)];
    let ip = nets.into_iter().flat_map(|(net, table)| {
        table.iter().map(move |(name, changes, counter)| {
            let packet = net.packet(from::OPEN, to::OURS, b"datagram").with(changes);
            Row::new(format!("{}: {name}", net.name), packet, Expected::Pass(*counter))
        })
    });
    let links = LINKS.iter().map(|(name, destination, ethertype, counter)| {
        let packet = [&destination[..], &ROUTER, ethertype, &[0x45; 46]].concat();
        Row::new(*name, packet, Expected::Pass(*counter))
    });
    ip.chain(links).collect()
}

#[test]
fn what_is_no_plain_datagram_is_left_alone() {
    check(rows());
}
