//! Precedence of rules: server name, ALPN, Host, and connections that match none.

use rpxy_l4_tests::{daemon::Daemon, hello::Hello, peers::server::Server, topology::Topology};

use crate::support::{PORT, at, http_request, reached_by, rule};

/// First bytes of a connection, and the tag of the server that it must reach; `None` means closed.
struct Row {
    name: &'static str,
    first: Vec<u8>,
    reaches: Option<&'static str>,
}

fn hello(name: &'static str, server_name: Option<&str>, alpns: &[&str], reaches: Option<&'static str>) -> Row {
    let hello = server_name.map_or_else(Hello::new, Hello::to);
    Row { name, first: hello.alpns(alpns).bytes(), reaches }
}

fn request(name: &'static str, host: &str, reaches: Option<&'static str>) -> Row {
    Row { name, first: http_request(host), reaches }
}

/// Starts a tagged server per rule and the daemon with these rules in this order, and asserts each row.
fn assert_rows(top: &str, rules: &[(&str, &str, &str)], default: Option<&str>, allow: &[&str], rows: &[Row]) {
    let Some(net) = Topology::or_skip() else { return };
    let mut config = format!("listen_port = {PORT}\n{top}\n");
    let mut servers = Vec::new();
    if let Some(tag) = default {
        config += &format!("tcp_target = [\"{}\"]\n", at(7000));
        servers.push(Server::tagged(&net.backend, at(7000), tag));
    }
    for ((tag, protocol, keys), port) in rules.iter().zip(7001..) {
        config += &rule(tag, protocol, at(port), keys);
        servers.push(Server::tagged(&net.backend, at(port), tag));
    }
    let builder = allow.iter().fold(Daemon::builder(&config), |builder, text| builder.allow(text));
    let daemon = builder.start(&net.gateway);
    for row in rows {
        assert_eq!(reached_by(&net, &row.first).as_deref(), row.reaches, "{}", row.name);
    }
    for text in allow {
        assert!(!daemon.lines_with(text).is_empty(), "nothing was said about {text:?}");
    }
}

#[test]
fn name_and_alpn_before_name_before_alpn_before_catch_all() {
    // In the file the least specific come first: order decides only between equals.
    let rules = [
        ("any", "tls", ""),
        ("alpn", "tls", "alpns = [\"h2\", \"imap\"]"),
        ("name", "tls", "server_names = [\"one.test\"]"),
        ("both", "tls", "server_names = [\"one.test\", \"three.test\"]\nalpn = [\"h2\"]"),
    ];
    let rows = [
        hello("name and ALPN", Some("one.test"), &["h2"], Some("both")),
        hello("ALPN among others", Some("one.test"), &["http/1.1", "h2"], Some("both")),
        hello("name with another ALPN", Some("one.test"), &["http/1.1"], Some("name")),
        hello("name with the ALPN of the ALPN rule", Some("one.test"), &["imap"], Some("name")),
        hello("name without ALPN", Some("one.test"), &[], Some("name")),
        hello("other name, ALPN", Some("two.test"), &["h2"], Some("alpn")),
        hello("other name, second ALPN of the rule", Some("two.test"), &["imap"], Some("alpn")),
        hello("no name, ALPN", None, &["h2"], Some("alpn")),
        hello("name of a rule whose ALPN is not offered", Some("three.test"), &["http/1.1"], Some("any")),
        hello("ALPN compares with case", Some("two.test"), &["H2"], Some("any")),
        hello("other name", Some("two.test"), &[], Some("any")),
        hello("neither name nor ALPN", None, &[], Some("any")),
    ];
    assert_rows("", &rules, Some("default"), &[], &rows);
}

#[test]
fn exact_name_before_longer_before_shorter_wildcard() {
    let rules = [
        ("short", "tls", "server_names = [\"*.example.test\"]"),
        ("long", "tls", "server_names = [\"*.a.example.test\"]"),
        ("exact", "tls", "server_names = [\"x.a.example.test\", \"Mixed.Example.Test\", \"dot.example.test.\"]"),
    ];
    let rows = [
        hello("exact", Some("x.a.example.test"), &[], Some("exact")),
        hello("exact, other case", Some("X.A.Example.TEST"), &[], Some("exact")),
        hello("exact, trailing dot", Some("x.a.example.test."), &[], Some("exact")),
        hello("mixed case in the file", Some("mixed.example.test"), &[], Some("exact")),
        hello("trailing dot in the file", Some("dot.example.test"), &[], Some("exact")),
        hello("longer wildcard", Some("y.a.example.test"), &[], Some("long")),
        hello("longer wildcard, case and dot", Some("Y.A.EXAMPLE.TEST."), &[], Some("long")),
        hello("shorter wildcard", Some("b.example.test"), &[], Some("short")),
        hello("wildcard over two labels", Some("c.d.example.test"), &[], Some("short")),
        hello("the name that the longer wildcard hangs on", Some("a.example.test"), &[], Some("short")),
        hello("the name that the wildcard hangs on", Some("example.test"), &[], None),
        hello("a name that only ends alike", Some("badexample.test"), &[], None),
        hello("a longer name", Some("x.a.example.test.evil.test"), &[], None),
    ];
    assert_rows("", &rules, None, &[], &rows);
}

