//! Version 2: fixed part, addresses, TLVs.

use super::*;
use crate::testing::vec16;

const V4: &str = "c0000201 c6336402 dc04 01bb";
const V6: &str = "20010db8000000000000000000000001 20010db8000000000000000000000002 dc04 01bb";

fn unix() -> Vec<u8> {
    [b"/run/a".to_vec(), vec![0; 210]].concat()
}

#[test]
fn headers_of_every_family_are_read() {
    let v4 = ("192.0.2.1:56324", "198.51.100.2:443");
    let v6 = ("[2001:db8::1]:56324", "[2001:db8::2]:443");
    let rows = [
        ("TCP over IPv4", v2(0x21, 0x11, &hex(V4)), stream(v4.0, v4.1)),
        ("UDP over IPv4", v2(0x21, 0x12, &hex(V4)), datagram(v4.0, v4.1)),
        ("TCP over IPv6", v2(0x21, 0x21, &hex(V6)), stream(v6.0, v6.1)),
        ("UDP over IPv6", v2(0x21, 0x22, &hex(V6)), datagram(v6.0, v6.1)),
        ("unspecified", v2(0x21, 0x00, &[]), Addresses::Unknown),
        ("IPv4, transport unspecified", v2(0x21, 0x10, &hex(V4)), Addresses::Unknown),
        ("stream, family unspecified", v2(0x21, 0x01, &[]), Addresses::Unknown),
        ("UNIX stream", v2(0x21, 0x31, &unix()), Addresses::Unknown),
        ("UNIX datagram", v2(0x21, 0x32, &unix()), Addresses::Unknown),
        ("local", v2(0x20, 0x00, &[]), Addresses::Local),
        ("local with addresses", v2(0x20, 0x11, &hex(V4)), Addresses::Local),
        ("local with an unassigned family and no TLVs", v2(0x20, 0xff, &[1, 2, 3]), Addresses::Local),
    ];
    for (row, bytes, addresses) in rows {
        assert_eq!(header(&bytes), Header { version: Version::V2, addresses, tlvs: Tlvs::default() }, "{row}");
    }
}

#[test]
fn tlvs_are_kept_behind_every_family() {
    let fields = hex("01 0002 6832 e0 0000 02 0003 612e62");
    for (row, family, addresses) in
        [("IPv4", 0x11, hex(V4)), ("IPv6", 0x22, hex(V6)), ("UNIX", 0x31, unix()), ("unspecified", 0x00, Vec::new())]
    {
        let header = header(&v2(0x21, family, &[addresses, fields.clone()].concat()));
        let found: Vec<_> = header.tlvs.iter().collect();
        assert_eq!(found, [(0x01, &b"h2"[..]), (0xe0, b""), (0x02, b"a.b")], "{row}");
        assert!(!header.tlvs.checksum());
    }
}

#[test]
fn a_wrong_fixed_part_is_refused_at_the_byte_that_proves_it() {
    use DecodeError::{Command, Family, TooShort, Version};
    let rows = [
        ("version 1", "11", Version),
        ("version 3", "31", Version),
        ("command 2", "22", Command),
        ("command 15", "2f", Command),
        ("family 4", "2141", Family),
        ("family 15", "21f1", Family),
        ("transport 3", "2113", Family),
        ("transport 15", "211f", Family),
        ("11 bytes for IPv4", "2111 000b", TooShort),
        ("35 bytes for IPv6", "2121 0023", TooShort),
        ("215 bytes for UNIX", "2131 00d7", TooShort),
    ];
    for (row, fixed, error) in rows {
        let bytes = [v2::SIGNATURE.to_vec(), hex(fixed)].concat();
        assert_eq!(checked(&bytes), Decoded::Invalid(error), "{row}");
        assert_eq!(checked(&bytes[..bytes.len() - 1]), Decoded::NeedMore, "{row}, without the last byte");
    }
}

#[test]
fn tlvs_fit_exactly() {
    let with = |fields: &[u8]| checked(&v2(0x21, 0x11, &[hex(V4), fields.to_vec()].concat()));
    for (row, fields) in [
        ("type only", "01"),
        ("half a length", "01 00"),
        ("value missing", "01 0001"),
        ("value cut", "01 0003 6832"),
        ("the second one cut", "01 0002 6832 05"),
        ("checksum of three bytes", "03 0003 000000"),
        ("checksum of five bytes", "03 0005 0000000000"),
    ] {
        assert_eq!(with(&hex(fields)), Decoded::Invalid(DecodeError::Tlv), "{row}");
    }
}

