//! What each thread of the daemon may still do, and what works all the same.

use std::{
    collections::BTreeMap,
    fs,
    os::unix::{
        fs::{MetadataExt as _, PermissionsExt as _},
        net::UnixListener,
    },
    path::Path,
};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{Daemon, Edit, run_to_end},
    owned,
    peers::{
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, GATEWAY_V4, Topology},
    wait,
};
use rustix::process::{Signal, Uid};
use serde_json::json;

use crate::support::{
    PORT,
    admin::{Scratch, say},
    at,
    bpf_fs::BpfFs,
    front,
    steering::{Steering, config, with_object},
};

/// Bits of capabilities(7).
const CHOWN: u64 = 1 << 0;
const DAC_OVERRIDE: u64 = 1 << 1;
const NET_BIND_SERVICE: u64 = 1 << 10;
const NET_ADMIN: u64 = 1 << 12;
const BPF: u64 = 1 << 39;

/// User and group of the daemon in some tests, which nobody else has.
const USER: u32 = 41_235;
const GROUP: u32 = 41_236;

/// What /proc tells of a thread.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Thread {
    user: String,
    capabilities: u64,
    bounding: u64,
    no_new_privileges: bool,
    filters: u32,
}

/// The threads of a daemon by their names, less a number at the end.
fn threads(daemon: &Daemon) -> BTreeMap<String, Vec<Thread>> {
    let mut threads: BTreeMap<String, Vec<Thread>> = BTreeMap::new();
    let tasks = fs::read_dir(format!("/proc/{}/task", daemon.process().pid())).unwrap();
    for path in tasks.map(|task| task.unwrap().path()) {
        // A thread may end meanwhile.
        let Ok(status) = fs::read_to_string(path.join("status")) else { continue };
        let field = |name: &str| status.lines().find_map(|line| line.strip_prefix(name)).unwrap().trim();
        let set = |name: &str| u64::from_str_radix(field(name), 16).unwrap();
        let name = field("Name:").trim_end_matches(|c: char| c.is_ascii_digit() || c == '-').to_owned();
        threads.entry(name).or_default().push(Thread {
            user: field("Uid:").replace('\t', " "),
            capabilities: set("CapPrm:") | set("CapEff:") | set("CapInh:") | set("CapAmb:"),
            bounding: set("CapBnd:"),
            no_new_privileges: field("NoNewPrivs:") == "1",
            filters: field("Seccomp_filters:").parse().unwrap(),
        });
    }
    threads
}

#[test]
fn threads_hold_what_the_table_says() {
    let rows: [(&str, &str, bool, u64, u64, u64); 3] = [
        // (row, keys at the top, kernel plane, of main, of network, of logs)
        ("root", "", false, NET_BIND_SERVICE | CHOWN | DAC_OVERRIDE, 0, DAC_OVERRIDE),
        (
            "root, kernel plane",
            "",
            true,
            NET_BIND_SERVICE | CHOWN | DAC_OVERRIDE | NET_ADMIN | BPF,
            NET_ADMIN | BPF,
            DAC_OVERRIDE,
        ),
        (
            "a user, kernel plane",
            "user = 41235\ngroup = 41236",
            true,
            NET_BIND_SERVICE | NET_ADMIN | BPF,
            NET_ADMIN | BPF,
            0,
        ),
    ];
    for (row, keys, plane, of_main, of_network, of_logs) in rows {
        let Some(net) = with_object() else { return };
        let _servers = (Server::tagged(&net.backend, at(7000), "served"), UdpServer::echo(&net.backend, at(7000), ""));
        let table = if plane { "[ebpf]\nmode = \"tc\"" } else { "" };
        let text = format!(
            "listen_port = {PORT}\nworkers = 2\n{keys}\ntcp_target = [\"{0}\"]\nudp_target = [\"{0}\"]\n{table}",
            at(7000)
        );
        let daemon = Daemon::builder(&text).owner(USER).start(&net.gateway);
        let stream = socket::dial(&net.client, front());
        assert_eq!(socket::read_line(&stream).as_deref(), Some("served"), "{row}");
        assert_eq!(UdpClient::bind(&net.client, (CLIENT_V4, 0)).ask_text(front(), "x"), "x", "{row}");

        let user = if keys.is_empty() { 0 } else { USER };
        let with = |capabilities: u64, filters: u32| Thread {
            user: [user; 4].map(|user| user.to_string()).join(" "),
            capabilities,
            bounding: 0,
            no_new_privileges: true,
            filters,
        };
        let expected: BTreeMap<&str, Thread> = BTreeMap::from([
            ("rpxy-l", with(of_main, 2)),
            ("log", with(of_logs, 2)),
            ("notify-rs inoti", with(of_logs, 2)),
            ("tokio-rt-worker", with(of_logs, 2)),
            ("network", with(of_network, 2)),
            ("worker", with(0, 3)),
            ("udp", with(0, 3)),
        ]);
        let found = threads(&daemon);
        for (name, threads) in &found {
            let expected = expected.get(&**name).unwrap_or_else(|| panic!("{row}: a thread {name}"));
            assert!(threads.iter().all(|thread| may_hold_net_admin(thread, expected)), "{row}: {name}: {threads:#?}");
        }
        let count = |name: &str| found.get(name).map_or(0, Vec::len);
        let plane = usize::from(plane);
        let counts = ["rpxy-l", "log", "worker", "udp", "network"].map(count);
        assert_eq!(counts, [1, 1, 2, 2, plane], "{row}: {found:#?}");
    }
}

