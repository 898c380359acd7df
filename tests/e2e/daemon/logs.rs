//! Access and system logs, and the metrics, as people and programs read them.

use std::{fs, path::Path};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    owned,
    peers::{
        programs::{self, curl},
        server::Server,
    },
    socket,
    topology::Topology,
    wait,
};
use serde_json::Value;

use crate::support::{PORT, at, front, http_request, reached_by, rule};

fn config(top: &str) -> String {
    let mut config = format!("listen_port = {PORT}\n{top}\ntcp_target = [\"{}\"]\n", at(7000));
    config += &rule("secret", "tls", at(7001), "server_names = [\"one.test\"]");
    config += &rule("clear", "http", at(7002), "");
    config
}

fn servers(net: &Topology) -> [Server; 3] {
    [7000, 7001, 7002].map(|port| Server::tagged(&net.backend, at(port), "served"))
}

/// Waits until `file` has a line that `wanted` accepts, and returns it.
#[track_caller]
fn line_of(file: &Path, what: &str, wanted: impl Fn(&str) -> bool) -> String {
    wait::until(&format!("{} has {what}", file.display()), || {
        fs::read_to_string(file).ok()?.lines().find(|line| wanted(line)).map(str::to_owned)
    })
}

/// Returns true when a word is an RFC 3339 time in UTC with microseconds: `2026-01-31T12:34:56.123456Z`.
fn is_timestamp(word: &str) -> bool {
    let shape: String = word.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape == "0000-00-00T00:00:00.000000Z"
}

#[test]
fn the_text_form_on_standard_output() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, &Hello::to("one.test").bytes());
    assert_eq!(socket::read_line(&stream).as_deref(), Some("served"));
    let from = stream.local_addr().unwrap();
    drop(stream);
    for state in ["start", "finish"] {
        let line = daemon.wait_for(0, &format!("[{state}]"));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(is_timestamp(time), "{line}");
        assert_eq!(rest, format!(" INFO [{state}] tcp:tls: {from} -> {}", at(7001)));
    }
}

#[test]
fn the_json_form_has_every_field() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let daemon = Daemon::start(&net.gateway, &config("access_log_format = \"json\""));

    let hello = Hello::to("One.Test").alpns(&["h2", "http/1.1"]).bytes();
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, &hello);
    assert_eq!(socket::read_line(&stream).as_deref(), Some("served"));
    socket::send(&stream, &[0; 1000]);
    let from = stream.local_addr().unwrap();
    socket::finish(&stream);
    socket::read_to_end(&stream);

    let parsed = |line: &str| serde_json::from_str::<Value>(&line[line.find('{').unwrap()..]).unwrap();
    let start = parsed(&daemon.wait_for(0, "\"start\""));
    let finish = parsed(&daemon.wait_for(0, "\"finish\""));
    for event in [&start, &finish] {
        assert!(is_timestamp(event["time"].as_str().unwrap()), "{event}");
        assert_eq!(event["proto"], "tcp:tls");
        assert_eq!(event["src"], from.to_string());
        assert_eq!(event["dst"], at(7001).to_string());
        assert_eq!(event["rule"], "secret");
        assert_eq!(event["server_name"].as_str().unwrap().to_lowercase(), "one.test");
        assert_eq!(event["alpn"], serde_json::json!(["h2", "http/1.1"]));
        assert_eq!(event["ech"], Value::Null);
        assert_eq!(event["plane"], "userspace");
    }
    assert_eq!(finish["bytes_up"], hello.len() + 1000);
    assert_eq!(finish["bytes_down"], "served\n".len());
    assert!(finish["duration_ms"].is_u64(), "{finish}");
    assert!(finish["reason"].is_string(), "{finish}");

    let mark = daemon.process().mark();
    reached_by(&net, b"\0");
    let default = parsed(&daemon.wait_for(mark, "\"finish\""));
    assert_eq!((&default["proto"], &default["rule"]), (&Value::from("tcp"), &Value::Null));
    assert_eq!(default["server_name"], Value::Null);
}

#[test]
fn the_access_log_can_be_off_and_its_form_changes_on_reload() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let mut daemon = Daemon::start(&net.gateway, &config("access_log_format = \"off\""));
    assert!(reached_by(&net, &http_request("x")).is_some());
    daemon.reload(Edit::Rename, &config("access_log_format = \"json\""));
    assert!(reached_by(&net, &http_request("x")).is_some());
    daemon.wait_for(0, "\"finish\"");
    daemon.reload(Edit::Rename, &config(""));
    let mark = daemon.process().mark();
    assert!(reached_by(&net, &http_request("x")).is_some());
    daemon.wait_for(mark, "[finish] tcp:http:");
    assert_eq!(daemon.lines_with("\"start\"").len(), 1);
    assert_eq!(daemon.lines_with("[start]").len(), 1);
}