#[test]
fn of_many_tlvs_as_many_are_kept_as_fit() {
    let field = |typ: u8, len: usize| [vec![typ], vec16(&vec![7; len])].concat();
    let checksum = || hex("03 0004 00000000");
    // Fields, and the types that are kept.
    let rows = [
        ("4096 bytes", vec![field(0xe0, 4093)], vec![0xe0]),
        ("4097 bytes", vec![field(0xe0, 4094)], vec![]),
        ("60,000 bytes", vec![field(1, 2), field(0xe0, 60_000), field(2, 9)], vec![1, 2]),
        ("many", [vec![field(0xe1, 97); 600], vec![field(2, 9)]].concat(), [vec![0xe1; 40], vec![2]].concat()),
        ("as many as the field can tell", vec![field(0xe0, 65_535 - 12 - 3 - 5), field(1, 2)], vec![1]),
        ("padding", vec![field(4, 60_000), field(1, 2)], vec![1]),
    ];
    for (row, fields, kept) in rows {
        let bytes = v2(0x21, 0x11, &[hex(V4), fields.concat()].concat());
        let found = header(&bytes).tlvs;
        assert_eq!(found.iter().map(|(typ, _)| typ).collect::<Vec<_>>(), kept, "{row}");
        assert!(found.encoded_len() <= MAX_TLVS, "{row}");
        assert_eq!(checked(&bytes[..bytes.len() - 1]), Decoded::NeedMore, "{row}, without the last byte");
    }
    let mut bytes = v2(0x21, 0x11, &[hex(V4), field(0xe0, 4093), field(1, 2), checksum()].concat());
    let at = bytes.len() - 4;
    let sum = tlv::checksum(&bytes, at).to_be_bytes();
    bytes[at..].copy_from_slice(&sum);
    let found = header(&bytes).tlvs;
    assert!(found.checksum() && found.encoded_len() <= MAX_TLVS);
    assert_eq!(found.iter().map(|(typ, _)| typ).collect::<Vec<_>>(), [1], "room is left for a checksum");
}

#[test]
fn local_headers_may_have_any_length() {
    let bytes = v2(0x20, 0, &vec![0; 65_535]);
    assert_eq!(header(&bytes).addresses, Addresses::Local);
}

#[test]
fn padding_is_dropped() {
    let fields = hex("04 0000 01 0002 6832 04 0003 000000");
    assert_eq!(header(&v2(0x21, 0x11, &[hex(V4), fields].concat())).tlvs, tlvs(&[(1, b"h2")]));
}

#[test]
fn a_checksum_is_verified() {
    // By the definition: CRC32C (RFC 4960 appendix B), bit by bit.
    let crc = |bytes: &[u8]| {
        !bytes.iter().fold(u32::MAX, |crc, &byte| {
            (0..8).fold(crc ^ u32::from(byte), |crc, _| crc >> 1 ^ if crc & 1 == 1 { 0x82f6_3b78 } else { 0 })
        })
    };
    assert_eq!(crc(b"123456789"), 0xe306_9283, "the check value of CRC-32C");
    let mut bytes = v2(0x21, 0x11, &[hex(V4), hex("01 0002 6832 03 0004 00000000 e0 0001 09")].concat());
    let at = bytes.len() - 8;
    let checksum = crc(&bytes).to_be_bytes();
    assert_eq!(checked(&bytes), Decoded::Invalid(DecodeError::Checksum), "four zero bytes");
    bytes[at..at + 4].copy_from_slice(&checksum);
    let found = header(&bytes).tlvs;
    assert!(found.checksum());
    assert_eq!(found.iter().collect::<Vec<_>>(), [(1, &b"h2"[..]), (0xe0, &[9])]);
    // Changes of the fixed part and of lengths lead to other errors first.
    let lengths = [at + 5, at + 6];
    for index in (16..28).chain([31, 32]).chain(at..bytes.len()).filter(|index| !lengths.contains(index)) {
        let mut changed = bytes.clone();
        changed[index] ^= 1;
        assert_eq!(checked(&changed), Decoded::Invalid(DecodeError::Checksum), "byte {index}");
    }
    let twice = [hex(V4), hex("03 0004 00000000 03 0004 00000000")].concat();
    assert!(matches!(checked(&v2(0x21, 0x11, &twice)), Decoded::Invalid(_)), "two checksums");
}
