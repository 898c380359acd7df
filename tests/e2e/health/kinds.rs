//! Every kind of check against real servers: what passes, and what fails for which reason.

use std::{
    collections::BTreeMap,
    io::{Read as _, Write as _},
    net::TcpStream,
    time::Duration,
};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::Daemon,
    owned,
    peers::{
        programs::{self, Certificate, SshServer, curl},
        quic::QuicServer,
        server::{Recorder, Server},
        udp::UdpServer,
    },
    topology::{BACKENDS_V4, Topology, at},
    wait,
};
use serde_json::{Value, json};
use socket2::SockRef;

use crate::support::PORT;

/// A check and what it finds: `None` passes, otherwise the start of the reason.
type Row<'a> = (&'a str, u16, String, Option<&'a str>);

/// Rules of `protocol` on different names, one for each row, each with a check of its own, all asked often.
fn config(protocol: &str, rows: &[Row<'_>], keys: &str) -> String {
    let rules = rows.iter().enumerate().map(|(number, (name, port, check, _))| {
        format!(
            "[protocols.\"{name}\"]\nprotocol = \"{protocol}\"\nserver_names = [\"n{number}.test\"]\n{keys}\n\
             target = [\"{}\"]\nhealth = \"{name}\"\n\
             [health.\"{name}\"]\ninterval = \"200ms\"\ntimeout = \"200ms\"\n{check}\n",
            at(*port)
        )
    });
    let top = format!("listen_port = {PORT}\nmetrics_listen = \"127.0.0.1:9100\"\n");
    top + &rules.collect::<String>()
}

/// Waits until every check has been made twice, and asserts what was found.
#[track_caller]
fn found(net: &Topology, config: &str, rows: &[Row<'_>]) {
    let directory = owned::directory();
    let socket = directory.path().join("admin");
    let config = format!("admin_socket = \"{}\"\n{config}", socket.display());
    let _daemon = Daemon::builder(&config).allow(": down, check").start(&net.gateway);
    let counts = |text: &str, name: &str, result: &str| {
        let labels = format!("check=\"{name}\",result=\"{result}\"}} ");
        let line = text.lines().find_map(|line| line.split_once(&labels)).map(|(_, count)| count.to_owned());
        line.and_then(|count| count.parse::<u64>().ok()).unwrap_or(0)
    };
    let text = wait::until("all checks have been made twice", || {
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
        let made = |(name, ..): &Row<'_>| counts(&text, name, "passed") + counts(&text, name, "failed") >= 2;
        rows.iter().all(made).then_some(text)
    });
    let status = Admin::connect(&socket).ask(&json!({ "command": "status" })).remove(0);
    let down = status["targets_down"].as_array().unwrap();
    let reason = |line: &Value| Some((line["check"].as_str()?.to_owned(), line["reason"].as_str()?.to_owned()));
    let reasons: BTreeMap<String, String> = down.iter().filter_map(reason).collect();
    for (name, _, check, expected) in rows {
        let (passed, failed) = (counts(&text, name, "passed"), counts(&text, name, "failed"));
        let gauge = format!("check=\"{name}\"}} {}", u8::from(expected.is_none()));
        assert!(text.contains(&gauge), "{name}: no gauge {gauge} in\n{text}");
        match expected {
            None => assert!(passed > 0 && failed == 0, "{name} ({check}) failed: {:?}", reasons.get(*name)),
            Some(reason) => {
                assert!(passed == 0 && failed > 0, "{name} ({check}) passed");
                let told = reasons.get(*name).unwrap_or_else(|| panic!("{name} is not in {status}"));
                assert!(told.starts_with(reason), "{name}: {told}");
            }
        }
    }
    assert_eq!(reasons.len(), rows.iter().filter(|(.., expected)| expected.is_some()).count(), "{reasons:?}");
}

#[test]
fn checks_over_tcp_find_what_nginx_haproxy_and_sshd_do() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, ..] = BACKENDS_V4;
    let certificate = Certificate::new(&["app.test"]);
    let tls = format!(
        "ssl_certificate {}; ssl_certificate_key {};",
        certificate.file().display(),
        certificate.key().display()
    );
    let http = format!(
        "server {{ listen {first}:80 default_server; location / {{ return 404; }}\n\
           location = /ready {{ return 200 ok; }} location = /broken {{ return 503; }} }}\n\
         server {{ listen {first}:80; server_name app.test; location / {{ return 204; }} }}\n\
         server {{ listen {first}:8443 ssl; server_name app.test; ssl_protocols TLSv1.2; {tls} }}\n\
         server {{ listen {first}:8444 ssl; server_name app.test; ssl_protocols TLSv1.3; {tls} }}\n\
         server {{ listen {first}:8445 ssl default_server; ssl_reject_handshake on; }}\n\
         server {{ listen {first}:8445 ssl; server_name app.test; {tls} }}"
    );
    let _nginx = programs::nginx(&net.backend, &http, "", &[80, 8443, 8444, 8445]);
    let _sshd = SshServer::start(&net.backend, at(22));
    let haproxy = format!(
        "frontend web\n  bind {first}:81\n  mode http\n  timeout http-request 10s\n  \
         http-request return status 200 if {{ path /up }}\n  http-request return status 500\n\
         listen dead\n  bind {first}:82\n  timeout http-request 10s\n  tcp-request connection reject"
    );
    let _haproxy = programs::haproxy(&net.backend, &haproxy, &[81, 82]);
    let _silent = Recorder::start(&net.backend, at(90));
    let row = |name, port, check: &str, expected| -> Row<'_> { (name, port, check.to_owned(), expected) };
    let rows = [
        row("connection", 80, "kind = \"connect\"", None),
        row("nobody", 7000, "kind = \"connect\"", Some("Connection refused")),
        row("another port", 7000, "kind = \"connect\"\nport = 80", None),
        row("status", 80, "kind = \"http\"\npath = \"/ready\"", None),
        row("no status", 80, "kind = \"http\"\npath = \"/broken\"", Some("status 503")),
        row("asked status", 80, "kind = \"http\"\npath = \"/broken\"\nstatus = [200, 503]", None),
        row("default host", 80, "kind = \"http\"", Some("status 404")),
        row("host", 80, "kind = \"http\"\nhost = \"app.test\"", None),
        row("haproxy up", 81, "kind = \"http\"\npath = \"/up\"", None),
        row("haproxy not up", 81, "kind = \"http\"\npath = \"/x\"", Some("status 500")),
        row("http of ssh", 22, "kind = \"http\"", Some("the answer is not HTTP/1")),
        row("http of nobody", 90, "kind = \"http\"", Some("no answer in 200ms")),
        row("http cut off", 82, "kind = \"http\"", Some("")),
        row("tls 1.2", 8443, "kind = \"tls\"\nserver_name = \"app.test\"", None),
        row("tls 1.3", 8444, "kind = \"tls\"\nserver_name = \"app.test\"", None),
        row("tls without a name", 8444, "kind = \"tls\"", None),
        row("tls for a name", 8445, "kind = \"tls\"\nserver_name = \"app.test\"", None),
        row(
            "tls for another name",
            8445,
            "kind = \"tls\"\nserver_name = \"other.test\"",
            Some("alert 112 (unrecognized name)"),
        ),
        row("tls of http", 80, "kind = \"tls\"", Some("the answer is not TLS")),
        row("banner", 22, "kind = \"send\"\nexpect = \"SSH-2.0-\"", None),
        row("no banner", 90, "kind = \"send\"\nexpect = \"SSH-2.0-\"", Some("no answer in 200ms")),
        row("question", 81, "kind = \"send\"\nsend = \"GET /up HTTP/1.0\\r\\n\\r\\n\"\nexpect = \" 200 \"", None),
        row("bytes alone", 80, "kind = \"send\"\nsend = { hex = \"00ff\" }", None),
    ];
    found(&net, &config("tls", &rows, ""), &rows);
}

