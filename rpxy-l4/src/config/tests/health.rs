//! The `[health.*]` tables: what each kind takes, its bounds, and who may ask for it.

use std::{num::NonZeroU16, sync::Arc, time::Duration};

use super::{accepted, errors, parse, refuses, warns};
use crate::config::model::{Check, CheckKind, HttpCheck};

/// The check of the default targets over TCP that `table` describes.
#[track_caller]
fn check(table: &str) -> Check {
    let text = format!("listen_port = 1\ntcp_target = ['a:1']\ntcp_health = 'x'\n[health.x]\n{table}");
    let check = accepted(&text).top.tcp.default.unwrap().check.unwrap();
    assert_eq!(&*check.name, "x");
    Arc::unwrap_or_clone(check)
}

/// A rule of `protocol` that asks for the check of `table`.
fn asked_by(protocol: &str, table: &str) -> String {
    format!(
        "listen_port = 1\n[protocols.r]\nprotocol = '{protocol}'\ntarget = ['a:1']\nhealth = 'x'\n[health.x]\n{table}"
    )
}

#[test]
fn kinds_and_their_keys() {
    let http = |path: &str, host: Option<&str>, status| {
        CheckKind::Http(HttpCheck { path: path.into(), host: host.map(Into::into), status })
    };
    let stream =
        |send: &[u8], expect: Option<&[u8]>| CheckKind::Stream { send: send.into(), expect: expect.map(Into::into) };
    for (name, table, expected) in [
        ("a connection", "kind = 'connect'", CheckKind::Connect),
        ("in any case", "kind = 'Connect'", CheckKind::Connect),
        ("a handshake", "kind = 'tls'", CheckKind::Tls { server_name: None }),
        (
            "for a name",
            "kind = 'tls'\nserver_name = 'A.example.'",
            CheckKind::Tls { server_name: Some("a.example".into()) },
        ),
        ("a request", "kind = 'http'", http("/", None, vec![200..=399])),
        (
            "another one",
            "kind = 'http'\npath = '/ready?full=1'\nhost = 'app.example:8080'\nstatus = [200, '500-502', 404]",
            http("/ready?full=1", Some("app.example:8080"), vec![200..=200, 500..=502, 404..=404]),
        ),
        ("one status", "kind = 'http'\nstatus = 204", http("/", None, vec![204..=204])),
        ("one range", "kind = 'http'\nstatus = '200-200'", http("/", None, vec![200..=200])),
        ("a banner", "kind = 'send'\nexpect = 'SSH-'", stream(b"", Some(b"SSH-"))),
        ("bytes", "kind = 'send'\nsend = { hex = '00fF' }", stream(&[0, 255], None)),
        (
            "question and answer",
            "kind = 'send'\nsend = \"PING\\r\\n\"\nexpect = 'PONG'",
            stream(b"PING\r\n", Some(b"PONG")),
        ),
        ("QUIC, on a port of its own", "kind = 'quic'\nport = 443", CheckKind::Quic),
    ] {
        assert_eq!(check(table).kind, expected, "{name}");
    }
}

#[test]
fn numbers_have_defaults() {
    let number = |number| NonZeroU16::new(number).unwrap();
    let plain = check("kind = 'connect'");
    assert_eq!((plain.interval, plain.timeout), (Duration::from_secs(5), Duration::from_secs(2)));
    assert_eq!((plain.fall, plain.rise, plain.port, plain.close), (number(3), number(2), None, false));
    let table = "kind = 'connect'\ninterval = '500ms'\nfall = 1\nrise = 100\nport = 8080\nclose = true";
    let other = check(table);
    assert_eq!(other.timeout, other.interval, "the default timeout is never longer than the interval");
    assert_eq!((other.fall, other.rise, other.port, other.close), (number(1), number(100), Some(number(8080)), true));
}

