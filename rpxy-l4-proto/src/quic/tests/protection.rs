//! Keys and protection: the samples of RFC 9001 and RFC 9369, rustls as a second opinion, and seal as the inverse of
//! open.

use aes_gcm::{Aes128Gcm, KeyInit as _, aead::AeadInOut as _};
use proptest::{collection::vec, prelude::*};
use rustls::{
    Side,
    crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{Keys, Version as RustlsVersion},
};

use super::*;
use crate::testing::vec8;

/// The CRYPTO frame of RFC 9001 appendix A.2, which RFC 9369 uses as well.
const CLIENT_CRYPTO: &str = "
    060040f1010000ed0303ebf8fa56f12939b9584a3896472ec40bb863cfd3e868
    04fe3a47f06a2b69484c00000413011302010000c000000010000e00000b6578
    616d706c652e636f6dff01000100000a00080006001d00170018001000070005
    04616c706e000500050100000000003300260024001d00209370b2c9caa47fba
    baf4559fedba753de171fa71f50f1ce15d43e994ec74d748002b000302030400
    0d0010000e0403050306030203080408050806002d00020101001c0002400100
    3900320408ffffffffffffffff05048000ffff07048000ffff08011001048000
    75300901100f088394c8f03e51570806048000ffff";
/// The payload of RFC 9001 appendix A.3.
const SERVER_PAYLOAD: &str = "
    02000000000600405a020000560303eefce7f7b37ba1d1632e96677825ddf739
    88cfc79825df566dc5430b9a045a1200130100002e00330024001d00209d3c94
    0d89690b84d08a60993c144eca684d1081287c834d5311bcf32bb9da1a002b00
    020304";

/// The 1162 bytes of frames of the samples' client Initial.
fn client_payload() -> Vec<u8> {
    let mut payload = hex(CLIENT_CRYPTO);
    payload.resize(1162, 0);
    payload
}

/// The packet whose header up to the packet number is given, sealed, and the start, header and sample, and the tag of
/// the sample in the RFC.
struct Sample {
    version: Version,
    client_header: &'static str,
    client_start: &'static str,
    client_tag: &'static str,
    server_header: &'static str,
    server_packet: &'static str,
}

const SAMPLES: [Sample; 2] = [
    // RFC 9001 appendices A.2 and A.3.
    Sample {
        version: Version::V1,
        client_header: "c300000001088394c8f03e5157080000449e",
        client_start: "c000000001088394c8f03e5157080000449e7b9aec34d1b1c98dd7689fb8ec11d242b123dc9b",
        client_tag: "e221af44860018ab0856972e194cd934",
        server_header: "c1000000010008f067a5502a4262b5004075",
        server_packet: "cf000000010008f067a5502a4262b5004075c0d95a482cd0991cd25b0aac406a
            5816b6394100f37a1c69797554780bb38cc5a99f5ede4cf73c3ec2493a1839b3
            dbcba3f6ea46c5b7684df3548e7ddeb9c3bf9c73cc3f3bded74b562bfb19fb84
            022f8ef4cdd93795d77d06edbb7aaf2f58891850abbdca3d20398c276456cbc4
            2158407dd074ee",
    },
    // RFC 9369 appendices A.2 and A.3.
    Sample {
        version: Version::V2,
        client_header: "d36b3343cf088394c8f03e5157080000449e",
        client_start: "d76b3343cf088394c8f03e5157080000449ea0c95e82ffe67b6abcdb4298b485dd04de806071",
        client_tag: "a18b2faa745b6fe189cf772a9f84cbfc",
        server_header: "d16b3343cf0008f067a5502a4262b5004075",
        server_packet: "dc6b3343cf0008f067a5502a4262b5004075d92faaf16f05d8a4398c47089698
            baeea26b91eb761d9b89237bbf87263017915358230035f7fd3945d88965cf17
            f9af6e16886c61bfc703106fbaf3cb4cfa52382dd16a393e42757507698075b2
            c984c707f0a0812d8cd5a6881eaf21ceda98f4bd23f6fe1a3e2c43edd9ce7ca8
            4bed8521e2e140",
    },
];