#[test]
fn a_backend_that_wants_a_proxy_header_gets_one_that_names_no_client() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, ..] = BACKENDS_V4;
    let haproxy = format!(
        "frontend web\n  bind {first}:81 accept-proxy\n  mode http\n  timeout http-request 10s\n  \
         http-request return status 200"
    );
    let _haproxy = programs::haproxy(&net.backend, &haproxy, &[81]);
    for (version, expected) in [("v1", None), ("v2", None), ("none", Some(""))] {
        let rows = [("status", 81, "kind = \"http\"".to_owned(), expected)];
        found(&net, &config("tls", &rows, &format!("send_proxy_protocol = \"{version}\"")), &rows);
    }
}

#[test]
fn checks_over_udp_find_what_quinn_and_others_do() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&["app.test"]);
    let _quinn = QuicServer::start(&net.backend, at(8443), "q", &certificate, &["h3"]);
    let _echo = UdpServer::echo(&net.backend, at(7000), "echo:");
    let _silent = UdpServer::recorder(&net.backend, at(7001));
    let _status = Server::tagged(&net.backend, at(9000), "fine");
    // A refusal for every datagram, not for one a second.
    net.backend.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
    let row = |name, port, check: &str, expected| -> Row<'_> { (name, port, check.to_owned(), expected) };
    let rows = [
        row("quic", 8443, "kind = \"quic\"", None),
        row("quic of an echo", 7000, "kind = \"quic\"", Some("no answer in 200ms")),
        row("quic of nobody", 7777, "kind = \"quic\"", Some("Connection refused")),
        row("answer", 7000, "kind = \"send\"\nsend = \"ping\"\nexpect = \"echo:ping\"", None),
        row("another answer", 7000, "kind = \"send\"\nsend = \"ping\"\nexpect = \"pong\"", Some("the answer is not")),
        row("no answer", 7001, "kind = \"send\"\nsend = \"ping\"\nexpect = \"pong\"", Some("no answer in 200ms")),
        row("silence", 7001, "kind = \"send\"\nsend = \"ping\"", None),
        row("a refusal", 7777, "kind = \"send\"\nsend = \"ping\"", Some("Connection refused")),
        row("another port", 7777, "kind = \"send\"\nsend = \"x\"\nport = 7000\nexpect = \"x\"", None),
        row("a port over TCP", 7777, "kind = \"connect\"\nport = 9000", None),
    ];
    found(&net, &config("quic", &rows, ""), &rows);
}