#[test]
fn unmatched_tls_is_dropped_even_with_a_default_target() {
    let rules = [("name", "tls", "server_names = [\"one.test\"]")];
    let rows = [
        hello("the name", Some("one.test"), &[], Some("name")),
        hello("another name", Some("two.test"), &[], None),
        hello("no name", None, &[], None),
        request("HTTP has no rule", "two.test", Some("default")),
        Row { name: "nothing known", first: b"\0\0\0\0".to_vec(), reaches: Some("default") },
    ];
    assert_rows("", &rules, Some("default"), &[], &rows);
}

#[test]
fn unmatched_tls_goes_to_the_default_target_when_told() {
    let rules = [("name", "tls", "server_names = [\"one.test\"]"), ("host", "http", "server_names = [\"one.test\"]")];
    let rows = [
        hello("the name", Some("one.test"), &[], Some("name")),
        hello("another name", Some("two.test"), &[], Some("default")),
        hello("no name", None, &[], Some("default")),
        request("HTTP for another host", "two.test", Some("default")),
    ];
    assert_rows("unmatched = \"default\"", &rules, Some("default"), &[], &rows);
}

#[test]
fn protocols_without_a_rule_go_to_the_default_target() {
    let rules = [("shell", "ssh", "")];
    let rows = [
        hello("TLS", Some("one.test"), &["h2"], Some("default")),
        request("HTTP", "one.test", Some("default")),
        Row { name: "SSH", first: b"SSH-2.0-test\r\n".to_vec(), reaches: Some("shell") },
        Row { name: "SOCKS5", first: b"\x05\x01\x00".to_vec(), reaches: Some("default") },
        Row { name: "nearly SSH", first: b"SSh-2.0-test\r\n".to_vec(), reaches: Some("default") },
    ];
    assert_rows("", &rules, Some("default"), &[], &rows);
}

#[test]
fn the_first_of_equal_rules_wins_and_the_others_are_warned_about() {
    // Neither the alphabet nor a hash may decide.
    let rules = [
        ("zulu", "tls", "server_names = [\"one.test\"]"),
        ("alpha", "tls", "server_names = [\"one.test\"]"),
        ("yankee", "http", ""),
        ("bravo", "http", ""),
    ];
    let rows = [hello("TLS", Some("one.test"), &[], Some("zulu")), request("HTTP", "one.test", Some("yankee"))];
    assert_rows("", &rules, None, &["alpha", "bravo"], &rows);
}

#[test]
fn http_is_routed_by_host() {
    let rules = [
        ("any", "http", ""),
        ("wild", "http", "server_names = [\"*.one.test\"]"),
        ("name", "http", "server_names = [\"one.test\"]"),
    ];
    let rows = [
        request("the host", "one.test", Some("name")),
        request("with a port", "one.test:443", Some("name")),
        request("other case", "ONE.Test", Some("name")),
        request("trailing dot", "one.test.", Some("name")),
        request("wildcard", "a.one.test", Some("wild")),
        request("another host", "two.test", Some("any")),
        request("an address", "192.0.2.1", Some("any")),
        Row { name: "without Host", first: b"GET / HTTP/1.0\r\n\r\n".to_vec(), reaches: Some("any") },
        Row {
            name: "any method",
            first: b"PROPFIND /x HTTP/1.1\r\nhost:one.test\r\n\r\n".to_vec(),
            reaches: Some("name"),
        },
    ];
    assert_rows("", &rules, None, &[], &rows);
}

#[test]
fn http_for_an_unknown_host_is_dropped() {
    let rules = [("name", "http", "server_names = [\"one.test\"]")];
    let rows = [
        request("the host", "one.test", Some("name")),
        request("another host", "two.test", None),
        Row { name: "without Host", first: b"GET / HTTP/1.0\r\n\r\n".to_vec(), reaches: None },
    ];
    assert_rows("", &rules, Some("default"), &[], &rows);
}
