//! The admin socket: who gets in, what it tells, and what a request may look like.

use std::{
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::{UnixListener, UnixStream},
    },
    path::PathBuf,
};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{self, Daemon, Edit},
    peers::{
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, GATEWAY_V4, NOBODY_V4, Topology},
    wait,
};
use rustix::process::{Gid, Signal, Uid};
use serde_json::{Value, json};

use crate::support::{
    PORT,
    admin::{Scratch, say},
    at, front, rule,
};

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
    let id = flow.as_object_mut().unwrap().remove("id").unwrap();
    assert!(id.as_str().unwrap().starts_with('u'), "{id}");
    let expected = json!({
        "client": address, "local": GATEWAY_V4, "listener": format!("0.0.0.0:{PORT}"), "backend": at(7000),
        "target": at(7000), "stage": "open", "carries": "udp", "rule": null, "bytes_up": 8, "bytes_down": 18, "answered": true,
        "confirmed": false, "plane": "userspace", "listener_name": "default",
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
    let line = lines.iter().find(|line| line.contains(&format!(" {address} "))).unwrap();
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
        let nobody = Uid::from_raw(65534);
        let become_nobody = move || {
            rustix::thread::set_thread_res_uid(nobody, nobody, nobody).unwrap();
            UnixStream::connect(&socket).map(|_stream| Admin::connect(&socket))
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

/// A thread's user and groups, as connect(2) sees them, and what its requests get.
fn ask_as(user: u32, group: u32, others: &[u32], socket: PathBuf, requests: &[Value]) -> Vec<Result<(), String>> {
    let (others, requests) = (others.to_vec(), requests.to_vec());
    let become_other = move || {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        let others: Vec<Gid> = others.into_iter().map(Gid::from_raw).collect();
        rustix::thread::set_thread_groups(&others).unwrap();
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        let ask = |request: &Value| {
            let mut admin = UnixStream::connect(&socket).map(Admin::over).map_err(|error| error.kind().to_string())?;
            admin.send(format!("{request}\n").as_bytes());
            let end = admin.answer().expect("an answer").end;
            end["error"].as_str().map_or(Ok(()), |error| Err(error.to_owned()))
        };
        requests.iter().map(ask).collect()
    };
    std::thread::spawn(become_other).join().unwrap()
}

#[test]
fn members_of_the_group_read_and_change_nothing() {
    const GROUP: u32 = 41_234;
    const NOBODY: u32 = 65_534;
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let mut daemon = Daemon::start(&net.gateway, &scratch.config(&format!("admin_group = {GROUP}")));
    fs::set_permissions(scratch.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let made = fs::metadata(scratch.socket()).unwrap();
    assert_eq!((made.permissions().mode() & 0o7777, made.gid()), (0o660, GROUP));
    let reads: Vec<Value> = ["status", "overview", "rights", "connections", "flows", "targets", "bans"]
        .map(|command| json!({ "command": command }))
        .into();
    let changes = [
        json!({ "command": "ban", "network": "203.0.113.0/24" }),
        json!({ "command": "unban", "network": "203.0.113.0/24" }),
        json!({ "command": "close", "id": "t0-0-1" }),
        json!({ "command": "drain", "target": at(7000) }),
        json!({ "command": "up", "target": at(7000) }),
        json!({ "command": "drain_listeners" }),
        json!({ "command": "up_listeners" }),
    ];
    for (row, group, others) in
        [("its own group", GROUP, &[][..]), ("a supplementary one", NOBODY, &[7, GROUP, 9]), ("both", GROUP, &[GROUP])]
    {
        let answers = ask_as(NOBODY, group, others, scratch.socket(), &reads);
        assert!(answers.iter().all(Result::is_ok), "{row}: {answers:?}");
        let answers = ask_as(NOBODY, group, others, scratch.socket(), &changes);
        assert!(
            answers.iter().all(|answer| answer.as_ref().is_err_and(|e| e.contains("only read"))),
            "{row}: {answers:?}"
        );
    }
    let bans = Admin::connect(&scratch.socket()).ask(&json!({ "command": "bans" }));
    assert_eq!(bans, [] as [Value; 0]);
    let kept_out = |error: &str| vec![Err(error.to_owned())];
    let status = &reads[..1];
    let many: Vec<u32> = (50_000..50_100).collect();
    let refused = "permission denied";
    assert_eq!(ask_as(NOBODY, NOBODY, &many, scratch.socket(), status), kept_out(refused), "a stranger");
    // Somebody has opened the file to all: the daemon looks at who comes.
    fs::set_permissions(scratch.socket(), fs::Permissions::from_mode(0o666)).unwrap();
    assert_eq!(ask_as(NOBODY, NOBODY, &many, scratch.socket(), status), kept_out(refused), "through an open file");
    let one_of_many = [many, vec![GROUP]].concat();
    assert_eq!(ask_as(NOBODY, NOBODY, &one_of_many, scratch.socket(), status), [Ok(())], "one of many groups");

    // Readers that stay keep nobody else out.
    let crowd: Vec<_> = (0..8).map(|_| ask_and_stay(NOBODY, GROUP, scratch.socket())).collect();
    let full = kept_out("too many connections");
    assert_eq!(ask_as(NOBODY, GROUP, &[], scratch.socket(), status), full);
    Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));
    drop(crowd);

    let modes = |expected: u32| {
        let mode = fs::metadata(scratch.socket()).unwrap().permissions().mode() & 0o7777;
        assert_eq!(mode, expected);
    };
    daemon.reload(Edit::Rename, &scratch.config(&format!("admin_group = {}", GROUP + 1)));
    modes(0o660);
    assert_eq!(ask_as(NOBODY, GROUP + 1, &[], scratch.socket(), status), [Ok(())], "another group");
    assert_eq!(ask_as(NOBODY, GROUP, &[], scratch.socket(), status), kept_out(refused), "not that of before");
    daemon.reload(Edit::Rename, &scratch.config(""));
    modes(0o600);
    assert_eq!(ask_as(NOBODY, GROUP + 1, &[], scratch.socket(), status), kept_out(refused), "none");
}

/// A connection of another user that was answered and stays open.
fn ask_and_stay(user: u32, group: u32, socket: PathBuf) -> Admin {
    let become_other = move || {
        let (user, group) = (Uid::from_raw(user), Gid::from_raw(group));
        rustix::thread::set_thread_res_gid(group, group, group).unwrap();
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        let mut admin = Admin::connect(&socket);
        admin.ask(&json!({ "command": "status" }));
        admin
    };
    std::thread::spawn(become_other).join().unwrap()
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
    assert!(admin.refused(&[b' '; 200_000])["error"].as_str().unwrap().contains("131072"));
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
    let scratch = Scratch::new();
    let other = Scratch::beside(&scratch, "other.sock");
    let mut daemon = Daemon::start(&net.gateway, &scratch.config(""));
    let elsewhere = Scratch::new();
    let said = daemon.reload_refused(Edit::Rename, &elsewhere.config(""));
    assert!(said.contains(&elsewhere.socket().display().to_string()) && said.contains("start it again"), "{said}");
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
    let target = at(7000).to_string();
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
        (&["connections"], 0, "SERVER NAME"),
        (&["connections", "--limit", "10001"], 2, "10000"),
        (&["close", "t0-0-0"], 1, "there is no t0-0-0"),
        (&["close", "t999-0-0"], 1, "there is no t999-0-0"),
        (&["close", "u0-0-0"], 1, "`rpxy-l4 flows` lists"),
        (&["close", "me"], 2, "t0-17-5"),
        (&["targets"], 0, &target),
        (&["drain", &target], 0, "is drained"),
        (&["up", &target], 0, "is in service"),
        (&["up", &target], 1, "is not drained"),
        (&["drain", "192.0.2.99:1"], 1, "no rule has the target 192.0.2.99:1"),
        (&["drain", "--listeners"], 0, "the listeners are drained"),
        (&["up", "--listeners"], 0, "the listeners are in service"),
        (&["up", "--listeners"], 1, "the listeners are not drained"),
    ] {
        let (status, lines) = say(&net, &scratch, arguments);
        assert_eq!(status, Some(code), "{arguments:?}: {lines:#?}");
        assert!(said.is_empty() || lines.iter().any(|line| line.contains(said)), "{arguments:?}: {said}: {lines:#?}");
    }
    let missing = scratch.named("missing").display().to_string();
    let rows: [(&[&str], i32, &str); 6] = [
        (&["status", "--socket", &missing], 1, &missing),
        (&["status", "--config", &missing], 1, &missing),
        (&["status"], 1, "/run/rpxy-l4/admin.sock"),
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