#[test]
fn bounds() {
    for row in [
        "interval = '100ms'",
        "interval = '1d'",
        "timeout = '10ms'",
        "timeout = '5s'",
        "interval = 7\ntimeout = 7",
        "fall = 1",
        "rise = 100",
        "port = 1",
        "port = 65535",
    ] {
        check(&format!("kind = 'connect'\n{row}"));
    }
    let longest_path = format!("/{}", "p".repeat(1023));
    check(&format!("kind = 'http'\npath = '{longest_path}'\nstatus = '100-599'"));
    check(&format!("kind = 'send'\nsend = '{}'", "s".repeat(1024)));
    let rows: &[(&str, &str, &str)] = &[
        ("interval too short", "kind = 'connect'\ninterval = '99ms'", "interval"),
        ("interval too long", "kind = 'connect'\ninterval = '86401s'", "interval"),
        ("timeout too short", "kind = 'connect'\ntimeout = '9ms'", "timeout"),
        ("timeout over the interval", "kind = 'connect'\ninterval = '1s'\ntimeout = '1001ms'", "timeout"),
        ("timeout over the default interval", "kind = 'connect'\ntimeout = '5001ms'", "timeout"),
        ("fall 0", "kind = 'connect'\nfall = 0", "fall"),
        ("fall 101", "kind = 'connect'\nfall = 101", "fall"),
        ("rise 0", "kind = 'connect'\nrise = 0", "rise"),
        ("rise 101", "kind = 'connect'\nrise = 101", "rise"),
        ("port 0", "kind = 'connect'\nport = 0", "port"),
        ("port 65536", "kind = 'connect'\nport = 65536", "port"),
        ("no kind", "interval = '1s'", "kind"),
        ("unknown kind", "kind = 'grpc'", "kind"),
        ("a path without a slash", "kind = 'http'\npath = 'ready'", "path"),
        ("a path with a space", "kind = 'http'\npath = '/a b'", "path"),
        ("a path that would end the line", "kind = 'http'\npath = \"/a\\r\\nX: y\"", "path"),
        ("a fragment", "kind = 'http'\npath = '/a#b'", "path"),
        ("a host with a space", "kind = 'http'\nhost = 'a b'", "host"),
        ("an empty host", "kind = 'http'\nhost = ''", "host"),
        ("status 99", "kind = 'http'\nstatus = 99", "status"),
        ("status 600", "kind = 'http'\nstatus = 600", "status"),
        ("a range below", "kind = 'http'\nstatus = '99-200'", "status"),
        ("a range above", "kind = 'http'\nstatus = '200-600'", "status"),
        ("a range backwards", "kind = 'http'\nstatus = '299-200'", "status"),
        ("half a range", "kind = 'http'\nstatus = '200-'", "status"),
        ("no status", "kind = 'http'\nstatus = []", "status"),
        ("no status at all", "kind = 'http'\nstatus = [200, true]", "status[1]"),
        ("an address as name", "kind = 'tls'\nserver_name = '192.0.2.1'", "server_name"),
        ("no name", "kind = 'tls'\nserver_name = 'a b'", "server_name"),
        ("nothing to send", "kind = 'send'\nsend = ''", "send"),
        ("half a byte", "kind = 'send'\nsend = { hex = '0' }", "send.hex"),
        ("no digit", "kind = 'send'\nexpect = { hex = '0g' }", "expect.hex"),
        ("no bytes", "kind = 'send'\nsend = 7", "send"),
    ];
    for (name, table, key) in rows {
        let text = format!("listen_port = 1\ntcp_target = ['a:1']\ntcp_health = 'x'\n[health.x]\n{table}");
        let found = errors(&text);
        let path = format!("health.\"x\".{key}");
        assert!(found.len() == 1 && found[0].ends_with(&format!(": {path}")), "{name}: {found:?}");
    }
    let too_long = format!("{longest_path}p");
    refuses(&[
        ("path too long", &format!("[health.x]\nkind = 'http'\npath = '{too_long}'\n"), "5: health.\"x\".path"),
        (
            "bytes too long",
            &format!("[health.x]\nkind = 'send'\nsend = '{}'\n", "s".repeat(1025)),
            "5: health.\"x\".send",
        ),
        ("neither sends nor expects", "[health.x]\nkind = 'send'\n", "3: health.\"x\""),
    ]);
}

