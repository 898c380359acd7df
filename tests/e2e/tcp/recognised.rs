//! What can only be a protocol that has rules never gets another service's banner: odd, long, slow and unreadable
//! beginnings, through a daemon whose default target is something else.

use rpxy_l4_tests::{
    daemon::Daemon,
    hello::Hello,
    peers::server::Server,
    socket::{self, End},
    topology::Topology,
};

use crate::support::{PORT, at, front, reached_by, rule};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
const SETTINGS: &[u8] = &[0, 0, 0, 4, 0, 0, 0, 0, 0];

/// A hello with this body of its `server_name` extension, or with these extensions.
fn hello(extensions: &[(u16, &[u8])]) -> Vec<u8> {
    hello_of([3, 3], extensions)
}

fn hello_of(version: [u8; 2], extensions: &[(u16, &[u8])]) -> Vec<u8> {
    // Of the kit's hello without extensions, all but the block of extensions.
    let plain = Hello::new().message();
    let mut body = plain[4..plain.len() - 2 - 9].to_vec();
    body[..2].copy_from_slice(&version);
    let block: Vec<u8> = extensions
        .iter()
        .flat_map(|(typ, body)| [&typ.to_be_bytes()[..], &length(body.len()), body].concat())
        .chain([0, 43, 0, 5, 4, 3, 4, 3, 3])
        .collect();
    body.extend(length(block.len()));
    body.extend(block);
    let message = [&[1, 0][..], &length(body.len()), &body].concat();
    rpxy_l4_tests::hello::into_records(&message, 1 << 14)
}

fn length(length: usize) -> [u8; 2] {
    u16::try_from(length).unwrap().to_be_bytes()
}

/// The body of a `server_name` extension with these names.
fn names(names: &[&[u8]]) -> Vec<u8> {
    let list: Vec<u8> = names.iter().flat_map(|name| [&[0][..], &length(name.len()), name].concat()).collect();
    [&length(list.len())[..], &list].concat()
}

/// An SSLv2-compatible hello for TLS 1.2.
pub(super) fn sslv2_hello() -> Vec<u8> {
    let suites = [0x00, 0xc0, 0x2b, 0x00, 0xc0, 0x2f, 0x00, 0xc0, 0x2c, 0x00, 0x00, 0xff];
    let body = [&[1, 3, 3, 0, 12, 0, 0, 0, 32][..], &suites, &[0x5a; 32]].concat();
    [&(0x8000 | u16::try_from(body.len()).unwrap()).to_be_bytes()[..], &body].concat()
}

/// Rows T1: hellos that name nobody.
pub(super) fn odd_hellos() -> Vec<(&'static str, Vec<u8>)> {
    let named = |name: &[u8]| hello(&[(0, &names(&[name]))]);
    let long = Hello::new().padding(60_000).message();
    vec![
        ("name in UTF-8", named("caf\u{e9}.test".as_bytes())),
        ("name in Latin-1", named(b"caf\xe9.test")),
        ("name with a blank", named(b"one test")),
        ("empty name", named(b"")),
        ("name of 256 bytes", named(&[b'n'; 256])),
        ("empty list", hello(&[(0, &[0, 0])])),
        ("two names", hello(&[(0, &names(&[b"one.test", b"two.test"]))])),
        ("an extension twice", hello(&[(0, &names(&[b"one.test"])), (23, &[]), (23, &[])])),
        ("empty ALPN and no name", hello(&[(16, &[0, 0])])),
        ("client_version 04 01", hello_of([4, 1], &[])),
        ("over 64 KiB", [&[22, 3, 1, 0x40, 0, 1, 1, 0, 0][..], &[0; 4000]].concat()),
        ("records of one byte", Hello::new().records(1)),
        ("60,000 bytes in records of one byte", rpxy_l4_tests::hello::into_records(&long[..20_000], 1)),
        ("empty records", [&[22, 3, 1, 0, 0][..], &Hello::new().bytes()].concat()),
        ("a warning before it", [&[21, 3, 1, 0, 2, 1, 90][..], &Hello::new().bytes()].concat()),
        ("an empty change of cipher specs before it", [&[20, 3, 1, 0, 0][..], &Hello::new().bytes()].concat()),
        ("a change of cipher specs before it", [&[20, 3, 3, 0, 1, 1][..], &Hello::new().bytes()].concat()),
        ("another message", vec![22, 3, 1, 0, 4, 2, 0, 0, 0]),
        ("a long record", vec![22, 3, 1, 0xff, 0xff, 1]),
        ("SSLv2-compatible", sslv2_hello()),
    ]
}

