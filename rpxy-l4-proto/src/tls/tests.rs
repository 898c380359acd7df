//! ClientHellos, other bytes, and the byte that tells them apart.

mod limits;
mod oracle;
mod retry;
mod segments;

use super::{ClientHello, HelloProbe};
use crate::{
    Probe, properties,
    testing::{Hello, handshake, hex, protocol_names, record, server_name, vec8, vec16},
};

/// The answer to a whole stream.
fn probe(stream: &[u8]) -> Probe<ClientHello> {
    HelloProbe::default().advance(stream)
}

fn hello(outcome: Probe<ClientHello>) -> ClientHello {
    match outcome {
        Probe::Match(hello) => hello,
        Probe::NotThis | Probe::Unreadable => panic!("not a hello"),
        Probe::NeedMore => panic!("not a whole hello"),
    }
}

#[test]
fn every_field_is_found() {
    let body = hex("00");
    let built = Hello::with(vec![
        (0x0a0a, Vec::new()),
        (0, server_name("A.Example.")),
        (43, hex("02 0304")),
        (16, protocol_names(&["h2", "http/1.1"])),
        (0xfe0d, body.clone()),
    ]);
    let found = hello(probe(&built.record()));
    assert_eq!(found.message(), built.message());
    assert_eq!(found.session_id(), built.session_id);
    assert_eq!(found.cipher_suites(), built.cipher_suites);
    assert_eq!(found.server_name(), Some("A.Example."));
    assert_eq!(found.alpn().collect::<Vec<_>>(), [&b"h2"[..], b"http/1.1"]);
    assert_eq!(found.extension(0xfe0d), Some(body.as_slice()));
    assert_eq!(found.extension(0x0a0a), Some(&[][..]));
    assert_eq!(found.extension(44), None);
    let types: Vec<u16> = found.extensions().map(|extension| extension.typ).collect();
    assert_eq!(types, [0x0a0a, 0, 43, 16, 0xfe0d]);
    for extension in found.extensions() {
        let header = &found.message()[extension.range.start - 4..extension.range.start];
        assert_eq!(header[..2], extension.typ.to_be_bytes());
        assert_eq!(usize::from(u16::from_be_bytes([header[2], header[3]])), extension.range.len());
    }
}

#[test]
fn legal_oddities_are_accepted() {
    let name = || (0, server_name("a.example"));
    let rows: [(&str, Hello, Option<&str>); 12] = [
        ("no extension block", Hello { extensions: None, ..Hello::default() }, None),
        ("an empty extension block", Hello::default(), None),
        ("no session id", Hello { session_id: vec![], ..Hello::with(vec![name()]) }, Some("a.example")),
        ("major version 4", Hello { version: [4, 1], ..Hello::with(vec![name()]) }, Some("a.example")),
        ("major version 2", Hello { version: [2, 3], ..Hello::with(vec![name()]) }, Some("a.example")),
        ("SSL 3.0 in legacy_version", Hello { version: [3, 0], ..Hello::with(vec![name()]) }, Some("a.example")),
        ("two compression methods", Hello { compression_methods: vec![1, 0], ..Hello::default() }, None),
        ("GREASE cipher suite", Hello { cipher_suites: hex("4a4a 1301"), ..Hello::default() }, None),
        ("GREASE extensions", Hello::with(vec![(0x1a1a, vec![]), name(), (0xfafa, vec![0])]), Some("a.example")),
        ("a server name of another type only", Hello::with(vec![(0, hex("0004 07 0001 61"))]), None),
        (
            "a server name behind one of another type",
            Hello::with(vec![(0, hex("0008 07 0001 61 00 0001 62"))]),
            Some("b"),
        ),
        ("255 bytes of name", Hello::with(vec![(0, server_name(&"n".repeat(255)))]), Some(&*"n".repeat(255).leak())),
    ];
    for (row, built, name) in rows {
        assert_eq!(hello(probe(&built.record())).server_name(), name, "{row}");
        assert_eq!(hello(ClientHello::parse(built.message())).server_name(), name, "{row}");
    }
}