fn sealed(keys: &InitialKeys, header: &str, packet_number: u64, payload: Vec<u8>) -> Vec<u8> {
    let mut packet = hex(header);
    let packet_number_len = usize::from(packet[0] & 3) + 1;
    let opened = Opened { packet_number, packet_number_len, first: packet[0], payload };
    packet.resize(packet.len() + packet_number_len + opened.payload.len() + 16, 0);
    keys.seal(&mut packet, &opened).unwrap();
    let read = packets(&packet).next().unwrap();
    assert_eq!(keys.open(&read, None), Some(opened), "what was sealed opens");
    packet
}

#[test]
fn the_samples_of_the_rfcs_come_out_to_the_byte() {
    let dcid = id("8394c8f03e515708");
    for sample in SAMPLES {
        let version = sample.version;
        let client = sealed(&InitialKeys::client(version, &dcid), sample.client_header, 2, client_payload());
        // The tag authenticates the header and every byte between.
        assert_eq!(client.len(), 1200, "{version:?}");
        assert!(client.starts_with(&hex(sample.client_start)), "{version:?}");
        assert!(client.ends_with(&hex(sample.client_tag)), "{version:?}");
        let keys = InitialKeys::server(version, &dcid);
        assert_eq!(
            sealed(&keys, sample.server_header, 1, hex(SERVER_PAYLOAD)),
            hex(sample.server_packet),
            "{version:?}"
        );
        // Nothing but the right keys opens it.
        let packet = hex(sample.server_packet);
        let packet = packets(&packet).next().unwrap();
        assert!(keys.open(&packet, None).is_some());
        assert_eq!(InitialKeys::client(version, &dcid).open(&packet, None), None, "the other side's");
        assert_eq!(InitialKeys::server(version, &id("8394c8f03e515709")).open(&packet, None), None, "another ID's");
        let other = if version == Version::V1 { Version::V2 } else { Version::V1 };
        assert_eq!(InitialKeys::server(other, &dcid).open(&packet, None), None, "the other version's");
    }
}

#[test]
fn the_retry_samples_of_the_rfcs_are_read() {
    let rows = [
        (
            "RFC 9001 appendix A.4",
            "ff000000010008f067a5502a4262b5746f6b656e04a265ba2eff4d829058fb3f0f2496ba",
            "be0c690b9f66575a1d766b54e368c84e",
            "461599d35d632bf2239825bb",
        ),
        (
            "RFC 9369 appendix A.4",
            "cf6b3343cf0008f067a5502a4262b5746f6b656ec8646ce8bfe33952d955543665dcc7b6",
            "8fb4b01b56ac48e260fbcbcead7ccc92",
            "d86969bc2d7c6d9990efb04a",
        ),
    ];
    for (row, bytes, key, nonce) in rows {
        let bytes = hex(bytes);
        let packet = packets(&bytes).next().unwrap();
        assert_eq!((packet.typ, packet.token, packet.bytes()), (LongType::Retry, &b"token"[..], &*bytes), "{row}");
        assert_eq!((packet.dcid, packet.scid), (id(""), id("f067a5502a4262b5")), "{row}");
        // The tag covers the client's first ID and the packet before the tag (RFC 9001 section 5.8).
        let (before, tag) = bytes.split_at(bytes.len() - 16);
        let pseudo = [vec8(&hex("8394c8f03e515708")), before.to_vec()].concat();
        let cipher = Aes128Gcm::new_from_slice(&hex(key)).unwrap();
        let nonce = <[u8; 12]>::try_from(hex(nonce)).unwrap().into();
        let sealed = cipher.encrypt_inout_detached(&nonce, &pseudo, (&mut [][..]).into()).unwrap();
        assert_eq!(sealed.as_slice(), tag, "{row}");
        let keys = InitialKeys::client(packet.version, &id("8394c8f03e515708"));
        assert_eq!(keys.open(&packet, None), None, "{row}");
    }
}

