//! The PROXY protocol: trusted and checked on the way in, truthful on the way out.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::{
        programs::{self, curl},
        server::{Recorder, Server},
    },
    socket,
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_V4, Topology, client_pool},
};

use crate::support::{PORT, at, at_v6, front, front_v6, rule};

rpxy_l4_tests::splice_modes! {
    Unknown {
        a_header_from_a_trusted_peer_is_taken_off_and_believed,
        without_a_good_header_from_a_trusted_peer_nothing_passes,
        a_peer_that_never_sends_its_header_is_closed,
        a_header_is_sent_as_the_global_key_or_the_rule_says,
        what_came_in_a_header_goes_out_in_the_next,
        of_60_000_bytes_of_fields_those_that_fit_are_passed_on,
        an_optional_header_is_believed_and_not_missed,
        a_server_that_speaks_first_gets_its_header_before_the_client_has_spoken,
        haproxy_to_rpxy_l4_to_nginx_keeps_the_client_address,
    }
}

/// The signature of a version 2 header (PROXY protocol specification, section 2.2).
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// A version 2 header for TCP with `tlvs` behind the addresses.
fn v2(source: SocketAddr, destination: SocketAddr, tlvs: &[u8]) -> Vec<u8> {
    let (family, addresses) = match (source.ip(), destination.ip()) {
        (IpAddr::V4(from), IpAddr::V4(to)) => (0x11, [from.octets(), to.octets()].concat()),
        (IpAddr::V6(from), IpAddr::V6(to)) => (0x21, [from.octets(), to.octets()].concat()),
        (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => panic!("mixed families"),
    };
    let ports = [source.port().to_be_bytes(), destination.port().to_be_bytes()].concat();
    let length = u16::try_from(addresses.len() + ports.len() + tlvs.len()).unwrap();
    [SIGNATURE, &[0x21, family], &length.to_be_bytes(), &addresses, &ports, tlvs].concat()
}

/// A version 2 header of the command LOCAL, with `body` to be skipped.
fn v2_local(body: &[u8]) -> Vec<u8> {
    let length = u16::try_from(body.len()).unwrap();
    [SIGNATURE, &[0x20, 0x00], &length.to_be_bytes(), body].concat()
}

fn receiving(trusted: &str, more: &str) -> String {
    format!(
        "listen_port = {PORT}\nlisten_ipv6 = true\ntcp_target = [\"{}\"]\ntcp_recv_proxy_protocol = true\n\
         tcp_trusted_proxies = [{trusted}]\n{more}\n",
        at(7000)
    )
}

fn a_header_from_a_trusted_peer_is_taken_off_and_believed() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let daemon = Daemon::start(&net.gateway, &receiving("\"192.0.2.0/24\", \"2001:db8:1::/64\"", ""));
    let told: SocketAddr = "203.0.113.7:5555".parse().unwrap();
    let told_v6: SocketAddr = "[2001:db8:ffff::7]:5555".parse().unwrap();
    let to: SocketAddr = "203.0.113.1:443".parse().unwrap();
    let to_v6: SocketAddr = "[2001:db8:ffff::1]:443".parse().unwrap();
    let tlvs = [&[0xea, 0x0f, 0xfd][..], &[0x11; 4093]].concat();

    // The source that the access log must show; `None` is the peer itself.
    let rows: Vec<(&str, Vec<u8>, Option<SocketAddr>)> = vec![
        ("v1", b"PROXY TCP4 203.0.113.7 203.0.113.1 5555 443\r\n".to_vec(), Some(told)),
        ("v1 IPv6", b"PROXY TCP6 2001:db8:ffff::7 2001:db8:ffff::1 5555 443\r\n".to_vec(), Some(told_v6)),
        ("v1 UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec(), None),
        ("v1 UNKNOWN with junk", b"PROXY UNKNOWN ff:: 1 2 3\r\n".to_vec(), None),
        ("v2", v2(told, to, &[]), Some(told)),
        ("v2 IPv6", v2(told_v6, to_v6, &[]), Some(told_v6)),
        ("v2 with 4 KiB of TLVs", v2(told, to, &tlvs), Some(told)),
        ("v2 LOCAL", v2_local(&[]), None),
        ("v2 LOCAL with a body", v2_local(&[1; 12]), None),
    ];
    for (name, header, source) in rows {
        for segments in ["together", "apart"] {
            let stream = socket::dial(&net.client, front());
            let source = source.unwrap_or_else(|| stream.local_addr().unwrap());
            let mark = daemon.process().mark();
            if segments == "together" {
                socket::send(&stream, &[&header, &b"payload"[..]].concat());
            } else {
                let (head, tail) = header.split_at(header.len() / 2);
                socket::send(&stream, head);
                socket::send(&stream, tail);
                daemon.wait_for(mark, &format!("[start] tcp: {source} -> {}", at(7000)));
                socket::send(&stream, b"payload");
            }
            socket::finish(&stream);
            assert_eq!(recorder.next().bytes, b"payload", "{name}, {segments}");
            daemon.wait_for(mark, &format!("[finish] tcp: {source} -> {}", at(7000)));
        }
    }
}

fn without_a_good_header_from_a_trusted_peer_nothing_passes() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::tagged(&net.backend, at(7000), "reached");
    // The bare address is a prefix of full length.
    let _daemon = Daemon::start(&net.gateway, &receiving("\"192.0.2.10\"", ""));
    let header = b"PROXY TCP4 203.0.113.7 203.0.113.1 5555 443\r\n";
    let rows: [(&str, IpAddr, Vec<u8>); 7] = [
        ("untrusted v4 peer", client_pool(1).into(), header.to_vec()),
        ("no header", CLIENT_V4.into(), b"GET / HTTP/1.1\r\nHost: one.test\r\n\r\n".to_vec()),
        ("nearly a header", CLIENT_V4.into(), b"PROXY TCP4 203.0.113.7 203.0.113.1 5555 99999\r\n".to_vec()),
        ("v1 without an end", CLIENT_V4.into(), [b"PROXY TCP4 ".as_slice(), &[b'1'; 200]].concat()),
        ("v2 of version 3", CLIENT_V4.into(), [SIGNATURE, &[0x31, 0x11, 0, 12], &[0; 12]].concat()),
        ("v2 too short for its family", CLIENT_V4.into(), [SIGNATURE, &[0x21, 0x11, 0, 4], &[0; 4]].concat()),
        ("v2 with an unknown command", CLIENT_V4.into(), [SIGNATURE, &[0x2f, 0x11, 0, 12], &[0; 12]].concat()),
    ];
    for (name, from, bytes) in rows {
        let stream = socket::dial_from(&net.client, from, front());
        // An untrusted peer may be closed before it has sent anything.
        let _maybe_closed = std::io::Write::write_all(&mut &stream, &bytes);
        assert_eq!(socket::read_to_end(&stream).0, b"", "{name}");
    }
    let untrusted = socket::dial(&net.client, front_v6());
    assert_eq!(socket::read_to_end(&untrusted).0, b"", "untrusted v6 peer");
    assert_eq!(server.accepted(), 0);

    let trusted = socket::dial(&net.client, front());
    socket::send(&trusted, header);
    assert_eq!(socket::read_line(&trusted).as_deref(), Some("reached"));
}