#[test]
fn a_name_that_cannot_be_compared_is_no_name() {
    let h2 = || (16, protocol_names(&["h2"]));
    let named = |body: Vec<u8>| Hello::with(vec![(0, body), h2()]);
    let rows = [
        ("UTF-8", named(server_name("caf\u{e9}"))),
        ("Latin-1", named(hex("0007 00 0004 636166e9"))),
        ("a blank", named(server_name("a b"))),
        ("NUL", named(server_name("a\0b"))),
        ("DEL", named(server_name("a\x7fb"))),
        ("256 bytes", named(server_name(&"n".repeat(256)))),
        ("an empty name", named(hex("0003 00 0000"))),
        ("two names", named(hex("0008 00 0001 61 00 0001 62"))),
        ("two names of an unknown type", named(hex("0008 07 0001 61 07 0001 62"))),
        ("empty body", named(vec![])),
        ("empty list", named(hex("0000"))),
        ("list too long", named(hex("0005 00 0001 61"))),
        ("list too short", named(hex("0003 00 0001 61"))),
        ("name past its list", named(hex("0004 00 0002 61"))),
    ];
    for (row, built) in rows {
        let found = hello(properties::client_hello(&built.record()));
        assert_eq!(found.server_name(), None, "{row}");
        assert_eq!(found.alpn().collect::<Vec<_>>(), [b"h2"], "{row}");
    }
}

#[test]
fn a_malformed_alpn_takes_nothing_else_away() {
    let rows = [
        ("empty body", vec![]),
        ("empty list", hex("0000")),
        ("empty name", vec16(&vec8(b""))),
        ("name past its list", hex("0002 02 68")),
        ("bytes behind the list", hex("0002 01 68 00")),
    ];
    for (row, body) in rows {
        let built = Hello::with(vec![(0, server_name("a.example")), (16, body)]);
        let found = hello(properties::client_hello(&built.record()));
        assert_eq!((found.server_name(), found.alpn().count()), (Some("a.example"), 0), "{row}");
    }
}

#[test]
fn malformed_hellos_are_tls_without_a_name() {
    let built = |hello: Hello| hello.message();
    let base = || Hello::for_name("a.example", &["h2"]);
    let mut long_block = base().message();
    let block_length_at = long_block.len() - (4 + 14 + 4 + 5) - 1;
    long_block[block_length_at] += 1;
    let mut short_block = base().message();
    short_block[block_length_at] -= 1;
    let body = |message: Vec<u8>| message[4..].to_vec();
    let rows: [(&str, Vec<u8>); 13] = [
        ("too short to be any hello", handshake(1, &[3, 3])),
        ("session id of 33 bytes", built(Hello { session_id: vec![0; 33], ..base() })),
        ("no cipher suite", built(Hello { cipher_suites: vec![], ..base() })),
        ("half a cipher suite", built(Hello { cipher_suites: vec![0x13, 1, 0], ..base() })),
        ("no compression method", built(Hello { compression_methods: vec![], ..base() })),
        ("extension block longer than the message", long_block),
        ("extension block shorter than the message", short_block),
        (
            "one byte where the block's length should be",
            handshake(1, &[body(built(Hello { extensions: None, ..base() })), vec![0]].concat()),
        ),
        ("bytes behind the extensions", handshake(1, &[body(base().message()), vec![0]].concat())),
        (
            "three bytes of extension",
            handshake(1, &[body(built(Hello { extensions: None, ..base() })), vec16(&[0, 23, 0])].concat()),
        ),
        (
            "extension past the block",
            handshake(1, &[body(built(Hello { extensions: None, ..base() })), vec16(&[0, 23, 0, 1])].concat()),
        ),
        ("the same extension twice", built(Hello::with(vec![(23, vec![]), (23, vec![])]))),
        ("two server_name extensions", built(Hello::with(vec![(0, server_name("a")), (0, server_name("a"))]))),
    ];
    for (row, message) in rows {
        assert_eq!(ClientHello::parse(message.clone()), Probe::Unreadable, "{row}");
        assert_eq!(properties::client_hello(&record(22, &message)), Probe::Unreadable, "{row}");
    }
    let other = handshake(2, &body(base().message()));
    assert_eq!(ClientHello::parse(other.clone()), Probe::NotThis, "another message");
    assert_eq!(probe(&record(22, &other)), Probe::Unreadable, "another message in a record");
}

