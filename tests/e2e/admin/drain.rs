//! Maintenance: targets and listeners that get nothing new while what they have goes on.

use std::{
    io::{Read as _, Write as _},
    net::TcpStream,
    os::unix::net::UnixStream,
};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{Daemon, Edit},
    peers::{
        programs::{self, curl},
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, NOBODY_V4, Topology},
    wait,
};
use serde_json::{Value, json};

use crate::support::{
    PORT,
    admin::{Scratch, say},
    at, front, rule,
    steering::{Steering, with_object},
};

const METRICS: &str = "metrics_listen = \"127.0.0.1:9901\"";

/// Datagrams that the daemon has dropped for `reason`.
fn dropped(net: &Topology, reason: &str) -> u64 {
    let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9901/metrics"));
    let counter = format!("rpxy_l4_udp_dropped_total{{reason=\"{reason}\"}} ");
    text.lines().find_map(|line| line.strip_prefix(&counter)?.parse().ok()).unwrap()
}

/// What `/readyz` says.
fn readiness(net: &Topology) -> String {
    programs::text(curl(&net.gateway).args(["--no-fail", "http://127.0.0.1:9901/readyz"]))
}

fn ask(scratch: &Scratch, request: &Value) -> Vec<Value> {
    Admin::connect(&scratch.socket()).ask(request)
}

fn drain(scratch: &Scratch, target: std::net::SocketAddr) -> Vec<Value> {
    ask(scratch, &json!({ "command": "drain", "target": target.to_string() }))
}

fn up(scratch: &Scratch, target: std::net::SocketAddr) -> Vec<Value> {
    ask(scratch, &json!({ "command": "up", "target": target.to_string() }))
}

/// A connection that repeats what it is told.
#[track_caller]
fn is_served(stream: &TcpStream) {
    socket::send(stream, b"still?\n");
    assert_eq!(socket::read_line(stream).as_deref(), Some("still?"));
}

/// Tag of the server that a new connection reaches; nothing if the daemon closes it.
#[track_caller]
fn reached(net: &Topology) -> Option<String> {
    socket::read_line(&socket::dial(&net.client, front()))
}

/// A server that says its tag and then repeats what it receives.
fn tagged(net: &Topology, port: u16, tag: &str) -> Server {
    let line = format!("{tag}\n");
    Server::start(&net.backend, at(port), move |mut stream, _| {
        let said = std::io::Write::write_all(&mut stream, line.as_bytes());
        let _ended = said.and_then(|()| std::io::copy(&mut &*stream, &mut &*stream).map(drop));
    })
}

#[test]
fn a_drained_target_gets_nothing_new_and_what_it_has_goes_on() {
    let Some(net) = Topology::or_skip() else { return };
    let (a, _b) = (tagged(&net, 7000, "a"), tagged(&net, 7001, "b"));
    let scratch = Scratch::new();
    let config = |keys: &str| {
        let targets = format!("tcp_target = [\"{}\", \"{}\"]\ntcp_load_balance = \"none\"\n", at(7000), at(7001));
        format!("{}{targets}", scratch.top(keys))
    };
    let mut daemon = Daemon::start(&net.gateway, &config(""));
    let under_way = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&under_way).as_deref(), Some("a"));

    let drained =
        |active: u32| vec![json!({ "transport": "tcp", "target": at(7000), "drained": true, "active": active })];
    assert_eq!(drain(&scratch, at(7000)), drained(1));
    assert_eq!(drain(&scratch, at(7000)), drained(1), "once more");
    daemon.wait_for(0, &format!("drained by command: {} (tcp)", at(7000)));
    assert_eq!(daemon.lines_with("drained by command").len(), 1);
    for _ in 0..5 {
        assert_eq!(reached(&net).as_deref(), Some("b"));
    }
    is_served(&under_way);

    // It stays drained through a reload, and through one in which the file does not have it.
    daemon.reload(Edit::Rename, &config("tcp_target_retry = \"1s\""));
    daemon.wait_for(0, &format!("still drained by command: {} (tcp)", at(7000)));
    assert_eq!(reached(&net).as_deref(), Some("b"));
    let without = scratch.top("") + &format!("tcp_target = [\"{}\"]\n", at(7001));
    daemon.reload(Edit::Rename, &without);
    let targets = ask(&scratch, &json!({ "command": "targets" }));
    let states: Vec<_> = targets.iter().map(|line| (&line["target"], &line["state"])).collect();
    assert_eq!(states, [(&json!(at(7001)), &json!("up")), (&json!(at(7000)), &json!("drained"))]);
    daemon.reload(Edit::Rename, &config(""));
    assert_eq!(reached(&net).as_deref(), Some("b"));
    is_served(&under_way);
    let status = ask(&scratch, &json!({ "command": "status" })).remove(0);
    let [target] = status["drained"]["targets"].as_array().unwrap().as_slice() else { panic!("{status}") };
    assert_eq!((&target["target"], &target["active"]), (&json!(at(7000)), &json!(1)), "{status}");
    assert!(target["since_s"].is_u64() && status["targets_down"] == json!([]), "{status}");
    let (_, lines) = say(&net, &scratch, &["status"]);
    assert!(lines.contains(&format!("targets drained  {} (tcp, 1 go on)", at(7000))), "{lines:#?}");

    // Not even when there is no other.
    drain(&scratch, at(7001));
    assert_eq!(reached(&net), None);
    assert_eq!(a.accepted(), 1);
    is_served(&under_way);
    assert_eq!(up(&scratch, at(7000)).len(), 1);
    assert_eq!(reached(&net).as_deref(), Some("a"));
    daemon.wait_for(0, &format!("up by command: {} (tcp)", at(7000)));
}