/// Rows T2: requests that name `one.test`, and whether that is beyond doubt.
fn odd_requests() -> Vec<(&'static str, Vec<u8>, bool)> {
    let text = |line: &str, fields: &str| format!("{line}\r\n{fields}\r\n\r\n").into_bytes();
    let with = |line: &str| text(line, "Host: one.test");
    let method = "M".repeat(40);
    vec![
        ("CRLF before the line", with("\r\nGET / HTTP/1.1"), true),
        ("two blanks", with("GET  / HTTP/1.1"), true),
        ("a trailing blank", with("GET / HTTP/1.1 "), true),
        ("a method of 40 letters", with(&format!("{method} / HTTP/1.1")), true),
        ("a line of 17 KB", with(&format!("GET /{} HTTP/1.1", "x".repeat(17_000))), true),
        ("a head of 66 KB", text("GET / HTTP/1.1", &format!("Host: one.test\r\nX: {}", "x".repeat(66_000))), false),
        ("a port that is none", text("GET / HTTP/1.1", "Host: one.test:abc"), false),
        ("a line without a colon", text("GET / HTTP/1.1", "Host: one.test\r\nnonsense"), false),
        ("a tab", with("GET\t/ HTTP/1.1"), false),
        ("a blank in the target", with("GET /a b HTTP/1.1"), false),
        ("another version", with("GET / HTTP/3.0"), false),
        ("HTTP/0.9", with("GET /"), false),
    ]
}

/// A daemon whose default target is an SSH server by its banner.
fn config(timeout: &str, names: &str) -> String {
    let names = if names.is_empty() { String::new() } else { format!("server_names = [\"{names}\"]") };
    format!("listen_port = {PORT}\ntcp_probe_timeout = \"{timeout}\"\ntcp_target = [\"{}\"]\n", at(7000))
        + &rule("tls", "tls", at(7001), &names)
        + &rule("http", "http", at(7002), &names)
        + &rule("socks", "socks5", at(7003), "")
}

fn servers(net: &Topology) -> (Server, [Server; 3]) {
    let tags = [(7001, "tls"), (7002, "http"), (7003, "socks")];
    let default = Server::tagged(&net.backend, at(7000), "SSH-2.0-other");
    (default, tags.map(|(port, tag)| Server::tagged(&net.backend, at(port), tag)))
}

#[test]
fn odd_beginnings_are_what_they_are() {
    let Some(net) = Topology::or_skip() else { return };
    let (default, _servers) = servers(&net);
    let mut daemon = Daemon::start(&net.gateway, &config("1h", ""));
    for (row, first) in odd_hellos() {
        assert_eq!(reached_by(&net, &first).as_deref(), Some("tls"), "{row}");
    }
    for (row, first, _) in odd_requests() {
        assert_eq!(reached_by(&net, &first).as_deref(), Some("http"), "{row}");
    }
    let socks4a = [&[4, 1, 0, 80, 0, 0, 0, 1, 0][..], b"one.test\0"].concat();
    for (row, first) in [("SOCKS4", &[4, 1, 0, 80, 192, 0, 2, 1, b'm', b'e', 0][..]), ("SOCKS4a", &socks4a)] {
        assert_eq!(reached_by(&net, first).as_deref(), Some("socks"), "{row}");
    }

    // Where every rule asks for a name, what has none matches no rule.
    daemon.reload(rpxy_l4_tests::daemon::Edit::InPlace, &config("1h", "one.test"));
    for (row, first) in odd_hellos() {
        assert_eq!(reached_by(&net, &first), None, "{row}");
    }
    for (row, first, is_named) in odd_requests() {
        assert_eq!(reached_by(&net, &first).as_deref(), is_named.then_some("http"), "{row}");
    }
    assert_eq!(default.accepted(), 0);
}

