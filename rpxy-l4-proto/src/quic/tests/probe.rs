//! Answers of a flow whose route is undecided, and the datagram that brings them.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{
    Probe::{self, NeedMore, NotThis, Unreadable},
    properties,
    testing::{Hello, handshake, vec8, vec16},
    tls::ClientHello,
};

/// A flow to the connection ID and in the version of [`Initial::default`].
fn probe() -> InitialProbe {
    let Initial { version, dcid, .. } = Initial::default();
    InitialProbe::new(version, dcid)
}

fn message() -> Vec<u8> {
    Hello::for_name("a.example", &["h3"]).message()
}

fn hello() -> Probe<ClientHello> {
    let hello = ClientHello::parse(message());
    assert!(hello.is_match());
    hello
}

/// The hello in one Initial packet of a datagram.
fn whole(initial: &Initial) -> Vec<u8> {
    initial.datagram(&crypto(0, &message()))
}

/// A packet that no keys here open, with a long header of version 1 and a payload of 1200 bytes.
fn other(first: u8, dcid: &[u8]) -> Vec<u8> {
    let token = if first & 0x30 == 0 { vec![0] } else { vec![] };
    [vec![first, 0, 0, 0, 1], vec8(dcid), vec![0], token, varint(1200), vec![0x5a; 1200]].concat()
}

#[test]
fn one_datagram_is_enough() {
    let v2 = Initial { version: Version::V2, ..Initial::default() };
    let retried = Initial { dcid: id("01"), key_dcid: id("01"), token: b"token".to_vec(), ..Initial::default() };
    let rows: [(&str, Initial); 10] = [
        ("version 1", Initial::default()),
        ("version 2", v2),
        // RFC 9287: with a token from before, a client may clear the fixed bit of its first packet.
        ("the fixed bit clear", Initial { flip: 0x40, ..Initial::default() }),
        ("a token", Initial { token: vec![7; 100], ..Initial::default() }),
        ("a source connection ID", Initial { scid: id("010203"), ..Initial::default() }),
        ("a packet number of one byte", Initial { packet_number: 0xc7, packet_number_len: 1, ..Initial::default() }),
        ("a random packet number", Initial { packet_number: 0x7fff_ffff, ..Initial::default() }),
        ("IDs of 20 bytes", {
            let id = id(&"a5".repeat(20));
            Initial { dcid: id, key_dcid: id, scid: id, ..Initial::default() }
        }),
        ("an ID of one byte that a Retry chose", retried.clone()),
        ("no ID that a Retry chose", Initial { dcid: id(""), key_dcid: id(""), ..retried }),
    ];
    for (row, initial) in rows {
        let mut probe = InitialProbe::new(initial.version, initial.dcid);
        assert_eq!(probe.advance(&whole(&initial)), hello(), "{row}");
    }
}

#[test]
fn a_first_connection_id_has_8_bytes_or_more() {
    for (len, expected) in [(0, Unreadable), (7, Unreadable), (8, hello()), (20, hello())] {
        let dcid = ConnectionId::new(&vec![3; len]).unwrap();
        let datagram = whole(&Initial { dcid, key_dcid: dcid, ..Initial::default() });
        assert_eq!(InitialProbe::new(Version::V1, dcid).advance(&datagram), expected, "{len} bytes");
    }
}

#[test]
fn a_datagram_under_1200_bytes_is_ignored() {
    let payload = |len: usize| {
        let frame = crypto(0, &message());
        let around = Initial::default().packet(&frame).len() - frame.len();
        let mut payload = frame;
        payload.resize(len - around, 0);
        payload
    };
    for (len, expected) in [(600, NeedMore), (1199, NeedMore), (1200, hello()), (1201, hello())] {
        let datagram = Initial::default().packet(&payload(len));
        assert_eq!(datagram.len(), len);
        let mut probe = probe();
        assert_eq!(probe.advance(&datagram), expected, "{len} bytes");
        assert_eq!(probe.advance(&whole(&Initial::number(1))), hello(), "it says nothing against the flow");
    }
    // What counts is the datagram, not the packet.
    let small = [Initial::default().packet(&crypto(0, &message())), vec![0; 1200]].concat();
    assert_eq!(probe().advance(&small), hello(), "padded behind the packet");
    assert_eq!(probe().advance(&[0xc0; 1199]), NeedMore, "junk under 1200 bytes");
}