#[test]
fn a_target_is_drained_for_both_transports_or_for_one() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = tagged(&net, 7000, "a");
    let _udp = UdpServer::echo(&net.backend, at(7000), "");
    let scratch = Scratch::new();
    let daemon = Daemon::start(&net.gateway, &scratch.config(""));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    client.ask(front(), b"begin");
    let transports = |lines: Vec<Value>| lines.into_iter().map(|line| line["transport"].clone()).collect::<Vec<_>>();
    assert_eq!(transports(drain(&scratch, at(7000))), ["tcp", "udp"]);
    assert_eq!(client.ask(front(), b"under way"), b"under way");
    assert_eq!(reached(&net), None);
    let only_udp = json!({ "command": "up", "target": at(7000), "transport": "udp" });
    assert_eq!(transports(ask(&scratch, &only_udp)), ["udp"]);
    assert_eq!(UdpClient::bind(&net.client, (CLIENT_V4, 0)).ask(front(), b"new"), b"new");
    assert_eq!(reached(&net), None);
    assert_eq!(transports(up(&scratch, at(7000))), ["tcp"]);
    assert_eq!(reached(&net).as_deref(), Some("a"));
    daemon.stop();
}

#[test]
fn targets_are_listed_by_rule_with_state_and_reason() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = tagged(&net, 7000, "a");
    let scratch = Scratch::new();
    let nobody = (NOBODY_V4, 22).into();
    let unused =
        "[{ address = \"192.0.2.99:1\", down = true }, { address = \"a.invalid:2\", backup = true, weight = 3 }";
    let config = format!(
        "{}udp_load_balance = \"random\"\nudp_target = {unused}]\ntcp_target = [\"{}\"]\n{}",
        scratch.top("tcp_connect_timeout = \"1s\"\ntcp_target_retry = \"1h\""),
        at(7000),
        rule("ssh", "ssh", nobody, "")
    );
    let daemon = Daemon::builder(&config).allow("cannot be reached").allow("a.invalid").start(&net.gateway);
    let open = socket::dial(&net.client, front());
    socket::send(&open, b"certainly none of them\n");
    assert_eq!(socket::read_line(&open).as_deref(), Some("a"));
    let refused = socket::dial(&net.client, front());
    socket::send(&refused, b"SSH-2.0-test\r\n");
    assert_eq!(socket::read_line(&refused), None);

    let mut lines = ask(&scratch, &json!({ "command": "targets" }));
    let since = lines[0].as_object_mut().unwrap().insert("since_ms".to_owned(), json!(0)).unwrap();
    let reason = lines[0].as_object_mut().unwrap().insert("reason".to_owned(), json!("why")).unwrap();
    assert!(since.is_u64() && reason.as_str().is_some_and(|reason| !reason.is_empty()), "{since} {reason}");
    // What they carry is counted as well; the default target over TCP alone has had a connection.
    let mut taken = |line: usize, key: &str| lines[line].as_object_mut().unwrap().remove(key);
    for (number, connected) in [(0, Some(0)), (1, Some(1)), (2, None), (3, None)] {
        let counts = |times: Option<Value>| times.map(|times| times["count"].as_u64().unwrap());
        assert_eq!(counts(taken(number, "connect")), connected, "{number}");
        assert_eq!(counts(taken(number, "first_byte")), Some(connected.unwrap_or(0)), "{number}");
        let counted = ["started", "bytes_up", "bytes_down", "max"].map(|key| taken(number, key).unwrap());
        assert_eq!((&counted[0], &counted[3]), (&json!(connected.unwrap_or(0)), &Value::Null), "{number}: {counted:?}");
    }
    let line = |transport: &str, target: String, state: &str, reason: Value, active: u32| {
        json!({
            "transport": transport, "rule": null, "target": target, "backup": false, "weight": 1, "state": state,
            "reason": reason, "since_ms": null, "active": active, "failures": 0, "listeners": ["default"],
        })
    };
    let mut expected = vec![
        line("tcp", nobody.to_string(), "down", json!("why"), 0),
        line("tcp", at(7000).to_string(), "up", Value::Null, 1),
        line("udp", "192.0.2.99:1".to_owned(), "off", json!("down = true in the file"), 0),
        line("udp", "a.invalid:2".to_owned(), "up", Value::Null, 0),
    ];
    expected[0]["rule"] = json!("ssh");
    expected[0]["since_ms"] = json!(0);
    expected[0]["failures"] = json!(1);
    expected[3]["backup"] = json!(true);
    expected[3]["weight"] = json!(3);
    assert_eq!(lines, expected);
    let (code, lines) = say(&net, &scratch, &["targets"]);
    assert_eq!((code, lines.len()), (Some(0), 5), "{lines:#?}");
    assert!(lines[1].starts_with(&format!("{nobody}  ")) && lines[1].contains("  down  "), "{lines:#?}");
    drop(open);
    daemon.stop();
}

