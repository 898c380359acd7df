//! Connections and sessions that an operator sees and closes, with real peers.

use std::{fs, net::IpAddr};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::Daemon,
    peers::{
        programs::{self, Certificate, SshServer, curl, nginx, openssl_server},
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    process::Process,
    socket::{self, End},
    topology::{CLIENT_V4, Topology},
    wait,
};
use serde_json::{Value, json};

use crate::support::{
    PORT,
    admin::{Scratch, say},
    at, front, http_request, rule,
    steering::{Steering, with_object},
};

const CONNECTIONS: &str = "connections";

fn close(scratch: &Scratch, line: &Value) {
    let done = Admin::connect(&scratch.socket()).ask(&json!({ "command": "close", "id": line["id"] }));
    assert_eq!(done, [json!({ "id": line["id"], "closed": true })]);
}

fn client() -> IpAddr {
    CLIENT_V4.into()
}

/// Fields of the access log about the connection's end.
fn finished(daemon: &Daemon, source: &str) -> Value {
    let of_it = |line: &String| line.contains("\"finish\"") && line.contains(source);
    let line = daemon.process().wait_for(0, "its end", |line| of_it(&line.to_owned())).unwrap();
    serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap()
}

#[test]
fn real_transfers_are_listed_and_one_is_closed_while_the_others_go_on() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&["a.example"]);
    let _tls = openssl_server(&net.backend, at(7443), &certificate, &[]);
    let ssh = SshServer::start(&net.backend, at(7022));
    let http = format!("server {{ listen {}; root DIR; }}", at(7080));
    let web = nginx(&net.backend, &http, "", &[7080]);
    fs::write(web.directory().join("large"), vec![b'x'; 64 << 20]).unwrap();
    let scratch = Scratch::new();
    let rules = [
        rule("tls", "tls", at(7443), "server_names = [\"a.example\"]"),
        rule("ssh", "ssh", at(7022), ""),
        rule("http", "http", at(7080), "server_names = [\"web.example\"]"),
    ];
    let config = format!("{}{}", scratch.top("access_log_format = \"json\"\nworkers = 2"), rules.concat());
    let daemon = Daemon::start(&net.gateway, &config);

    let mut tls = net.client.command("openssl");
    tls.args(["s_client", "-quiet", "-servername", "a.example", "-connect", &front().to_string()]);
    tls.stdin(std::process::Stdio::piped());
    let mut tls = Process::spawn("openssl s_client", &mut tls).unwrap();
    let mut shell =
        Process::spawn("ssh", &mut ssh.client(&net.client, front(), "echo begun; exec sleep 3600")).unwrap();
    shell.wait_for(0, "its first line", |line| line == "begun").unwrap();
    let mut download = curl(&net.client);
    download
        .args(["--limit-rate", "1M", "--output", "/dev/null", "--header", "Host: web.example"])
        .arg(format!("http://{}/large", front()));
    let mut download = Process::spawn("curl", &mut download).unwrap();

    let open = |line: &Value| line["stage"] == "open" && line["bytes_down"].as_u64() > Some(1000);
    for (name, carries, target, server_name) in [
        ("tls", "tcp:tls", at(7443), json!("a.example")),
        ("ssh", "tcp:ssh", at(7022), Value::Null),
        ("http", "tcp:http", at(7080), json!("web.example")),
    ] {
        let line = scratch.connection_by(name, client(), open);
        assert_eq!((&line["carries"], &line["rule"]), (&json!(carries), &json!(name)), "{line}");
        assert_eq!(
            (&line["server_name"], &line["listener"]),
            (&server_name, &json!(format!("0.0.0.0:{PORT}"))),
            "{line}"
        );
        assert_eq!((&line["target"], &line["backend"]), (&json!(target), &json!(target)), "{line}");
        assert!(line["age_ms"].as_u64() >= line["idle_ms"].as_u64() && line["bytes_up"].as_u64() > Some(0), "{line}");
    }
    let (code, lines) = say(&net, &scratch, &[CONNECTIONS, "--rule", "http"]);
    assert_eq!((code, lines.len()), (Some(0), 2), "{lines:#?}");
    for text in ["tcp:http", "open", "web.example", &at(7080).to_string()] {
        assert!(lines[1].contains(text), "{text} is missing: {lines:#?}");
    }

    let line = scratch.connection_by("http", client(), open);
    let id = line["id"].as_str().unwrap();
    let (code, lines) = say(&net, &scratch, &["close", id]);
    assert_eq!((code, lines), (Some(0), vec![format!("{id} is closed")]));
    // 56: failure with receiving network data.
    assert_eq!(download.wait().unwrap().code(), Some(56), "{}", download.transcript());
    let end = finished(&daemon, line["client"].as_str().unwrap());
    assert_eq!((&end["reason"], &end["rule"]), (&json!("admin"), &json!("http")), "{end}");
    assert!(end["bytes_down"].as_u64() > Some(1000), "{end}");
    assert_eq!((&end["id"], &end["target"]), (&line["id"], &line["target"]), "what the list and the log call it");
    let began = format!("\"start\",\"id\":\"{id}\"");
    assert_eq!(daemon.lines_with(&began).len(), 1);
    let times = ["connect_us", "first_byte_us"].map(|time| end[time].as_u64());
    assert!(times.into_iter().all(|time| time > Some(0)), "{end}");
    let refused =
        Admin::connect(&scratch.socket()).refused(format!("{}\n", json!({ "command": "close", "id": id })).as_bytes());
    assert_eq!(refused["error"], format!("there is no {id}"));

    assert!(shell.is_running() && tls.is_running());
    assert_eq!(scratch.wait_for(&json!({ "command": CONNECTIONS }), 2).len(), 2);
    for (name, mut peer) in [("ssh", shell), ("tls", tls)] {
        close(&scratch, &scratch.connection_by(name, client(), open));
        assert!(!peer.wait().unwrap().success(), "{name}: {}", peer.transcript());
    }
    scratch.wait_for(&json!({ "command": CONNECTIONS }), 0);
}

