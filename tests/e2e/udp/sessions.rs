//! Beginning and end of UDP sessions: idle times, limits, refusals by ICMP, start and stop.

use std::{
    fs,
    time::{Duration, Instant},
};

use rpxy_l4_tests::{
    daemon::{self, Daemon},
    hello::Hello,
    initial::Initial,
    owned,
    peers::{
        server::Server,
        udp::{self, UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, GATEWAY_V4, Topology},
    wait,
};
use rustix::process::Signal;
use serde_json::Value;

use crate::support::{PORT, at, front, rule, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        both_directions_keep_a_session_alive,
        a_full_table_makes_room_only_at_the_cost_of_who_was_never_answered,
        without_file_descriptors_sessions_go_on_and_new_ones_come_when_there_are_some_again,
        a_backend_that_restarts_keeps_its_sessions,
        refusals_for_one_session_do_not_disturb_the_others,
        sessions_go_on_while_tcp_drains_and_end_with_the_daemon,
    }
    NotSteered {
        an_idle_session_ends_and_the_next_datagram_begins_another,
        a_lifetime_of_zero_is_for_ever_and_a_rule_has_its_own,
        tcp_and_udp_live_on_one_port,
        the_port_of_a_session_that_had_to_give_way_rests,
    }
    Unknown {
        a_port_that_is_taken_stops_the_start_unless_both_share_it,
    }
}

fn client(net: &Topology) -> UdpClient {
    UdpClient::bind(&net.client, (CLIENT_V4, 0))
}

/// Lines of the access log about a client in one state.
fn lines(daemon: &Daemon, state: &str, client: &UdpClient) -> usize {
    daemon.lines_with(&format!("[{state}] udp: {} ->", client.address())).len()
}

#[track_caller]
fn event(line: &str) -> Value {
    serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()
}

fn an_idle_session_ends_and_the_next_datagram_begins_another() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let config = udp_to(at(7000), "udp_idle_lifetime = 1\naccess_log_format = \"json\"");
    let daemon = Daemon::start(&net.gateway, &config);
    let client = client(&net);
    assert_eq!(client.ask(front(), b"hello"), b"hello");
    let finish = event(&daemon.wait_for(0, "\"finish\""));
    assert_eq!(finish["proto"], "udp");
    assert_eq!(finish["src"], client.address().to_string());
    assert_eq!(finish["dst"], at(7000).to_string());
    assert_eq!((&finish["rule"], &finish["server_name"]), (&Value::Null, &Value::Null));
    assert_eq!((&finish["bytes_up"], &finish["bytes_down"]), (&Value::from(5), &Value::from(5)));
    assert!(finish["id"].as_str().unwrap().starts_with('u'), "{finish}");
    assert_eq!((&finish["target"], &finish["connect_us"]), (&Value::from(at(7000).to_string()), &Value::Null));
    assert!(finish["first_byte_us"].as_u64() > Some(0), "{finish}");
    assert_eq!((&finish["reason"], &finish["plane"]), (&Value::from("idle"), &Value::from("userspace")));
    assert_eq!(client.ask(front(), b"again"), b"again");
    wait::until("a second session begins", || (daemon.lines_with("\"start\"").len() == 2).then_some(()));
}

fn both_directions_keep_a_session_alive() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::recorder(&net.backend, at(7000));
    let keys = format!("udp_idle_lifetime = {}", LIFETIME.as_secs());
    let daemon = Daemon::start(&net.gateway, &udp_to(at(7000), &keys));
    wait::until("the machine runs without a pause", || stay_alive(&net, &server, &daemon));
}

const LIFETIME: Duration = Duration::from_secs(2);

