//! Each bound at its value and just beyond it.

use super::*;
use crate::{testing::records, tls::MAX_HELLO};

/// A hello whose message has exactly `len` bytes, by padding (RFC 7685).
fn of_len(len: usize) -> Vec<u8> {
    let without = Hello::with(vec![(21, vec![])]).message().len();
    let message = Hello::with(vec![(21, vec![0; len - without])]).message();
    assert_eq!(message.len(), len);
    message
}

#[test]
fn messages_up_to_the_bound_are_read() {
    for len in [1501, 2048, (1 << 14) + 1, MAX_HELLO - 1, MAX_HELLO] {
        let message = of_len(len);
        assert_eq!(hello(probe(&records(&message, 1 << 14))).message(), message, "{len} bytes");
        assert_eq!(hello(ClientHello::parse(message.clone())).message(), message, "{len} bytes");
    }
}

#[test]
fn a_longer_message_is_unreadable_by_its_length_field() {
    let mut header = of_len(MAX_HELLO)[..4].to_vec();
    assert_eq!(ClientHello::parse(header.clone()), Probe::NeedMore);
    header[3] += 1;
    assert_eq!(ClientHello::parse(header.clone()), Probe::Unreadable);
    assert_eq!(probe(&record(22, &header)), Probe::Unreadable);
}

#[test]
fn records_have_up_to_16384_bytes() {
    let rows = [
        ("none", [0x00, 0x00], Probe::NeedMore),
        ("one", [0x00, 0x01], Probe::NeedMore),
        ("2^14 - 1", [0x3f, 0xff], Probe::NeedMore),
        ("2^14", [0x40, 0x00], Probe::NeedMore),
        ("2^14 + 1", [0x40, 0x01], Probe::Unreadable),
        ("65,535", [0xff, 0xff], Probe::Unreadable),
    ];
    for (row, length, expected) in rows {
        assert_eq!(probe(&[&[22, 3, 1], &length[..]].concat()), expected, "{row}");
    }
}

#[test]
fn a_post_quantum_hello_is_larger_than_a_segment() {
    let key_shares = vec16(&[hex("11ec"), vec16(&[0x42; 1216]), hex("001d"), vec16(&[0x17; 32])].concat());
    let built = Hello::with(vec![
        (43, hex("04 0304 0303")),
        (51, key_shares),
        (0, server_name("pq.example")),
        (0xfe0d, vec![0; 250]),
        (16, protocol_names(&["h2"])),
    ]);
    let stream = built.record();
    assert!(stream.len() > 1500, "{}", stream.len());
    let mut probe = HelloProbe::default();
    assert_eq!(probe.advance(&stream[..1460]), Probe::NeedMore);
    assert_eq!(hello(probe.advance(&stream)).server_name(), Some("pq.example"));
}

#[test]
fn a_length_field_alone_takes_no_memory() {
    let mut header = of_len(MAX_HELLO)[..4].to_vec();
    header.splice(0..0, [22, 3, 1, 0x40, 0]);
    let mut probe = HelloProbe::default();
    assert_eq!(probe.advance(&header), Probe::NeedMore);
    assert!(probe.buffered() <= 64, "{} bytes for {} received", probe.buffered(), header.len());
}
