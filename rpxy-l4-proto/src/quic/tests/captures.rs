//! A hello of Chromium 156 with a post-quantum key share and ECH, scattered over frames and datagrams.

use sha2::{Digest as _, Sha256};

use super::*;
use crate::{Probe, tls::ClientHello};

const HELLO_SHA256: &str = "7e5f6c4b66357bb955fcd839ead89ba9e0dc4b0de5c5b6bfafcd22d7b8cb1180";

fn probe() -> InitialProbe {
    let first = packets(CHROMIUM[0]).next().unwrap();
    InitialProbe::new(first.version, first.dcid)
}

/// The answers to some of the datagrams, one after the other.
fn answers(order: &[usize]) -> Vec<Probe<ClientHello>> {
    let mut probe = probe();
    order.iter().map(|&datagram| probe.advance(CHROMIUM[datagram])).collect()
}

#[track_caller]
fn assert_hello(answer: &Probe<ClientHello>) {
    let Probe::Match(hello) = answer else { panic!("{answer:?}") };
    assert_eq!(hello.message().len(), 1879);
    assert_eq!(Sha256::digest(hello.message()).as_slice(), hex(HELLO_SHA256));
    assert_eq!(hello.server_name(), Some("public.example"));
    assert_eq!(hello.alpn().collect::<Vec<_>>(), [b"h3"]);
    assert!(hello.extension(0xfe0d).is_some(), "ECH");
}

/// The CRYPTO ranges, in the order of the frames.
fn ranges(datagram: &[u8]) -> (u64, Vec<(u64, u64)>) {
    let packet = packets(datagram).next().unwrap();
    let keys = InitialKeys::client(packet.version, &packet.dcid);
    let opened = keys.open(&packet, None).unwrap();
    let ranges = frames(&opened.payload).filter_map(|frame| match frame.unwrap() {
        Frame::Crypto { offset, data } => Some((offset, offset + u64::try_from(data.len()).unwrap())),
        Frame::Padding | Frame::Ping | Frame::Ack | Frame::ConnectionClose => None,
    });
    (opened.packet_number, ranges.collect())
}

#[test]
fn the_frames_are_scattered_and_the_packet_numbers_have_gaps() {
    let (number, found) = ranges(CHROMIUM[0]);
    assert_eq!(number, 1);
    assert_eq!(found, [(0, 57), (1535, 1833), (1833, 1876), (1529, 1535), (999, 1529), (1876, 1879)]);
    let (number, found) = ranges(CHROMIUM[1]);
    assert_eq!(number, 2);
    assert_eq!(found, [(933, 999), (648, 657), (57, 390), (741, 906), (657, 741), (390, 648), (906, 933)]);
    assert_eq!(CHROMIUM.map(|datagram| ranges(datagram).0), [1, 2, 4, 6]);
}

#[test]
fn all_ways_of_arrival_give_the_same_hello() {
    let rows: [(&str, &[usize]); 5] = [
        ("both", &[0, 1]),
        ("the other way round", &[1, 0]),
        ("the first one twice", &[0, 0, 1]),
        ("the second one twice, first", &[1, 1, 0]),
        ("the second one lost, two retransmissions", &[0, 2, 3]),
    ];
    for (row, order) in rows {
        let answers = answers(order);
        let (last, before) = answers.split_last().unwrap();
        assert!(before.iter().all(|answer| *answer == Probe::NeedMore), "{row}");
        assert_hello(last);
    }
}

#[test]
fn every_permutation_with_every_duplicate_gives_the_same_hello() {
    for code in 0..4_usize.pow(5) {
        let order: Vec<usize> = (0..5).map(|place| code / 4_usize.pow(place) % 4).collect();
        if (0..4).all(|datagram| order.contains(&datagram)) {
            let answers = answers(&order);
            let decided = answers.iter().position(|answer| *answer != Probe::NeedMore).unwrap();
            answers[decided..].iter().for_each(assert_hello);
        }
    }
}

#[test]
fn a_lone_datagram_needs_more() {
    for (datagram, bytes) in CHROMIUM.iter().enumerate() {
        assert_eq!(probe().advance(bytes), Probe::NeedMore, "D{datagram}");
    }
}

#[test]
fn rewritten_with_the_same_payload_a_datagram_is_the_same() {
    for datagram in CHROMIUM {
        let packet = packets(datagram).next().unwrap();
        let keys = InitialKeys::client(packet.version, &packet.dcid);
        let opened = keys.open(&packet, None).unwrap();
        let mut rewritten = datagram.to_vec();
        rewritten[0] ^= 0x0f;
        keys.seal(&mut rewritten[packet.range()], &opened).unwrap();
        assert_eq!(rewritten, datagram);
    }
}

#[test]
fn no_truncation_is_a_match() {
    for len in 0..CHROMIUM[0].len() {
        let mut probe = probe();
        assert_eq!(probe.advance(CHROMIUM[1]), Probe::NeedMore);
        assert_eq!(probe.advance(&CHROMIUM[0][..len]), Probe::NeedMore, "{len} bytes");
        assert_hello(&probe.advance(CHROMIUM[0]));
    }
}
