//! Clients that are silent, slow, incomplete or gone while the daemon waits to learn what they speak.

use std::time::Duration;

use rpxy_l4_tests::{
    daemon::Daemon,
    hello::Hello,
    peers::server::{Recorder, Server},
    socket::{self, End},
    topology::Topology,
    wait,
};

use crate::support::{PORT, at, front, reached_by, rule};

/// Rules for TLS and SSH on ports 7001 and 7002, and the given keys.
fn rules(top: &str) -> String {
    format!(
        "listen_port = {PORT}\n{top}\n{}{}",
        rule("secret", "tls", at(7001), ""),
        rule("shell", "ssh", at(7002), "")
    )
}

fn with_default(timeout: &str) -> String {
    rules(&format!("tcp_probe_timeout = \"{timeout}\"\ntcp_target = [\"{}\"]", at(7000)))
}

#[test]
fn a_server_that_speaks_first_is_reached_when_the_probe_ends() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "220 ready");
    let _daemon = Daemon::start(&net.gateway, &with_default("200ms"));
    let silent = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&silent).as_deref(), Some("220 ready"));
}

#[test]
fn a_server_that_speaks_first_is_reached_at_once_when_there_is_nothing_to_probe_for() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "220 ready");
    // Waiting for this probe would fail the test.
    let config = format!("listen_port = {PORT}\ntcp_probe_timeout = \"1h\"\ntcp_target = [\"{}\"]", at(7000));
    let _daemon = Daemon::start(&net.gateway, &config);
    let silent = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&silent).as_deref(), Some("220 ready"));
}

#[test]
fn a_silent_client_is_closed_when_there_is_no_default_target() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::tagged(&net.backend, at(7001), "secret");
    let _daemon = Daemon::start(&net.gateway, &rules("tcp_probe_timeout = \"200ms\""));
    let silent = socket::dial(&net.client, front());
    assert_eq!(socket::read_to_end(&silent).0, b"");
    let incomplete = socket::dial(&net.client, front());
    socket::send(&incomplete, &Hello::to("one.test").bytes()[..2]);
    assert_eq!(socket::read_to_end(&incomplete).0, b"");
    assert_eq!(server.accepted(), 0);
}

#[test]
fn what_no_rule_wants_is_not_kept_waiting() {
    let Some(net) = Topology::or_skip() else { return };
    let default = Server::tagged(&net.backend, at(7000), "default");
    let mut daemon = Daemon::start(&net.gateway, &with_default("1h"));
    assert_eq!(reached_by(&net, b"\x00\x01\x02\x03").as_deref(), Some("default"));
    drop(default);
    daemon.reload(rpxy_l4_tests::daemon::Edit::InPlace, &rules("tcp_probe_timeout = \"1h\""));
    assert_eq!(reached_by(&net, b"\x00\x01\x02\x03"), None);
}

#[test]
fn an_incomplete_beginning_goes_to_the_default_target_with_all_that_was_read() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let _daemon = Daemon::start(&net.gateway, &with_default("300ms"));

    // Of what nobody can tell yet; see `recognised` for the rest.
    let beginnings = [&b"S"[..], b"SSH", b"\x16", b"\x16\x03"];
    for (beginning, number) in beginnings.into_iter().zip(1..) {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, beginning);
        recorder.server().wait_for_accepted(number);
        socket::send(&stream, b" and more");
        socket::finish(&stream);
        let record = recorder.next();
        assert_eq!(record.bytes, [beginning, b" and more"].concat());
        assert_eq!(record.end, End::Closed);
    }
}

#[test]
fn a_client_that_stops_writing_ends_the_probe() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let _daemon = Daemon::start(&net.gateway, &with_default("1h"));
    let tls = Recorder::start(&net.backend, at(7001));
    for (beginning, recorder) in [(&b""[..], &recorder), (b"SSH", &recorder), (b"\x16\x03\x01", &tls)] {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, beginning);
        socket::finish(&stream);
        assert_eq!(recorder.next().bytes, beginning);
        assert_eq!(socket::read_to_end(&stream), (vec![], End::Closed));
    }
}

#[test]
fn a_slow_client_is_routed_by_its_whole_beginning() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7002));
    let _daemon = Daemon::start(&net.gateway, &with_default("1h"));
    let stream = socket::dial(&net.client, front());
    for byte in b"SSH-2.0-slow\r\n" {
        socket::send(&stream, &[*byte]);
        wait::pause(Duration::from_millis(20));
    }
    socket::finish(&stream);
    assert_eq!(recorder.next().bytes, b"SSH-2.0-slow\r\n");
}

#[test]
fn clients_that_reset_leave_nothing_behind() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7002), "shell");
    let daemon = Daemon::start(&net.gateway, &with_default("1h"));
    let before = daemon.open_files();
    for round in 0..100 {
        let stream = socket::dial(&net.client, front());
        let beginning: &[u8] = if round % 2 == 0 { b"" } else { b"\x16\x03\x01\x02" };
        socket::send(&stream, beginning);
        socket::reset(stream);
    }
    daemon.wait_for_open_files(before);
    assert_eq!(reached_by(&net, b"SSH-2.0-last\r\n").as_deref(), Some("shell"));
}

#[test]
fn a_trickle_does_not_extend_the_probe() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::tagged(&net.backend, at(7001), "secret");
    let _daemon = Daemon::start(&net.gateway, &rules("tcp_probe_timeout = \"300ms\""));
    let stream = socket::dial(&net.client, front());
    // At this pace the whole hello would take many times the timeout.
    let hello = Hello::to("one.test").padding(1000).bytes();
    let sent = hello.iter().take_while(|byte| {
        wait::pause(Duration::from_millis(20));
        socket::send(&stream, &[**byte]);
        server.accepted() == 0
    });
    assert!(sent.count() < hello.len(), "the daemon has waited for all of a trickle");
}

#[test]
fn silent_clients_do_not_keep_the_others_out_for_ever() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7002), "shell");
    let config = rules("tcp_probe_timeout = \"500ms\"\ntcp_max_connections = 20");
    let _daemon = Daemon::builder(&config).allow("tcp_max_connections (20) reached").start(&net.gateway);
    let silent: Vec<_> = (0..40).map(|_| socket::dial(&net.client, front())).collect();
    wait::until("there is room again", || reached_by(&net, b"SSH-2.0-x\r\n"));
    for stream in &silent {
        assert_eq!(socket::read_to_end(stream).0, b"");
    }
}
