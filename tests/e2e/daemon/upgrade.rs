//! A daemon that is succeeded by another one: nobody who talks through it notices.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{Ipv4Addr, Shutdown, SocketAddr},
    os::unix::net::{UnixListener, UnixStream},
};

use rpxy_l4_tests::{
    admin::Admin,
    background::{self, Action},
    daemon::{self, Builder, Daemon},
    peers::{
        programs::Certificate,
        quic::{QuicClient, QuicServer},
        server::Server,
        udp::{UdpClient, UdpServer},
        wireguard::{Implementation, KeyPair, Peer, Tunnel},
    },
    process::PATIENCE,
    socket,
    topology::{CLIENT_V4, Topology},
    wait,
};
use rustix::process::Signal;
use serde_json::json;

use crate::support::{
    PORT,
    admin::{Scratch, say},
    at,
    bpf_fs::BpfFs,
    front, rule,
    steering::{self, Steering, with_object},
};

/// A configuration with an admin socket, a listener for each of TCP, UDP and QUIC, and a unix socket.
fn config(scratch: &Scratch, keys: &str) -> String {
    let top = scratch.top(&format!("access_log_format = \"off\"\nupgrade_timeout = \"1h\"\n{keys}"));
    let targets = format!("tcp_target = \"{0}\"\nudp_target = \"{0}\"\n", at(7000));
    let local = format!(
        "[listeners.local]\nlisten_unix = \"{}\"\ntcp_target = \"{}\"\n",
        scratch.named("in.sock").display(),
        at(7000)
    );
    format!("{top}{targets}{local}{}", rule("quic", "quic", at(7001), ""))
}

/// The successor of the daemon with this configuration, once it serves.
#[track_caller]
fn succeed(net: &Topology, config: &str) -> Daemon {
    Daemon::builder(config).args(["--take-over"]).start(&net.gateway)
}

/// A connection that repeats what it is told.
#[track_caller]
fn is_served(stream: &std::net::TcpStream, word: &str) {
    socket::send(stream, format!("{word}\n").as_bytes());
    assert_eq!(socket::read_line(stream).as_deref(), Some(word));
}

/// Asks over UDP, and is answered once, in order.
#[track_caller]
fn is_answered(client: &UdpClient, word: &str) {
    client.send(front(), word.as_bytes());
    let answer = client.receive();
    assert_eq!((String::from_utf8_lossy(&answer.bytes).as_ref(), answer.source), (word, front()));
}

#[test]
fn twenty_successors_lose_no_connection_and_no_datagram() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::echo(&net.backend, at(7000));
    let udp = UdpServer::echo(&net.backend, at(7000), "");
    let certificate = Certificate::new(&["a.example"]);
    let quic = QuicServer::start(&net.backend, at(7001), "quic", &certificate, &[]);
    let scratch = Scratch::new();
    let config = config(&scratch, "") + &rule("tunnel", "wireguard", at(7002), "");
    let mut running = Daemon::start(&net.gateway, &config);
    let long = socket::dial(&net.client, front());
    is_served(&long, "first");
    let quic_client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    let connection = quic_client.connect(front(), "a.example", &[]);
    assert_eq!(connection.ask().tag, "quic");
    let (inside, outside) = (Ipv4Addr::new(10, 9, 0, 1), Ipv4Addr::new(10, 9, 0, 2));
    let (server_keys, client_keys) = (KeyPair::new(), KeyPair::new());
    let caller = Peer { public: &client_keys.public, inside: outside, endpoint: None };
    let _server = Tunnel::start(Implementation::Go, &net.backend, 7002, &server_keys, inside, &[caller]);
    let callee = Peer { public: &server_keys.public, inside, endpoint: Some(front()) };
    let tunnel = Tunnel::start(Implementation::Go, &net.client, 5002, &client_keys, outside, &[callee]);
    tunnel.wait_for_ping(inside);
    let within: SocketAddr = (inside, 7100).into();
    let _through = UdpServer::echo(&net.backend, within, "");
    let through = UdpClient::bind(&net.client, (outside, 0));
    let flows: Vec<UdpClient> = (0..200).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();
    let busy: Vec<UdpClient> = (0..2).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();

    let mut load: Vec<Action<'_>> = vec![Box::new(|| {
        let stream = socket::dial(&net.client, front());
        is_served(&stream, "short");
    })];
    for (client, to) in busy.iter().map(|client| (client, front())).chain([(&through, within)]) {
        let mut count = 0;
        load.push(Box::new(move || {
            // A window of several datagrams, so that some are always under way.
            for n in 0..8 {
                client.send(to, format!("{}", count + n).as_bytes());
            }
            for n in 0..8 {
                let answer = client.receive_within(PATIENCE).expect("no datagram is lost");
                assert_eq!(String::from_utf8_lossy(&answer.bytes), format!("{}", count + n));
            }
            count += 8;
        }));
    }
    let mut before = Vec::new();
    background::alongside(load, |progress| {
        for round in 0..20 {
            let word = round.to_string();
            for flow in &flows {
                is_answered(flow, &word);
            }
            let next = succeed(&net, &config);
            before.push(std::mem::replace(&mut running, next));
            is_served(&long, &word);
            assert_eq!(connection.ask().tag, "quic", "{round}");
            for (progress, what) in
                progress.iter().zip(["short connections go on", "datagrams go on", "and these", "the tunnel goes on"])
            {
                progress.wait_for(5, what);
            }
        }
    });
    for flow in &flows {
        is_answered(flow, "last");
    }
    let ports: BTreeSet<SocketAddr> = udp.received().into_iter().map(|datagram| datagram.source).collect();
    assert_eq!(ports.len(), flows.len() + busy.len(), "each session has kept its port");
    assert_eq!(quic.accepted(), 1, "the connection has gone on");
    let told = running.lines_with("UDP sessions of the daemon before");
    assert!(told.len() == 1 && told[0].contains(" 204 go on, 0 do not"), "{told:?}");
    is_served(&long, "last");
    drop(long);
    for mut daemon in before {
        assert!(daemon.wait().success());
    }
    let connect = || UnixStream::connect(scratch.named("in.sock"));
    assert!(connect().is_ok());
    drop(running);
    assert!(connect().is_err(), "its file has gone with the last one");
}