fn a_peer_that_never_sends_its_header_is_closed() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::tagged(&net.backend, at(7000), "reached");
    // The header has a deadline of its own, which no probe timeout lengthens.
    let _daemon = Daemon::start(&net.gateway, &receiving("\"192.0.2.0/24\"", "tcp_probe_timeout = \"1h\""));
    let silent = socket::dial(&net.client, front());
    let incomplete = socket::dial(&net.client, front());
    socket::send(&incomplete, b"PROXY TCP4 203");
    for stream in [&silent, &incomplete] {
        assert_eq!(socket::read_to_end(stream).0, b"");
    }
    assert_eq!(server.accepted(), 0);
}

fn a_header_is_sent_as_the_global_key_or_the_rule_says() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let mut config = format!(
        "listen_port = {PORT}\nlisten_ipv6 = true\ntcp_send_proxy_protocol = \"v1\"\ntcp_target = [\"{}\"]\n",
        at(7000)
    );
    config += &rule("inherit", "ssh", at(7000), "");
    config += &rule("override", "http", at(7000), "send_proxy_protocol = \"V2\"");
    config += &rule("off", "socks5", at(7000), "send_proxy_protocol = \"none\"");
    let _daemon = Daemon::start(&net.gateway, &config);

    let v1_line = |from: SocketAddr, to: SocketAddr| {
        let family = if from.is_ipv4() { "TCP4" } else { "TCP6" };
        format!("PROXY {family} {} {} {} {}\r\n", from.ip(), to.ip(), from.port(), to.port()).into_bytes()
    };
    type Header<'a> = &'a dyn Fn(SocketAddr, SocketAddr) -> Vec<u8>;
    let rows: [(&str, &[u8], Header<'_>); 4] = [
        ("default target", b"\0 neither", &v1_line),
        ("inherited", b"SSH-2.0-x\r\n", &v1_line),
        ("overridden", b"GET / HTTP/1.1\r\n\r\n", &|from, to| v2(from, to, &[])),
        ("off", b"\x05\x01\x00", &|_, _| vec![]),
    ];
    for (name, first, header) in rows {
        for to in [front(), front_v6()] {
            let stream = socket::dial(&net.client, to);
            socket::send(&stream, first);
            socket::finish(&stream);
            let expected = [header(stream.local_addr().unwrap(), to), first.to_vec()].concat();
            let received = recorder.next().bytes;
            assert_eq!(
                String::from_utf8_lossy(&received),
                String::from_utf8_lossy(&expected),
                "{name}, {to}; in bytes: {received:02x?}"
            );
        }
    }
}