#[test]
fn checks_of_targets_that_never_come_to_an_end_fail_in_time() {
    let Some(net) = Topology::or_skip() else { return };
    let reset = |mut stream: &TcpStream| {
        let _asked = stream.read(&mut [0; 1024]);
        let _reset = SockRef::from(stream).set_linger(Some(Duration::ZERO));
    };
    let endless = |bytes: &'static [u8]| move |mut stream: &TcpStream, _| while stream.write_all(bytes).is_ok() {};
    let _servers = [
        Server::start(&net.backend, at(7001), endless(&[0; 4096])),
        Server::start(&net.backend, at(7002), endless(b"HTTP/1.1 100 Continue\r\nA: b\r\n\r\n")),
        Server::start(&net.backend, at(7003), endless(b"\x16\x03\x03\x00\x04\x00\x00\x00\x00")),
        // A byte now and then, for ever.
        Server::start(&net.backend, at(7004), |mut stream, _| {
            while stream.write_all(b" ").is_ok() {
                wait::pause(Duration::from_millis(20));
            }
        }),
        Server::start(&net.backend, at(7005), move |stream, _| reset(stream)),
        Server::start(&net.backend, at(7006), |mut stream, _| drop(stream.write_all(b"HTTP/1.1 2"))),
        Server::start(&net.backend, at(7007), |mut stream, _| drop(stream.write_all(&[0x16, 3, 3, 0xff, 0xff, 2]))),
    ];
    let row = |name, port, check: &str, expected| -> Row<'_> { (name, port, check.to_owned(), Some(expected)) };
    let expect = "kind = \"send\"\nexpect = \"never\"";
    let rows = [
        row("zeros of http", 7001, "kind = \"http\"", "the answer is not HTTP/1"),
        row("zeros of tls", 7001, "kind = \"tls\"", "the answer is not TLS"),
        row("zeros", 7001, expect, "not what is expected in the first 8192 bytes"),
        row("interim responses", 7002, "kind = \"http\"", "no status in the first 8192 bytes"),
        row("empty messages", 7003, "kind = \"tls\"", ""),
        row("a byte now and then", 7004, expect, "no answer in 200ms"),
        row("a byte of http now and then", 7004, "kind = \"http\"", "the answer is not HTTP/1"),
        row("reset of http", 7005, "kind = \"http\"", "Connection reset"),
        row("reset of tls", 7005, "kind = \"tls\"", "Connection reset"),
        row("a part of a status", 7006, "kind = \"http\"", ""),
        row("a part of a record", 7007, "kind = \"tls\"", ""),
    ];
    found(&net, &config("tls", &rows, ""), &rows);
}