#[test]
fn the_first_datagram_that_should_open_decides() {
    let mut broken = whole(&Initial::default());
    broken[700] ^= 1;
    let mut cut = whole(&Initial::default());
    cut.truncate(1200);
    cut.splice(17..19, [0x7f, 0xff]);
    let (zero_rtt, handshake) = (other(0xd0, &hex("8394c8f03e515708")), other(0xe0, &hex("8394c8f03e515708")));
    let rows: [(&str, Vec<u8>, Probe<ClientHello>); 13] = [
        ("junk", vec![0x5a; 1250], NotThis),
        ("a long header and junk", [hex("c0 00000001 08 8394c8f03e515708"), vec![0x5a; 1250]].concat(), NotThis),
        ("a bit wrong", broken.clone(), NotThis),
        ("a length beyond the end", cut, NotThis),
        (
            "an Initial under other keys",
            whole(&Initial { key_dcid: id("0102030405060708"), ..Initial::default() }),
            NotThis,
        ),
        ("an Initial of another version", whole(&Initial { version: Version::V2, ..Initial::default() }), NotThis),
        ("an unknown version", [hex("c0 00000002 08 8394c8f03e515708"), vec![0; 1250]].concat(), NotThis),
        ("Version Negotiation", [hex("c0 00000000 08 8394c8f03e515708"), vec![0; 1250]].concat(), NotThis),
        ("0-RTT alone", zero_rtt.clone(), NeedMore),
        ("0-RTT before the Initial", [zero_rtt.clone(), whole(&Initial::default())].concat(), hello()),
        ("0-RTT before a broken Initial", [zero_rtt, broken.clone()].concat(), NotThis),
        ("a broken Initial before a good one", [broken.clone(), whole(&Initial::default())].concat(), hello()),
        ("a Handshake packet before the Initial", [handshake, whole(&Initial::default())].concat(), hello()),
    ];
    for (row, datagram, expected) in rows {
        let mut probe = probe();
        assert_eq!(probe.advance(&datagram), expected, "{row}");
        let later = if expected == NotThis { NotThis } else { hello() };
        assert_eq!(probe.advance(&whole(&Initial::number(1))), later, "the answer stays, {row}");
    }
}

#[test]
fn what_does_not_open_later_is_ignored() {
    let message = message();
    let first = Initial::default().datagram(&crypto_of(&message, &[(0, 20)]));
    let rest = Initial::number(1).datagram(&crypto_of(&message, &[(20, message.len())]));
    let mut broken = rest.clone();
    broken[700] ^= 1;
    let rows = [
        ("junk", vec![0x5a; 1250]),
        ("empty", vec![]),
        ("a bit wrong", broken),
        ("under other keys", whole(&Initial { key_dcid: id("0102030405060708"), ..Initial::default() })),
        ("of another version", whole(&Initial { version: Version::V2, ..Initial::default() })),
        ("0-RTT", other(0xd0, b"12345678")),
        ("Handshake", other(0xe0, b"12345678")),
        ("a short header", vec![0x41; 1250]),
    ];
    for (row, ignored) in rows {
        let mut probe = probe();
        for datagram in [&first, &ignored] {
            assert_eq!(probe.advance(datagram), NeedMore, "{row}");
        }
        assert_eq!(probe.advance(&rest), hello(), "{row}");
    }
}

#[test]
fn all_initial_packets_of_a_datagram_are_looked_at() {
    let message = message();
    let part = |number, start, end| Initial::number(number).packet(&crypto_of(&message, &[(start, end)]));
    let filler = Initial::number(9).datagram(&[1]);
    let elsewhere = Initial { dcid: id("ffffffffffffffff"), ..Initial::number(3) };
    let rest = crypto_of(&message, &[(10, message.len())]);
    let rows = [
        ("two", vec![part(0, 0, 10), part(1, 10, message.len()), filler.clone()], hello()),
        ("the other way round", vec![part(1, 10, message.len()), part(0, 0, 10), filler.clone()], hello()),
        (
            "0-RTT between",
            vec![part(0, 0, 10), other(0xd0, &hex("8394c8f03e515708")), part(1, 10, message.len())],
            hello(),
        ),
        ("the second one to another ID", vec![part(0, 0, 10), elsewhere.packet(&rest), filler], NeedMore),
    ];
    for (row, packets, expected) in rows {
        assert_eq!(probe().advance(&packets.concat()), expected, "{row}");
    }
}

