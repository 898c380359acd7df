//! The admin socket: who gets in, what it tells, and what a request may look like.

use std::{
    fs,
    os::unix::{fs::PermissionsExt as _, net::UnixListener},
    path::PathBuf,
};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{self, Daemon, Edit},
    owned,
    peers::{
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, GATEWAY_V4, NOBODY_V4, Topology},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PORT, at, front, rule};

/// A path for a socket, in a directory of its own.
struct Scratch {
    directory: tempfile::TempDir,
}

impl Scratch {
    fn new() -> Self {
        Self { directory: owned::directory() }
    }

    fn named(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    fn socket(&self) -> PathBuf {
        self.named("admin.sock")
    }

    /// A configuration for TCP and UDP with this socket.
    fn config(&self, keys: &str) -> String {
        format!(
            "listen_port = {PORT}\nadmin_socket = \"{}\"\n{keys}\ntcp_target = [\"{}\"]\nudp_target = [\"{}\"]\n",
            self.socket().display(),
            at(7000),
            at(7000)
        )
    }
}

/// Runs the daemon's program with these arguments and `--socket`, and returns its exit code and output.
fn say(net: &Topology, scratch: &Scratch, arguments: &[&str]) -> (Option<i32>, Vec<String>) {
    let socket = scratch.socket().display().to_string();
    let (status, lines) = daemon::run_to_end(&net.gateway, &[arguments, &["--socket", &socket]].concat());
    (status.code(), lines)
}

#[test]
fn status_shows_what_runs() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::echo(&net.backend, at(7000));
    let _udp = UdpServer::echo(&net.backend, at(7000), "");
    let scratch = Scratch::new();
    let config = scratch.config("workers = 2\ntcp_max_connections = 77\nudp_max_connections = 88")
        + &rule("shell", "ssh", (NOBODY_V4, 22).into(), "");
    let daemon = Daemon::builder(&config).allow("cannot be reached").start(&net.gateway);
    let _stream = socket::dial(&net.client, front());
    socket::send(&_stream, b"GET ");
    server.wait_for_open(1);
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    client.ask(front(), b"hello");
    // Nobody has the address of the rule's target.
    let shell = socket::dial(&net.client, front());
    socket::send(&shell, b"SSH-2.0-test\r\n");
    assert_eq!(socket::read_to_end(&shell).0, b"");

    // The last connection counts until the daemon has let go of it, which is after the client has seen its end.
    let status = wait::until("one connection and one session are left", || {
        let mut lines = Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));
        assert_eq!(lines.len(), 1, "{lines:?}");
        lines.pop().filter(|status| (&status["tcp"]["active"], &status["udp"]["active"]) == (&json!(1), &json!(1)))
    });
    assert_eq!(status["config"], daemon.config_path().display().to_string());
    assert_eq!(status["tcp"], json!({ "listen": [format!("0.0.0.0:{PORT}")], "active": 1, "max": 77 }));
    assert_eq!(status["udp"], json!({ "listen": [format!("0.0.0.0:{PORT}")], "active": 1, "max": 88 }));
    assert_eq!((&status["rules"], &status["workers"], &status["bans"]), (&json!(1), &json!(2), &json!(0)));
    assert_eq!(status["kernel_plane"]["state"], "off");
    let down = json!([{ "transport": "tcp", "target": format!("{NOBODY_V4}:22"), "active": 0, "check": null, "reason": null }]);
    assert_eq!(status["targets_down"], down);
    assert!(status["version"].is_string() && status["uptime_s"].is_u64() && status["pid"].is_u64(), "{status}");

    let (code, lines) = say(&net, &scratch, &["status"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    for text in ["1 of 77", "1 of 88", &format!("{NOBODY_V4}:22 (tcp)"), "1 rules"] {
        assert!(lines.iter().any(|line| line.contains(text)), "{text} is missing: {lines:#?}");
    }
    let (_, lines) = say(&net, &scratch, &["status", "--json"]);
    let again: Value = serde_json::from_str(&lines[0]).unwrap();
    assert_eq!((lines.len(), &again["tcp"]), (1, &status["tcp"]));
    // The file names the socket, too.
    let file = daemon.config_path().display().to_string();
    let (ended, lines) = daemon::run_to_end(&net.gateway, &["status", "--config", &file, "--json"]);
    assert_eq!((ended.code(), lines.len()), (Some(0), 1), "{lines:#?}");
}

#[test]
fn flows_show_each_session_with_its_bytes() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "echo:");
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &scratch.config("workers = 2"));
    let clients: Vec<UdpClient> = (0..5).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();
    for client in &clients {
        client.ask(front(), b"four");
    }
    clients[0].ask(front(), b"more");
    let mut admin = Admin::connect(&scratch.socket());
    let flows = admin.ask(&json!({ "command": "flows" }));
    assert_eq!(flows.len(), 5, "{flows:#?}");
    let address = clients[0].address().to_string();
    let mut flow = flows.into_iter().find(|flow| flow["client"] == address.as_str()).unwrap();
    for time in ["age_ms", "idle_ms"] {
        assert!(flow.as_object_mut().unwrap().remove(time).unwrap().is_u64(), "{time}");
    }
    assert!(flow.as_object_mut().unwrap().remove("reason").unwrap().is_string());
    let expected = json!({
        "client": address, "local": GATEWAY_V4, "listener": format!("0.0.0.0:{PORT}"), "backend": at(7000),
        "stage": "open", "carries": "udp", "rule": null, "bytes_up": 8, "bytes_down": 18, "answered": true,
        "confirmed": false, "plane": "userspace",
    });
    assert_eq!(flow, expected);

    admin.send(b"{\"command\":\"flows\",\"limit\":3}\n");
    let answer = admin.answer().unwrap();
    assert_eq!((answer.lines.len(), answer.end), (3, json!({ "end": true, "more": true })));
    admin.send(b"{\"command\":\"flows\",\"limit\":5}\n");
    let answer = admin.answer().unwrap();
    assert_eq!((answer.lines.len(), answer.end), (5, json!({ "end": true })));

    let (code, lines) = say(&net, &scratch, &["flows"]);
    assert_eq!((code, lines.len()), (Some(0), 6), "{lines:#?}");
    let line = lines.iter().find(|line| line.starts_with(&format!("{address} "))).unwrap();
    for text in ["8 B", "18 B", "answered", "userspace", &at(7000).to_string()] {
        assert!(line.contains(text), "{text} is missing: {line}");
    }
    let (_, lines) = say(&net, &scratch, &["flows", "--limit", "2"]);
    assert_eq!(lines.len(), 4, "{lines:#?}");
}

