//! Start, check, stop: exit codes, what is said, and what happens to connections.

use std::fs;

use rpxy_l4_tests::{
    daemon::{self, Daemon, Edit},
    owned,
    peers::server::Server,
    socket,
    topology::{GATEWAY_V4, Topology},
    wait,
};
use rustix::process::Signal;

use crate::support::{PORT, at, front, reached_by};

fn config(top: &str) -> String {
    format!("listen_port = {PORT}\n{top}\ntcp_target = [\"{}\"]\n", at(7000))
}

#[test]
fn exit_codes_tell_success_from_bad_configuration_from_bad_usage() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let file = |name: &str, text: &str| {
        let path = directory.path().join(name);
        fs::write(&path, text).unwrap();
        path.display().to_string()
    };
    let good = file("good.toml", &config(""));
    let typo = file("typo.toml", &config("tcp_backlog = \"many\""));
    let broken = file("broken.toml", "listen_port = [\n");
    let missing = directory.path().join("missing.toml").display().to_string();
    // Arguments, exit code, and what the output must name.
    let unknown = file("unknown.toml", &config("tcp_backlogs = 7"));
    let rows: [(&[&str], i32, &[&str]); 19] = [
        (&["--config", &good, "--check"], 0, &[]),
        (&["--check", "-c", &good], 0, &[]),
        (&["--config", &typo, "--check"], 1, &["typo.toml", "tcp_backlog", "2"]),
        (&["--config", &broken, "--check"], 1, &["broken.toml"]),
        (&["--config", &missing, "--check"], 1, &["missing.toml"]),
        (&["--config", &good, "--check", "--strict"], 0, &["valid"]),
        (&["--config", &unknown, "--check"], 0, &["warning: ", "did you mean tcp_backlog?", "valid"]),
        (&["--config", &unknown, "--check", "--strict"], 1, &["warning: ", "--strict"]),
        (&["--config", &unknown, "--check", "--strict", "--json"], 1, &["\"severity\":\"warning\"", "\"valid\":false"]),
        (&["--config", &typo, "--check", "--json"], 1, &["\"key\":\"tcp_backlog\"", "\"errors\":1,\"warnings\":0"]),
        (&["--config", &typo], 1, &["typo.toml", "tcp_backlog"]),
        (&["--config", &broken], 1, &["broken.toml"]),
        (&["--config", &missing], 1, &["missing.toml"]),
        (&["--config", &good, "--log-dir", &missing], 1, &["missing.toml"]),
        (&["--no-such-option"], 2, &["--no-such-option"]),
        (&[], 2, &["--config"]),
        (&["--config"], 2, &["--config"]),
        (&["--help"], 0, &["--config", "--log-dir", "--check", "--wait-for-config"]),
        (&["--version"], 0, &["rpxy-l4"]),
    ];
    for (arguments, code, said) in rows {
        let (status, lines) = daemon::run_to_end(&net.gateway, arguments);
        assert_eq!(status.code(), Some(code), "{arguments:?}: {lines:#?}");
        for word in said {
            assert!(lines.iter().any(|line| line.contains(word)), "{arguments:?} does not say {word}: {lines:#?}");
        }
    }
}

#[test]
fn what_keeps_it_from_starting_is_said_once() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let missing = directory.path().join("missing").display().to_string();
    let starts = [
        ("a level that is none", Daemon::builder(&config("")).env("RUST_LOG", "verbose"), "\"verbose\" is not a level"),
        ("no log directory", Daemon::builder(&config("")).args(["--log-dir", &missing]), "No such file or directory"),
        ("a unix socket of UDP", Daemon::builder("listen_port = 1\nudp_target = [\"unix:/run/x\"]"), "unix socket"),
    ];
    for (row, builder, said) in starts {
        let mut daemon = builder.launch(&net.gateway);
        assert_eq!(daemon.wait().code(), Some(1), "{row}");
        let text = daemon.process().lines().join("\n");
        assert_eq!(text.matches(said).count(), 1, "{row}: {text}");
    }
}

#[test]
fn wait_for_config_waits_until_there_is_a_valid_one() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let builder = Daemon::builder("").without_file().args(["--wait-for-config"]);
    // How the waiting is said is not part of the contract.
    let mut daemon = builder.allow("config").launch(&net.gateway);
    daemon.wait_for(0, "config.toml");
    daemon.edit(Edit::InPlace, "listen_port = 0");
    daemon.wait_for(0, "listen_port");
    daemon.allow("listen_port");
    daemon.edit(Edit::Rename, &config(""));
    daemon.wait_for(0, "ready");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
}

