//! Each kind: what passes, what fails and why, however it is cut.

use std::{num::NonZeroU16, time::Duration};

use proptest::prelude::*;
use rpxy_l4_proto::{
    Probe,
    quic::{LongHeader, version_negotiation},
    tls::HelloProbe,
};

use super::*;

fn check(kind: CheckKind) -> Check {
    Check {
        name: "x".into(),
        kind,
        port: None,
        #[cfg(feature = "proxy-protocol")]
        send_proxy: None,
        interval: Duration::from_secs(5),
        timeout: Duration::from_secs(2),
        fall: NonZeroU16::MIN,
        rise: NonZeroU16::MIN,
        close: false,
    }
}

/// The question to the target `host`, whose port is 8443.
fn question(kind: CheckKind, host: &str) -> Question {
    asked(&check(kind), host)
}

fn asked(check: &Check, host: &str) -> Question {
    let host = match host.parse() {
        Ok(address) => Host::Ip { address, scope: 0 },
        Err(_) => Host::Name(host.into()),
    };
    Question::new(check, addressee(check, &host, 8443).as_deref(), &Random::new(7))
}

/// The judgement of a stream that arrives in pieces of `size` bytes.
fn judge(question: &mut Question, stream: &[u8], size: usize) -> Judgement {
    let pieces = stream.chunks(size).map(|piece| question.arrived(piece));
    pieces.fold(Judgement::NeedMore, |judgement, next| if judgement == Judgement::NeedMore { next } else { judgement })
}

/// Asserts the judgement, in one piece and byte by byte: `None` is not complete, otherwise the reason for failing, empty
/// for passing.
#[track_caller]
fn judged(name: &str, kind: &CheckKind, stream: &[u8], expected: Option<&str>) {
    for size in [stream.len().max(1), 1, 3] {
        let judgement = judge(&mut question(kind.clone(), "h"), stream, size);
        let expected = match expected {
            None => Judgement::NeedMore,
            Some("") => Judgement::Passed,
            Some(reason) => Judgement::Failed(reason.to_owned()),
        };
        assert_eq!(judgement, expected, "{name}, in pieces of {size}");
    }
}

fn http(status: &[std::ops::RangeInclusive<u16>]) -> CheckKind {
    CheckKind::Http(HttpCheck { path: "/ready".into(), host: None, status: status.to_vec() })
}

#[test]
fn a_request_names_path_and_host() {
    for (name, configured, host, port, expected) in [
        ("an address", None, "192.0.2.1", None, "192.0.2.1:8443"),
        ("of IPv6", None, "2001:db8::1", None, "[2001:db8::1]:8443"),
        ("a name", None, "a.example", None, "a.example:8443"),
        ("on another port", None, "a.example", NonZeroU16::new(81), "a.example:81"),
        ("on the usual port", None, "a.example", NonZeroU16::new(80), "a.example"),
        ("as configured", Some("b.example"), "a.example", NonZeroU16::new(81), "b.example"),
    ] {
        let kind = CheckKind::Http(HttpCheck { path: "/p".into(), host: configured.map(Into::into), status: vec![] });
        let request = asked(&Check { port, ..check(kind) }, host).bytes().to_vec();
        let request = String::from_utf8(request).unwrap();
        assert!(request.starts_with(&format!("GET /p HTTP/1.1\r\nHost: {expected}\r\n")), "{name}: {request}");
        assert!(request.ends_with("\r\nConnection: close\r\n\r\n"), "{name}: {request}");
    }
}