/// Protects a packet as rustls does, with the packet number at the end of `header`.
fn sealed_by_rustls(keys: &Keys, header: &[u8], packet_number: u64, number_len: usize, payload: &[u8]) -> Vec<u8> {
    let mut payload = payload.to_vec();
    let tag = keys.local.packet.encrypt_in_place(packet_number, header, &mut payload).unwrap();
    let mut packet = [header, &payload, tag.as_ref()].concat();
    let (start, rest) = packet.split_at_mut(header.len());
    let (first, number) = start.split_at_mut(header.len() - number_len);
    let sample = &rest[4 - number_len..][..16];
    keys.local.header.encrypt_in_place(sample, &mut first[0], number).unwrap();
    packet
}

#[test]
fn rustls_derives_the_same_keys() {
    let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
    let quic = suite.quic.unwrap();
    for (version, theirs) in [(Version::V1, RustlsVersion::V1), (Version::V2, RustlsVersion::V2)] {
        for len in 0..=20 {
            let dcid = ConnectionId::new(&vec![0x5a; len]).unwrap();
            let initial = Initial {
                version,
                dcid,
                key_dcid: dcid,
                token: vec![1; len],
                packet_number: 0x0102_0304_0506 + u64::try_from(len).unwrap(),
                packet_number_len: u8::try_from(len % 4).unwrap() + 1,
                ..Initial::default()
            };
            let payload = [vec![1], vec![0; 40]].concat();
            for side in [Side::Client, Side::Server] {
                let ours = match side {
                    Side::Client => InitialKeys::client(version, &dcid),
                    Side::Server => InitialKeys::server(version, &dcid),
                };
                let packet = initial.packet_under(&ours, &payload);
                let read = packets(&packet).next().unwrap();
                let opened = ours.open(&read, Some(initial.packet_number - 1)).unwrap();
                let mut header = packet[..packet.len() - payload.len() - 16].to_vec();
                header[0] = opened.first;
                let number_at = header.len() - opened.packet_number_len;
                let number = opened.packet_number.to_be_bytes();
                header[number_at..].copy_from_slice(&number[8 - opened.packet_number_len..]);
                let keys = Keys::initial(theirs, suite, quic, dcid.as_bytes(), side);
                let expected =
                    sealed_by_rustls(&keys, &header, initial.packet_number, opened.packet_number_len, &payload);
                assert_eq!(packet, expected, "{version:?}, {len} bytes, {side:?}");
            }
        }
    }
}

#[test]
fn only_a_packet_that_fits_is_sealed() {
    let keys = InitialKeys::client(Version::V1, &id("0102030405060708"));
    let header = hex("c0 00000001 08 0102030405060708 00 00 4018");
    let opened = |len: usize| Opened { packet_number: 7, packet_number_len: 1, first: 0xc0, payload: vec![1; len] };
    let packet = |rest: usize| [header.clone(), vec![0; rest]].concat();
    let rows: [(&str, Vec<u8>, Opened, bool); 9] = [
        ("as long as the packet", packet(24), opened(7), true),
        ("a byte too short", packet(24), opened(6), false),
        ("a byte too long", packet(24), opened(8), false),
        ("a byte behind the packet", packet(25), opened(8), false),
        ("a cut packet", packet(23), opened(6), false),
        ("another packet number length", packet(24), Opened { packet_number_len: 2, ..opened(6) }, false),
        ("a length that the first byte does not tell", packet(24), Opened { first: 0xc1, ..opened(7) }, false),
        ("a Handshake packet", hex(&format!("e0 00000001 00 00 18 {}", "00".repeat(24))), opened(7), false),
        (
            "a payload that leaves no sample",
            hex(&format!("c0 00000001 00 00 00 13 {}", "00".repeat(19))),
            opened(2),
            false,
        ),
    ];
    for (row, mut packet, opened, fits) in rows {
        let before = packet.clone();
        assert_eq!(keys.seal(&mut packet, &opened).is_some(), fits, "{row}");
        assert_eq!(packet != before, fits, "nothing is written, {row}");
    }
}