#[test]
fn the_keys_stay_those_of_the_first_id() {
    let message = message();
    let mut probe = probe();
    assert_eq!(probe.advance(&Initial::default().datagram(&crypto_of(&message, &[(0, 20)]))), NeedMore);
    // RFC 9000 section 7.2: from the server's first packet on, the client uses the ID that the server chose.
    let answered = Initial { dcid: id("0a0b0c0d"), ..Initial::number(1) };
    assert_eq!(probe.advance(&answered.datagram(&crypto_of(&message, &[(20, message.len())]))), hello());
}

#[test]
fn packet_numbers_go_on_from_the_largest_that_opened() {
    let message = message();
    let mut probe = probe();
    let number = |packet_number, packet_number_len| Initial { packet_number, packet_number_len, ..Initial::default() };
    // The last one is ahead of the largest, but would be read as one behind the one that came before it.
    let numbers = [
        (0xfffe, 4),
        (0x1_0001, 1),
        (0xffff, 1),
        (0x1_007f, 1),
        (0x1_7000, 2),
        (0x1_70c0, 2),
        (0x1_7041, 2),
        (0x1_7140, 1),
    ];
    for (at, (packet_number, len)) in numbers.into_iter().enumerate() {
        let end = if at + 1 == numbers.len() { message.len() } else { at + 1 };
        let datagram = number(packet_number, len).datagram(&crypto_of(&message, &[(at, end)]));
        let expected = if end == message.len() { hello() } else { NeedMore };
        assert_eq!(probe.advance(&datagram), expected, "packet number {packet_number:#x}");
    }
}

#[test]
fn what_a_server_would_not_accept_is_quic_that_cannot_be_read() {
    let message = message();
    let start = crypto_of(&message, &[(0, 40)]);
    let announced = |len: u32| {
        let [_, len @ ..] = len.to_be_bytes();
        crypto(0, &[&[1][..], &len].concat())
    };
    let scattered = |count: usize| (0..count).flat_map(|at| crypto(2 + 2 * at, b"a")).collect::<Vec<u8>>();
    let rows: [(&str, Vec<u8>, Probe<ClientHello>); 17] = [
        ("a good start", start.clone(), NeedMore),
        ("PING alone", vec![1], NeedMore),
        ("all frames that are allowed", [hex("01 00 02 05 00 00 05 1c 00 00 00"), start.clone()].concat(), NeedMore),
        ("a STREAM frame behind", [start.clone(), hex("08 00 61")].concat(), Unreadable),
        ("a frame cut", [start.clone(), hex("00 06 10 7f ff")].concat(), Unreadable),
        ("the same bytes again", [start.clone(), crypto_of(&message, &[(10, 20)])].concat(), NeedMore),
        ("other bytes at the same place", [start.clone(), crypto(39, b"\xff\xff")].concat(), Unreadable),
        ("other bytes behind a hole", [crypto(50, b"ab"), crypto(51, b"c")].concat(), Unreadable),
        ("a server hello", crypto(0, &handshake(2, &[3; 60])), Unreadable),
        ("no hello, told by the first byte", crypto(0, &[22]), Unreadable),
        ("a hole first", crypto(1, &[22]), NeedMore),
        ("a hello of 16 KiB", announced(16_380), NeedMore),
        ("a hello of 16 KiB and a byte", announced(16_381), Unreadable),
        ("a byte behind 16 KiB", crypto(MAX_CRYPTO_STREAM, b"a"), Unreadable),
        ("the last byte of 16 KiB", crypto(MAX_CRYPTO_STREAM - 1, b"a"), NeedMore),
        ("as many pieces as are held", scattered(MAX_CRYPTO_PIECES), NeedMore),
        ("a piece more", scattered(MAX_CRYPTO_PIECES + 1), Unreadable),
    ];
    for (row, payload, expected) in rows {
        let mut probe = probe();
        assert_eq!(probe.advance(&Initial::default().datagram(&payload)), expected, "{row}");
        if expected == Unreadable {
            assert_eq!(probe.advance(&whole(&Initial::number(1))), Unreadable, "the answer stays, {row}");
        }
    }
    // RFC 9000 sections 17.2 and 12.4.
    let padded = |packet: Vec<u8>| [packet, vec![0; 1200]].concat();
    assert_eq!(probe().advance(&whole(&Initial { flip: 0x04, ..Initial::default() })), Unreadable, "a reserved bit");
    assert_eq!(probe().advance(&whole(&Initial { flip: 0x08, ..Initial::default() })), Unreadable, "the other one");
    assert_eq!(probe().advance(&padded(Initial::default().packet(&[]))), Unreadable, "no frame");
}