/// Keeps two sessions alive, one by each direction, while two others end. Returns `None` when the machine paused for so
/// long that either may rightly have ended as idle.
fn stay_alive(net: &Topology, server: &UdpServer, daemon: &Daemon) -> Option<()> {
    let [up, down] = [client(net), client(net)];
    server.take();
    let mut last = Instant::now();
    up.send(front(), b"up");
    down.send(front(), b"down");
    let to_down = wait::until("both have begun", || {
        let datagrams = server.received();
        let has = |bytes: &[u8]| datagrams.iter().find(|datagram| datagram.bytes == bytes).map(|found| found.source);
        has(b"up").and(has(b"down"))
    });
    // Sessions that begin later and are left alone end meanwhile: they are the clock.
    for _ in 0..2 {
        let idle = client(net);
        idle.send(front(), b"idle");
        let has_run = wait::until("a session left alone ends", || {
            if lines(daemon, "finish", &idle) == 1 {
                return Some(true);
            }
            up.send(front(), b"still here");
            server.send(to_down, b"still here");
            let answered = down.receive_within(LIFETIME);
            if last.elapsed() > LIFETIME / 2 {
                return Some(false);
            }
            last = Instant::now();
            assert_eq!(answered.expect("an answer").bytes, b"still here");
            wait::pause(Duration::from_millis(50));
            None
        });
        if !has_run {
            return None;
        }
    }
    for client in [&up, &down] {
        assert_eq!((lines(daemon, "start", client), lines(daemon, "finish", client)), (1, 0));
    }
    Some(())
}

fn the_port_of_a_session_that_had_to_give_way_rests() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let config = udp_to(at(7000), "workers = 1\nudp_max_connections = 1");
    let daemon = Daemon::builder(&config).allow("udp_max_connections").start(&net.gateway);
    let port = wait::until("the machine runs without a pause", || {
        let started = Instant::now();
        let [old, new] = [client(&net), client(&net)];
        assert_eq!(old.ask(front(), b"old"), b"old");
        let path = server.take()[0].source;
        assert_eq!(new.ask(front(), b"new"), b"new");
        daemon.wait_for(0, &format!("[finish] udp: {} -> {}", old.address(), at(7000)));
        let rests = udp::is_bound(&net.gateway, path.port());
        // What its backend says late is nobody's.
        server.send(path, b"late");
        assert_eq!(new.receive_within(Duration::from_millis(100)).map(|answer| answer.bytes), None);
        server.take();
        if started.elapsed() > RESTS / 2 {
            return None;
        }
        assert!(rests, "port {} was free at once", path.port());
        Some(path.port())
    });
    wait::until("it has rested", || (!udp::is_bound(&net.gateway, port)).then_some(()));
}

/// Time for which the port of a session that ended in the middle is given to nobody else.
const RESTS: Duration = Duration::from_secs(3);

fn a_lifetime_of_zero_is_for_ever_and_a_rule_has_its_own() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::recorder(&net.backend, at(7000));
    let config = udp_to(at(7000), "udp_idle_lifetime = 0") + &rule("short", "quic", at(7000), "idle_lifetime = 1");
    let daemon = Daemon::start(&net.gateway, &config);
    let endless = client(&net);
    endless.send(front(), b"hello");
    server.wait_for(1);
    for n in 0..2 {
        let short = client(&net);
        short.send(front(), &Initial::v1(&[n; 8], &[n; 4]).datagrams(&Hello::to("one.test"))[0]);
        daemon.wait_for(0, &format!("[finish] udp:quic: {} -> {}", short.address(), at(7000)));
    }
    assert_eq!(lines(&daemon, "finish", &endless), 0);
}