fn what_came_in_a_header_goes_out_in_the_next() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let config = receiving("\"192.0.2.0/24\"", "tcp_send_proxy_protocol = 'v2'");
    let _daemon = Daemon::start(&net.gateway, &config);
    let told: SocketAddr = "203.0.113.7:5555".parse().unwrap();
    let to: SocketAddr = "203.0.113.1:8443".parse().unwrap();
    // Name, header, and the addresses that it tells; without them those of the connection count.
    type Row = (&'static str, Vec<u8>, Option<(SocketAddr, SocketAddr)>);
    let mapped = b"PROXY TCP6 ::ffff:203.0.113.7 ::ffff:203.0.113.1 5555 8443\r\n";
    let rows: [Row; 6] = [
        ("v1, mapped", mapped.to_vec(), Some((told, to))),
        ("v1", b"PROXY TCP4 203.0.113.7 203.0.113.1 5555 8443\r\n".to_vec(), Some((told, to))),
        ("v2", v2(told, to, &[]), Some((told, to))),
        ("UNKNOWN", b"PROXY UNKNOWN\r\n".to_vec(), None),
        ("LOCAL", v2_local(&vec![0; 65_535]), None),
        ("LOCAL, short", v2_local(&[]), None),
    ];
    for (name, header, addresses) in rows {
        let stream = socket::dial(&net.client, front());
        let (from, to) = addresses.unwrap_or_else(|| (stream.local_addr().unwrap(), front()));
        socket::send(&stream, &[&header, &b"payload"[..]].concat());
        socket::finish(&stream);
        assert_eq!(recorder.next().bytes, [v2(from, to, &[]), b"payload".to_vec()].concat(), "{name}");
    }
}

fn of_60_000_bytes_of_fields_those_that_fit_are_passed_on() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let _daemon = Daemon::start(&net.gateway, &receiving("\"192.0.2.0/24\"", "tcp_send_proxy_protocol = 'v2'"));
    let told: SocketAddr = "203.0.113.7:5555".parse().unwrap();
    let to: SocketAddr = "203.0.113.1:8443".parse().unwrap();
    let small: &[u8] = &[0xe1, 0, 1, 9];
    let tlvs = [&[0xe0, 0xea, 0x60][..], &[7; 60_000], small].concat();
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, &[&v2(told, to, &tlvs), &b"payload"[..]].concat());
    socket::finish(&stream);
    assert_eq!(recorder.next().bytes, [v2(told, to, small), b"payload".to_vec()].concat());
}