#[test]
fn drained_listeners_let_nothing_new_in_and_serve_what_there_is() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = tagged(&net, 7000, "a");
    let udp = UdpServer::echo(&net.backend, at(7000), "");
    let scratch = Scratch::new();
    let config = |keys: &str| scratch.config(&format!("{METRICS}\n{keys}"));
    let mut daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&stream).as_deref(), Some("a"));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    client.ask(front(), b"begin");
    assert_eq!(readiness(&net), "ready");

    let (code, lines) = say(&net, &scratch, &["drain", "--listeners"]);
    assert_eq!(lines, ["the listeners are drained; 1 connections and 1 sessions go on"]);
    assert_eq!(code, Some(0));
    daemon.wait_for(0, "listeners drained by command");
    wait::until("nobody listens", || (!socket::is_listening(&net.gateway, PORT)).then_some(()));
    let refused = socket::try_dial(&net.client, None, front()).unwrap_err();
    assert_eq!(refused.kind(), std::io::ErrorKind::ConnectionRefused);
    let other = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    other.send(front(), b"new");
    wait::until("the datagram is counted", || (dropped(&net, "drained") == 1).then_some(()));
    is_served(&stream);
    assert_eq!(client.ask(front(), b"under way"), b"under way");

    daemon.reload(Edit::Rename, &config("tcp_target_retry = \"1s\""));
    daemon.wait_for(0, "still drained by command: the listeners");
    assert!(!socket::is_listening(&net.gateway, PORT), "a reload opens nothing");
    assert_eq!(readiness(&net), "not ready: draining");
    is_served(&stream);
    let status = ask(&scratch, &json!({ "command": "status" })).remove(0);
    assert!(status["drained"]["listeners_s"].is_u64() && status["tcp"]["listen"] == json!([]), "{status}");
    let (_, lines) = say(&net, &scratch, &["status"]);
    assert!(lines.iter().any(|line| line.starts_with("listeners        drained by command ")), "{lines:#?}");

    // Somebody has taken the port meanwhile.
    let taken = socket::listen(&net.gateway, (std::net::Ipv4Addr::UNSPECIFIED, PORT));
    let (code, lines) = say(&net, &scratch, &["up", "--listeners"]);
    assert_eq!(code, Some(1));
    assert!(
        lines.iter().any(|line| line.contains(&format!("0.0.0.0:{PORT}")) && line.contains("stay drained")),
        "{lines:#?}"
    );
    assert!(ask(&scratch, &json!({ "command": "status" }))[0]["drained"]["listeners_s"].is_u64());
    drop(taken);
    let (code, lines) = say(&net, &scratch, &["up", "--listeners"]);
    assert_eq!((code, lines), (Some(0), vec!["the listeners are in service".to_owned()]));
    assert_eq!(readiness(&net), "ready");
    assert_eq!(reached(&net).as_deref(), Some("a"));
    assert_eq!(other.ask(front(), b"new"), b"new");
    is_served(&stream);
    assert_eq!(udp.payloads(), [b"begin".to_vec(), b"under way".to_vec(), b"new".to_vec()]);
    assert_eq!(ask(&scratch, &json!({ "command": "status" }))[0]["drained"]["listeners_s"], Value::Null);
}