#[test]
fn log_files_are_appended_to_and_follow_rotation() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let directory = owned::directory();
    let (access, system) = (directory.path().join("access.log"), directory.path().join("rpxy-l4.log"));
    fs::write(&access, "what was there before\n").unwrap();
    let start = || {
        let builder = Daemon::builder(&config("")).args(["--log-dir", &directory.path().display().to_string()]);
        builder.launch(&net.gateway)
    };
    let request = || {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, &http_request("x"));
        assert_eq!(socket::read_line(&stream).as_deref(), Some("served"));
        stream.local_addr().unwrap().to_string()
    };

    let mut daemon = start();
    let line = line_of(&system, "the ready line", |line| line.contains("ready"));
    let words: Vec<_> = line.split_ascii_whitespace().take(2).collect();
    assert!(is_timestamp(words[0]) && words[1] == "INFO", "{line}");

    let from = request();
    for state in ["start", "finish"] {
        let line = line_of(&access, &format!("[{state}]"), |line| line.contains(&format!("[{state}]")));
        let (time, rest) = line.split_once(' ').unwrap();
        assert!(is_timestamp(time), "{line}");
        assert_eq!(rest, format!("[{state}] tcp:http: {from} -> {}", at(7002)));
    }
    assert!(fs::read_to_string(&access).unwrap().starts_with("what was there before\n"));
    assert!(!fs::read_to_string(&system).unwrap().contains("[start]"), "access lines in the system log");
    assert!(daemon.lines_with("[start]").is_empty(), "access lines on standard output as well");

    let old = directory.path().join("access.log.1");
    fs::rename(&access, &old).unwrap();
    // Lines of before the next look may still go to the old file; then all go to the new one.
    wait::until("lines go to the new file", || {
        let from = request();
        fs::read_to_string(&access).is_ok_and(|text| text.contains(&from)).then_some(())
    });
    let frozen = fs::read_to_string(&old).unwrap();
    let from = request();
    line_of(&access, "the finish line", |line| line.contains("[finish]") && line.contains(&from));
    assert_eq!(fs::read_to_string(&old).unwrap(), frozen, "the old file still grows");

    daemon.process().signal(rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().success());
    line_of(&system, "its last line", |line| line.contains("stopped"));
}

#[test]
fn a_log_that_cannot_be_written_is_said_once_counted_and_said_again_when_it_can() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let directory = owned::directory();
    let (access, system) = (directory.path().join("access.log"), directory.path().join("rpxy-l4.log"));
    // Every write to it fails as on a full disk (full(4)).
    std::os::unix::fs::symlink("/dev/full", &access).unwrap();
    let builder = Daemon::builder(&config("metrics_listen = \"127.0.0.1:9100\""));
    let builder = builder.args(["--log-dir", &directory.path().display().to_string()]);
    let mut daemon = builder.launch(&net.gateway);
    line_of(&system, "the ready line", |line| line.contains("ready"));
    let lost = || -> u64 {
        let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
        let value = text.lines().find_map(|line| line.strip_prefix("rpxy_l4_log_lines_lost_total "));
        value.unwrap().parse().unwrap()
    };
    for wanted in [2, 4, 6] {
        assert_eq!(reached_by(&net, &http_request("x")).as_deref(), Some("served"));
        wait::until("both lines are counted", || (lost() == wanted).then_some(()));
    }
    fs::remove_file(&access).unwrap();
    wait::until("the log is written again", || {
        assert_eq!(reached_by(&net, &http_request("x")).as_deref(), Some("served"));
        fs::read_to_string(&access).ok().filter(|log| log.contains("[finish]"))
    });
    let line = line_of(&system, "the end of it", |line| line.contains("can be written again"));
    assert!(line.contains(" WARN ") && line.contains("access.log"), "{line}");
    let told = daemon.lines_with("cannot be written");
    let [told] = told.as_slice() else { panic!("{told:#?}") };
    assert!(told.contains("access.log") && told.contains("No space left on device"), "{told}");
    daemon.process().signal(rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().success());
}

#[test]
fn a_log_that_may_not_grow_is_like_one_on_a_full_disk() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let directory = owned::directory();
    // The kernel sends SIGXFSZ with every write (setrlimit(2)).
    let builder = Daemon::builder(&config("")).through(["prlimit", "--fsize=0"]);
    let mut daemon = builder.args(["--log-dir", &directory.path().display().to_string()]).launch(&net.gateway);
    daemon.wait_for(0, "File too large");
    wait::until("it serves", || reached_by(&net, &http_request("x")).filter(|tag| tag == "served"));
    daemon.process().signal(rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().success());
}