#[test]
fn only_root_and_the_daemons_user_get_in() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &scratch.config(""));
    let mode = |path: PathBuf| fs::metadata(path).unwrap().permissions().mode() & 0o7777;
    assert_eq!(mode(scratch.socket()), 0o600);
    fs::set_permissions(scratch.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // The rights of one thread, as connect(2) sees them.
    let as_nobody = |socket: PathBuf| {
        let nobody = rustix::process::Uid::from_raw(65534);
        let become_nobody = move || {
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            std::os::unix::net::UnixStream::connect(&socket).map(|_stream| Admin::connect(&socket))
        };
        std::thread::spawn(become_nobody).join().unwrap()
    };
    assert_eq!(as_nobody(scratch.socket()).unwrap_err().kind(), std::io::ErrorKind::PermissionDenied);
    // Somebody has opened the file to all: the daemon looks at who comes.
    fs::set_permissions(scratch.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    let mut stranger = as_nobody(scratch.socket()).unwrap();
    let refused = stranger.refused(b"{\"command\":\"status\"}\n");
    assert_eq!(refused["error"], "permission denied");
    assert!(stranger.answer().is_none(), "closed");
    Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));
}

#[test]
fn garbage_is_answered_and_what_is_too_long_ends_the_connection() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &scratch.config(""));
    let mut admin = Admin::connect(&scratch.socket());
    for garbage in [
        "\n",
        "status\n",
        "{}\n",
        "{\"command\":\"stop\"}\n",
        "{\"command\":\"status\",\"x\":1}\n",
        "{\"command\":\"ban\"}\n",
        "{\"command\":\"ban\",\"network\":\"192.0.2.0/33\"}\n",
        "{\"command\":\"flows\",\"limit\":-1}\n",
        "{\"command\":\"flows\",\"limit\":99999999999999999999}\n",
        "GET / HTTP/1.1\r\n",
    ] {
        admin.refused(garbage.as_bytes());
    }
    admin.refused(b"\xff\xfe\0\n");
    admin.refused(&[[b'['; 2000].as_slice(), b"\n"].concat());
    admin.ask(&json!({ "command": "status" }));
    // Without an end, and far more than is ever read.
    assert!(admin.refused(&[b' '; 100_000])["error"].as_str().unwrap().contains("4096"));
    assert!(admin.answer().is_none(), "closed");
    Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));
}