#[test]
fn a_unix_socket_is_listed_and_drained_like_others() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::echo(&net.backend, at(7000));
    let scratch = Scratch::new();
    let path = scratch.named("in.sock");
    let daemon = Daemon::start(
        &net.gateway,
        &format!(
            "{}[listeners.local]\nlisten_unix = \"{}\"\ntcp_target = \"{}\"\n",
            scratch.config(""),
            path.display(),
            at(7000)
        ),
    );
    let served = |stream: &mut UnixStream| {
        let mut answer = [0; 5];
        stream.write_all(b"hello").and_then(|()| stream.read_exact(&mut answer)).map(|()| answer)
    };
    let (mut stays, mut closed) = (UnixStream::connect(&path).unwrap(), UnixStream::connect(&path).unwrap());
    assert_eq!(served(&mut stays).unwrap(), *b"hello");
    let connections = json!({ "command": "connections" });
    let first = scratch.wait_for(&connections, 2).into_iter().find(|line| line["bytes_up"] == 5).unwrap();
    let shown = format!("unix:{}", path.display());
    assert_eq!((&first["client"], &first["listener"]), (&json!(shown), &json!(shown)), "{first}");
    let of_network = json!({ "command": "connections", "client": "0.0.0.0/0" });
    assert_eq!(ask(&scratch, &of_network), [] as [Value; 0], "it has no address");
    let other = ask(&scratch, &connections).into_iter().find(|line| line["id"] != first["id"]).unwrap();
    ask(&scratch, &json!({ "command": "close", "id": other["id"] }));
    daemon.wait_for(0, &format!("closed by command: {}", other["id"].as_str().unwrap()));
    wait::until("its client sees the end", || served(&mut closed).is_err().then_some(()));

    let (_, lines) = say(&net, &scratch, &["drain", "--listeners"]);
    assert_eq!(lines, ["the listeners are drained; 1 connections and 0 sessions go on"]);
    assert_eq!(UnixStream::connect(&path).unwrap_err().kind(), std::io::ErrorKind::NotFound);
    assert_eq!(served(&mut stays).unwrap(), *b"hello");
    let (code, _) = say(&net, &scratch, &["up", "--listeners"]);
    assert_eq!(code, Some(0));
    assert_eq!(served(&mut UnixStream::connect(&path).unwrap()).unwrap(), *b"hello");
    assert_eq!(served(&mut stays).unwrap(), *b"hello");
}

#[test]
fn listeners_come_and_go_at_once() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = tagged(&net, 7000, "a");
    let scratch = Scratch::new();
    let daemon = Daemon::start(&net.gateway, &scratch.config("workers = 2"));
    let mut admin = Admin::connect(&scratch.socket());
    for _ in 0..20 {
        admin.ask(&json!({ "command": "drain_listeners" }));
        admin.ask(&json!({ "command": "up_listeners" }));
        assert_eq!(reached(&net).as_deref(), Some("a"));
    }
    admin.ask(&json!({ "command": "drain_listeners" }));
    daemon.stop();
}

