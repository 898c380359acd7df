//! Other programs as a second opinion: what OpenSSL, nginx or HAProxy accept is never "not this".

use std::net::SocketAddr;

use rpxy_l4_proto::{Probe, http::HttpProbe, tls::HelloProbe};
use rpxy_l4_tests::{
    daemon::Daemon,
    hello::Hello,
    peers::{programs, server::Server},
    socket,
    topology::{BACKENDS_V4, Host, Topology},
};

use super::recognised::odd_hellos;
use crate::support::{PORT, at, front, rule};

/// What `to` answers to `first` before both ends close.
fn answer(host: &Host, to: SocketAddr, first: &[u8]) -> Vec<u8> {
    let stream = socket::dial(host, to);
    // The other side may have seen enough before the end.
    let _sent = std::io::Write::write_all(&mut &stream, first);
    let _ended = stream.shutdown(std::net::Shutdown::Write);
    socket::read_to_end(&stream).0
}

/// A TLS server's verdict: its hello, or the description of its alert; `None` when it just closes.
#[derive(Debug, PartialEq, Eq)]
enum Verdict {
    Accepted,
    Alert(u8),
    Closed,
}

fn verdict(answer: &[u8]) -> Verdict {
    match answer {
        [22, _, _, _, _, 2, ..] => Verdict::Accepted,
        [21, _, _, _, _, _, description, ..] => Verdict::Alert(*description),
        _ => Verdict::Closed,
    }
}

/// A hello that OpenSSL takes.
fn good_hello() -> Vec<u8> {
    let mut hello = Hello::new().message();
    // signature_algorithms, supported_groups, key_share of X25519, as TLS 1.3 needs them.
    let share = [&[0, 51, 0, 38, 0, 36, 0, 29, 0, 32][..], &[9; 32]].concat();
    let more = [&[0, 13, 0, 4, 0, 2, 4, 3, 0, 10, 0, 4, 0, 2, 0, 29][..], &share].concat();
    let block = hello.len() - 2 - 9;
    hello.extend(&more);
    for (at, from) in [(2, 4), (block, block + 2)] {
        let length = u16::try_from(hello.len() - from).unwrap().to_be_bytes();
        hello[at..at + 2].copy_from_slice(&length);
    }
    rpxy_l4_tests::hello::into_records(&hello, 1 << 14)
}

#[test]
fn what_openssl_accepts_is_tls() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = programs::Certificate::new(&["one.test"]);
    let _server = programs::openssl_server(&net.backend, at(443), &certificate, &[]);
    let default = Server::tagged(&net.backend, at(7000), "default");
    let config = format!("listen_port = {PORT}\ntcp_probe_timeout = \"1h\"\ntcp_target = [\"{}\"]\n", at(7000));
    let _daemon = Daemon::start(&net.gateway, &(config + &rule("tls", "tls", at(443), "")));

    let good = good_hello();
    let mut rows: Vec<(String, Vec<u8>)> =
        odd_hellos().into_iter().map(|(row, hello)| (row.to_owned(), hello)).collect();
    rows.push(("good".to_owned(), good.clone()));
    rows.push(("two warnings before it".to_owned(), [&[21, 3, 1, 0, 2, 1, 90].repeat(2)[..], &good].concat()));
    rows.push(("empty records before it".to_owned(), [&[22, 3, 1, 0, 0].repeat(3)[..], &good].concat()));
    rows.push(("another minor version".to_owned(), [&[22, 3, 0x41][..], &good[3..]].concat()));
    for at in (0..good.len()).filter(|at| !(11..43).contains(at)) {
        for change in [0x01, 0x80] {
            let mut changed = good.clone();
            changed[at] ^= change;
            rows.push((format!("byte {at} xor {change:#x}"), changed));
        }
    }
    let mut accepted = 0;
    for (row, first) in rows {
        let direct = verdict(&answer(&net.gateway, at(443), &first));
        let recognised = HelloProbe::default().advance(&first);
        if direct == Verdict::Accepted {
            accepted += 1;
            assert!(matches!(recognised, Probe::Match(_) | Probe::Unreadable), "{row}: {recognised:?}");
        }
        // Bytes of another protocol go elsewhere, and OpenSSL says what it thinks of them.
        if recognised != Probe::NotThis {
            assert_eq!(verdict(&answer(&net.client, front(), &first)), direct, "{row}, through the daemon");
        }
    }
    assert!(accepted > 20, "only {accepted} are accepted");
    assert_eq!(default.accepted(), 0);
}

