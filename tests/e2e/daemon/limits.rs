//! Limits: resource exhaustion, and strangers who try to cause it.

use std::{
    fs,
    io::Write as _,
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{Daemon, Edit},
    hello::Hello,
    owned,
    peers::server::Server,
    socket,
    topology::{Topology, client_pool},
    wait,
};

use serde_json::json;

use crate::support::{PORT, at, front, http_request, reached_by, rule};

fn default_only(top: &str) -> String {
    format!("listen_port = {PORT}\n{top}\ntcp_target = [\"{}\"]\n", at(7000))
}

/// Connects and asks for the tag; the stream is kept open.
#[track_caller]
fn hold(net: &Topology) -> (TcpStream, Option<String>) {
    let stream = socket::dial(&net.client, front());
    let tag = socket::read_line(&stream);
    (stream, tag)
}

#[test]
fn over_tcp_max_connections_clients_are_closed_at_once_and_it_is_said_once() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::tagged(&net.backend, at(7000), "served");
    let config = default_only("tcp_max_connections = 5");
    let mut daemon = Daemon::builder(&config).allow("tcp_max_connections (5) reached").start(&net.gateway);
    let mut held: Vec<_> = (0..5).map(|_| hold(&net)).collect();
    assert!(held.iter().all(|(_, tag)| tag.is_some()));
    let begun = Instant::now();
    for _ in 0..20 {
        assert_eq!(hold(&net).1, None);
    }
    assert_eq!(server.accepted(), 5, "the backend was bothered with refused connections");
    let said = daemon.lines_with("tcp_max_connections").len();
    // Once in ten seconds.
    assert!(said >= 1 && said as u64 <= 1 + begun.elapsed().as_secs() / 10, "said {said} times");

    // Each that ends makes room for one.
    held.truncate(4);
    wait::until("there is room for one", || hold(&net).1);
    server.wait_for_open(4);

    // A reload changes the limit for those to come, and closes nobody.
    daemon.reload(Edit::Rename, &default_only("tcp_max_connections = 6"));
    daemon.allow("tcp_max_connections (6) reached");
    for _ in 0..2 {
        // The one that found room above may not be gone yet.
        held.push(wait::until("there is room for two more", || Some(hold(&net)).filter(|(_, tag)| tag.is_some())));
    }
    daemon.reload(Edit::Rename, &default_only("tcp_max_connections = 2"));
    daemon.allow("tcp_max_connections (2) reached");
    assert_eq!(hold(&net).1, None);
    assert_eq!(server.open(), 6);
}

#[test]
fn without_descriptors_accepting_pauses_and_recovers() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::tagged(&net.backend, at(7000), "served");
    let daemon = Daemon::builder(&default_only("")).allow("Too many open files").start(&net.gateway);
    assert!(hold(&net).1.is_some());
    server.wait_for_open(0);
    let before = daemon.open_files();

    // Room for five connections, of two or more descriptors each; forty clients come.
    daemon.limit_open_files(before as u64 + 10);
    let waiting: Vec<_> = (0..40).map(|_| socket::dial(&net.client, front())).collect();
    daemon.wait_for(0, "Too many open files");
    let (begun, ticks) = (Instant::now(), cpu_ticks(daemon.process().pid()));
    wait::pause(Duration::from_secs(1));
    let spent = Duration::from_millis(10) * u32::try_from(cpu_ticks(daemon.process().pid()) - ticks).unwrap();
    let passed = begun.elapsed();
    assert!(spent < passed / 3, "the daemon spends {spent:?} of {passed:?} while it waits for descriptors");

    // All the clients that were kept waiting are served in the end: none was closed for what the proxy lacked.
    daemon.limit_open_files(1000);
    for stream in &waiting {
        assert_eq!(socket::read_line(stream).as_deref(), Some("served"));
    }
    assert!(hold(&net).1.is_some());
    drop(waiting);
    server.wait_for_open(0);
    daemon.wait_for_open_files(before);
}

#[test]
fn a_burst_beyond_the_descriptors_is_served_as_far_as_they_go() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::tagged(&net.backend, at(7000), "served");
    let daemon = Daemon::builder(&default_only("")).open_files(120).allow("open files").start(&net.gateway);
    let mut clients: Vec<_> = (0..150).map(|_| socket::dial(&net.client, front())).collect();
    server.wait_for_accepted(15);
    assert!(daemon.open_files() < 120 - 8, "{} files are open", daemon.open_files());
    assert!(daemon.lines_with("accepting paused").is_empty());
    // Each that ends lets one in from the queue.
    let mut served = 0;
    while !clients.is_empty() {
        let first = clients.remove(0);
        assert_eq!(socket::read_line(&first).as_deref(), Some("served"), "after {served}");
        served += 1;
    }
    assert_eq!(server.accepted(), 150);
    assert!(daemon.lines_with("accepting paused").is_empty());
}

