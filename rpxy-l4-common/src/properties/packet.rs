//! Properties of every frame.

use core::ops::Range;

use crate::bytes::Bytes as _;
use crate::datagram::Datagram;
use crate::decide::{Arrival, Maps, Verdict, decide};
use crate::map::{Family, Flow, FlowKey, Hop, HopKey, Listed, Listener, Prefix, Socket, access};
use crate::packet::{Link, Packet, Pass, parse};
use crate::rewrite::{Rewrite, checksum::fold};
use crate::verdict::{Action, Counter, dropped, gate};

/// Frames beyond this length are parsed, but not rewritten: there is no allocator here.
const BUFFER: usize = 4096;

/// A packet is within its frame and does not depend on what is behind it; rewriting it changes what it should and keeps
/// right checksums right and wrong ones wrong; a verdict is backed by its reason.
pub fn packet(data: &[u8]) -> Result<Family, Pass> {
    let key = &mut FlowKey::default();
    let parsed = parse(&data, Link::Ethernet, key);
    for bits in [0, u32::MAX, 1, 2, 4, 8, 16, 32, 64] {
        verdict(data, parsed, bits);
    }
    let packet = parsed?;
    let end = packet.l3 + packet.ip_len;
    assert_eq!(packet.payload.offset + packet.payload.len, end);
    assert!(end <= data.len());
    let exact = data.get(..end).unwrap_or_default();
    assert_eq!(parse(&exact, Link::Ethernet, &mut FlowKey::default()), parsed);
    for cut in (0..packet.payload.offset).chain(end.checked_sub(1)) {
        let cut = data.get(..cut).unwrap_or_default();
        assert_eq!(parse(&cut, Link::Ethernet, &mut FlowKey::default()), Err(Pass::Truncated));
    }
    let bare_key = &mut FlowKey::default();
    let bare = parse(&data.get(packet.l3..).unwrap_or_default(), Link::Bare, bare_key);
    assert_eq!(
        bare.map(|bare| (bare.key, bare.payload.len, bare.ttl)),
        Ok((packet.key, packet.payload.len, packet.ttl))
    );

    let mut buffer = [0; BUFFER];
    if let Some(buffer) = buffer.get_mut(..end).filter(|_| packet.ttl > 1) {
        buffer.copy_from_slice(exact);
        rewrite(exact, buffer, &packet);
    }
    Ok(packet.family)
}

fn rewrite(before: &[u8], buffer: &mut [u8], packet: &Packet<'_>) {
    let flow = other_way(packet.key);
    let applied = Rewrite::new(packet, &flow).apply(buffer);
    assert_eq!(applied, Some(()));
    let key = &mut FlowKey::default();
    let Ok(after) = parse(&&*buffer, Link::Ethernet, key) else {
        panic!("a packet that was rewritten is none any more");
    };
    let expected = Packet {
        key: &FlowKey { source: flow.source, destination: flow.destination },
        ttl: packet.ttl - 1,
        ip_checksum: after.ip_checksum,
        udp_checksum: after.udp_checksum,
        ..*packet
    };
    assert_eq!(after, expected);
    assert_eq!(after.udp_checksum == 0, packet.udp_checksum == 0);
    assert_eq!(checksums(buffer, &after), checksums(before, packet));
    let changed = changes(packet);
    for (index, (old, new)) in before.iter().zip(buffer.iter()).enumerate() {
        assert!(old == new || changed.iter().any(|range| range.contains(&index)), "byte {index}");
    }
}

/// Fields that may change: TTL, header checksum and addresses, ports, UDP checksum.
fn changes(packet: &Packet<'_>) -> [Range<usize>; 4] {
    let (l3, l4) = (packet.l3, packet.l4);
    let [ttl, addresses] = match packet.family {
        Family::V4 => [l3 + 8..l3 + 9, l3 + 10..l3 + 20],
        Family::V6 => [l3 + 7..l3 + 8, l3 + 8..l3 + 40],
    };
    [ttl, addresses, l4..l4 + 4, l4 + 6..l4 + 8]
}

/// A flow on to somewhere else: what the address is does not matter, as long as it is another one.
fn other_way(key: &FlowKey) -> Flow {
    let mut destination = key.source;
    let len = if key.source.family() == 4 { 4 } else { 16 };
    destination.address.iter_mut().take(len).for_each(|byte| *byte = byte.rotate_left(3) ^ 0x5b);
    let [high, low] = destination.port();
    let destination = destination.with_port([low, high]);
    Flow { source: key.destination, destination, ..Flow::default() }
}