#[test]
fn what_nginx_or_haproxy_accept_is_http() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let server = format!("server {{ listen {first}:80; location / {{ return 200 \"served\"; }} }}");
    let _nginx = programs::nginx(&net.backend, &server, "", &[80]);
    let frontend = format!(
        "frontend web\n  bind {second}:81\n  mode http\n  timeout http-request 10s\n  \
         http-request return status 200 content-type text/plain string \"served\""
    );
    let _haproxy = programs::haproxy(&net.backend, &frontend, &[81]);

    let before = ["", "\r\n", "\n\r\n\n", "\r", " "];
    let methods = ["GET", "get", "M", "G-T", "PRI", &"M".repeat(40), "G\u{e9}"];
    let blanks = [" ", "  ", "\t", "\r"];
    let targets = ["/", "/a b", "*", "http://a.example/", "a", "", "/\u{e9}", "/\x01"];
    let versions = ["HTTP/1.1", "HTTP/1.0", "HTTP/1.10", "HTTP/2.0", "HTTP/0.9", "HTTP/1", "http/1.1", "HTTP/1.1 ", ""];
    let ends = ["\r\n", "\n", "\r\r\n"];
    let line = |[before, method, blank, target, version, end]: [&str; 6]| {
        let blank_or_none = if version.is_empty() { "" } else { blank };
        format!("{before}{method}{blank}{target}{blank_or_none}{version}{end}Host: a{end}Connection: close{end}{end}")
    };
    let usual = ["", "GET", " ", "/", "HTTP/1.1", "\r\n"];
    let choices: [&[&str]; 6] = [&before, &methods, &blanks, &targets, &versions, &ends];
    // Every two parts in every way, the others as usual.
    let mut requests = std::collections::BTreeSet::new();
    for (one, its) in choices.iter().enumerate() {
        for (other, others) in choices.iter().enumerate().skip(one + 1) {
            for (this, that) in its.iter().flat_map(|this| others.iter().map(move |that| (*this, *that))) {
                let mut parts = usual;
                (parts[one], parts[other]) = (this, that);
                requests.insert(line(parts));
            }
        }
    }
    for fields in ["Host: a:abc", "nonsense", "Host : a", "X: y\r\n folded", ": x", "Host: a\r\nHost: a"] {
        requests.insert(format!("GET / HTTP/1.1\r\n{fields}\r\nConnection: close\r\n\r\n"));
    }
    requests.insert(format!("GET /{} HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "x".repeat(7000)));
    requests.insert(format!("{}GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n", "\r\n".repeat(2000)));

    let servers = [SocketAddr::from((first, 80)), SocketAddr::from((second, 81))];
    let mut accepted = [0; 2];
    for request in &requests {
        for (server, accepted) in servers.iter().zip(&mut accepted) {
            let answer = answer(&net.gateway, *server, request.as_bytes());
            if !answer.ends_with(b"served") {
                continue;
            }
            *accepted += 1;
            for want_host in [false, true] {
                let recognised = HttpProbe::new(want_host).advance(request.as_bytes());
                assert!(matches!(recognised, Probe::Match(_) | Probe::Unreadable), "{request:?}: {recognised:?}");
            }
        }
    }
    assert!(accepted.iter().all(|count| *count > 20), "of {} only {accepted:?} are accepted", requests.len());
}
