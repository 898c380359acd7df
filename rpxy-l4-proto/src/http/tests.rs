//! Recognition of HTTP and of the host.

mod http2;
mod segments;

use super::*;
use crate::properties;
use Probe::{Match, NeedMore, NotThis, Unreadable};

/// The answer to a whole stream.
fn probe(want_host: bool, stream: &[u8]) -> Probe<HttpRequest> {
    HttpProbe::new(want_host).advance(stream)
}

fn http1(host: Option<&str>) -> Probe<HttpRequest> {
    Match(HttpRequest { version: HttpVersion::Http1, host: host.map(str::to_owned) })
}

#[test]
fn a_request_line_is_recognised_at_its_end() {
    let rows: [(&str, Probe<HttpRequest>); 27] = [
        ("", NeedMore),
        ("G", NeedMore),
        ("GET ", NeedMore),
        ("GET / HTTP/1", NeedMore),
        ("GET / HTTP/1.1", NeedMore),
        ("GET / HTTP/1.1\r", NeedMore),
        ("GET / HTTP/1.1\r\n", http1(None)),
        ("GET / HTTP/1.0\n", http1(None)),
        ("GET / HTTP/1.9\r\nwhat comes now does not matter", http1(None)),
        ("OPTIONS * HTTP/1.1\r\n", http1(None)),
        ("CONNECT a.example:443 HTTP/1.1\r\n", http1(None)),
        ("GET http://a.example/ HTTP/1.1\r\n", http1(None)),
        ("x!#$%&'*+-.^_`|~9 /\u{e9} HTTP/1.1\r\n", http1(None)),
        ("M-SEARCH * HTTP/1.1\r\n", http1(None)),
        ("PRI /x HTTP/1.1\r\n", http1(None)),
        ("QUIT\r\n", NotThis),
        ("QUIT\n", NotThis),
        ("G:", NotThis),
        ("GET /\0", NotThis),
        ("\r\n:", NotThis),
        ("PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", NotThis),
        ("GET foo\r\n", NotThis),
        ("get /\r\n", NotThis),
        ("USER a b c :HTTP\r\n", NotThis),
        ("SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", NotThis),
        ("EHLO x\r\n", NotThis),
        ("\u{16}\u{3}\u{1}", NotThis),
    ];
    for (stream, expected) in rows {
        assert_eq!(probe(false, stream.as_bytes()), expected, "{stream:?}");
    }
}

#[test]
fn odd_requests_are_http_without_a_host_where_that_is_in_doubt() {
    let method = format!("{} / HTTP/1.1", "M".repeat(40));
    let host = Some("a.example");
    let rows = [
        ("an empty line before it", "\r\nGET / HTTP/1.1", host),
        ("many, with bare line feeds", "\n\r\n\n\r\nGET / HTTP/1.1", host),
        ("two blanks", "GET  /  HTTP/1.1", host),
        ("a trailing blank", "GET / HTTP/1.1 ", host),
        ("a method of 40 letters", method.as_str(), host),
        ("a minor version of two digits", "GET / HTTP/1.10", host),
        ("a leading blank", " GET / HTTP/1.1", None),
        ("tabs", "GET\t/\tHTTP/1.1", None),
        ("other white space", "GET\x0b/\x0cHTTP/1.1", None),
        ("a bare CR", "GET /\rHTTP/1.1", None),
        ("a blank in the target", "GET /a b HTTP/1.1", None),
        ("a control character in the target", "GET /\x01 HTTP/1.1", None),
        ("no target", "GET HTTP/1.1", None),
        ("another major version", "GET / HTTP/3.0", None),
        ("no minor version", "GET / HTTP/2", None),
        ("a version that is none", "GET / HTTP/1.x", None),
        ("lower case", "GET / http/1.1", None),
        ("HTTP/0.9", "GET /", None),
        ("HTTP/0.9 with a host", "GET http://a.example/", None),
    ];
    for (row, line, expected) in rows {
        for end in ["\r\n", "\n"] {
            let stream = format!("{line}{end}Host: a.example{end}{end}");
            let (without, with) = properties::http(stream.as_bytes());
            assert_eq!((without, with), (http1(None), http1(expected)), "{row}, {end:?}");
        }
    }
}

#[test]
fn a_request_line_has_at_most_64_kib() {
    let line = |len: usize| format!("GET /{} HTTP/1.1\r\n", "x".repeat(len - "GET / HTTP/1.1\r\n".len()));
    let fields = "Host: a.example\r\n\r\n";
    let stream = line(17 << 10) + fields;
    assert_eq!(probe(true, stream.as_bytes()), http1(Some("a.example")), "17 KiB");
    for (len, expected) in [(MAX_HEAD, http1(None)), (MAX_HEAD + 1, Unreadable)] {
        assert_eq!(probe(false, line(len).as_bytes()), expected, "{len} bytes");
        assert_eq!(probe(true, line(len).as_bytes()), Unreadable, "{len} bytes, host wanted");
    }
    assert_eq!(probe(false, &[b'M'; MAX_HEAD]), NotThis, "no end of a method");
    assert_eq!(probe(false, &[b'\n'; MAX_HEAD]), Unreadable, "nothing but empty lines");
}

#[test]
fn a_request_has_begun_with_a_method_and_a_blank() {
    let rows: [(&[u8], bool); 11] = [
        (b"", false),
        (b"GET", false),
        (b"GET ", true),
        (b"GET /inde", true),
        (b"\r\n", false),
        (b"\r\nPOST ", true),
        (b"PRI", false),
        (&PREFACE[..4], true),
        (&PREFACE[..20], true),
        (b"help\r", false),
        (b"SSH-", false),
    ];
    for (stream, expected) in rows {
        let mut probe = HttpProbe::new(false);
        assert_eq!(probe.advance(stream), NeedMore, "{}", stream.escape_ascii());
        assert_eq!(probe.has_begun(), expected, "{}", stream.escape_ascii());
    }
}