#[test]
fn any_changed_bit_keeps_a_packet_closed() {
    let initial = Initial { token: b"token".to_vec(), scid: id("0a0b"), packet_number: 3, ..Initial::default() };
    let keys = InitialKeys::client(initial.version, &initial.key_dcid);
    let packet = initial.packet(&[1, 0, 0, 0, 0]);
    assert!(keys.open(&packets(&packet).next().unwrap(), None).is_some());
    for bit in 0..packet.len() * 8 {
        let mut changed = packet.clone();
        changed[bit / 8] ^= 1 << (bit % 8);
        assert_eq!(packets(&changed).find_map(|packet| keys.open(&packet, None)), None, "bit {bit}");
    }
}

#[test]
fn a_packet_too_short_for_a_sample_does_not_open() {
    let keys = InitialKeys::client(Version::V1, &id("0102030405060708"));
    for len in 0..64_usize {
        let length = varint(len.try_into().unwrap());
        let datagram = [hex("c0 00000001 08 0102030405060708 00 00"), length, vec![0x5a; len]].concat();
        let packet = packets(&datagram).next().unwrap();
        assert_eq!(keys.open(&packet, None), None, "{len} bytes behind the header");
    }
}

proptest! {
    #[test]
    fn seal_then_open_is_identity(
        v2 in any::<bool>(),
        ids in (vec(any::<u8>(), 0..=20), vec(any::<u8>(), 0..=20), vec(any::<u8>(), 0..=20)),
        token in vec(any::<u8>(), 0..80),
        packet_number in 0..1_u64 << 62,
        packet_number_len in 1..=4_u8,
        reserved_and_fixed in any::<u8>(),
        payload in vec(any::<u8>(), 3..1300),
        rewritten in any::<u8>(),
    ) {
        let initial = Initial {
            version: if v2 { Version::V2 } else { Version::V1 },
            dcid: ConnectionId::new(&ids.0).unwrap(),
            scid: ConnectionId::new(&ids.1).unwrap(),
            key_dcid: ConnectionId::new(&ids.2).unwrap(),
            token,
            packet_number,
            packet_number_len,
            flip: reserved_and_fixed & 0x4c,
        };
        let keys = InitialKeys::client(initial.version, &initial.key_dcid);
        let mut datagram = [initial.packet(&payload), vec![0x41; 9]].concat();
        let packet = packets(&datagram).next().unwrap();
        prop_assert_eq!((packet.dcid, packet.scid, packet.token), (initial.dcid, initial.scid, &*initial.token));
        let mut opened = keys.open(&packet, packet_number.checked_sub(1)).unwrap();
        prop_assert_eq!((opened.packet_number, &opened.payload), (packet_number, &payload));
        // Rewritten in place, it opens to what was written, and everything around it stays.
        let (range, before) = (packet.range(), datagram.clone());
        opened.payload.fill(rewritten);
        keys.seal(&mut datagram[range.clone()], &opened).unwrap();
        prop_assert_eq!(&datagram[range.end..], &before[range.end..]);
        let packet = packets(&datagram).next().unwrap();
        prop_assert_eq!(packet.range(), range.clone());
        prop_assert_eq!(keys.open(&packet, packet_number.checked_sub(1)), Some(opened.clone()));
        opened.payload.clone_from(&payload);
        keys.seal(&mut datagram[range], &opened).unwrap();
        prop_assert_eq!(datagram, before, "and back");
    }
}