fn a_full_table_makes_room_only_at_the_cost_of_who_was_never_answered() {
    let Some(net) = Topology::or_skip() else { return };
    let answer = |datagram: &udp::Datagram| {
        if datagram.bytes.starts_with(b"answer") { vec![datagram.bytes.clone()] } else { Vec::new() }
    };
    let server = UdpServer::start(&net.backend, at(7000), answer);
    // One worker: each makes room among its own sessions only.
    let config = udp_to(at(7000), "udp_max_connections = 3\nworkers = 1");
    let daemon = Daemon::builder(&config).allow("udp_max_connections").start(&net.gateway);

    let unanswered = client(&net);
    unanswered.send(front(), b"silence");
    server.wait_for(1);
    let held = [client(&net), client(&net), client(&net)];
    for client in &held {
        // Taking turns shows that the client gets the answers, which one with a forged address does not. The kernel tells
        // of what it forwards by a coarse clock: turns within a few of its ticks would be none.
        let begun = Instant::now();
        for turn in 0.. {
            assert_eq!(client.ask(front(), b"answer me"), b"answer me");
            if turn >= 5 && begun.elapsed() > Duration::from_millis(50) {
                break;
            }
        }
    }
    daemon.wait_for(0, &format!("[finish] udp: {} -> {}", unanswered.address(), at(7000)));

    let late = [client(&net), client(&net), client(&net)];
    late.iter().for_each(|client| client.send(front(), b"answer me too"));
    daemon.wait_for(0, "WARN udp_max_connections");
    for client in &held {
        assert_eq!(client.ask(front(), b"answer me again"), b"answer me again");
    }
    let turned_away = server.payloads().into_iter().filter(|bytes| bytes == b"answer me too").count();
    assert_eq!(turned_away, 0, "a session beyond the limit");
    assert_eq!(daemon.lines_with("WARN").len(), 1, "one warning for all");
}

fn without_file_descriptors_sessions_go_on_and_new_ones_come_when_there_are_some_again() {
    const FLOWS: usize = 60;
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let config = udp_to(at(7000), "udp_idle_lifetime = 2");
    let daemon = Daemon::builder(&config).allow("file").allow("descriptor").start(&net.gateway);
    let first = client(&net);
    assert_eq!(first.ask(front(), b"x"), b"x");
    // The limit that the daemon has seen at its start would hold sessions to what fits.
    daemon.limit_open_files(daemon.open_files() as u64 + 10);
    let clients: Vec<_> = (0..FLOWS).map(|_| client(&net)).collect();
    for client in &clients {
        client.send(front(), b"too many");
        assert_eq!(first.ask(front(), b"still here"), b"still here");
    }
    assert!(daemon.lines_with("[start]").len() < FLOWS, "there were descriptors for all");
    let late = client(&net);
    wait::until("a new session is possible", || {
        assert_eq!(first.ask(front(), b"still here"), b"still here");
        late.try_ask(front(), b"late")
    });
    assert_eq!(lines(&daemon, "finish", &first), 0);
}

fn a_backend_that_restarts_keeps_its_sessions() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "before:");
    let daemon = Daemon::start(&net.gateway, &udp_to(at(7000), ""));
    let clients = [client(&net), client(&net)];
    for client in &clients {
        assert_eq!(client.ask_text(front(), "x"), "before:x");
    }
    let before: Vec<_> = server.take().into_iter().map(|datagram| datagram.source).collect();
    drop(server);
    for client in &clients {
        for _ in 0..5 {
            client.send(front(), b"lost");
        }
        assert_eq!(client.try_ask(front(), b"lost"), None);
    }
    let server = UdpServer::echo(&net.backend, at(7000), "after:");
    let mut after = Vec::new();
    for client in &clients {
        // A pending refusal may cost one datagram, no more.
        wait::until("the backend answers again", || client.try_ask(front(), b"x").filter(|text| text == b"after:x"));
        after.push(server.take().pop().unwrap().source);
    }
    assert_eq!(before, after, "the sessions are the same");
    assert_eq!(daemon.lines_with("[start]").len(), 2);
}