#[test]
fn one_source_leaves_room_for_others() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let greedy = client_pool(1);
    let ask = |from| {
        let stream = socket::dial_from(&net.client, from, front());
        let tag = socket::read_line(&stream);
        (stream, tag)
    };
    for (row, keys, reason, fits) in [
        ("by default", "tcp_max_connections = 64", "source_connections", 48),
        ("told", "tcp_max_connections_per_source = 5", "source_connections", 5),
        ("rate", "tcp_new_connections_per_source = 1\ntcp_new_connections_burst = 7", "source_rate", 7),
    ] {
        let config = default_only(keys);
        let daemon = Daemon::builder(&config).allow("closing new connections of its network").start(&net.gateway);
        let held: Vec<_> = (0..fits).map(|_| ask(greedy)).collect();
        assert!(held.iter().all(|(_, tag)| tag.is_some()), "{row}");
        let more = (0..20).filter(|_| ask(greedy).1.is_some()).count();
        assert!(more <= 2, "{row}: {more} more were served");
        assert_eq!(ask(client_pool(2)).1.as_deref(), Some("served"), "{row}: another source");
        assert_eq!(daemon.lines_with(&format!("({reason}; ")).len(), 1, "{row}");
    }
}

/// Processor time of a process in ticks of 10 ms.
fn cpu_ticks(pid: u32) -> u64 {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    // Fields 14 and 15 of proc(5); field 2 may hold spaces but ends with the last parenthesis.
    let (_, after_name) = stat.rsplit_once(") ").unwrap();
    after_name.split(' ').skip(11).take(2).map(|ticks| ticks.parse::<u64>().unwrap()).sum()
}

#[test]
fn random_bytes_and_port_scans_leave_nothing_behind() {
    const ROUNDS: u64 = 1000;
    const THREADS: u64 = 4;
    let Some(net) = Topology::or_skip() else { return };
    let _default = Server::echo(&net.backend, at(7000));
    let _tls = Server::tagged(&net.backend, at(7001), "tls");
    let _http = Server::tagged(&net.backend, at(7002), "http");
    let mut config = default_only("tcp_max_connections = 8000\ntcp_probe_timeout = \"500ms\"");
    config += &rule("tls", "tls", at(7001), "server_names = [\"one.test\"]");
    config += &rule("http", "http", at(7002), "server_names = [\"one.test\"]");
    config += &rule("ssh", "ssh", at(7003), "");
    config += &rule("socks", "socks5", at(7003), "");
    let daemon = Daemon::builder(&config).allow(&format!("{} cannot be reached", at(7003))).start(&net.gateway);
    let before = daemon.open_files();

    // Seeds are fixed: what fails once fails again.
    let net = &net;
    thread::scope(|scope| {
        for seed in 0..THREADS {
            scope.spawn(move || (0..ROUNDS).for_each(|round| disturb(net, seed * ROUNDS + round)));
        }
    });
    daemon.wait_for_open_files(before);
    assert_eq!(reached_by(net, &Hello::to("one.test").bytes()).as_deref(), Some("tls"));
    assert_eq!(reached_by(net, &http_request("one.test")).as_deref(), Some("http"));
    assert!(daemon.resident() < 200 << 20, "{} bytes resident", daemon.resident());
}

/// One unfriendly connection.
fn disturb(net: &Topology, seed: u64) {
    let mut random = Random(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1);
    let from = client_pool(u8::try_from(random.below(100)).unwrap());
    let mut stream = socket::dial_from(&net.client, from, front());
    let length = random.below(3000);
    let mut bytes: Vec<u8> = (0..length).map(|_| u8::try_from(random.below(256)).unwrap()).collect();
    match random.below(6) {
        // A scan: open and away.
        0 => return drop(stream),
        1 => return socket::reset(stream),
        // A hello with some bytes wrong.
        2 | 3 => {
            bytes = Hello::to("one.test").alpns(&["h2"]).padding(random.below(2000)).bytes();
            for _ in 0..1 + random.below(4) {
                let at = random.below(bytes.len());
                bytes[at] = u8::try_from(random.below(256)).unwrap();
            }
        }
        // A known beginning with noise behind it.
        4 => {
            let beginnings: [&[u8]; 5] = [
                b"SSH-",
                b"GET / HTTP/1.1\r\n",
                b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
                b"\x05\x03",
                b"\x16\x03\x01\xff\xff",
            ];
            bytes.splice(0..0, beginnings[random.below(beginnings.len())].iter().copied());
        }
        _ => {}
    }
    // The daemon may have closed already.
    let _sent = stream.write_all(&bytes);
    if random.below(4) == 0 {
        socket::reset(stream);
    }
}