#[test]
fn a_client_cannot_have_more_logged_than_a_little() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let daemon = Daemon::start(&net.gateway, &config("access_log_format = \"json\""));
    let long = "x".repeat(200);
    let names: Vec<&str> = ["\u{9b}\u{202e}", long.as_str()].into_iter().cycle().take(300).collect();
    assert!(reached_by(&net, &Hello::to("one.test").alpns(&names).bytes()).is_some());
    for event in ["\"start\"", "\"finish\""] {
        let line = daemon.wait_for(0, event);
        assert!(line.len() < 1000, "{} bytes: {line}", line.len());
        assert!(line.contains(r#""\u009b\u202e""#), "{line}");
        let parsed: Value = serde_json::from_str(&line).unwrap();
        let shown = parsed["alpn"].as_array().unwrap();
        assert_eq!((shown.len(), &parsed["alpn_count"]), (8, &Value::from(300)));
        assert_eq!((shown[0].as_str(), shown[1].as_str()), (Some(names[0]), Some(&*"x".repeat(32))));
    }
}

#[test]
fn every_connection_is_counted_under_the_outcome_it_had() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let _resetting = Server::start(&net.backend, at(7003), |stream, _| {
        // Read first, so that the reset comes from here and not from unread bytes.
        let _greeting = socket::read_line(stream);
        socket::reset(stream.try_clone().unwrap());
    });
    let with = |keys: &str| {
        let config = config(&format!("metrics_listen = \"127.0.0.1:9100\"\n{keys}"));
        config.replace(&format!("tcp_target = [\"{}\"]\n", at(7000)), "")
            + &rule("resetting", "ssh", at(7003), "")
            + &rule("nobody", "socks5", at(7004), "")
    };
    // Short only where it is what ends the connection: a busy client is not taken for a silent one.
    let [long, short_probe, short_idle] = ["", "tcp_probe_timeout = \"300ms\"", "tcp_idle_timeout = \"1s\""];
    let mut daemon = Daemon::builder(&with(long)).allow(&format!("{} cannot be reached", at(7004))).start(&net.gateway);

    let scrape = || programs::text(curl(&net.gateway).arg("http://127.0.0.1:9100/metrics"));
    let value = |text: &str, name: &str| -> u64 {
        text.lines().find_map(|line| line.strip_prefix(name)).map_or(0, |value| value.trim().parse().unwrap())
    };
    let hello = Hello::to("one.test").bytes();
    // The client's part in an outcome.
    type Cause<'a> = &'a dyn Fn();
    let rows: [(&str, &str, Cause<'_>); 8] = [
        ("closed", long, &|| drop(reached_by(&net, &hello))),
        ("unmatched", long, &|| drop(reached_by(&net, &Hello::to("two.test").bytes()))),
        ("not_recognised", long, &|| drop(reached_by(&net, b"\0\0\0\0"))),
        ("not_recognised", short_probe, &|| drop(reached_by(&net, b"GE"))),
        ("unreachable", long, &|| drop(reached_by(&net, b"\x05\x01\x00"))),
        ("backend_reset", long, &|| drop(reached_by(&net, b"SSH-2.0-x\r\n"))),
        ("client_reset", long, &|| {
            let stream = socket::dial(&net.client, front());
            socket::send(&stream, &hello);
            assert_eq!(socket::read_line(&stream).as_deref(), Some("served"));
            socket::reset(stream);
        }),
        ("idle", short_idle, &|| {
            let stream = socket::dial(&net.client, front());
            socket::send(&stream, &hello);
            assert_eq!(socket::read_to_end(&stream).0, b"served\n");
        }),
    ];
    let mut present = long;
    for (number, (outcome, keys, cause)) in rows.into_iter().enumerate() {
        if keys != present {
            daemon.reload(Edit::Rename, &with(keys));
            present = keys;
        }
        let name = format!("rpxy_l4_tcp_ended_total{{outcome=\"{outcome}\"}}");
        let before = value(&scrape(), &name);
        cause();
        let text = wait::until(&format!("{outcome} is counted and the connection gone"), || {
            let gone = |text: &String| value(text, &name) > before && value(text, "rpxy_l4_tcp_active") == 0;
            Some(scrape()).filter(gone)
        });
        let ended: u64 = text
            .lines()
            .filter(|line| line.starts_with("rpxy_l4_tcp_ended_total{"))
            .map(|line| line.rsplit_once(' ').unwrap().1.parse::<u64>().unwrap())
            .sum();
        assert_eq!(ended, number as u64 + 1, "{outcome}: more or fewer outcomes than connections:\n{text}");
        assert_eq!(value(&text, "rpxy_l4_tcp_accepted_total"), number as u64 + 1, "{outcome}:\n{text}");
    }
    let text = scrape();
    assert_eq!(
        value(&text, "rpxy_l4_tcp_relayed_bytes_total{direction=\"down\"}"),
        3 * "served\n".len() as u64,
        "{text}"
    );
    daemon.stop();
}
