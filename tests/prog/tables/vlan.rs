//! Tags are read over. They stay as they are where a packet turns round, and keep it from leaving by another interface.
//! TC never steers tagged packets.

use rpxy_l4_common::verdict::Counter;

use crate::fixture::{NETS, Net, from, to};
use crate::rows::{Expected, Row, check};

const CUSTOMER: u16 = 0x8100;
const SERVICE: u16 = 0x88a8;

type Tags = &'static [(u16, u16)];

/// EtherTypes, priorities and numbers, which are nobody's business.
const SHAPES: &[(&str, Tags)] = &[
    ("one tag", &[(CUSTOMER, 7)]),
    ("one tag with a priority", &[(CUSTOMER, 0xe007)]),
    ("a priority alone", &[(CUSTOMER, 0x6000)]),
    ("one tag of a provider", &[(SERVICE, 7)]),
    ("two tags", &[(SERVICE, 4094), (CUSTOMER, 7)]),
    ("two tags of one type", &[(CUSTOMER, 7), (CUSTOMER, 8)]),
    ("two tags of a provider", &[(SERVICE, 7), (SERVICE, 8)]),
];

const TOO_DEEP: &[(&str, Tags)] = &[
    ("three tags", &[(SERVICE, 7), (CUSTOMER, 7), (CUSTOMER, 7)]),
    ("three tags of a provider", &[(SERVICE, 7), (SERVICE, 7), (SERVICE, 7)]),
    ("four tags", &[(SERVICE, 7), (CUSTOMER, 7), (CUSTOMER, 7), (CUSTOMER, 7)]),
];

fn shapes(net: Net) -> impl Iterator<Item = Row> {
    SHAPES.iter().flat_map(move |(shape, tags)| {
        let tagged = |from, to| {
            let mut udp = net.packet(from, to, b"datagram");
            udp.vlan = tags.to_vec();
            udp
        };
        let name = |what: &str| format!("{}: {shape}, {what}", net.name);
        let back = tagged(from::BACK, to::OURS);
        let mut tcp = back.bytes();
        tcp[back.l3() + if net.name == "IPv4" { 9 } else { 6 }] = 6;
        [
            Row::apart(
                name("turning round"),
                back.bytes(),
                Expected::Back(net.sent(&back).bytes()),
                Expected::Pass(Counter::VlanTagged),
            ),
            Row::new(
                name("to another interface"),
                tagged(from::OPEN, to::OURS).bytes(),
                Expected::Pass(Counter::VlanTagged),
            ),
            Row::new(name("no flow"), tagged(from::STRANGER, to::OURS).bytes(), Expected::Pass(Counter::NoFlow)),
            Row::new(
                name("dropped"),
                tagged(from::STRANGER, to::CLOSED).bytes(),
                Expected::Drop(Counter::DroppedUnknown),
            ),
            Row::new(name("TCP"), tcp, Expected::Pass(Counter::NotUdp)),
        ]
    })
}

pub(super) fn rows() -> Vec<Row> {
    let too_deep = TOO_DEEP.iter().flat_map(|(shape, tags)| {
        Row::both(shape, |net| {
            let mut udp = net.packet(from::BACK, to::OURS, b"datagram");
            udp.vlan = tags.to_vec();
            (udp, Expected::Pass(Counter::VlanDepth))
        })
    });
    let mut arp = NETS[0].packet(from::BACK, to::OURS, b"");
    arp.vlan = vec![(CUSTOMER, 7)];
    let mut arp = arp.bytes();
    arp[16..18].copy_from_slice(&[0x08, 0x06]);
    let arp = Row::new("one tag before ARP", arp, Expected::Pass(Counter::NotIp));
    NETS.into_iter().flat_map(shapes).chain(too_deep).chain([arp]).collect()
}

#[test]
fn tags_are_read_over_and_kept() {
    check(rows());
}