#[test]
fn a_successor_that_fails_leaves_the_daemon_serving() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::echo(&net.backend, at(7000));
    let udp = UdpServer::echo(&net.backend, at(7000), "");
    let scratch = Scratch::new();
    let config = config(&scratch, "metrics_listen = \"127.0.0.1:9901\"");
    let mut daemon = Daemon::start(&net.gateway, &config);
    daemon.allow("no successor");
    daemon.allow("the successor has not come");
    let stream = socket::dial(&net.client, front());
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    let serves = |row: &str| {
        is_served(&stream, row);
        is_answered(&client, row);
        is_served(&socket::dial(&net.client, front()), row);
        is_answered(&UdpClient::bind(&net.client, (CLIENT_V4, 0)), row);
        assert!(UnixStream::connect(scratch.named("in.sock")).is_ok(), "{row}");
        wait::until("commands are taken", || UnixStream::connect(scratch.socket()).ok());
    };
    serves("before");

    let start = |builder: Builder| builder.args(["--take-over"]).launch(&net.gateway);
    let taken = socket::listen(&net.gateway, (Ipv4Addr::UNSPECIFIED, 8443));
    for (row, config, said) in [
        ("an invalid file", config.replace("7000", "700000"), "invalid port"),
        (
            "a port that is taken",
            format!("{config}[listeners.x]\nlisten_port = 8443\ntcp_target = \"192.0.2.9:1\"\n"),
            "8443",
        ),
        ("no admin socket", config.replace("admin_socket", "# admin_socket"), "the file has no admin_socket"),
        ("no daemon there", config.replace("admin.sock", "other.sock"), "no daemon answers there"),
    ] {
        let mut failed = start(Daemon::builder(&config));
        assert_eq!(failed.wait().code(), Some(1), "{row}");
        let text = failed.process().lines().join("\n");
        assert!(text.contains(said), "{row}: {text}");
        serves(row);
    }
    drop(taken);
    say(&net, &scratch, &["drain", "--listener", "local"]);
    let mut refused = start(Daemon::builder(&config));
    assert_eq!(refused.wait().code(), Some(1));
    let text = refused.process().lines().join("\n");
    assert!(text.contains("something is drained by command") && text.contains("rpxy-l4 up"), "{text}");
    say(&net, &scratch, &["up", "--listener", "local"]);
    serves("refused");

    // Successors that are killed at each step, or talk nonsense.
    let wanted = |version: u32| format!("{{\"command\":\"hand_over\",\"version\":{version}}}\n");
    let hello = || {
        let mut successor = UnixStream::connect(scratch.socket()).unwrap();
        successor.set_read_timeout(Some(PATIENCE)).unwrap();
        successor.write_all(wanted(1).as_bytes()).unwrap();
        wait_for(&mut successor, "\"sockets\"");
        successor
    };
    for (row, said) in [("after the sockets", ""), ("it is ready", "\"ready\""), ("nonsense", "\"serving\"")] {
        let from = daemon.process().mark();
        let mut successor = hello();
        if !said.is_empty() {
            successor.write_all(&message(said)).unwrap();
        }
        if row == "it is ready" {
            wait_for(&mut successor, "\"go\"");
        }
        drop(successor);
        daemon.wait_for(from, "the successor has not come, this daemon goes on");
        serves(row);
    }
    let mut newer = UnixStream::connect(scratch.socket()).unwrap();
    newer.write_all(wanted(2).as_bytes()).unwrap();
    let mut text = String::new();
    newer.set_read_timeout(Some(PATIENCE)).unwrap();
    newer.read_to_string(&mut text).unwrap();
    assert!(text.contains("this daemon hands over by version 1, its successor by 2"), "{text}");
    serves("another version");
    let of_first: BTreeSet<SocketAddr> = udp
        .received()
        .into_iter()
        .filter(|of| of.bytes == b"before" || of.bytes == b"it is ready")
        .map(|of| of.source)
        .collect();
    assert_eq!(of_first.len(), 3, "the first session has kept its port: {of_first:?}");

    let mut last = succeed(&net, &config);
    last.allow("no successor");
    is_answered(&client, "at last");
    is_served(&stream, "at last");
    drop(stream);
    assert!(daemon.wait().success());
}