/// xorshift64 (Marsaglia 2003).
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        usize::try_from(self.0 % bound as u64).unwrap()
    }
}

#[test]
fn a_thousand_connections_at_once_are_all_served() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::echo(&net.backend, at(7000));
    let daemon = Daemon::start(&net.gateway, &default_only("tcp_max_connections_per_source = 0"));
    let before = daemon.open_files();
    let streams: Vec<_> = (0..1000).map(|_| socket::dial(&net.client, front())).collect();
    for (stream, n) in streams.iter().zip(0_u32..) {
        socket::send(stream, &n.to_be_bytes());
    }
    for (stream, n) in streams.iter().zip(0_u32..) {
        assert_eq!(socket::read_exactly(stream, 4), n.to_be_bytes());
    }
    drop(streams);
    daemon.wait_for_open_files(before);
}

#[test]
fn rules_and_targets_have_limits_of_their_own() {
    let Some(net) = Topology::or_skip() else { return };
    let servers = [7000, 7001, 7002].map(|port| Server::tagged(&net.backend, at(port), &port.to_string()));
    let config = default_only("")
        + &format!(
            "[protocols.http]\nprotocol = \"http\"\nmax_connections = 3\n\
             target = [{{ address = \"{}\", max_connections = 2 }}, {{ address = \"{}\", max_connections = 9 }}]\n\
             [protocols.ssh]\nprotocol = \"ssh\"\ntarget = [{{ address = \"{}\", max_connections = 1 }}]\n",
            at(7001),
            at(7002),
            at(7002),
        );
    let daemon = Daemon::builder(&config).allow("http has 3 connections, its max_connections").start(&net.gateway);
    let ask = |first: &[u8]| {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, first);
        let tag = socket::read_line(&stream);
        (stream, tag)
    };
    let http = http_request("a.test");
    let mut held = Vec::new();
    for (row, first, expected) in [
        ("the first target", &http[..], Some("7001")),
        ("the first target has room for two", &http, Some("7001")),
        ("the second one", &http, Some("7002")),
        ("the rule has three", &http, None),
        ("that target has none too many of another rule", b"SSH-2.0-a\r\n", None),
        ("others are not concerned", b"x", Some("7000")),
    ] {
        let (stream, tag) = ask(first);
        assert_eq!(tag.as_deref(), expected, "{row}");
        held.push(stream);
    }
    drop(held);
    servers.iter().for_each(|server| server.wait_for_open(0));
    wait::until("there is room again", || ask(b"SSH-2.0-a\r\n").1);
    drop(daemon);
}

#[test]
fn no_rule_takes_all_places() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = [7000, 7001].map(|port| Server::tagged(&net.backend, at(port), &port.to_string()));
    let config = default_only("tcp_max_connections = 64\ntcp_max_connections_per_source = 0")
        + &rule("ssh", "ssh", at(7001), "");
    let _daemon = Daemon::builder(&config).allow("tcp_target has 32 connections, its share").start(&net.gateway);
    let ask = |first: &[u8]| {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, first);
        let tag = socket::read_line(&stream);
        (stream, tag)
    };
    let held: Vec<_> = (0..64).map(|_| ask(b"x")).collect();
    // Three quarters of all places, while nobody else wants any.
    assert_eq!(held.iter().filter(|(_, tag)| tag.is_some()).count(), 48);
    let others: Vec<_> = (0..16).map(|_| ask(b"SSH-2.0-a\r\n")).collect();
    assert!(others.iter().all(|(_, tag)| tag.as_deref() == Some("7001")), "a rule below its share");
}

#[test]
fn limits_are_lowered_to_the_descriptors_that_there_are_at_start_and_by_a_reload() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let path = directory.path().join("socket");
    let keys = |tcp: u32| format!("workers = 2\nadmin_socket = \"{}\"\ntcp_max_connections = {tcp}", path.display());
    let config = |tcp| default_only(&keys(tcp)) + &format!("udp_target = [\"{}\"]\n", at(7000));
    let mut daemon =
        Daemon::builder(&config(10)).open_files(1000).allow("udp_max_connections = 1024").start(&net.gateway);
    let sessions = || Admin::connect(&path).ask(&json!({ "command": "status" }))[0]["udp"]["max"].as_u64();
    // Everything else: 128, and for each worker 72 for what it waits with and its pipes, and two sockets.
    assert_eq!(sessions(), Some(1000 - 2 * 10 - (128 + 2 * (72 + 2))));
    daemon.allow("of tcp_max_connections = 400 and 312 of udp_max_connections = 1024");
    daemon.reload(Edit::InPlace, &config(400));
    assert_eq!(sessions(), Some((1000 - 64) / 3));
    assert_eq!(daemon.lines_with("a limit of 1000 open files has room for").len(), 2);
}