fn refusals_for_one_session_do_not_disturb_the_others() {
    let Some(net) = Topology::or_skip() else { return };
    // A refusal for every datagram, not for one a second.
    net.backend.sysctl("ipv4/icmp_ratelimit", "0").unwrap();
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let config = udp_to(at(7000), "") + &rule("refusing", "quic", at(7001), "");
    let daemon = Daemon::builder(&config).allow(&format!("{} cannot be reached", at(7001))).start(&net.gateway);
    let steady: Vec<_> = (0..10).map(|_| client(&net)).collect();
    for round in 0..20_u8 {
        let refused = client(&net);
        let initial = Initial::v1(&[round; 8], &[round; 4]).datagrams(&Hello::to("one.test"));
        for _ in 0..5 {
            refused.send(front(), &initial[0]);
        }
        for client in &steady {
            assert_eq!(client.ask(front(), &[round; 100]), [round; 100]);
        }
    }
    wait::until("every session is in the log", || (daemon.lines_with("[start] udp: ").len() == 10).then_some(()));
    assert!(daemon.lines_with("[finish] udp: ").is_empty(), "a session has ended by another's error");
}

fn a_port_that_is_taken_stops_the_start_unless_both_share_it() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let directory = owned::directory();
    let file = directory.path().join("second.toml");
    fs::write(&file, udp_to(at(7000), "")).unwrap();
    let second = || {
        let (status, lines) = daemon::run_to_end(&net.gateway, &["--config", &file.display().to_string()]);
        assert_eq!(status.code(), Some(1), "{lines:#?}");
        assert!(lines.iter().any(|line| line.contains("443")), "{lines:#?}");
    };
    let daemon = Daemon::start(&net.gateway, &udp_to(at(7000), ""));
    second();
    assert_eq!(client(&net).ask(front(), b"still here"), b"still here");
    daemon.stop();
    // By a program that knows nothing of sharing.
    let other = UdpServer::recorder(&net.gateway, (GATEWAY_V4, PORT));
    second();
    drop(other);

    let shared = udp_to(at(7000), "reuse_port = true");
    let first = Daemon::start(&net.gateway, &shared);
    // An XDP hook has room for one.
    let _second = Daemon::builder(&shared).allow("another XDP program, which is left alone").start(&net.gateway);
    first.stop();
    for _ in 0..10 {
        assert_eq!(client(&net).ask(front(), b"x"), b"x");
    }
}

fn sessions_go_on_while_tcp_drains_and_end_with_the_daemon() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let _tcp = Server::echo(&net.backend, at(7000));
    let keys = format!("drain_timeout = \"1h\"\naccess_log_format = \"json\"\ntcp_target = [\"{}\"]", at(7000));
    let mut daemon = Daemon::start(&net.gateway, &udp_to(at(7000), &keys));
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, b"x");
    assert_eq!(socket::read_exactly(&stream, 1), b"x");
    let client = client(&net);
    for _ in 0..2 {
        assert_eq!(client.ask(front(), b"before"), b"before");
    }
    daemon.count_steered();
    daemon.process().signal(Signal::TERM).unwrap();
    daemon.wait_for(0, "draining");
    for _ in 0..10 {
        assert_eq!(client.ask(front(), b"after"), b"after");
    }
    drop(stream);
    assert_eq!(daemon.wait().code(), Some(0));
    let finish = daemon.lines_with("\"finish\"").into_iter().find(|line| line.contains("\"udp\"")).unwrap();
    assert_eq!(event(&finish)["reason"], "drained");
    daemon.wait_for(0, "stopped");
}

fn tcp_and_udp_live_on_one_port() {
    let Some(net) = Topology::or_skip() else { return };
    let _udp = UdpServer::echo(&net.backend, at(7000), "udp:");
    let _tcp = Server::tagged(&net.backend, at(7000), "tcp");
    let config = udp_to(at(7000), &format!("tcp_target = [\"{}\"]", at(7000)));
    let daemon = Daemon::start(&net.gateway, &config);
    let ready = daemon.wait_for(0, "ready: ");
    assert!(ready.contains("TCP on") && ready.contains("UDP on"), "{ready}");
    assert_eq!(socket::read_line(&socket::dial(&net.client, front())).as_deref(), Some("tcp"));
    assert_eq!(client(&net).ask_text(front(), "x"), "udp:x");
}