#[test]
fn both_ends_of_a_closed_connection_are_reset_at_every_stage() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::echo(&net.backend, at(7000));
    let held = socket::listen_with_backlog(&net.backend, at(7001), 8);
    let scratch = Scratch::new();
    let keys = "tcp_probe_timeout = \"1h\"\nmetrics_listen = \"127.0.0.1:9901\"\naccess_log_format = \"json\"";
    let config = format!(
        "{}tcp_target = [\"{}\"]\n{}",
        scratch.top(keys),
        at(7000),
        rule("http", "http", at(7001), "server_names = [\"a.example\"]")
    );
    let daemon = Daemon::start(&net.gateway, &config);

    let undecided = socket::dial(&net.client, front());
    let line = scratch.connection_of(undecided.local_addr().unwrap());
    assert_eq!((&line["stage"], &line["rule"], &line["backend"]), (&json!("undecided"), &Value::Null, &Value::Null));
    close(&scratch, &line);
    assert_eq!(socket::read_to_end(&undecided), (vec![], End::Reset));

    let relayed = socket::dial(&net.client, front());
    socket::send(&relayed, b"certainly none of them\n");
    assert_eq!(socket::read_line(&relayed).as_deref(), Some("certainly none of them"));
    let line = scratch.connection_of(relayed.local_addr().unwrap());
    assert_eq!((&line["bytes_up"], &line["bytes_down"], &line["stage"]), (&json!(23), &json!(23), &json!("open")));
    close(&scratch, &line);
    assert_eq!(socket::read_to_end(&relayed), (vec![], End::Reset));
    server.wait_for_open(0);
    let end = finished(&daemon, line["client"].as_str().unwrap());
    assert_eq!((&end["reason"], &end["bytes_up"], &end["bytes_down"]), (&json!("admin"), &json!(23), &json!(23)));

    // What waits for the backend to read it does not hold the close up.
    let waiting = socket::dial(&net.client, front());
    socket::send(&waiting, &http_request("a.example"));
    let backend = held.accept().unwrap().0;
    let backend = socket::guard(backend).unwrap();
    waiting.set_nonblocking(true).unwrap();
    wait::until("nothing more finds room", || {
        let full = std::io::Write::write(&mut &waiting, &[b'x'; 65_536]).is_err();
        full.then_some(())
    });
    waiting.set_nonblocking(false).unwrap();
    close(&scratch, &scratch.connection_of(waiting.local_addr().unwrap()));
    assert_eq!(socket::read_to_end(&waiting), (vec![], End::Reset));
    assert_eq!(socket::read_to_end(&backend).1, End::Reset, "a torso must not look complete");

    let metrics = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9901/metrics"));
    assert!(metrics.lines().any(|line| line == "rpxy_l4_tcp_ended_total{outcome=\"admin\"} 3"), "{metrics}");
}