/// The message tells what does not fit, the remedy what to write.
#[test]
fn a_check_fits_those_who_ask() {
    let send = "kind = 'send'\nsend = 'x'";
    for (name, protocol, table) in [
        ("TCP of TCP", "tls", "kind = 'connect'"),
        ("TCP of UDP, on a port of its own", "quic", "kind = 'http'\nport = 8080"),
        ("UDP of TCP, on a port of its own", "tls", "kind = 'quic'\nport = 443"),
        ("QUIC of QUIC", "quic", "kind = 'quic'"),
        ("send over TCP", "ssh", "kind = 'send'\nexpect = 'SSH-'"),
        ("send over UDP", "quic", send),
        ("send to WireGuard", "wireguard", send),
        ("TCP beside WireGuard", "wireguard", "kind = 'connect'\nport = 8080"),
    ] {
        let problems = parse(&asked_by(protocol, table)).map(|loaded| loaded.warnings);
        assert_eq!(problems.unwrap_or_else(|problems| panic!("{name}: {problems}")), [], "{name}");
    }
    for (name, protocol, table, message, remedy) in [
        ("TCP of UDP", "quic", "kind = 'http'", "asks over TCP", "\"quic\" and \"send\""),
        ("UDP of TCP", "tls", "kind = 'quic'", "asks over UDP", "\"connect\", \"tls\""),
        ("QUIC of WireGuard", "wireguard", "kind = 'quic'", "asks for QUIC", "without expect"),
        ("nothing sent over UDP", "quic", "kind = 'send'\nexpect = 'x'", "sends nothing", "the key send"),
    ] {
        let problems = parse(&asked_by(protocol, table)).map(|_| ()).expect_err(name);
        let problem = problems.iter().next().unwrap();
        assert_eq!((problem.line, &*problem.path), (5, "protocols.\"r\".health"), "{name}");
        assert!(problem.message.contains(message), "{name}: {}", problem.message);
        assert!(problem.remedy.as_ref().is_some_and(|told| told.contains(remedy)), "{name}: {:?}", problem.remedy);
    }
    let unknown = parse("listen_port = 1\ntcp_target = ['a:1']\ntcp_health = 'wbe'\n[health.web]\nkind = 'connect'\n");
    let problems = unknown.map(|_| ()).unwrap_err();
    let problem = problems.iter().next().unwrap();
    assert_eq!((problem.line, problem.remedy.as_deref()), (3, Some("did you mean \"web\"?")));
}

#[test]
fn settings_without_effect_are_told() {
    warns(&[
        ("nobody asks", "[health.x]\nkind = 'connect'\n", Some("3: health.\"x\"")),
        ("of another kind", "tcp_health = 'x'\n[health.x]\nkind = 'tls'\npath = '/'\n", Some("6: health.\"x\".path")),
        ("no target over UDP", "udp_health = 'x'\n[health.x]\nkind = 'quic'\n", Some("3: udp_health")),
        ("only healthy ones, without a check", "tcp_only_healthy = true\n", Some("3: tcp_only_healthy")),
        ("not only healthy ones, without a check", "tcp_only_healthy = false\n", None),
        (
            "an answer of WireGuard",
            "[protocols.r]\nprotocol = 'wireguard'\ntarget = ['a:1']\nhealth = 'x'\n[health.x]\nkind = 'send'\n\
             send = 'x'\nexpect = 'y'\n",
            Some("6: protocols.\"r\".health"),
        ),
    ]);
}

#[test]
fn a_rule_and_all_its_parts_have_its_check() {
    let config =
        accepted(&asked_by("quic", "kind = 'quic'\nclose = true\n").replace("'x'\n", "'x'\nonly_healthy = true\n"));
    let upstream = &config.top.rules[0].upstream;
    assert!(upstream.only_healthy && upstream.check.as_ref().unwrap().close);
    assert_eq!(config.top.tcp.default, None);
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn a_check_introduces_itself_as_connections_do_but_not_on_a_port_of_its_own() {
    use crate::config::model::ProxyVersion;
    for (name, protocol, table, expected) in [
        ("own port", "tls", "kind = 'connect'", Some(ProxyVersion::V2)),
        ("another port", "tls", "kind = 'connect'\nport = 80", None),
        ("UDP", "tls", "kind = 'quic'\nport = 443", None),
        ("of UDP", "quic", "kind = 'quic'", None),
    ] {
        let text = format!("tcp_send_proxy_protocol = 'v2'\n{}", asked_by(protocol, table));
        assert_eq!(accepted(&text).top.rules[0].upstream.check.as_ref().unwrap().send_proxy, expected, "{name}");
    }
}