/// A message of the hand-over, without descriptor.
fn message(text: &str) -> Vec<u8> {
    [&u32::try_from(text.len()).unwrap().to_be_bytes()[..], &[0], text.as_bytes()].concat()
}

#[test]
fn a_successor_whose_predecessor_ends_or_lies_ends_unless_it_serves() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::echo(&net.backend, at(7000));
    let scratch = Scratch::new();
    let config = config(&scratch, "");
    let listener = UnixListener::bind(scratch.socket()).unwrap();
    let line = || b"{\"hand_over\":1}\n".to_vec();
    let rest = || message(r#"{"sockets":{"notify":null,"watchdog":null,"bans":[]}}"#);
    let socket =
        r#"{"socket":{"transport":"tcp","address":{"ip":"0.0.0.0:8000"},"listener":"","worker":0,"passed":false}}"#;
    for (row, says) in [
        ("it ends at once", Vec::new()),
        ("it ends before the sockets", line()),
        ("it ends within a message", [line(), rest()[..9].to_vec()].concat()),
        ("it ends before the sessions", [line(), rest()].concat()),
        ("it promises a descriptor and sends none", [line(), vec![0, 0, 0, 1, 1, b'x']].concat()),
        ("a socket without a descriptor", [line(), message(socket)].concat()),
        ("a message without end", [line(), vec![0xff; 64]].concat()),
        ("the wrong message", [line(), message("\"done\"")].concat()),
        ("no line ends", vec![b'x'; 10_000]),
        ("no JSON", b"hello\n".to_vec()),
    ] {
        let mut successor = Daemon::builder(&config).args(["--take-over"]).launch(&net.gateway);
        let (mut stream, _) = listener.accept().unwrap();
        stream.write_all(&says).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        assert_eq!(successor.wait().code(), Some(1), "{row}");
        assert!(!socket::is_listening(&net.gateway, PORT), "{row}");
    }

    let mut successor = Daemon::builder(&config).args(["--take-over"]).launch(&net.gateway);
    successor.allow("the daemon before has not taken note");
    let (mut stream, _) = listener.accept().unwrap();
    drop(listener);
    std::fs::remove_file(scratch.socket()).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.write_all(&[line(), rest()].concat()).unwrap();
    wait_for(&mut stream, "\"ready\"");
    stream.write_all(&message("\"go\"")).unwrap();
    drop(stream);
    successor.wait_for(0, "ready: ");
    is_served(&socket::dial(&net.client, front()), "it was killed after it had said go");
}

/// Reads until `text` has come.
#[track_caller]
fn wait_for(stream: &mut UnixStream, text: &str) {
    let mut read = Vec::new();
    let mut part = [0; 4096];
    while !String::from_utf8_lossy(&read).contains(text) {
        let len = stream.read(&mut part).unwrap();
        assert!(len > 0, "{text} has not come: {:?}", String::from_utf8_lossy(&read));
        read.extend_from_slice(&part[..len]);
    }
}

