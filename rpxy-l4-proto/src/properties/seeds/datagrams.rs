//! Seeds of the targets that take datagrams.

use super::Seeds;
use crate::{
    properties::rewrite::outer,
    quic::Version,
    testing::{
        Hello, INITIATION, handshake, hex,
        quic::{CHROMIUM, Initial, crypto, crypto_of},
        server_name, vec16,
    },
};

pub(super) fn quic_packet_seeds() -> Seeds {
    let initial = Initial { token: vec![7; 5], ..Initial::default() }.packet(&crypto(0, b"\x01\0\0\x02ab"));
    let behind = |first: &str| hex(&format!("{first} 00000001 08 8394c8f03e515708 00 14 {}", "5a".repeat(20)));
    let (zero_rtt, handshake) = (behind("d0"), behind("e0"));
    let elsewhere = hex(&format!("e0 00000001 01 ff 00 14 {}", "5a".repeat(20)));
    let v2 = Initial { version: Version::V2, ..Initial::default() }.packet(&[1, 0, 0]);
    let frames = hex("01 00 00 02 0a 4001 02 01 01 02 00 00 03 05 00 00 00 01 4002 80000003
        06 80000002 4003 616263 06 fffffffffffffffe 01 61 1c 0a c000000000000006 02 6869");
    vec![
        ("initial", initial.clone()),
        ("coalesced", [&*initial, &zero_rtt, &elsewhere, &handshake, &[0x41; 30]].concat()),
        ("version_2", [&*v2, &[0; 30]].concat()),
        ("zero_rtt", [&*zero_rtt, &initial].concat()),
        ("handshake", handshake),
        ("retry", hex("ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba")),
        ("version_negotiation", hex("80 00000000 01 61 00 00000001 6b3343cf")),
        ("unknown_version", hex("c0 0a1a2a3a 01 61 00 00 05 0000000000")),
        ("long_ids", [hex("c0 00000001 15"), vec![1; 21], hex("00 00 05 0000000000")].concat()),
        ("initial_cut", initial[..initial.len() - 1].to_vec()),
        ("length_of_2_to_the_62", hex("c0 00000001 00 00 00 ffffffffffffffff 00")),
        ("chromium", CHROMIUM[0].to_vec()),
        ("frames", frames),
        ("stream_frame", hex("01 08 00 61")),
        ("ack_below_0", hex("02 05 00 01 02 00 02")),
        ("crypto_cut", hex("06 00 02 61")),
    ]
}

/// A chunk of a flow, as the property reads it.
fn chunk(control: u8, bytes: &[u8]) -> Vec<u8> {
    [vec![control], vec16(bytes)].concat()
}

pub(super) fn quic_initial_seeds() -> Seeds {
    let message = Hello::for_name("a.example", &["h3"]).message();
    let part = |start: usize, end: usize| crypto_of(&message, &[(start, end)]);
    let (all, front, back) = (part(0, message.len()), part(0, 60), part(40, message.len()));
    let scattered = crypto_of(&message, &[(80, message.len()), (7, 8), (0, 7), (30, 90)]);
    let broken = Initial { key_dcid: Initial::default().scid, ..Initial::default() }.datagram(&all);
    let zero_rtt = hex(&format!("d0 00000001 08 8394c8f03e515708 00 44b0 {}", "5a".repeat(1200)));
    let v1 = |chunks: &[Vec<u8>]| [vec![0], chunks.concat()].concat();
    vec![
        ("whole", v1(&[chunk(0, &all)])),
        ("version_2", [vec![1], chunk(0, &all)].concat()),
        ("tail_first", v1(&[chunk(0, &back), chunk(0, &front)])),
        ("scattered", v1(&[chunk(0, &scattered), chunk(0, &[&[1], &*part(6, 40)].concat())])),
        ("coalesced", v1(&[chunk(3, &front), chunk(3, &[1]), chunk(0, &back)])),
        ("small_ignored", v1(&[chunk(2, &front), chunk(0, &back)])),
        ("fixed_bit_clear", v1(&[chunk(0x10, &all)])),
        ("token", v1(&[chunk(0x40, &all)])),
        ("reserved_bit", v1(&[chunk(0x80, &all)])),
        ("other_keys_later", v1(&[chunk(0, &front), chunk(0x20, &back), chunk(0, &back)])),
        ("other_keys_first", v1(&[chunk(0x20, &all), chunk(0, &all)])),
        ("broken_first", v1(&[chunk(1, &broken), chunk(0, &all)])),
        ("zero_rtt_first", v1(&[chunk(1, &zero_rtt), chunk(0, &all)])),
        ("chromium", v1(&[chunk(1, CHROMIUM[1]), chunk(1, CHROMIUM[0])])),
        (
            "short_id",
            v1(&[chunk(1, &hex("c0 00000001 00 00")), chunk(0x40, &front), chunk(0, &[1]), chunk(0x40, &back)]),
        ),
        ("hole", v1(&[chunk(0, &back)])),
        ("conflict", v1(&[chunk(0, &front), chunk(0, &crypto(59, b"\xff\xff"))])),
        ("stream_frame", v1(&[chunk(0, &[&*front, &[8, 0]].concat())])),
        ("no_frame", v1(&[chunk(3, &[]), chunk(0, &[1])])),
        ("server_hello", v1(&[chunk(0, &crypto(0, &handshake(2, &[3; 60])))])),
        ("too_long", v1(&[chunk(0, &crypto(16_384, b"a"))])),
        ("announced_too_long", v1(&[chunk(0, &crypto(0, &hex("01 003ffd")))])),
        ("nothing", vec![]),
    ]
}

pub(super) fn initial_rewrite_seeds() -> Seeds {
    let first = outer().message().to_vec();
    let at = first.len();
    let long = Hello::with(vec![(0, server_name("public.example")), (21, vec![0x44; 120])]).message();
    let stream = [first.clone(), long].concat();
    let part = |start: usize, end: usize| crypto_of(&stream, &[(start, end)]);
    let (all, front, back) = (part(0, at), part(0, 60), part(40, at));
    let wide = [hex("06 80000010 c000000000000020"), first[16..48].to_vec()].concat();
    let frames = [hex("02 05 00 00 05 01"), part(3, 9), hex("1c 0a 06 02 6e6f")].concat();
    let short = [first, Hello::with(vec![]).message()].concat();
    let v1 = |chunks: &[Vec<u8>]| [vec![0], chunks.concat()].concat();
    vec![
        ("whole", v1(&[chunk(0, &all)])),
        ("version_2", [vec![1], chunk(0, &all)].concat()),
        ("scattered", v1(&[chunk(0, &crypto_of(&stream, &[(380, at), (7, 8), (90, 300)])), chunk(0, &front)])),
        ("behind_the_inner_hello", v1(&[chunk(0, &part(at - 20, at))])),
        ("coalesced", v1(&[chunk(3, &front), chunk(3, &[1]), chunk(0, &back)])),
        ("other_keys", v1(&[chunk(0, &front), chunk(0x20, &back), chunk(1, &[0x41; 30])])),
        ("integers_longer_than_needed", v1(&[chunk(2, &wide)])),
        ("frames", v1(&[chunk(2, &frames)])),
        ("malformed_frame", v1(&[chunk(2, &[&*front, &[8, 0], &*back].concat())])),
        ("no_bytes", v1(&[chunk(2, &crypto(7, &[]))])),
        ("second_hello_waits", v1(&[chunk(0, &part(at + 10, at + 90)), chunk(0, &part(at - 5, at + 5))])),
        ("second_hello", v1(&[chunk(0, &part(at + 80, stream.len())), chunk(0, &part(at - 400, at + 90))])),
        (
            "second_hello_again",
            v1(&[chunk(0, &part(at, stream.len())), chunk(0, &part(at - 9, at + 40)), chunk(0, &part(at - 3, at))]),
        ),
        ("second_hello_too_short", v1(&[chunk(0, &crypto_of(&short, &[(at, short.len())]))])),
        ("no_second_hello", v1(&[chunk(0, &crypto(at, &handshake(2, &[3; 60])))])),
        ("second_hello_too_far", v1(&[chunk(0, &crypto(at + 20_000, b"a"))])),
        ("chromium", v1(&[chunk(1, CHROMIUM[1]), chunk(1, CHROMIUM[0])])),
        ("none", vec![]),
    ]
}

pub(super) fn wireguard_seeds() -> Seeds {
    let padded = |start: &str, len: usize| {
        let mut datagram = hex(start);
        datagram.resize(len, 0x5a);
        datagram
    };
    let mut warp = INITIATION.to_vec();
    warp[1..4].copy_from_slice(&[1, 2, 3]);
    vec![
        ("initiation", INITIATION.to_vec()),
        ("initiation_of_warp", warp),
        ("initiation_for_another", padded("01000000 01020304", 148)),
        ("response", padded("02000000 01020304 05060708", 92)),
        ("cookie_reply", padded("03000000 01020304", 64)),
        ("keepalive", padded("04000000 01020304", 32)),
        ("transport_unpadded", padded("04000000 01020304", 116)),
        ("transport_cut", padded("04000000", 31)),
        ("type_5", padded("05000000", 148)),
    ]
}
