//! Changing the configuration of a running daemon: what is valid takes effect whole, what is not changes nothing.

use std::net::TcpStream;

use rpxy_l4_tests::{
    admin::Admin,
    background::{Action, alongside},
    daemon::{Daemon, Edit, level, message},
    hello::Hello,
    owned,
    peers::{
        programs::{self, curl},
        server::Server,
    },
    socket,
    topology::{BACKENDS_V4, GATEWAY_V4, Topology},
    wait,
};
use rustix::process::Signal;
use serde_json::{Value, json};

use crate::support::{PORT, at, front, reached_by, rule};

const EDITS: [Edit; 4] = [Edit::InPlace, Edit::Rename, Edit::Backup, Edit::Symlink];

fn to_port(port: u16) -> String {
    format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(port))
}

#[test]
fn every_way_to_change_the_file_is_noticed() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let _two = Server::tagged(&net.backend, at(7002), "two");
    let mut daemon = Daemon::start(&net.gateway, &to_port(7001));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    // Twice each: a watch must survive the change that it reports.
    for edit in EDITS.into_iter().chain(EDITS) {
        daemon.reload(edit, &to_port(7002));
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"), "{edit:?}");
        daemon.reload(edit, &to_port(7001));
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "{edit:?}");
    }
}

#[test]
fn an_invalid_file_changes_nothing_and_is_reported() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let mut daemon = Daemon::start(&net.gateway, &to_port(7001));
    let rows: [(&str, &str, &str); 4] = [
        ("not TOML", "listen_port = = 443", "config.toml:2"),
        (
            "a value out of range",
            "listen_port = 443\ntcp_max_connections = 0\ntcp_target = ['a:1']",
            "tcp_max_connections",
        ),
        ("nothing to do", "listen_port = 443", "protocols"),
        ("empty", "", "listen_port"),
    ];
    for ((name, config, said), edit) in rows.into_iter().zip(EDITS.into_iter().cycle()) {
        let mark = daemon.process().mark();
        daemon.reload_refused(edit, config);
        // Perhaps in a line after the first: there may be several things to say.
        daemon.wait_for(mark, said);
        daemon.allow(said);
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "{name}");
    }
    let _two = Server::tagged(&net.backend, at(7002), "two");
    daemon.reload(Edit::InPlace, &to_port(7002));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
}

#[test]
fn a_refused_file_is_told_problem_by_problem_and_remembered() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let directory = owned::directory();
    let socket = directory.path().join("socket");
    let keys = format!("admin_socket = \"{}\"\nmetrics_listen = \"127.0.0.1:9100\"\n", socket.display());
    let valid = format!("{keys}{}", to_port(7001));
    let mut daemon = Daemon::start(&net.gateway, &valid);
    let scrape = || programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
    let gauge = |value: u8| scrape().contains(&format!("rpxy_l4_config_last_reload_successful {value}\n"));
    let status = || Admin::connect(&socket).ask(&json!({ "command": "status" })).remove(0);
    assert!(gauge(1));
    assert_eq!(status()["last_reload"], Value::Null);

    let first = daemon.reload_refused(Edit::Rename, "slip = 1\ntcp_max_connections = 0\nlisten_port = 0");
    daemon.wait_for(0, "slip");
    let lines = daemon.lines_with("configuration not reloaded");
    let told: Vec<(Option<&str>, &str)> = lines.iter().map(|line| (level(line), message(line))).collect();
    let [(Some("ERROR"), one), (Some("ERROR"), two), (Some("ERROR"), three), (Some("WARN"), four)] = &told[..] else {
        panic!("{lines:#?}");
    };
    assert_eq!(message(&first), *one);
    // The kit puts a line in front.
    let file = daemon.config_path().display();
    for (said, place) in [
        (one, "1: nothing to forward to"),
        (two, "3: tcp_max_connections: "),
        (three, "4: listen_port: "),
        (four, "2: slip: unknown key ignored"),
    ] {
        assert!(said.contains(&format!(": {file}:{place}")), "{said}");
    }
    assert!(gauge(0));
    let last = status()["last_reload"].clone();
    assert_eq!((&last["result"], last["problems"].as_array().unwrap().len()), (&json!("refused"), 4), "{last}");
    let asked = ["status", "--socket", socket.to_str().unwrap()];
    let (_, shown) = rpxy_l4_tests::daemon::run_to_end(&net.gateway, &asked);
    assert!(shown.iter().any(|line| line.contains("the file is not what runs")), "{shown:#?}");

    let mark = daemon.edit(Edit::Rename, &valid);
    daemon.wait_for(mark, "configuration unchanged");
    assert!(gauge(1));
    assert_eq!(status()["last_reload"]["result"], "unchanged");
}