/// Main also keeps CAP_NET_ADMIN where buffers of UDP are larger than what anybody gets, which is up to the machine.
fn may_hold_net_admin(thread: &Thread, expected: &Thread) -> bool {
    let holds_more = expected.capabilities & NET_BIND_SERVICE != 0;
    let without = |thread: &Thread| Thread { capabilities: thread.capabilities & !NET_ADMIN, ..thread.clone() };
    if holds_more { without(thread) == without(expected) } else { thread == expected }
}

#[test]
fn each_restriction_can_be_switched_off() {
    for (key, expected) in [
        ("capabilities", "capabilities kept"),
        ("landlock", "Landlock off"),
        ("seccomp", "seccomp off"),
        ("memory", "memory not hidden (off)"),
    ] {
        let Some(net) = Topology::or_skip() else { return };
        let _server = Server::tagged(&net.backend, at(7000), "served");
        let text = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n[confine]\n{key} = false", at(7000));
        let daemon = Daemon::start(&net.gateway, &text);
        let said = daemon.wait_for(0, "confined: ");
        assert!(said.contains(expected), "{key}: {said}");
        let (all, worker) = (threads(&daemon), |threads: &BTreeMap<String, Vec<Thread>>| threads["worker"][0].clone());
        assert_eq!(worker(&all).capabilities == 0, key != "capabilities", "{key}: {all:#?}");
        assert_eq!(worker(&all).filters, if key == "seccomp" { 0 } else { 3 }, "{key}");
        assert_eq!(socket::read_line(&socket::dial(&net.client, front())).as_deref(), Some("served"), "{key}");
    }
}

#[test]
fn a_daemon_that_has_become_a_user_goes_on_to_reload_to_log_and_to_listen() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let (scratch, logs) = (Scratch::new(), owned::directory());
    for directory in [scratch.directory.path(), logs.path()] {
        std::os::unix::fs::chown(directory, Some(USER), None).unwrap();
    }
    let keys = format!("user = {USER}\ngroup = {GROUP}\ntcp_target = [\"{}\"]", at(7000));
    let top = |port: u16| {
        scratch.top(&keys).replace(&format!("listen_port = {PORT}"), &format!("listen_port = [{PORT}, {port}]"))
    };
    let builder = Daemon::builder(&top(80)).owner(USER).args(["--log-dir", &logs.path().display().to_string()]);
    let mut daemon = builder.launch(&net.gateway);
    let system = logs.path().join("rpxy-l4.log");
    let wait_for = |text: &str| {
        wait::until(text, || {
            fs::read_to_string(&system).ok()?.lines().find(|line| line.contains(text)).map(str::to_owned)
        })
    };
    wait_for("ready: ");
    assert_eq!(threads(&daemon)["worker"][0].user, [USER; 4].map(|user| user.to_string()).join(" "));
    let owner = |path: &Path| fs::metadata(path).map(|of| (of.uid(), of.gid())).unwrap();
    assert_eq!(owner(&scratch.socket()), (USER, GROUP));

    // Another port that needs a right.
    daemon.edit(Edit::Rename, &top(81));
    wait_for("configuration reloaded");
    for port in [PORT, 81] {
        let stream = socket::dial(&net.client, std::net::SocketAddr::from((GATEWAY_V4, port)));
        assert_eq!(socket::read_line(&stream).as_deref(), Some("served"), "{port}");
    }
    // Rotated: the next line makes a file of the user's own.
    let access = logs.path().join("access.log");
    fs::rename(&access, logs.path().join("access.log.1")).unwrap();
    daemon.process().signal(Signal::USR1).unwrap();
    let stream = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&stream).as_deref(), Some("served"));
    drop(stream);
    wait::until("a new access log", || (!fs::read_to_string(&access).ok()?.is_empty()).then_some(()));
    assert_eq!(owner(&access), (USER, GROUP));
    daemon.process().signal(Signal::TERM).unwrap();
    assert!(daemon.wait().success());
    assert!(!scratch.socket().exists(), "the user can remove its socket");
}

#[test]
fn what_the_user_cannot_read_is_said_at_the_start() {
    let Some(net) = Topology::or_skip() else { return };
    let text = format!("listen_port = {PORT}\nuser = {USER}\ngroup = {GROUP}\ntcp_target = [\"{}\"]", at(7000));
    let daemon = Daemon::builder(&text).owner(0).allow("reloads will be refused").start(&net.gateway);
    daemon.wait_for(0, &format!("user {USER} cannot read {}", daemon.config_path().display()));
}

