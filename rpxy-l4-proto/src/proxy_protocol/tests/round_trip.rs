//! Headers are read as they were written; values that have no room in a header are not written.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use proptest::{collection::vec, prelude::*};

use super::*;

fn v1(source: &str, destination: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_v1(addr(source), addr(destination), &mut bytes);
    bytes
}

#[test]
fn version_1_has_one_family_and_no_dotted_quads_in_it() {
    let rows = [
        ("192.0.2.1:1", "192.0.2.2:443", "PROXY TCP4 192.0.2.1 192.0.2.2 1 443\r\n"),
        ("[2001:db8::1]:1", "[::]:443", "PROXY TCP6 2001:db8::1 :: 1 443\r\n"),
        ("192.0.2.1:1", "[::1]:443", "PROXY TCP6 ::ffff:c000:201 ::1 1 443\r\n"),
        ("[::1]:1", "192.0.2.1:443", "PROXY TCP6 ::1 ::ffff:c000:201 1 443\r\n"),
        ("[::ffff:10.0.0.0]:1", "[::10.0.0.1]:443", "PROXY TCP6 ::ffff:a00:0 ::a00:1 1 443\r\n"),
        ("[fe80::1%7]:1", "[fe80::2%7]:443", "PROXY TCP6 fe80::1 fe80::2 1 443\r\n"),
    ];
    for (source, destination, expected) in rows {
        let bytes = v1(source, destination);
        assert_eq!(bytes, expected.as_bytes(), "{}", bytes.escape_ascii());
        assert!(matches!(checked(&bytes), Decoded::Complete { .. }));
    }
    let mut unknown = Vec::new();
    encode_v1_unknown(&mut unknown);
    assert_eq!(header(&unknown).addresses, Addresses::Unknown);
}

#[test]
fn headers_are_appended() {
    let mut with_checksum = tlvs(&[(2, b"a.example")]);
    assert!(with_checksum.add_checksum());
    let addresses = datagram("192.0.2.1:1", "[::1]:2");
    let mut alone = Vec::new();
    encode_v2(&addresses, &with_checksum, &mut alone);
    let mut appended = b"before".to_vec();
    encode_v2(&addresses, &with_checksum, &mut appended);
    assert_eq!(appended, [b"before".to_vec(), alone.clone()].concat());
    assert_eq!(header(&alone).addresses, datagram("[::ffff:192.0.2.1]:1", "[::1]:2"));
}

#[test]
fn local_is_written_without_tlvs() {
    let mut bytes = Vec::new();
    encode_v2(&Addresses::Local, &tlvs(&[(1, b"h2")]), &mut bytes);
    assert_eq!(bytes, v2(0x20, 0x00, &[]));
}

#[test]
fn tlvs_stay_within_their_bound() {
    let mut full = Tlvs::default();
    assert!(!full.push(0xe0, &[0; MAX_TLVS - 2]), "one byte too many");
    assert!(!full.push(0xe0, &[0; 65_536]), "longer than a length can tell");
    assert!(!full.push(3, &[0; 4]) && !full.push(4, &[]), "checksum and padding");
    assert_eq!(full, Tlvs::default(), "nothing was changed");
    assert!(full.push(0xe0, &[0; MAX_TLVS - 3 - 6]));
    assert!(!full.add_checksum(), "six bytes left of seven");
    assert!(full.push(0xe1, &[0; 3]));
    assert!(!full.push(0xe1, &[]));

    let mut exact = Tlvs::default();
    assert!(exact.push(0xe0, &[0; MAX_TLVS - 3 - 7]));
    assert!(exact.add_checksum() && exact.add_checksum());
    assert!(!exact.push(0xe1, &[]));
    for tlvs in [full, exact] {
        let mut bytes = Vec::new();
        encode_v2(&stream("192.0.2.1:1", "192.0.2.2:2"), &tlvs, &mut bytes);
        assert_eq!(header(&bytes).tlvs, tlvs);
    }
}

fn pair() -> impl Strategy<Value = (SocketAddr, SocketAddr)> {
    let pair = prop_oneof![
        any::<(Ipv4Addr, Ipv4Addr)>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        any::<(Ipv6Addr, Ipv6Addr)>().prop_map(|(a, b)| (IpAddr::from(a), IpAddr::from(b))),
        any::<(Ipv4Addr, Ipv4Addr)>()
            .prop_map(|(a, b)| (IpAddr::from(a.to_ipv6_mapped()), IpAddr::from(b.to_ipv6_mapped()))),
    ];
    (pair, any::<(u16, u16)>()).prop_map(|((a, b), ports)| (SocketAddr::new(a, ports.0), SocketAddr::new(b, ports.1)))
}

pub(super) fn headers() -> impl Strategy<Value = Header> {
    let addresses = prop_oneof![
        1 => Just(Addresses::Unknown),
        3 => pair().prop_map(|(source, destination)| Addresses::Stream { source, destination }),
        3 => pair().prop_map(|(source, destination)| Addresses::Datagram { source, destination }),
    ];
    let field = (any::<u8>().prop_filter("not kept", |typ| ![3, 4].contains(typ)), vec(any::<u8>(), 0..50));
    (addresses, vec(field, 0..6), any::<bool>()).prop_map(|(addresses, fields, checksum)| {
        let mut kept = tlvs(&fields.iter().map(|(typ, value)| (*typ, value.as_slice())).collect::<Vec<_>>());
        if checksum {
            assert!(kept.add_checksum());
        }
        Header { version: Version::V2, addresses, tlvs: kept }
    })
}

/// The header in version 2.
pub(super) fn encoded(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::new();
    encode_v2(&header.addresses, &header.tlvs, &mut bytes);
    bytes
}

proptest! {
    #[test]
    fn version_2_headers_are_read_as_written(expected in headers()) {
        prop_assert_eq!(header(&encoded(&expected)), expected);
    }

    #[test]
    fn version_1_headers_are_read_as_written((source, destination) in pair()) {
        let mut bytes = Vec::new();
        encode_v1(source, destination, &mut bytes);
        let addresses = Addresses::Stream { source, destination };
        prop_assert_eq!(header(&bytes), Header { version: Version::V1, addresses, tlvs: Tlvs::default() });
    }

    #[test]
    fn properties_hold_near_headers(expected in headers(), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let mut bytes = encoded(&expected);
        let index = at.index(bytes.len());
        bytes[index] = byte;
        let _decoded = properties::proxy_protocol(&bytes);
    }

    #[test]
    fn properties_hold_for_lines(line in "PROXY (TCP[46]|UNKNOWN) [0-9a-f:. \r\n]{0,100}\r\n") {
        let _decoded = properties::proxy_protocol(line.as_bytes());
    }
}