#[test]
fn the_host_is_known_at_the_end_of_the_head() {
    let line = "GET / HTTP/1.1\r\n";
    let rows: [(&str, &str, Probe<HttpRequest>); 30] = [
        ("nothing yet", "", NeedMore),
        ("a host, the head goes on", "Host: a.example\r\n", NeedMore),
        ("a host", "Host: a.example\r\n\r\n", http1(Some("a.example"))),
        ("with a body", "Host: a.example\r\n\r\nHost: b.example\r\n", http1(Some("a.example"))),
        ("bare line feeds", "Host: a.example\n\n", http1(Some("a.example"))),
        ("case, port, trailing dot", "hOST:\tA.Example.:8080 \r\n\r\n", http1(Some("a.example"))),
        ("no white space", "Host:a.example\r\n\r\n", http1(Some("a.example"))),
        ("an IPv6 address", "Host: [2001:DB8::1]:80\r\n\r\n", http1(Some("2001:db8::1"))),
        ("behind other fields", "Accept: */*\r\nX-Host: b\r\nHost: a.example\r\n\r\n", http1(Some("a.example"))),
        ("the same host twice", "Host: a.example\r\nhost: A.example:80\r\n\r\n", http1(Some("a.example"))),
        ("another field folded", "X: a\r\n Host: b.example\r\nHost: a.example\r\n\r\n", http1(Some("a.example"))),
        ("no fields", "\r\n", http1(None)),
        ("no host", "Accept: */*\r\n\r\n", http1(None)),
        ("an empty host", "Host:\r\n\r\n", http1(None)),
        ("not a host", "Host: a/b\r\n\r\n", http1(None)),
        ("two names", "Host: a.example b.example\r\n\r\n", http1(None)),
        ("two hosts", "Host: a.example\r\nHost: b.example\r\n\r\n", http1(None)),
        ("a bad host and a good one", "Host: a/b\r\nHost: b.example\r\n\r\n", http1(None)),
        ("a good host and a bad one", "Host: b.example\r\nHost: a/b\r\n\r\n", http1(None)),
        ("three, the last like the first", "Host: a\r\nHost: b\r\nHost: a\r\n\r\n", http1(None)),
        ("a space before the colon", "Host : a.example\r\n\r\n", http1(None)),
        ("the same, and a good one", "Host: a.example\r\nHost : b.example\r\n\r\n", http1(None)),
        ("a fold directly behind the request line", " Host: b.example\r\nHost: a.example\r\n\r\n", http1(None)),
        ("a folded host", "Host:\r\n a.example\r\n\r\n", http1(None)),
        ("a fold behind the host", "Host: a.example\r\n .b.example\r\n\r\n", http1(None)),
        ("a bare CR", "X: a\rHost: b.example\r\nHost: a.example\r\n\r\n", http1(None)),
        ("a NUL", "X: a\0\r\nHost: a.example\r\n\r\n", http1(None)),
        ("a line without a colon", "Host\r\nHost: a.example\r\n\r\n", http1(None)),
        ("a port that is no number", "Host: a:abc\r\n\r\n", http1(None)),
        ("an empty name", ": x\r\nHost: a.example\r\n\r\n", http1(None)),
    ];
    for (row, fields, expected) in rows {
        assert_eq!(probe(true, [line, fields].concat().as_bytes()), expected, "{row}");
    }
}

#[test]
fn a_target_with_a_host_settles_it() {
    let rows = [
        ("GET http://A.example:80/ HTTP/1.1\r\n", http1(Some("a.example"))),
        ("CONNECT a.example:443 HTTP/1.1\r\n", http1(Some("a.example"))),
        ("GET http://u@a.example/ HTTP/1.1\r\nHost: b.example\r\n\r\n", http1(None)),
        ("GET nonsense HTTP/1.1\r\nHost: b.example\r\n\r\n", http1(None)),
        ("OPTIONS * HTTP/1.1\r\nHost: b.example\r\n\r\n", http1(Some("b.example"))),
        ("GET //c.example/ HTTP/1.0\r\nHost: b.example\r\n\r\n", http1(Some("b.example"))),
    ];
    for (stream, expected) in rows {
        assert_eq!(probe(true, stream.as_bytes()), expected, "{stream:?}");
    }
}

#[test]
fn a_head_has_at_most_64_kib() {
    let start = "GET / HTTP/1.1\r\nHost: a.example\r\nX: ";
    let end = "\r\n\r\n";
    for (len, expected) in [(MAX_HEAD, http1(Some("a.example"))), (MAX_HEAD + 1, Unreadable)] {
        let stream = [start, &"x".repeat(len - start.len() - end.len()), end].concat();
        assert_eq!(stream.len(), len);
        assert_eq!(probe(true, stream.as_bytes()), expected, "{len} bytes");
        assert_eq!(probe(false, stream.as_bytes()), http1(None), "{len} bytes, host not wanted");
    }
}

#[test]
fn the_version_is_known_before_the_host() {
    let mut probe = HttpProbe::new(true);
    assert_eq!(probe.version(), None);
    assert_eq!(probe.advance(b"GET / HTTP/1.1\r\nHost"), NeedMore);
    assert_eq!(probe.version(), Some(HttpVersion::Http1));
    let mut probe = HttpProbe::new(true);
    assert_eq!(probe.advance(PREFACE), NeedMore);
    assert_eq!(probe.version(), Some(HttpVersion::Http2));
    let mut probe = HttpProbe::new(true);
    assert_eq!(probe.advance(b"\0"), NotThis);
    assert_eq!(probe.version(), None);
}
