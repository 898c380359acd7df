//! The records around a HelloRetryRequest, in any segmentation.

use crate::{
    Probe,
    testing::{Hello, handshake, hex, record, records},
    tls::{Found, HelloProbe, SecondHello, ServerFlight, ServerFlightProbe, fatal_alert, handshake_records},
};

fn server_hello(random: &[u8]) -> Vec<u8> {
    handshake(2, &[&[3, 3], random, &hex("00 1301 00 0006 002b 0002 0304")].concat())
}

/// RFC 8446 section 4.1.3.
fn retry_random() -> Vec<u8> {
    hex("CF 21 AD 74 E5 9A 61 11 BE 1D 8C 02 1E 65 B8 91 C2 A2 11 16 7A BB 8C 5E 07 9E 09 E2 C8 A8 33 9C")
}

#[test]
fn what_a_server_begins_with() {
    use Probe::{Match, NeedMore, NotThis};
    let retry = server_hello(&retry_random());
    let mut nearly = retry_random();
    nearly[31] ^= 1;
    let rows = [
        ("server hello", record(22, &server_hello(&[7; 32])), Match(ServerFlight::ServerHello)),
        ("retry", record(22, &retry), Match(ServerFlight::HelloRetryRequest)),
        ("retry in small records", records(&retry, 5), Match(ServerFlight::HelloRetryRequest)),
        ("one bit off", record(22, &server_hello(&nearly)), Match(ServerFlight::ServerHello)),
        ("alert", record(21, &[2, 40]), NotThis),
        ("another handshake message", record(22, &handshake(4, &[0; 60])), NotThis),
        ("something else", b"HTTP/1.1 400 Bad Request\r\n".to_vec(), NotThis),
        ("nothing", Vec::new(), NeedMore),
        ("cut in the random", record(22, &retry)[..42].to_vec(), NeedMore),
    ];
    for (name, stream, expected) in rows {
        assert_eq!(ServerFlightProbe::default().advance(&stream), expected, "{name}");
        let mut probe = ServerFlightProbe::default();
        let answers = stream.iter().map(|byte| probe.advance(&[*byte]));
        assert_eq!(answers.into_iter().find(|answer| *answer != NeedMore).unwrap_or(NeedMore), expected, "{name}");
    }
}

/// Reads a stream in pieces of `size`: the bytes passed on, and the second hello with its name and the bytes behind.
fn read(stream: &[u8], size: usize) -> (Vec<u8>, Option<(String, Vec<u8>)>) {
    let (mut reader, mut forward) = (SecondHello::default(), Vec::new());
    reader.expect();
    let mut fed = 0;
    for piece in stream.chunks(size) {
        fed += piece.len();
        match reader.advance(piece, &mut forward) {
            Probe::NeedMore => {}
            Probe::Unreadable | Probe::NotThis => {
                forward.extend(&stream[fed..]);
                return (forward, None);
            }
            Probe::Match(Found { hello, version, mut rest }) => {
                assert_eq!(version, 1);
                rest.extend(&stream[fed..]);
                return (forward, Some((hello.server_name().unwrap().to_owned(), rest)));
            }
        }
    }
    forward.extend(reader.into_held());
    (forward, None)
}

#[test]
fn the_second_hello_is_found_behind_what_is_passed_on() {
    let hello = Hello::for_name("second.example", &[]);
    let (change, early) = (record(20, &[1]), record(23, &[5; 300]));
    let long_early = record(23, &vec![5; (1 << 14) + 256]);
    let finished = record(23, &[6; 52]);
    let found = |rest: &[u8]| Some(("second.example".to_owned(), rest.to_vec()));
    let too_long = [vec![23, 3, 3], u16::to_be_bytes((1 << 14) + 257).to_vec(), vec![0; 400]].concat();
    let rows = [
        ("alone", vec![], hello.record(), found(b"")),
        ("in small records", vec![], records(&hello.message(), 11), found(b"")),
        ("behind change_cipher_spec", change.clone(), hello.record(), found(b"")),
        ("behind early data", [change.clone(), early.clone(), long_early].concat(), hello.record(), found(b"")),
        ("with records behind", change.clone(), [hello.record(), finished.clone()].concat(), found(&finished)),
        ("no hello", early.clone(), record(22, &handshake(11, &[0; 50])), None),
        ("a hello that shares its record", change.clone(), record(22, &[hello.message(), vec![1]].concat()), None),
        ("no TLS", change.clone(), b"GET / HTTP/1.1\r\n".to_vec(), None),
        ("a record that is too long", change.clone(), too_long, None),
        ("records between its parts", change, [records(&hello.message(), 30)[..35].to_vec(), early].concat(), None),
        ("not yet", record(21, &[1, 0]), hello.record()[..60].to_vec(), None),
    ];
    for (name, before, then, expected) in rows {
        let stream = [before.clone(), then.clone()].concat();
        for size in [1, 2, 5, 7, 64, stream.len()] {
            let (forward, second) = read(&stream, size);
            assert_eq!(second, expected, "{name}, in pieces of {size}");
            let passed_on = if expected.is_some() { &before } else { &stream };
            assert_eq!(forward, *passed_on, "{name}, in pieces of {size}");
        }
    }
}

#[test]
fn handshake_records_wait_until_a_hello_is_expected() {
    let hello = Hello::for_name("second.example", &[]).record();
    let early = record(23, &[5; 30]);
    let (mut reader, mut forward) = (SecondHello::default(), Vec::new());
    assert!(!reader.is_waiting());
    assert!(matches!(reader.advance(&[early.clone(), hello.clone()].concat(), &mut forward), Probe::NeedMore));
    assert!(reader.is_waiting() && forward == early);
    reader.expect();
    assert!(!reader.is_waiting());
    assert!(matches!(reader.advance(&[], &mut forward), Probe::Match(_)));

    let mut reader = SecondHello::default();
    assert!(matches!(reader.advance(&hello, &mut forward), Probe::NeedMore));
    assert_eq!(reader.into_held(), hello, "not wanted after all");
}

#[test]
fn records_that_are_written_are_read() {
    for length in [50, (1 << 14) - 1, 1 << 14, (1 << 14) + 1, 40_000] {
        let padding = Hello::with(vec![(21, vec![0; length])]).message();
        let stream = handshake_records(&padding, 1);
        let mut probe = HelloProbe::default();
        let Probe::Match(hello) = probe.advance(&stream) else { panic!("{length}") };
        assert_eq!((hello.message(), probe.end()), (padding.as_slice(), Some(stream.len())), "{length}");
        assert_eq!(stream.len(), padding.len() + padding.len().div_ceil(1 << 14) * 5, "{length}");
    }
    assert_eq!(fatal_alert(47), [21, 3, 3, 0, 2, 2, 47]);
}

#[test]
fn the_end_of_a_hello_is_the_end_of_its_record() {
    let hello = Hello::for_name("a.example", &[]);
    let rows = [
        ("alone", hello.record(), true),
        ("bytes behind", [hello.record(), record(23, &[1; 9])].concat(), true),
        ("small records", records(&hello.message(), 10), true),
        ("shares its record", record(22, &[hello.message(), vec![1]].concat()), false),
    ];
    for (name, stream, whole) in rows {
        let mut probe = HelloProbe::default();
        assert!(probe.advance(&stream).is_match(), "{name}");
        let length = if name == "bytes behind" { hello.record().len() } else { stream.len() };
        assert_eq!(probe.end(), whole.then_some(length), "{name}");
    }
}