#[test]
fn the_final_status_decides() {
    let ok = http(&[200..=299, 404..=404]);
    for (name, stream, expected) in [
        ("nothing yet", "", None),
        ("not all digits", "HTTP/1.1 20", None),
        ("no end of the number", "HTTP/1.1 200", None),
        ("a status", "HTTP/1.1 200 ", Some("")),
        ("without a reason", "HTTP/1.0 204\r\n", Some("")),
        ("the end of a range", "HTTP/1.1 299 x", Some("")),
        ("another one", "HTTP/1.1 404 Not Found\r\n", Some("")),
        ("not accepted", "HTTP/1.1 503 Service Unavailable\r\n", Some("status 503")),
        ("interim", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n", None),
        ("interim, then final", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\nHTTP/1.1 200 OK\r\n", Some("")),
        ("a switch", "HTTP/1.1 101 Switching Protocols\r\n\r\n", Some("status 101")),
        ("four digits", "HTTP/1.1 2000 OK\r\n", Some("the answer is not HTTP/1")),
        ("HTTP/2", "HTTP/2.0 200 OK\r\n", Some("the answer is not HTTP/1")),
        ("a banner", "SSH-2.0-x\r\n", Some("the answer is not HTTP/1")),
        ("letters", "HTTP/1.1 2x0 OK\r\n", Some("the answer is not HTTP/1")),
    ] {
        judged(name, &ok, stream.as_bytes(), expected);
    }
    judged("an interim one that is accepted", &http(&[100..=199]), b"HTTP/1.1 103 Early Hints\r\n", Some(""));
    let endless = [b"HTTP/1.1 100 Continue\r\n".as_slice(), &[b'x'; MOST_ANSWER]].concat();
    judged("endless", &ok, &endless, Some("no status in the first 8192 bytes of the answer"));
}

#[test]
fn bytes_are_found_anywhere_in_a_stream_and_in_one_datagram() {
    let stream = CheckKind::Stream { send: Arc::default(), expect: Some(b"PONG".as_slice().into()) };
    for (name, arrived, expected) in [
        ("nothing", "", None),
        ("a part", "+PON", None),
        ("at the start", "PONG", Some("")),
        ("in the middle", "x+PONG\r\n", Some("")),
        ("something else", "-ERR", None),
    ] {
        judged(name, &stream, arrived.as_bytes(), expected);
    }
    let long = [b'x'; MOST_ANSWER];
    let reason = "not what is expected in the first 8192 bytes of the answer";
    judged("too late", &stream, &[&long[..], b"PONG"].concat(), Some(reason));
    let datagram = |expect: Option<&[u8]>| {
        question(CheckKind::Datagram { send: b"q".as_slice().into(), expect: expect.map(Into::into) }, "h")
    };
    assert_eq!(datagram(Some(b"a")).arrived(b"bab"), Judgement::Passed);
    let failed = Judgement::Failed("the answer is not what is expected".to_owned());
    assert_eq!(datagram(Some(b"a")).arrived(b"b"), failed);
    assert_eq!(datagram(None).arrived(b""), Judgement::Passed, "any answer");
    assert_eq!((datagram(None).may_be_silent(), datagram(Some(b"a")).may_be_silent()), (true, false));
}

#[test]
fn what_asks_for_no_answer_passes_once_it_is_sent() {
    let stream =
        |expect: Option<&[u8]>| CheckKind::Stream { send: b"x".as_slice().into(), expect: expect.map(Into::into) };
    for (name, kind, expected) in [
        ("a connection", CheckKind::Connect, Judgement::Passed),
        ("bytes", stream(None), Judgement::Passed),
        ("bytes with an answer", stream(Some(b"y")), Judgement::NeedMore),
        ("a request", http(&[200..=200]), Judgement::NeedMore),
        ("a handshake", CheckKind::Tls { server_name: None }, Judgement::NeedMore),
        ("QUIC", CheckKind::Quic, Judgement::NeedMore),
        ("a datagram", CheckKind::Datagram { send: b"x".as_slice().into(), expect: None }, Judgement::NeedMore),
    ] {
        assert_eq!(question(kind, "h").sent(), expected, "{name}");
    }
}

#[test]
fn the_hello_names_the_server_and_reads_as_one() {
    for (name, configured, host, expected) in [
        ("the target's name", None, "a.example", Some("a.example")),
        ("another name", Some("b.example"), "a.example", Some("b.example")),
        ("a name for an address", Some("b.example"), "192.0.2.1", Some("b.example")),
        ("an address of IPv4", None, "192.0.2.1", None),
        ("an address of IPv6", None, "2001:db8::1", None),
    ] {
        let question = question(CheckKind::Tls { server_name: configured.map(Into::into) }, host);
        let mut probe = HelloProbe::default();
        let Probe::Match(hello) = probe.advance(question.bytes()) else { panic!("{name}: no hello") };
        assert_eq!(hello.server_name(), expected, "{name}");
        assert_eq!(probe.end(), Some(question.bytes().len()), "{name}: nothing follows");
        for required in [10, 13, 43, 51] {
            assert!(hello.extension(required).is_some(), "{name}: {required} (RFC 8446 section 9.2)");
        }
    }
}

/// The answer to the hello of [`question`]: a ServerHello with these fields.
fn server_hello(version: [u8; 2], session: Option<&[u8]>, suite: u16, rest: &[u8]) -> Vec<u8> {
    let asked = question(CheckKind::Tls { server_name: None }, "192.0.2.1");
    let Probe::Match(hello) = HelloProbe::default().advance(asked.bytes()) else { panic!("no hello") };
    let session = session.unwrap_or(hello.session_id());
    let session_length = u8::try_from(session.len()).unwrap();
    let mut body = [&version[..], &[7; 32], &[session_length], session, &suite.to_be_bytes(), &[0]].concat();
    body.extend(rest);
    [&[2, 0][..], &length(&body), &body].concat()
}

fn record(content_type: u8, fragment: &[u8]) -> Vec<u8> {
    [&[content_type, 3, 3][..], &length(fragment), fragment].concat()
}

fn length(bytes: &[u8]) -> [u8; 2] {
    u16::try_from(bytes.len()).unwrap().to_be_bytes()
}

#[test]
fn a_server_hello_passes_that_chooses_what_was_offered() {
    let tls = CheckKind::Tls { server_name: None };
    let hello = server_hello([3, 3], None, 0x1301, &[0, 0]);
    let other = "a ServerHello that chooses what was not offered";
    for (name, stream, expected) in [
        ("nothing yet", Vec::new(), None),
        ("TLS 1.3", record(22, &hello), Some("")),
        (
            "TLS 1.2, with a session of its own",
            record(22, &server_hello([3, 3], Some(&[9; 32]), 0xc02f, &[])),
            Some(""),
        ),
        ("TLS 1.2, without", record(22, &server_hello([3, 3], Some(&[]), 0x0035, &[0, 0])), Some("")),
        ("in two records", [record(22, &hello[..9]), record(22, &hello[9..])].concat(), Some("")),
        ("with what follows", [record(22, &hello), vec![20, 3, 3, 0, 1, 1]].concat(), Some("")),
        ("half of it", record(22, &hello[..40]), None),
        ("TLS 1.1", record(22, &server_hello([3, 2], None, 0x0035, &[])), Some(other)),
        ("another suite", record(22, &server_hello([3, 3], None, 0x0004, &[])), Some(other)),
        ("another session", record(22, &server_hello([3, 3], Some(&[9; 32]), 0x1301, &[])), Some(other)),
        ("extensions cut off", record(22, &server_hello([3, 3], None, 0x1301, &[0, 4, 0])), Some(other)),
        ("too short", record(22, &[2, 0, 0, 1, 3]), Some(other)),
        ("an alert", record(21, &[2, 40]), Some("alert 40 (handshake failure)")),
        ("another alert", record(21, &[2, 255]), Some("alert 255")),
        ("half an alert", record(21, &[2]), Some("an alert of no valid length")),
        ("another message", record(22, &[1, 0, 0, 0]), Some("the answer is not a ServerHello")),
        ("a length that no hello has", record(22, &[2, 1, 0, 0]), Some("a hello of no valid length")),
        ("an empty record", record(22, &[]), Some("a record of no valid length")),
        ("HTTP", b"HTTP/1.1 400 Bad Request\r\n".to_vec(), Some("the answer is not TLS")),
    ] {
        judged(name, &tls, &stream, expected);
    }
}

#[test]
fn version_negotiation_answers_with_our_ids() {
    let mut asked = question(CheckKind::Quic, "h");
    let datagram = asked.bytes().to_vec();
    assert_eq!(datagram.len(), 1200);
    let header = LongHeader::parse(&datagram).unwrap();
    assert_eq!(header.version & 0x0f0f_0f0f, 0x0a0a_0a0a, "reserved for this");
    assert_eq!(header.first & 0xc0, 0xc0);
    let answer = version_negotiation(&header, 5).to_vec();
    let none = &answer[..answer.len() - 8];
    let odd = &answer[..answer.len() - 1];
    let mirrored = version_negotiation(&LongHeader { dcid: header.scid, scid: header.dcid, ..header }, 5);
    let failed = Judgement::Failed("Version Negotiation without versions".to_owned());
    for (name, datagram, expected) in [
        ("of this server", answer.as_slice(), Judgement::Passed),
        ("without versions", none, failed.clone()),
        ("half a version", odd, failed),
        ("for another client", &mirrored, Judgement::NeedMore),
        ("the question itself", &datagram, Judgement::NeedMore),
        ("nothing", &[], Judgement::NeedMore),
        ("a short header", &[0x40; 50], Judgement::NeedMore),
    ] {
        assert_eq!(asked.arrived(datagram), expected, "{name}");
    }
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn a_check_introduces_the_daemon_itself() {
    use rpxy_l4_proto::proxy_protocol::{Addresses, Decoded, decode};

    use crate::config::model::ProxyVersion;
    for (version, expected) in [(ProxyVersion::V1, Addresses::Unknown), (ProxyVersion::V2, Addresses::Local)] {
        let check = Check { send_proxy: Some(version), ..check(http(&[200..=200])) };
        let question = asked(&check, "h");
        let Decoded::Complete { header, len } = decode(question.bytes()) else { panic!("{version:?}: no header") };
        assert_eq!(header.addresses, expected, "{version:?}");
        assert!(question.bytes()[len..].starts_with(b"GET "), "{version:?}");
    }
}

proptest! {
    /// No answer ends the process, and how it is cut makes no difference.
    #[test]
    fn a_stream_is_judged_alike_however_it_is_cut(
        start in prop::sample::select(vec![
            Vec::new(),
            b"HTTP/1.1 ".to_vec(),
            b"HTTP/1.1 100 Continue\r\n\r\n".to_vec(),
            record(21, &[2, 40]),
            record(22, &server_hello([3, 3], None, 0x1301, &[0, 0])),
            vec![22, 3, 3, 0, 60, 2, 0, 0, 70, 3, 3],
        ]),
        rest in prop::collection::vec(any::<u8>(), 0..120),
        size in 1_usize..40,
    ) {
        let stream = [start, rest].concat();
        for kind in [
            CheckKind::Tls { server_name: None },
            http(&[200..=299]),
            CheckKind::Stream { send: Arc::default(), expect: Some(b"\0".as_slice().into()) },
        ] {
            let whole = judge(&mut question(kind.clone(), "192.0.2.1"), &stream, stream.len().max(1));
            let cut = judge(&mut question(kind.clone(), "192.0.2.1"), &stream, size);
            prop_assert_eq!(whole, cut, "{:?}", kind);
        }
        let _any = question(CheckKind::Quic, "h").arrived(&stream);
    }
}