#[test]
fn steered_sessions_go_on_while_all_is_drained() {
    for mode in ["tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(&net, at(7000), &format!("mode = \"{mode}\""), METRICS);
        let [client, late] = [0; 2].map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0)));
        let exchange = || assert_eq!(client.ask_text(front(), "x"), "x", "{mode}");
        steering.wait_forwarded(2, exchange);
        for (drain, up, reason) in [
            (json!({ "command": "drain_listeners" }), json!({ "command": "up_listeners" }), "drained"),
            (
                json!({ "command": "drain", "target": at(7000) }),
                json!({ "command": "up", "target": at(7000) }),
                "unreachable",
            ),
        ] {
            steering.admin().ask(&drain);
            late.send(front(), b"late");
            wait::until("the other one is refused", || (dropped(&net, reason) == 1).then_some(()));
            let before = steering.counted("steered");
            exchange();
            assert_eq!(steering.counted("steered"), before + 2, "{mode}: {drain}");
            steering.admin().ask(&up);
        }
        assert!(!server.payloads().contains(&b"late".to_vec()), "{mode}");
        assert_eq!(late.ask_text(front(), "late"), "late", "{mode}");
    }
}

#[test]
fn one_listener_is_drained_by_name_and_others_serve_on() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = tagged(&net, 7000, "a");
    let _udp = UdpServer::echo(&net.backend, at(7000), "");
    let scratch = Scratch::new();
    let config = |keys: &str| {
        let other =
            format!("[listeners.other]\nlisten_port = 8443\ntcp_target = \"{0}\"\nudp_target = \"{0}\"\n", at(7000));
        scratch.config(&format!("{METRICS}\n{keys}")) + &other
    };
    let mut daemon = Daemon::start(&net.gateway, &config(""));
    let other = std::net::SocketAddr::from((front().ip(), 8443));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    client.ask(other, b"begin");
    let stream = socket::dial(&net.client, other);
    assert_eq!(socket::read_line(&stream).as_deref(), Some("a"));

    let (code, lines) = say(&net, &scratch, &["drain", "--listener", "nobody"]);
    assert!(code == Some(1) && lines[0].contains("there is no listener nobody"), "{lines:#?}");
    let (code, lines) = say(&net, &scratch, &["drain", "--listener", "other"]);
    assert_eq!((code, lines), (Some(0), vec!["the listener other is drained; what it has goes on".to_owned()]));
    wait::until("nobody listens", || (!socket::is_listening(&net.gateway, 8443)).then_some(()));
    let new = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    new.send(other, b"new");
    wait::until("the datagram is counted", || (dropped(&net, "drained") == 1).then_some(()));
    let of_both = |row: &str| {
        is_served(&stream);
        assert_eq!(client.ask(other, b"under way"), b"under way", "{row}");
        assert_eq!(reached(&net).as_deref(), Some("a"), "{row}");
        assert_eq!(new.ask(front(), b"new"), b"new", "{row}");
        assert_eq!(readiness(&net), "ready", "{row}");
    };
    of_both("drained");
    daemon.reload(Edit::Rename, &config("tcp_target_retry = \"1s\""));
    daemon.wait_for(0, "still drained by command: listener other");
    assert!(!socket::is_listening(&net.gateway, 8443), "a reload opens nothing");
    of_both("after a reload");
    let (_, lines) = say(&net, &scratch, &["status"]);
    assert!(lines.iter().any(|line| line.starts_with("listeners        other drained by command ")), "{lines:#?}");

    // All of them are something else, which does not lift it.
    let (code, _) = say(&net, &scratch, &["up", "--listeners"]);
    assert_eq!(code, Some(1));
    say(&net, &scratch, &["drain", "--listeners"]);
    assert_eq!(readiness(&net), "not ready: draining");
    say(&net, &scratch, &["up", "--listeners"]);
    assert!(!socket::is_listening(&net.gateway, 8443), "it was drained by name");
    of_both("all are up");
    let (code, lines) = say(&net, &scratch, &["up", "--listener", "other"]);
    assert_eq!((code, lines), (Some(0), vec!["the listener other is in service".to_owned()]));
    assert_eq!(socket::read_line(&socket::dial(&net.client, other)).as_deref(), Some("a"));
    assert_eq!(new.ask(other, b"new"), b"new");
    of_both("up");
}