#[test]
fn a_port_that_is_taken_stops_the_start() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let _first = Daemon::start(&net.gateway, &config(""));
    let directory = owned::directory();
    let file = directory.path().join("second.toml");
    fs::write(&file, config("")).unwrap();
    let (status, lines) = daemon::run_to_end(&net.gateway, &["--config", &file.display().to_string()]);
    assert_eq!(status.code(), Some(1), "{lines:#?}");
    assert!(lines.iter().any(|line| line.contains("443")), "{lines:#?}");
    for _ in 0..10 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
    }
}

#[test]
fn two_daemons_share_a_port_when_both_are_asked_to() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let first = Daemon::start(&net.gateway, &config("reuse_port = true"));
    let _second = Daemon::start(&net.gateway, &config("reuse_port = true"));
    first.stop();
    for _ in 0..10 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
    }
}

#[test]
fn a_daemon_that_was_killed_can_be_started_again_at_once() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let mut daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&stream).as_deref(), Some("served"));
    daemon.process().signal(Signal::KILL).unwrap();
    daemon.wait();
    let _daemon = Daemon::start(&net.gateway, &config(""));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
}

#[test]
fn terminate_refuses_new_connections_and_lets_the_others_finish() {
    for signal in [Signal::TERM, Signal::INT] {
        let Some(net) = Topology::or_skip() else { return };
        let _server = Server::echo(&net.backend, at(7000));
        let mut daemon = Daemon::start(&net.gateway, &config("drain_timeout = \"1h\""));
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, b"before");
        assert_eq!(socket::read_exactly(&stream, 6), b"before");
        daemon.process().signal(signal).unwrap();
        daemon.wait_for(0, "draining");
        wait::until("new connections are refused", || socket::try_dial(&net.client, None, front()).err());
        socket::send(&stream, b"after");
        assert_eq!(socket::read_exactly(&stream, 5), b"after");
        socket::finish(&stream);
        assert_eq!(socket::read_to_end(&stream).0, b"");
        drop(stream);
        assert_eq!(daemon.wait().code(), Some(0), "{signal:?}");
        daemon.wait_for(0, "stopped");
    }
}

#[test]
fn draining_ends_when_its_time_is_up() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::echo(&net.backend, at(7000));
    let mut daemon = Daemon::start(&net.gateway, &config("drain_timeout = \"300ms\""));
    let stream = socket::dial(&net.client, front());
    server.wait_for_open(1);
    daemon.process().signal(Signal::TERM).unwrap();
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(socket::read_to_end(&stream).0, b"");
    // The access log has an end for every beginning.
    assert_eq!(daemon.lines_with("[start]").len(), daemon.lines_with("[finish]").len());
}

#[test]
fn a_second_signal_ends_at_once() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::echo(&net.backend, at(7000));
    let mut daemon = Daemon::start(&net.gateway, &config("drain_timeout = \"1h\""));
    let _stream = socket::dial(&net.client, front());
    server.wait_for_open(1);
    daemon.process().signal(Signal::TERM).unwrap();
    daemon.wait_for(0, "draining");
    daemon.process().signal(Signal::TERM).unwrap();
    daemon.wait();
}

#[test]
fn nothing_to_drain_stops_at_once() {
    let Some(net) = Topology::or_skip() else { return };
    let daemon = Daemon::start(&net.gateway, &config("drain_timeout = \"1h\""));
    daemon.stop();
    // A file without a TCP destination opens no TCP socket.
    let udp_only = format!("listen_port = {PORT}\nudp_target = [\"{}\"]\n", at(7000));
    let daemon = Daemon::builder(&udp_only).allow("UDP").allow("udp").start(&net.gateway);
    assert!(!socket::is_listening(&net.gateway, PORT));
    assert!(socket::try_dial(&net.client, None, (GATEWAY_V4, PORT).into()).is_err());
    daemon.stop();
}

#[test]
fn draining_ends_undecided_connections_when_their_probe_does() {
    let Some(net) = Topology::or_skip() else { return };
    let config = format!(
        "listen_port = {PORT}\ndrain_timeout = \"1h\"\ntcp_probe_timeout = \"500ms\"\n{}",
        crate::support::rule("shell", "ssh", at(7000), "")
    );
    let mut daemon = Daemon::start(&net.gateway, &config);
    let undecided = socket::dial(&net.client, front());
    socket::send(&undecided, b"SSH");
    daemon.process().signal(Signal::TERM).unwrap();
    assert_eq!(daemon.wait().code(), Some(0));
    assert_eq!(socket::read_to_end(&undecided).0, b"");
}
