//! PROXY headers, other bytes, and the first byte that tells them apart.

mod oracle;
mod round_trip;
mod version_1;
mod version_2;

use super::*;
use crate::{properties, testing::hex};

fn addr(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

fn stream(source: &str, destination: &str) -> Addresses {
    Addresses::Stream { source: addr(source), destination: addr(destination) }
}

fn datagram(source: &str, destination: &str) -> Addresses {
    Addresses::Datagram { source: addr(source), destination: addr(destination) }
}

/// TLVs from types and values.
fn tlvs(fields: &[(u8, &[u8])]) -> Tlvs {
    let mut tlvs = Tlvs::default();
    for (typ, value) in fields {
        assert!(tlvs.push(*typ, value));
    }
    tlvs
}

/// Version 2 bytes with any fixed part.
fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).unwrap().to_be_bytes();
    [&v2::SIGNATURE[..], &[command, family], &length, block].concat()
}

/// The answer, after checking that it does not depend on how the bytes arrive and on what follows the header.
#[track_caller]
fn checked(bytes: &[u8]) -> Decoded {
    let decoded = properties::proxy_protocol(bytes);
    if decoded != Decoded::NeedMore {
        assert_eq!(properties::proxy_protocol(&[bytes, b"payload"].concat()), decoded, "with a payload behind");
    }
    decoded
}

#[track_caller]
fn header(bytes: &[u8]) -> Header {
    match checked(bytes) {
        Decoded::Complete { header, len } => {
            assert_eq!(len, bytes.len());
            header
        }
        Decoded::NeedMore => panic!("not a whole header"),
        Decoded::Invalid(error) => panic!("{error}"),
    }
}

#[test]
fn other_protocols_are_refused_at_the_first_wrong_byte() {
    let rows: [(&[u8], Decoded); 9] = [
        (b"", Decoded::NeedMore),
        (b"P", Decoded::NeedMore),
        (b"PROXY", Decoded::NeedMore),
        (b"PO", Decoded::Invalid(DecodeError::NoSignature)),
        (b"PROXY\t", Decoded::Invalid(DecodeError::NoSignature)),
        (b"\r\n\r\n\0\r\nQUIT", Decoded::NeedMore),
        (b"\r\n\r\n\0\r\nQUIT\r", Decoded::Invalid(DecodeError::NoSignature)),
        (b"G", Decoded::Invalid(DecodeError::NoSignature)),
        (&[22, 3, 1], Decoded::Invalid(DecodeError::NoSignature)),
    ];
    for (bytes, expected) in rows {
        assert_eq!(checked(bytes), expected, "{}", bytes.escape_ascii());
    }
}

#[test]
fn every_truncation_needs_more() {
    let mut with_checksum = tlvs(&[(1, b"h2"), (0xe0, &[])]);
    assert!(with_checksum.add_checksum());
    let addresses = stream("[2001:db8::1]:1", "[2001:db8::2]:2");
    let mut headers = vec![b"PROXY UNKNOWN\r\n".to_vec(), b"PROXY UNKNOWN what\rever\r\n".to_vec()];
    for (source, destination) in [("192.0.2.1:65535", "0.0.0.0:0"), ("[2001:db8::1]:1", "192.0.2.1:443")] {
        let mut bytes = Vec::new();
        encode_v1(addr(source), addr(destination), &mut bytes);
        headers.push(bytes);
    }
    for addresses in [Addresses::Local, Addresses::Unknown, addresses] {
        let mut bytes = Vec::new();
        encode_v2(&addresses, &with_checksum, &mut bytes);
        headers.push(bytes);
    }
    for bytes in headers {
        for len in 0..bytes.len() {
            assert_eq!(decode(&bytes[..len]), Decoded::NeedMore, "{} of {}", len, bytes.escape_ascii());
        }
        assert!(matches!(checked(&bytes), Decoded::Complete { len, .. } if len == bytes.len()));
    }
}