#[test]
fn a_live_socket_is_left_alone_and_a_dead_one_replaced() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let mut first = Daemon::start(&net.gateway, &scratch.config(""));
    let second = scratch.named("second.toml");
    fs::write(&second, scratch.config("").replace(&PORT.to_string(), "444")).unwrap();
    let start_second = || daemon::run_to_end(&net.gateway, &["--config", &second.display().to_string()]);
    let (status, lines) = start_second();
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    let socket = scratch.socket().display().to_string();
    assert!(lines.iter().any(|line| line.contains(&socket) && line.contains("another process")), "{lines:#?}");
    Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));

    first.process().signal(Signal::KILL).unwrap();
    first.wait();
    assert!(scratch.socket().exists(), "nobody was left to remove it");
    let (code, lines) = say(&net, &scratch, &["status"]);
    assert_eq!(code, Some(1), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains(&socket) && line.contains("has died")), "{lines:#?}");
    let third = Daemon::start(&net.gateway, &scratch.config(""));
    Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));
    third.stop();
    assert!(!scratch.socket().exists(), "removed at stop");

    fs::write(scratch.socket(), "precious").unwrap();
    let (status, lines) = start_second();
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    assert_eq!(fs::read_to_string(scratch.socket()).unwrap(), "precious");
}

#[test]
fn a_reload_moves_and_removes_the_socket_and_a_drain_gives_it_up() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::echo(&net.backend, at(7000));
    let (scratch, other) = (Scratch::new(), Scratch::new());
    let mut daemon = Daemon::start(&net.gateway, &scratch.config(""));
    daemon.reload(Edit::Rename, &other.config(""));
    Admin::connect(&other.socket()).ask(&json!({ "command": "status" }));
    wait::until("the old socket is gone", || (!scratch.socket().exists()).then_some(()));

    // One that cannot be had changes nothing.
    let taken = UnixListener::bind(scratch.socket()).unwrap();
    let said = daemon.reload_refused(Edit::Rename, &scratch.config(""));
    assert!(said.contains("admin_socket") && said.contains(&scratch.socket().display().to_string()), "{said}");
    Admin::connect(&other.socket()).ask(&json!({ "command": "status" }));
    drop(taken);

    let without = |scratch: &Scratch, keys: &str| scratch.config(keys).replace("admin_socket", "# admin_socket");
    daemon.reload(Edit::Rename, &without(&other, ""));
    wait::until("the socket is gone", || (!other.socket().exists()).then_some(()));
    let file = daemon.config_path().display().to_string();
    let (status, lines) = daemon::run_to_end(&net.gateway, &["status", "--config", &file]);
    assert_eq!(status.code(), Some(1));
    assert!(lines.iter().any(|line| line.contains("no admin_socket") && line.contains("--socket")), "{lines:#?}");

    daemon.reload(Edit::Rename, &other.config("drain_timeout = \"1h\""));
    let stream = socket::dial(&net.client, front());
    server.wait_for_open(1);
    daemon.process().signal(Signal::TERM).unwrap();
    daemon.wait_for(0, "draining");
    wait::until("a successor may have the socket", || (!other.socket().exists()).then_some(()));
    drop(stream);
    assert!(daemon.wait().success());
}

#[test]
fn exit_codes_of_the_commands() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &scratch.config(""));
    // Arguments before `--socket`, exit code, and what the output must name.
    for (arguments, code, said) in [
        (&["status"] as &[&str], 0, "version"),
        (&["flows"], 0, "CLIENT"),
        (&["bans"], 0, "NETWORK"),
        (&["bans", "--json"], 0, ""),
        (&["ban", "203.0.113.0/24"], 0, "203.0.113.0/24 is banned"),
        (&["unban", "203.0.113.0/24"], 0, "not banned any more"),
        (&["unban", "203.0.113.0/24"], 1, "is not banned"),
        (&["ban"], 2, "<NETWORK>"),
        (&["ban", "everybody"], 2, "everybody"),
        (&["status", "--config", "c.toml"], 2, "--config"),
        (&["flows", "--limit", "0"], 2, "10000"),
    ] {
        let (status, lines) = say(&net, &scratch, arguments);
        assert_eq!(status, Some(code), "{arguments:?}: {lines:#?}");
        assert!(said.is_empty() || lines.iter().any(|line| line.contains(said)), "{arguments:?}: {said}: {lines:#?}");
    }
    let missing = scratch.named("missing").display().to_string();
    let rows: [(&[&str], i32, &str); 6] = [
        (&["status", "--socket", &missing], 1, &missing),
        (&["status", "--config", &missing], 1, &missing),
        (&["status"], 2, "--socket"),
        (&["--help"], 0, "doctor"),
        (&["doctor"], 0, "kernel"),
        (&["doctor", "--config", &missing], 1, &missing),
    ];
    for (arguments, code, said) in rows {
        let (status, lines) = daemon::run_to_end(&net.gateway, arguments);
        assert_eq!(status.code(), Some(code), "{arguments:?}: {lines:#?}");
        assert!(lines.iter().any(|line| line.contains(said)), "{arguments:?}: {said}: {lines:#?}");
    }
}