#[test]
fn lists_are_bounded_selected_and_told_by_all_workers() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::echo(&net.backend, at(7000));
    let scratch = Scratch::new();
    let _daemon = Daemon::start(
        &net.gateway,
        &scratch.config("workers = 3\ntcp_max_connections = 100\nudp_max_connections = 100"),
    );
    let streams: Vec<_> = (0..20).map(|_| socket::dial(&net.client, front())).collect();
    let list = |more: Value| {
        let mut list = json!({ "command": CONNECTIONS });
        list.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        list
    };
    let lines = scratch.wait_for(&list(json!({ "target": at(7000) })), 20);
    let mut ids: Vec<_> = lines.iter().map(|line| line["id"].as_str().unwrap().to_owned()).collect();
    ids.sort();
    ids.dedup();
    assert_eq!(ids.len(), 20, "{ids:?}");
    let mut admin = Admin::connect(&scratch.socket());
    for (more, expected, rest) in [
        (json!({ "limit": 20 }), 20, None),
        (json!({ "limit": 19 }), 19, Some(true)),
        (json!({ "client": "203.0.113.0/24" }), 0, None),
        (json!({ "client": client().to_string(), "limit": 3 }), 3, Some(true)),
        (json!({ "rule": "none" }), 0, None),
        (json!({ "target": at(7001) }), 0, None),
    ] {
        admin.send(format!("{}\n", list(more.clone())).as_bytes());
        let answer = admin.answer().unwrap();
        assert_eq!((answer.lines.len(), answer.end["more"].as_bool()), (expected, rest), "{more}");
    }
    drop(streams);
    scratch.wait_for(&list(json!({})), 0);
}

#[test]
fn a_closed_session_ends_and_its_client_may_begin_another() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let scratch = Scratch::new();
    let daemon = Daemon::start(&net.gateway, &scratch.config("access_log_format = \"json\""));
    let [closed, other] = [0; 2].map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0)));
    closed.ask(front(), b"one");
    other.ask(front(), b"one");
    let flows = scratch.wait_for(&json!({ "command": "flows" }), 2);
    let line = flows.iter().find(|line| line["client"] == closed.address().to_string()).unwrap();
    close(&scratch, line);
    let end = finished(&daemon, &closed.address().to_string());
    assert_eq!((&end["reason"], &end["bytes_up"], &end["bytes_down"]), (&json!("admin"), &json!(3), &json!(3)));
    let [left] = scratch.wait_for(&json!({ "command": "flows" }), 1).try_into().unwrap();
    assert_eq!(left["client"], other.address().to_string());
    closed.ask(front(), b"two");
    other.ask(front(), b"two");
    let sources: Vec<_> = server.received().into_iter().map(|datagram| datagram.source).collect();
    assert!(sources[2] != sources[0] && sources[3] == sources[1], "{sources:?}");
}

#[test]
fn a_steered_session_is_closed_in_the_kernel_too() {
    for mode in ["tc", "xdp-generic"] {
        let Some(net) = with_object() else { return };
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let steering = Steering::start(&net, at(7000), &format!("mode = \"{mode}\""), "access_log_format = \"json\"");
        let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
        steering.wait_forwarded(2, || assert_eq!(client.ask_text(front(), "x"), "x", "{mode}"));
        let [line] = steering.admin().ask(&json!({ "command": "flows" })).try_into().unwrap();
        assert_eq!(line["plane"], "kernel", "{mode}: {line}");
        steering.admin().ask(&json!({ "command": "close", "id": line["id"] }));
        let end = finished(&steering.daemon, &client.address().to_string());
        assert_eq!((&end["reason"], &end["plane"]), (&json!("admin"), &json!("kernel")), "{mode}");
        assert_eq!(steering.kernel_plane()["flows"], 0, "{mode}");
        let before = server.take().last().unwrap().source;
        assert_eq!(client.ask_text(front(), "again"), "again", "{mode}");
        assert_ne!(server.received()[0].source, before, "{mode}: a session of its own");
    }
}