/// Returns true for a right checksum of the IPv4 header, and for a right or absent one of the datagram. What is not in
/// the packet counts as right.
#[must_use]
pub fn checksums(frame: &[u8], packet: &Packet<'_>) -> (bool, bool) {
    let part = |range: Range<usize>| frame.get(range).unwrap_or_default();
    let header = part(packet.l3..packet.l4);
    let datagram = part(packet.l4..packet.l3 + packet.ip_len);
    let ip = packet.family == Family::V6 || sum(header) == 0xffff;
    let addresses = match packet.family {
        Family::V4 => part(packet.l3 + 12..packet.l4),
        Family::V6 => part(packet.l3 + 8..packet.l4),
    };
    let length = u32::try_from(datagram.len()).unwrap_or_default();
    let all = u32::from(sum(addresses)) + u32::from(sum(datagram)) + 17 + length;
    (ip, packet.udp_checksum == 0 || fold(all) == 0xffff)
}

fn sum(bytes: &[u8]) -> u16 {
    let (words, odd) = bytes.as_chunks();
    let words: u32 = words.iter().map(|word| u32::from(u16::from_be_bytes(*word))).sum();
    let odd = odd.first().map_or(0, |byte| u32::from(*byte) << 8);
    fold(u32::from(fold(words)) + odd)
}

/// A machine with one flow or one listener, for every address.
struct Machine {
    flow: Option<Flow>,
    bits: u32,
    banned: bool,
}

impl Maps for &Machine {
    type Flow = Entry<Flow>;
    type Hop = Entry<Hop>;

    fn flow(&self, _key: &FlowKey) -> Option<Entry<Flow>> {
        self.flow.map(Entry)
    }

    fn hop(&self, _key: HopKey) -> Option<Entry<Hop>> {
        Some(Entry(Hop { mtu: 1500, ..Hop::default() }))
    }

    fn listener(&self, _socket: &Socket) -> Option<Listener> {
        Some(Listener { drop: self.bits })
    }

    fn is_local(&self, _address: &[u8; 16]) -> bool {
        true
    }

    fn is_banned(&self, _source: &Prefix) -> bool {
        self.banned
    }

    fn listed(&self, _key: &Listed) -> Option<u8> {
        Some(access::ALLOWED)
    }
}

#[derive(Debug, PartialEq)]
struct Entry<T>(T);

impl<T> core::ops::Deref for Entry<T> {
    type Target = T;

    fn deref(&self) -> &T {
        &self.0
    }
}

fn asked<'k>(data: &[u8], machine: &Machine, key: &'k mut FlowKey) -> Verdict<'k, Entry<Flow>, Entry<Hop>> {
    let arrival = Arrival {
        link: Link::Ethernet,
        interface: 0,
        keeps_tags: true,
        segment: 0,
        needs_hop: true,
        vlan_aside: false,
    };
    decide(&machine, &data, arrival, key)
}

fn verdict(data: &[u8], parsed: Result<Packet<'_>, Pass>, bits: u32) {
    let key = &mut FlowKey::default();
    let packet = match parsed {
        Ok(packet) => packet,
        Err(reason) => {
            assert_eq!(asked(data, &Machine { flow: None, bits, banned: true }, key), Verdict::Pass(reason.into()));
            return;
        }
    };
    assert_eq!(asked(data, &Machine { flow: None, bits, banned: true }, key), Verdict::Drop(Counter::Banned));
    let class = Datagram::read(&data, packet.payload);
    match asked(data, &Machine { flow: None, bits, banned: false }, key) {
        Verdict::Drop(reason) => assert_eq!(class.and_then(|class| dropped(bits, class)), Some(reason)),
        Verdict::Pass(reason) => {
            assert_eq!((reason, class.and_then(|class| dropped(bits, class))), (Counter::NoFlow, None));
        }
        Verdict::Steer(_) => panic!("steered without a flow"),
    }
    // Every bit of the gate by itself, and a connection ID that is the right one.
    let mut cid = [0; 20];
    if let Some(carried) = data.read(packet.payload.offset + 1) {
        cid = carried;
    }
    let [low, ..] = bits.to_le_bytes();
    let cid_len = if bits == 1 { 20 } else { 0 };
    let flow = Flow { kind: low & 15, cid_len, cid, station: packet.station, ..other_way(packet.key) };
    let [first, rest @ ..] = packet.station;
    for (other, expected) in [
        (Flow { ingress: 1, ..flow }, Counter::OtherInterface),
        (Flow { station: [first, !rest[0], rest[1], rest[2], rest[3], rest[4]], ..flow }, Counter::OtherStation),
    ] {
        assert_eq!(asked(data, &Machine { flow: Some(other), bits, banned: false }, key), Verdict::Pass(expected));
    }
    match asked(data, &Machine { flow: Some(flow), bits, banned: false }, key) {
        Verdict::Steer(steer) => {
            assert!(steer.packet == packet && packet.ttl > 1 && packet.ip_len <= 1500 && steer.datagrams == 1);
            assert_eq!(gate(&flow, &data, packet.payload), Ok(()));
        }
        Verdict::Pass(reason) => assert_eq!(reason.action(), Action::Pass),
        Verdict::Drop(_) => panic!("dropped although there is a flow"),
    }
}
