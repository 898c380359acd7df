//! The test kit itself: what the other tests take for granted.

use std::{
    net::{IpAddr, SocketAddr},
    time::{Duration, Instant},
};

use crate::{
    OrFail as _, checksum,
    peers::{
        programs::{self, Certificate, SshServer, curl},
        server::{Recorder, Server},
        socks5,
    },
    socket::{self, End},
    topology::{BACKENDS_V4, BACKENDS_V6, CLIENT_V4, GATEWAY_INSIDE_V4, GATEWAY_V4, GATEWAY_V6, Topology, client_pool},
    wait,
    wire::Weather,
};

#[test]
fn hosts_reach_their_neighbours_only_and_leave_nothing_behind() {
    let Some(net) = Topology::or_skip() else { return };
    let names = [net.client.name(), net.gateway.name(), net.backend.name()].map(|name| format!("/run/netns/{name}"));

    let near = Recorder::start(&net.gateway, (GATEWAY_V4, 80));
    for source in [CLIENT_V4, client_pool(0), client_pool(125)] {
        let stream = socket::dial_from(&net.client, source, (GATEWAY_V4, 80));
        socket::send(&stream, b"x");
        drop(stream);
        let record = near.next();
        assert_eq!((record.peer.ip(), record.bytes, record.end), (IpAddr::from(source), b"x".to_vec(), End::Closed));
    }

    let backends = BACKENDS_V4.map(IpAddr::from).into_iter().chain(BACKENDS_V6.map(IpAddr::from));
    for address in backends.map(|ip| SocketAddr::new(ip, 80)) {
        let _server = Server::tagged(&net.backend, address, "here");
        assert_eq!(socket::read_line(&socket::dial(&net.gateway, address)).as_deref(), Some("here"));
    }

    drop(net);
    for name in names {
        assert!(!std::path::Path::new(&name).exists(), "{name} is left over");
    }
}

#[test]
fn programs_serve_and_are_reached() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, third] = BACKENDS_V4;

    let certificate = Certificate::new(&["one.test"]);
    let _nginx = programs::nginx(
        &net.backend,
        &format!("server {{ listen {first}:80; location / {{ return 200 \"nginx saw $remote_addr\"; }} }}"),
        "",
        &[80],
    );
    let _openssl = programs::openssl_server(&net.backend, (second, 443), &certificate, &["-alpn", "http/1.1"]);
    let _haproxy =
        programs::haproxy(&net.gateway, &format!("listen web\n  bind :8080\n  server s {first}:80"), &[8080]);
    let _socks = socks5::start(&net.gateway, (GATEWAY_V4, 1080));
    let ssh = SshServer::start(&net.backend, (third, 22));

    let page = programs::text(curl(&net.client).arg(format!("http://{GATEWAY_V4}:8080/")));
    assert_eq!(page, format!("nginx saw {GATEWAY_INSIDE_V4}"));
    let page = programs::text(curl(&net.client).args([
        "--socks5",
        &format!("{GATEWAY_V4}:1080"),
        &format!("http://{first}/"),
    ]));
    assert_eq!(page, format!("nginx saw {GATEWAY_INSIDE_V4}"));
    let page = programs::text(curl(&net.gateway).arg("--cacert").arg(certificate.file()).args([
        "--resolve",
        &format!("one.test:443:{second}"),
        "https://one.test/",
    ]));
    assert!(page.contains("s_server -www"), "{page}");
    assert_eq!(programs::text(&mut ssh.client(&net.gateway, (third, 22).into(), "echo over there")), "over there");
}

#[test]
fn a_wire_delays_loses_doubles_and_reorders_what_crosses_it() {
    const TIME: Duration = Duration::from_millis(30);
    const MANY: usize = 60_000;
    let calm = Weather::default();
    let Some(net) = Topology::with_wire_or_skip(calm) else { return };
    let wire = net.wire().unwrap();
    for near in [SocketAddr::from((GATEWAY_V4, 80)), SocketAddr::from((GATEWAY_V6, 80))] {
        let _server = Server::echo(&net.gateway, near);
        let round_trip = |what: &[u8]| {
            let begun = Instant::now();
            let stream = socket::dial(&net.client, near);
            socket::send(&stream, what);
            assert_eq!(socket::read_exactly(&stream, what.len()), what);
            begun.elapsed()
        };
        round_trip(b"meet");
        wire.set(Weather { delay: TIME, ..calm });
        // One round trip for the handshake, one for the echo.
        assert!(round_trip(b"far") >= 4 * TIME);
        wire.set(calm);
        for (counter, weather) in [
            ("TcpRetransSegs", Weather { lost: 100, ..calm }),
            ("TcpExtTCPDSACKRecv", Weather { doubled: 300, ..calm }),
            ("TcpExtTCPOFOQueue", Weather { late: 300, ..calm }),
        ] {
            wire.set(weather);
            let count = || {
                let counters = checksum::counters(&net.client);
                counters.into_iter().find(|(name, _)| name == counter).or_fail(counter).1
            };
            let before = count();
            wait::until(counter, || {
                round_trip(&[7; MANY]);
                (count() > before).then_some(())
            });
            wire.set(calm);
        }
    }
}