#[test]
fn a_reload_beyond_the_directories_of_the_start_is_refused_with_the_remedy() {
    let Some(net) = Topology::or_skip() else { return };
    let top = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(7000));
    let mut daemon = Daemon::start(&net.gateway, &top);
    let outside = owned::directory();
    fs::write(outside.path().join("part.toml"), "").unwrap();
    let include = format!("include = \"{}/part.toml\"\n{top}", outside.path().display());
    daemon.reload_refused(Edit::Rename, &include);
    let said = daemon.wait_for(0, "confined itself to other directories");
    assert!(
        said.contains(&outside.path().join("part.toml").display().to_string()) && said.contains("start it again"),
        "{said}"
    );
    // A new directory below one that it knows is no other.
    let part = daemon.directory().join("current/parts");
    fs::create_dir(&part).unwrap();
    fs::write(part.join("part.toml"), "access_log_format = \"off\"").unwrap();
    daemon.reload(Edit::Rename, &format!("include = \"parts/*.toml\"\n{top}"));
}

#[test]
fn memory_is_hidden_once_there_are_keys() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let made = run_to_end(
        &net.gateway,
        &[
            "ech",
            "generate",
            "--public-name",
            "a.test",
            "--out",
            &directory.path().join("ech.pem").display().to_string(),
        ],
    );
    assert!(made.0.success(), "{:?}", made.1);
    let key = fs::read(directory.path().join("ech.pem")).unwrap();
    let top = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(7000));
    let mut daemon = Daemon::start(&net.gateway, &top);
    let core = |daemon: &Daemon| {
        let limits = fs::read_to_string(format!("/proc/{}/limits", daemon.process().pid())).unwrap();
        let line = limits.lines().find(|line| line.starts_with("Max core file size")).unwrap().to_owned();
        line.split_whitespace().nth(4).unwrap().to_owned()
    };
    let file = daemon.directory().join("current/ech.pem");
    fs::write(&file, key).unwrap();
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    let rule = "[protocols.a]\nprotocol = \"tls\"\ntarget = [\"192.0.2.1:1\"]\n[protocols.a.ech]\n\
                config_files = [\"ech.pem\"]\nprivate_server_names = [\"192.0.2.1\"]\n";
    daemon.reload(Edit::Rename, &format!("{top}{rule}"));
    assert_eq!(core(&daemon), "0");
    drop(daemon);
    let mut daemon = Daemon::builder(&top).start(&net.gateway);
    daemon.wait_for(0, "memory not hidden (no secrets)");
    daemon.reload(Edit::Rename, &format!("{top}drain_timeout = \"2s\"\n"));
}

#[test]
fn pins_in_a_directory_that_another_user_has_prepared_are_not_used() {
    let Some(net) = with_object() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    for (row, owner, mode, said) in [
        ("another user's", 41_235, 0o755, "belongs to user 41235"),
        ("open to others", 0, 0o777, "others than its owner may write"),
    ] {
        let pins = BpfFs::mount();
        fs::create_dir(pins.pins()).unwrap();
        std::os::unix::fs::chown(pins.pins(), Some(owner), None).unwrap();
        fs::set_permissions(pins.pins(), fs::Permissions::from_mode(mode)).unwrap();
        let builder = Daemon::builder(&config(443, at(7000), &pins.keys("tc")))
            .allow("ebpf.pin: flows will end with this daemon");
        let daemon = builder.start(&net.gateway);
        let line = daemon.wait_for(0, "ebpf.pin: flows will end with this daemon");
        assert!(line.contains(said) && line.contains("ebpf.pin_path"), "{row}: {line}");
        assert_eq!(UdpClient::bind(&net.client, (CLIENT_V4, 0)).ask_text(front(), "x"), "x", "{row}");
    }
    // Its own are.
    let pins = BpfFs::mount();
    let _steering = Steering::start(&net, at(7000), &pins.keys("tc"), "");
    assert!(pins.pins().join("flows-1").exists());
}

#[test]
fn an_admin_socket_of_another_user_is_not_believed() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    // As /tmp is.
    fs::set_permissions(scratch.directory.path(), fs::Permissions::from_mode(0o1777)).unwrap();
    let path = scratch.socket();
    let as_other = move || {
        let user = Uid::from_raw(USER);
        rustix::thread::set_thread_res_uid(user, user, user).unwrap();
        UnixListener::bind(path).unwrap()
    };
    let impostor = std::thread::spawn(as_other).join().unwrap();
    let (code, lines) = say(&net, &scratch, &["status"]);
    assert_eq!(code, Some(1), "{lines:#?}");
    let said = format!("user {USER} answers at {}", scratch.socket().display());
    assert!(lines.iter().any(|line| line.contains(&said) && line.contains("admin_socket")), "{lines:#?}");
    drop(impostor);

    // The daemon's user is believed in the directory that it was given.
    fs::remove_file(scratch.socket()).unwrap();
    fs::set_permissions(scratch.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let keys = format!("user = {USER}\ngroup = {GROUP}\n");
    let _daemon = Daemon::builder(&scratch.config(&keys)).owner(USER).start(&net.gateway);
    let (code, lines) = say(&net, &scratch, &["status"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    Admin::connect(&scratch.socket()).ask(&json!({ "command": "status" }));
}