#[test]
fn slow_beginnings_are_what_they_can_only_be() {
    let Some(net) = Topology::or_skip() else { return };
    let (_default, _servers) = servers(&net);
    let mut daemon = Daemon::start(&net.gateway, &config("300ms", ""));
    let hello = Hello::to("one.test").padding(1500).bytes();
    let rows: [(&str, &[u8], &str, bool); 11] = [
        ("1,200 bytes of a hello", &hello[..1200], "tls", false),
        ("three bytes of a hello", &hello[..3], "tls", false),
        ("half a request line", b"GET /index.h", "http", false),
        ("a method and a blank", b"GET ", "http", false),
        ("half a head", b"GET / HTTP/1.1\r\nHost: one.te", "http", false),
        ("half the preface", &PREFACE[..20], "http", false),
        ("half a list of methods", &[5, 3, 0], "socks", true),
        ("half a method", b"GE", "SSH-2.0-other", true),
        ("two bytes of a hello", &hello[..2], "SSH-2.0-other", true),
        ("a byte of SOCKS", &[5], "SSH-2.0-other", true),
        ("nothing", b"", "SSH-2.0-other", true),
    ];
    for (row, first, expected, _) in rows {
        assert_eq!(reached_by(&net, first).as_deref(), Some(expected), "{row}");
    }
    daemon.reload(rpxy_l4_tests::daemon::Edit::InPlace, &config("300ms", "one.test"));
    for (row, first, expected, needs_no_name) in rows {
        assert_eq!(reached_by(&net, first).as_deref(), needs_no_name.then_some(expected), "{row}, names only");
    }
}

#[test]
fn an_http2_client_that_waits_for_settings_is_not_kept_waiting_where_the_host_decides_nothing() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let first = [PREFACE, SETTINGS].concat();
    let named = |port: u16, name: &str| rule(name, "http", at(port), &format!("server_names = [\"{name}.test\"]"));
    // Waiting for this probe would fail the test.
    let top = format!("listen_port = {PORT}\ntcp_probe_timeout = \"1h\"\n");
    let mut daemon = Daemon::start(&net.gateway, &(top.clone() + &named(7001, "a")));
    assert_eq!(reached_by(&net, &first).as_deref(), Some("one"), "one rule");
    daemon.reload(rpxy_l4_tests::daemon::Edit::InPlace, &(top.clone() + &named(7001, "a") + &named(7001, "b")));
    assert_eq!(reached_by(&net, &first).as_deref(), Some("one"), "two rules with one target");
    // A host that is named in time still counts.
    let request = [&first[..], &[0, 0, 3, 1, 4, 0, 0, 0, 1, 0x82, 0x86, 0x84]].concat();
    assert_eq!(reached_by(&net, &request), None, "a request without a host");

    let top = top.replace("1h", "300ms");
    daemon.reload(rpxy_l4_tests::daemon::Edit::InPlace, &(top + &named(7001, "a") + &named(7002, "b")));
    assert_eq!(reached_by(&net, &first), None, "the host decides");
}

#[test]
fn a_refused_tls_client_gets_what_the_key_says() {
    let Some(net) = Topology::or_skip() else { return };
    let config = |key: &str| {
        format!("listen_port = {PORT}\n{key}\n")
            + &rule("tls", "tls", at(7001), "server_names = [\"one.test\"]")
            + &rule("http", "http", at(7002), "server_names = [\"one.test\"]")
    };
    let unrecognized_name: &[u8] = &[21, 3, 3, 0, 2, 2, 112];
    let other = Hello::to("two.test").bytes();
    let more = [&other[..], &[23, 3, 3, 0x40, 0], &[7; 1 << 14]].concat();
    let request = b"GET / HTTP/1.1\r\nHost: two.test\r\n\r\n".to_vec();
    let mut daemon = Daemon::start(&net.gateway, &config("tls_refused = \"alert\""));
    let rows: [(&str, &Vec<u8>, &[u8]); 4] = [
        ("another name", &other, unrecognized_name),
        ("with early data", &more, unrecognized_name),
        ("unreadable", &sslv2_hello(), unrecognized_name),
        ("HTTP", &request, b""),
    ];
    for (row, first, answer) in rows {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, first);
        assert_eq!(socket::read_to_end(&stream), (answer.to_vec(), End::Closed), "{row}");
    }
    daemon.reload(rpxy_l4_tests::daemon::Edit::InPlace, &config(""));
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, &other);
    assert_eq!(socket::read_to_end(&stream).0, b"", "by default");
}