#[test]
fn the_first_wrong_byte_decides() {
    use Probe::{NotThis, Unreadable};
    let good = Hello::for_name("a.example", &[]).record();
    let suites_at = 43 + 1 + 32;
    // Cipher suites of this length fill the message.
    let suites = u8::try_from(good.len() - suites_at - 2).unwrap();
    assert_eq!(suites % 2, 0);
    // Offset, a value that no hello has there, and what it is.
    let rows = [
        (0, 23, "content type", NotThis),
        (1, 2, "major record version", NotThis),
        (3, 0x41, "record length", Unreadable),
        (5, 2, "handshake type", Unreadable),
        (6, 1, "handshake length beyond 64 KiB", Unreadable),
        (43, 33, "session id length", Unreadable),
        (suites_at + 1, suites + 2, "cipher suites beyond the message", Unreadable),
        (suites_at + 1, suites, "nothing behind the cipher suites", Unreadable),
        (suites_at + 1, 7, "half a cipher suite", Unreadable),
        (suites_at + 8, 0, "no compression method", Unreadable),
        (suites_at + 8, 0xff, "compression methods beyond the message", Unreadable),
        (suites_at + 11, 0, "extension block shorter than the message", Unreadable),
        (suites_at + 15, 0xff, "extension beyond the block", Unreadable),
    ];
    for (offset, value, field, answer) in rows {
        let mut stream = good[..=offset].to_vec();
        assert_eq!(probe(&stream), Probe::NeedMore, "{field} as it should be");
        stream[offset] = value;
        assert_eq!(probe(&stream), answer, "{field}");
    }
}

#[test]
fn three_bytes_are_certain() {
    let good = Hello::for_name("a.example", &[]).record();
    for len in 0..good.len() {
        let mut probe = HelloProbe::default();
        assert_eq!(probe.advance(&good[..len]), Probe::NeedMore, "{len} bytes");
        assert_eq!(probe.is_certain(), len >= 3, "{len} bytes");
    }
}

#[test]
fn what_follows_the_hello_is_not_looked_at() {
    let built = Hello::for_name("a.example", &["h2"]);
    let expected = hello(probe(&built.record()));
    let rows = [
        ("change cipher spec", [built.record(), record(20, &[1])].concat()),
        ("early data", [built.record(), record(23, &[0; 100])].concat()),
        ("noise", [built.record(), vec![0xff; 9]].concat()),
        ("another message in the same record", record(22, &[built.message(), handshake(24, &[0])].concat())),
        ("a second hello", [built.record(), built.record()].concat()),
    ];
    for (row, stream) in rows {
        assert_eq!(hello(probe(&stream)), expected, "{row}");
    }
    let trailing = [built.message(), vec![1, 2, 3]].concat();
    assert_eq!(hello(ClientHello::parse(trailing)), expected, "a CRYPTO stream that goes on");
}

#[test]
fn another_record_before_the_end_of_the_hello_makes_it_unreadable() {
    let message = Hello::for_name("a.example", &[]).message();
    let (start, rest) = message.split_at(20);
    for (row, between) in [
        ("alert", record(21, &[1, 0])),
        ("change cipher spec", record(20, &[1])),
        ("application data", record(23, &[0])),
    ] {
        let stream = [record(22, start), between, record(22, rest)].concat();
        assert_eq!(probe(&stream), Probe::Unreadable, "{row}");
    }
}

#[test]
fn empty_records_are_passed_over() {
    let message = Hello::for_name("a.example", &[]).message();
    let (start, rest) = message.split_at(20);
    let stream = |count| [record(22, start), record(22, &[]).repeat(count), record(22, rest)].concat();
    assert_eq!(hello(properties::client_hello(&stream(32))).server_name(), Some("a.example"));
    assert_eq!(properties::client_hello(&stream(33)), Probe::Unreadable, "more than a server takes");
}