#[test]
fn hangup_reads_the_file_again() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let daemon = Daemon::start(&net.gateway, &to_port(7001));
    let mark = daemon.process().mark();
    daemon.process().signal(Signal::HUP).unwrap();
    daemon.wait_for(mark, "configuration unchanged");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
}

#[test]
fn ports_and_addresses_come_and_go() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::echo(&net.backend, at(7001));
    let config = |listen: &str| format!("listen_port = {listen}\ntcp_target = [\"{}\"]\n", at(7001));
    let mut daemon = Daemon::start(&net.gateway, &config("443"));
    let works = |port| {
        let stream = socket::try_dial(&net.client, None, (GATEWAY_V4, port).into()).ok()?;
        socket::send(&stream, b"x");
        assert_eq!(socket::read_exactly(&stream, 1), b"x");
        Some(stream)
    };
    let kept = works(443).unwrap();
    assert!(works(8443).is_none());

    daemon.reload(Edit::Rename, &config("[443, 8443]"));
    assert!(works(443).is_some());
    let on_second = works(8443).unwrap();

    daemon.reload(Edit::Rename, &config("[8443]"));
    wait::until("port 443 is closed", || works(443).is_none().then_some(()));
    assert!(works(8443).is_some());

    daemon.reload(Edit::Rename, &config("8443\nlisten_address_v4 = \"198.51.100.1\""));
    wait::until("the client's side is closed", || works(8443).is_none().then_some(()));

    // Established connections go on: their target is still there, though their listener is not.
    for stream in [&kept, &on_second] {
        socket::send(stream, b"still here");
        assert_eq!(socket::read_exactly(stream, 10), b"still here");
    }
}

#[test]
fn a_port_that_cannot_be_bound_keeps_the_old_state() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let _two = Server::tagged(&net.backend, at(7002), "two");
    let taken = socket::listen(&net.gateway, (GATEWAY_V4, 9000));
    let mut daemon = Daemon::start(&net.gateway, &to_port(7001));
    let wanted = format!("listen_port = [{PORT}, 8000, 9000]\ntcp_target = [\"{}\"]\n", at(7002));
    let line = daemon.reload_refused(Edit::InPlace, &wanted);
    assert!(line.contains("9000"), "{line}");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    assert!(!socket::is_listening(&net.gateway, 8000), "half of the new state is in force");

    drop(taken);
    let mark = daemon.process().mark();
    daemon.process().signal(Signal::HUP).unwrap();
    daemon.wait_for(mark, "configuration reloaded");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
}

#[test]
fn rules_come_and_go_while_connections_of_others_go_on() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let _two = Server::tagged(&net.backend, at(7002), "two");
    let _echo = Server::echo(&net.backend, at(7003));
    let keys = "server_names = [\"one.test\"]";
    let base = format!("listen_port = {PORT}\n{}", rule("shell", "ssh", at(7003), ""));
    let mut daemon = Daemon::start(&net.gateway, &base);
    let hello = Hello::to("one.test").bytes();

    let shell = socket::dial(&net.client, front());
    let greeting = b"SSH-2.0-test\r\n";
    let exchange = || {
        socket::send(&shell, greeting);
        assert_eq!(socket::read_exactly(&shell, greeting.len()), greeting);
    };
    exchange();
    for (rules, reaches) in [
        (rule("name", "tls", at(7001), keys), Some("one")),
        (rule("name", "tls", at(7002), keys), Some("two")),
        (rule("any", "tls", at(7002), "") + &rule("name", "tls", at(7001), keys), Some("one")),
        (String::new(), None),
    ] {
        daemon.reload(Edit::Rename, &format!("{base}{rules}"));
        assert_eq!(reached_by(&net, &hello).as_deref(), reaches, "{rules}");
        exchange();
    }
}