fn an_optional_header_is_believed_and_not_missed() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let config = |more: &str| {
        receiving("\"192.0.2.0/24\"", more)
            .replace("tcp_recv_proxy_protocol = true", "tcp_recv_proxy_protocol = 'optional'")
    };
    let mut daemon =
        Daemon::start(&net.gateway, &config("tcp_send_proxy_protocol = 'v2'\ntcp_probe_timeout = '300ms'"));
    let told: SocketAddr = "203.0.113.7:5555".parse().unwrap();
    let to: SocketAddr = "203.0.113.1:8443".parse().unwrap();
    let rows: [(&str, Vec<u8>, &[u8], bool); 6] = [
        ("a header", v2(told, to, &[]), b"payload", true),
        ("none", vec![], b"payload", false),
        ("what begins alike", vec![], b"PROFIND / HTTP/1.1\r\n\r\n", false),
        ("half a signature", vec![], b"PROX", false),
        ("half a binary signature", vec![], b"\r\n\r\n", false),
        ("nothing", vec![], b"", false),
    ];
    for (row, header, payload, is_told) in rows {
        let stream = socket::dial(&net.client, front());
        let (from, to) = if is_told { (told, to) } else { (stream.local_addr().unwrap(), front()) };
        socket::send(&stream, &[&header[..], payload].concat());
        socket::finish(&stream);
        assert_eq!(recorder.next().bytes, [&v2(from, to, &[])[..], payload].concat(), "{row}");
    }
    drop(recorder);

    let server = Server::tagged(&net.backend, at(7000), "220 ready");
    daemon.reload(rpxy_l4_tests::daemon::Edit::InPlace, &config("tcp_probe_timeout = '200ms'"));
    let silent = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&silent).as_deref(), Some("220 ready"), "a server that speaks first");
    let invalid = socket::dial(&net.client, front());
    socket::send(&invalid, b"PROXY nonsense\r\n");
    assert_eq!(socket::read_to_end(&invalid).0, b"", "a header that is wrong");
    let untrusted = socket::dial(&net.client, front_v6());
    assert_eq!(socket::read_to_end(&untrusted).0, b"", "a peer that is not trusted");
    assert_eq!(server.accepted(), 1);
}

fn a_server_that_speaks_first_gets_its_header_before_the_client_has_spoken() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::start(&net.backend, at_v6(7000), |mut stream, _| {
        let line = socket::read_line(stream).unwrap();
        std::io::Write::write_all(&mut stream, format!("{line}\n").as_bytes()).unwrap();
    });
    let config = format!("listen_port = {PORT}\ntcp_send_proxy_protocol = \"1\"\ntcp_target = [\"{}\"]\n", at_v6(7000));
    let _daemon = Daemon::start(&net.gateway, &config);
    let stream = socket::dial(&net.client, front());
    let from = stream.local_addr().unwrap();
    let line = format!("PROXY TCP4 {} {GATEWAY_V4} {} {PORT}\r", from.ip(), from.port());
    assert_eq!(socket::read_line(&stream), Some(line));
}

fn haproxy_to_rpxy_l4_to_nginx_keeps_the_client_address() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let nginx = |address| {
        format!(
            "server {{ listen {address}:80 proxy_protocol; set_real_ip_from 198.51.100.0/24; \
         real_ip_header proxy_protocol; location / {{ \
         return 200 \"$remote_addr:$proxy_protocol_port to $proxy_protocol_server_addr:$proxy_protocol_server_port\"; }} }}"
        )
    };
    let _nginx = programs::nginx(&net.backend, &format!("{}\n{}", nginx(first), nginx(second)), "", &[80]);
    let mut config = receiving("\"192.0.2.10\"", "");
    config += &rule("web", "http", (first, 80).into(), "send_proxy_protocol = \"v1\"\nserver_names = [\"one.test\"]");
    config += &rule("web2", "http", (second, 80).into(), "send_proxy_protocol = \"v2\"");
    let _daemon = Daemon::start(&net.gateway, &config);
    let _haproxy = programs::haproxy(
        &net.client,
        &format!(
            "listen one\n  bind 192.0.2.11:81\n  server s {GATEWAY_V4}:{PORT} send-proxy source {CLIENT_V4}\n\
             listen two\n  bind 192.0.2.11:82\n  server s {GATEWAY_V4}:{PORT} send-proxy-v2 source {CLIENT_V4}"
        ),
        &[81, 82],
    );
    for host in ["one.test", "two.test"] {
        for port in [81, 82] {
            let mut command = curl(&net.client);
            command.args(["--interface", "192.0.2.12", "--local-port", "5000-5999", "-H", &format!("Host: {host}")]);
            let page = programs::text(command.arg(format!("http://192.0.2.11:{port}/")));
            let (from, to) = page.split_once(" to ").unwrap_or_default();
            assert!(from.starts_with("192.0.2.12:5"), "{host} through {port}: {page}");
            assert_eq!(to, format!("192.0.2.11:{port}"), "{host} through {port}");
        }
    }
}