#[test]
fn the_command_replaces_the_daemon_and_what_it_was_told_stays() {
    let Some(net) = Topology::or_skip() else { return };
    let _tcp = Server::echo(&net.backend, at(7000));
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(&net.gateway, &config(&scratch, "drain_timeout = \"1s\""));
    let file = daemon.config_path().display().to_string();
    let pid = |admin: &mut Admin| admin.ask(&json!({ "command": "status" }))[0]["pid"].as_u64().unwrap();
    say(&net, &scratch, &["ban", "198.18.0.0/15"]);
    let (code, lines) = daemon::run_to_end(&net.gateway, &["upgrade", "--if-changed", "--config", &file]);
    assert_eq!((code.code(), lines), (Some(0), vec!["the running daemon is this binary already".to_owned()]));
    let logs = scratch.directory.path().display().to_string();
    let (code, lines) = daemon::run_to_end(&net.gateway, &["upgrade", "--config", &file, "--log-dir", &logs]);
    assert_eq!(code.code(), Some(0), "{lines:#?}");
    let new = pid(&mut Admin::connect(&scratch.socket()));
    let expected = format!("process {new} has taken over from process {}", daemon.process().pid());
    assert_eq!(lines, [expected]);
    assert!(daemon.wait().success(), "it has no connections left");
    assert_eq!(say(&net, &scratch, &["bans"]).1[1], "198.18.0.0/15  command");
    is_served(&socket::dial(&net.client, front()), "new");
    let pid = rustix::process::Pid::from_raw(i32::try_from(new).unwrap()).unwrap();
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    wait::until("it has ended", || (!socket::is_listening(&net.gateway, PORT)).then_some(()));
}

#[test]
fn steered_sessions_pass_through_both_daemons_and_are_steered_again() {
    for (mode, pinned) in [("tc", false), ("xdp", false), ("xdp-generic", false), ("tc", true), ("xdp-generic", true)] {
        let row = format!("{mode}, pinned: {pinned}");
        let Some(net) = with_object() else { return };
        if mode == "xdp" {
            // A veth takes redirected frames with a poll loop only, which GRO brings along.
            net.client.ethtool("eth0", "tx off gro on").unwrap();
            net.backend.ethtool("eth0", "tx off gro on").unwrap();
        }
        let fs = BpfFs::mount();
        let _tcp = Server::echo(&net.backend, at(7000));
        let server = UdpServer::echo(&net.backend, at(7000), "");
        let keys = if pinned { fs.keys(mode) } else { format!("mode = \"{mode}\"") };
        let top = format!("access_log_format = \"off\"\nworkers = 2\ntcp_target = \"{}\"\n", at(7000));
        let config = format!("{top}{}", steering::config(PORT, at(7000), &keys));
        let mut first = Steering::start_with(&net, &config);
        let clients: Vec<UdpClient> = (0..8).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();
        let exchange = || {
            for client in &clients {
                is_answered(client, "x");
            }
        };
        first.wait_forwarded(16, exchange);
        // The first one stays for it, and must not be in the way.
        let long = socket::dial(&net.client, front());
        is_served(&long, "before");
        let mut second = succeed(&net, &format!("admin_socket = \"{}\"\n{config}", first.socket()));
        exchange();
        // The same socket, at which the second one answers now.
        first.wait_forwarded(16, exchange);
        assert_eq!(first.kernel_plane()["state"], mode, "{row}");
        let ports: BTreeSet<SocketAddr> = server.received().into_iter().map(|datagram| datagram.source).collect();
        assert_eq!(ports.len(), clients.len(), "{row}: each session has kept its port");
        is_served(&long, "after");
        drop(long);
        assert!(first.daemon.wait().success(), "{row}");
        exchange();
        first.wait_forwarded(16, exchange);
        if pinned {
            // The pins are the second one's now.
            second.process().signal(Signal::KILL).unwrap();
            second.wait();
            exchange();
        }
    }
}

#[test]
fn spliced_connections_in_pins_have_one_daemon() {
    let Some(net) = with_object() else { return };
    let fs = BpfFs::mount();
    let keys = format!("{}\ntcp = \"auto\"", fs.keys("tc"));
    let config = steering::config(PORT, at(7000), &keys);
    let mut first = Steering::start_with(&net, &config);
    let with_socket = format!("admin_socket = \"{}\"\n{config}", first.socket());
    let mut refused = Daemon::builder(&with_socket).args(["--take-over"]).launch(&net.gateway);
    assert_eq!(refused.wait().code(), Some(1));
    let text = refused.process().lines().join("\n");
    assert!(text.contains("spliced TCP connections cannot be left to go on with ebpf.pin"), "{text}");
    first.daemon.allow("no successor");
}