#[test]
fn nothing_is_lost_while_the_configuration_changes_all_the_time() {
    const CLIENTS: usize = 4;
    const ROUNDS: u32 = 12;
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let _first = Server::echo(&net.backend, (first, 7000));
    let _second = Server::echo(&net.backend, (second, 7000));
    let valid = |n: u32| {
        let more = rule("shell", "ssh", at(7001), "").repeat(usize::from(n.is_multiple_of(3)));
        let ports = if n.is_multiple_of(2) { "443" } else { "[443, 8443]" };
        format!(
            "listen_port = {ports}\ntcp_max_connections = {}\ntcp_load_balance = \"random\"\n\
             tcp_target = [\"{first}:7000\", \"{second}:7000\"]\n{more}",
            2000 + n
        )
    };
    let mut daemon = Daemon::start(&net.gateway, &valid(0));

    let exchange = |stream: &TcpStream, n: usize| {
        let message = format!("\0message {n}").repeat(1 + n % 50);
        socket::send(stream, message.as_bytes());
        assert!(socket::read_exactly(stream, message.len()) == message.as_bytes(), "message {n} came back changed");
    };
    let (net, exchange) = (&net, &exchange);
    let client = |_| -> Action<'_> {
        let dial = || socket::dial(&net.client, front());
        let (long_lived, mut n) = (dial(), 0);
        Box::new(move || {
            exchange(&long_lived, n);
            exchange(&dial(), n + 1);
            n += 2;
        })
    };
    alongside((0..CLIENTS).map(client).collect(), |progress| {
        for (n, edit) in (1..=ROUNDS).zip(EDITS.into_iter().cycle()) {
            daemon.reload(edit, &valid(n));
            if n % 4 == 0 {
                daemon.reload_refused(edit, "listen_port = \"many\"");
            }
            // Every state serves every client.
            progress.iter().for_each(|client| client.wait_for(3, "clients exchange messages"));
        }
    });
    daemon.allow("listen_port");
}

#[test]
fn a_connection_that_is_still_probed_survives_a_reload() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let base = format!("listen_port = {PORT}\n{}", rule("name", "tls", at(7001), "server_names = [\"one.test\"]"));
    let mut daemon = Daemon::start(&net.gateway, &base);
    let hello = Hello::to("one.test").bytes();
    let (head, tail) = hello.split_at(40);
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, head);
    daemon.reload(Edit::Rename, &format!("{base}{}", rule("shell", "ssh", at(7002), "")));
    socket::send(&stream, tail);
    assert_eq!(socket::read_line(&stream).as_deref(), Some("one"));
}

#[test]
fn included_files_are_watched_as_they_come_change_and_go() {
    let Some(net) = Topology::or_skip() else { return };
    let _one = Server::tagged(&net.backend, at(7001), "one");
    let _two = Server::tagged(&net.backend, at(7002), "two");
    let mut daemon = Daemon::start(&net.gateway, &format!("include = \"conf.d/*.toml\"\n{}", to_port(7001)));
    let file = daemon.config_path().with_file_name("conf.d").join("ssh.toml");
    let shell = b"SSH-2.0-x\r\n";
    assert_eq!(reached_by(&net, shell).as_deref(), Some("one"));
    std::fs::create_dir(file.parent().unwrap()).unwrap();
    let change = |what: &dyn Fn(), said: &str| {
        let mark = daemon.process().mark();
        what();
        daemon.wait_for(mark, said);
    };
    let of_shell = rule("shell", "ssh", at(7002), "");
    change(&|| std::fs::write(&file, &of_shell).unwrap(), "configuration reloaded");
    assert_eq!(reached_by(&net, shell).as_deref(), Some("two"));
    let wrong = of_shell.replace("ssh\"", "shell\"");
    change(&|| std::fs::write(&file, &wrong).unwrap(), "ssh.toml:3: protocols.\"shell\".protocol");
    assert_eq!(reached_by(&net, shell).as_deref(), Some("two"));
    change(&|| std::fs::remove_file(&file).unwrap(), "configuration reloaded");
    assert_eq!(reached_by(&net, shell).as_deref(), Some("one"));
    daemon.allow("not reloaded");
}

#[test]
fn commands_and_signals_are_answered_while_a_large_file_is_read() {
    const RULES: usize = 30_000;
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let path = directory.path().join("socket");
    let few = format!("admin_socket = \"{}\"\n", path.display()) + &to_port(7000);
    let many = |of: &str| {
        let rules =
            (0..RULES).map(|n| rule(&format!("r{n}"), "tls", at(7001), &format!("server_names = [\"{n}.{of}.test\"]")));
        few.clone() + &rules.collect::<String>()
    };
    let mut daemon = Daemon::start(&net.gateway, &few);
    let mut admin = Admin::connect(&path);
    let mut rules = || admin.ask(&json!({ "command": "status" }))[0]["rules"].as_u64();
    daemon.edit(Edit::InPlace, &many("a"));
    daemon.process().signal(Signal::HUP).unwrap();
    // Before the file is read there is time for one or two.
    let meanwhile = std::iter::repeat_with(&mut rules).take_while(|rules| *rules == Some(0)).count();
    assert!(meanwhile >= 10, "{meanwhile} commands were answered before the file was in effect");
    assert_eq!(rules(), Some(RULES as u64));

    daemon.edit(Edit::InPlace, &many("b"));
    daemon.process().signal(Signal::HUP).unwrap();
    daemon.process().signal(Signal::TERM).unwrap();
    assert!(daemon.wait().success());
    assert_eq!(daemon.lines_with("configuration reloaded").len(), 1, "the end was not put off");
}