#[test]
fn a_match_stays() {
    let mut probe = probe();
    assert_eq!(probe.advance(&whole(&Initial::default())), hello());
    let another = Hello::for_name("b.example", &[]).message();
    let rows = [
        ("empty", vec![]),
        ("junk", vec![0x5a; 1250]),
        ("another hello", Initial::number(1).datagram(&crypto(0, &another))),
        ("a malformed frame", Initial::number(1).datagram(&[0x21])),
    ];
    for (row, datagram) in rows {
        assert_eq!(probe.advance(&datagram), hello(), "{row}");
    }
}

#[test]
fn no_truncation_of_a_datagram_matches_or_panics() {
    let datagram = [whole(&Initial::default()), whole(&Initial::number(1))].concat();
    let first = whole(&Initial::default()).len();
    for len in 0..datagram.len() {
        let expected = if len < 1200 { NeedMore } else { hello() };
        assert!(len < 1200 || len >= first);
        assert_eq!(probe().advance(&datagram[..len]), expected, "{len} bytes");
    }
}

proptest! {
    #[test]
    fn any_chunking_in_any_order_gives_the_same_hello(
        name in "[a-z]{1,20}\\.example",
        padding in 0..1800_usize,
        cuts in vec(any::<Index>(), 0..24),
        order in vec(any::<Index>(), 0..24),
        per_packet in 1..8_usize,
        per_datagram in 1..4_usize,
        v2 in any::<bool>(),
    ) {
        let message = Hello::with(vec![(0, crate::testing::server_name(&name)), (21, vec![0; padding])]).message();
        let mut borders: Vec<usize> = cuts.iter().map(|cut| cut.index(message.len())).collect();
        borders.extend([0, message.len()]);
        borders.sort_unstable();
        let mut chunks: Vec<(usize, usize)> = borders.windows(2).map(|pair| (pair[0], pair[1])).collect();
        // Some chunks again, and all of them shuffled.
        for (place, index) in order.iter().enumerate() {
            let chosen = index.index(chunks.len());
            if place % 3 == 0 { chunks.push(chunks[chosen]) } else { chunks.swap(chosen, 0) }
        }
        let version = if v2 { Version::V2 } else { Version::V1 };
        let packets: Vec<Vec<u8>> = chunks
            .chunks(per_packet)
            .enumerate()
            .map(|(number, ranges)| {
                let initial = Initial { version, ..Initial::number(number.try_into().unwrap()) };
                initial.packet(&crypto_of(&message, ranges))
            })
            .collect();
        let filler = Initial { version, ..Initial::number(1000) }.datagram(&[1]);
        let mut probe = InitialProbe::new(version, Initial::default().dcid);
        let mut answer = NeedMore;
        for datagram in packets.chunks(per_datagram) {
            prop_assert!(answer == NeedMore || answer.is_match());
            answer = probe.advance(&[datagram.concat(), filler.clone()].concat());
        }
        prop_assert_eq!(answer, ClientHello::parse(message));
    }

    #[test]
    fn any_bytes_are_taken(datagrams in vec(vec(any::<u8>(), 1190..1300), 0..4), v1 in any::<bool>()) {
        let mut probe = probe();
        for mut datagram in datagrams {
            if v1 {
                datagram.splice(..14, hex("c0 00000001 08 8394c8f03e515708"));
            }
            let answer = probe.advance(&datagram);
            prop_assert!(!answer.is_match());
        }
    }

    #[test]
    fn properties_hold_for_flows_near_a_hello(
        chunks in vec((any::<u8>(), vec((any::<Index>(), any::<Index>()), 0..6), vec(any::<u8>(), 0..3)), 0..8),
        noisy in any::<bool>(),
    ) {
        let message = message();
        let mut flow = vec![0];
        for (control, ranges, tail) in chunks {
            let at = |index: Index| index.index(message.len() + 1);
            let ranges = ranges.into_iter().map(|(a, b)| (at(a).min(at(b)), at(a).max(at(b)))).collect::<Vec<_>>();
            let frames = [crypto_of(&message, &ranges), if noisy { tail } else { vec![1] }].concat();
            // Without noise, sealed under the right keys: 0 or 3, with or without a token.
            let control = if noisy { control } else { [0, 3, 0x40, 0x13][usize::from(control % 4)] };
            flow.extend([vec![control], vec16(&frames)].concat());
        }
        let _answer = properties::quic_initial(&flow);
    }
}
