//! The metrics endpoint as scrapers, probes and Prometheus' own checks see it, and the series of rules and targets.

use std::{
    fs::{self, File},
    path::Path,
    process::{Command, Stdio},
};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    owned,
    peers::{
        server::{Recorder, Server},
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, GATEWAY_V4, Topology},
    wait,
};
use rustix::process::Signal;

use crate::support::{PORT, at, front, reached_by, rule};

rpxy_l4_tests::offload_modes! {
    Steered {
        bytes_of_a_live_session_are_counted_on_both_planes,
    }
}

const ENDPOINT: u16 = 9100;

fn config(rest: &str) -> String {
    format!("listen_port = {PORT}\nmetrics_listen = \"0.0.0.0:{ENDPOINT}\"\n{rest}\n")
}

fn to_port(port: u16) -> String {
    config(&format!("tcp_target = [\"{}\"]", at(port)))
}

/// The answer to a request with these fields: head and body.
fn ask(net: &Topology, line: &str, fields: &str) -> (String, String) {
    let stream = socket::dial(&net.client, (GATEWAY_V4, ENDPOINT));
    socket::send(&stream, format!("{line} HTTP/1.1\r\nHost: gateway\r\n{fields}\r\n").as_bytes());
    let (answer, _) = socket::read_to_end(&stream);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

fn scrape(net: &Topology) -> String {
    ask(net, "GET /metrics", "").1
}

/// The value of a series, with its labels as they are shown.
fn value(net: &Topology, series: &str) -> Option<u64> {
    scrape(net).lines().find_map(|line| line.strip_prefix(series)?.strip_prefix(' ')?.parse().ok())
}

#[track_caller]
fn wait_for(net: &Topology, series: &str, expected: u64) {
    wait::until(&format!("{series} is {expected}"), || (value(net, series) == Some(expected)).then_some(()));
}

#[test]
fn scrapers_get_the_format_that_they_prefer_and_probes_an_answer() {
    let Some(net) = Topology::or_skip() else { return };
    let _daemon = Daemon::start(&net.gateway, &to_port(7000));
    let (text, openmetrics) = ("text/plain; version=0.0.4", "application/openmetrics-text; version=1.0.0");
    let asks_openmetrics = "Accept: application/openmetrics-text;version=1.0.0,text/plain;q=0.5\r\n";
    for (row, line, fields, status, content_type) in [
        ("no preference", "GET /metrics", "", "200 OK", text),
        ("a query", "GET /metrics?x=1", "", "200 OK", text),
        ("text", "GET /metrics", "Accept: text/plain\r\n", "200 OK", text),
        ("OpenMetrics", "GET /metrics", asks_openmetrics, "200 OK", openmetrics),
        ("alive", "GET /healthz", "", "200 OK", "text/plain"),
        ("ready", "GET /readyz", "", "200 OK", "text/plain"),
        ("elsewhere", "GET /", "", "404 Not Found", "text/plain"),
        ("another method", "DELETE /metrics", "", "405 Method Not Allowed", "text/plain"),
        ("a head without end", "GET /metrics", &format!("X: {}", "x".repeat(5000)), "400 Bad Request", "text/plain"),
    ] {
        let (head, body) = ask(&net, line, fields);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{row}: {head}");
        assert!(head.contains(&format!("\r\nContent-Type: {content_type}")), "{row}: {head}");
        assert!(head.contains(&format!("\r\nContent-Length: {}\r\n", body.len())), "{row}: {head}");
        assert_eq!(body.ends_with("# EOF\n"), content_type == openmetrics, "{row}");
    }
    let (head, body) = ask(&net, "HEAD /metrics", "");
    assert!(head.contains("\r\nContent-Type: text/plain") && !head.contains("\r\nContent-Length: 0"), "{head}");
    assert_eq!(body, "", "an answer to HEAD has no body");
}

#[test]
fn readiness_ends_when_the_drain_begins_and_tells_of_a_refused_reload() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let mut daemon = Daemon::start(&net.gateway, &format!("drain_timeout = \"1h\"\n{}", to_port(7000)));
    let ready = || ask(&net, "GET /readyz", "");
    assert_eq!(ready().1, "ready\n");
    daemon.reload_refused(Edit::Rename, "listen_port = 0");
    let (head, body) = ready();
    assert!(head.starts_with("HTTP/1.1 200 ") && body.contains("the last reload was refused"), "{head} {body}");

    let stream = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&stream).as_deref(), Some("served"));
    daemon.process().signal(Signal::TERM).unwrap();
    daemon.wait_for(0, "draining");
    let (head, body) = ready();
    assert!(head.starts_with("HTTP/1.1 503 "), "{head}");
    assert_eq!(body, "not ready: draining\n");
    assert!(ask(&net, "GET /healthz", "").0.starts_with("HTTP/1.1 200 "), "it still lives");
    drop(stream);
    assert!(daemon.wait().success());
}

/// Runs promtool, with `input` as its standard input.
#[track_caller]
fn promtool(arguments: &[&str], input: Option<&Path>) {
    let input = input.map_or_else(Stdio::null, |file| File::open(file).unwrap().into());
    let output = Command::new("promtool").args(arguments).stdin(input).output().expect("promtool");
    let said = [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {said}");
}

#[test]
fn promtool_is_content_with_both_formats() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let odd = rule("odd \\\"name\\\" \\\\ \\n", "ssh", at(7000), "");
    let daemon = Daemon::start(&net.gateway, &format!("{}{odd}", to_port(7000)));
    assert_eq!(reached_by(&net, b"SSH-2.0-test\r\n").as_deref(), Some("served"));
    let directory = owned::directory();
    let file = directory.path().join("metrics");

    fs::write(&file, scrape(&net)).unwrap();
    promtool(&["check", "metrics"], Some(&file));

    // It reads OpenMetrics only as a backup, in which every sample has a time.
    let (_, text) = ask(&net, "GET /metrics", "Accept: application/openmetrics-text\r\n");
    let timed = |line: &str| if line.starts_with('#') { format!("{line}\n") } else { format!("{line} 1700000000\n") };
    fs::write(&file, text.lines().map(timed).collect::<String>()).unwrap();
    let blocks = directory.path().join("blocks").display().to_string();
    promtool(&["tsdb", "create-blocks-from", "openmetrics", &file.display().to_string(), &blocks], None);
    assert!(fs::read_dir(&blocks).unwrap().next().is_some(), "it has read samples");
    drop(daemon);
}

#[test]
fn promtool_is_content_with_the_alerts_and_with_what_the_dashboard_asks() {
    let packaging = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging");
    promtool(&["check", "rules", &packaging.join("prometheus/alerts.yml").display().to_string()], None);

    let text = fs::read_to_string(packaging.join("grafana/rpxy-l4.json")).unwrap();
    let dashboard: serde_json::Value = serde_json::from_str(&text).unwrap();
    let mut rules = "groups:\n- name: dashboard\n  rules:\n".to_owned();
    let panels = dashboard["panels"].as_array().unwrap();
    let targets = panels.iter().flat_map(|panel| panel["targets"].as_array().into_iter().flatten());
    let expressions = targets.chain(dashboard["annotations"]["list"].as_array().unwrap()).map(|asks| &asks["expr"]);
    for (number, expression) in expressions.enumerate() {
        let expression = expression.as_str().unwrap().replace("$__rate_interval", "1m");
        // JSON strings are YAML strings.
        let quoted = serde_json::Value::from(expression);
        rules.push_str(&format!("  - record: dashboard:{number}\n    expr: {quoted}\n"));
    }
    assert!(rules.contains("dashboard:20"), "{rules}");
    let directory = owned::directory();
    let file = directory.path().join("dashboard.yml");
    fs::write(&file, rules).unwrap();
    promtool(&["check", "rules", &file.display().to_string()], None);
}

#[test]
fn the_file_decides_how_many_series_there_are_and_no_client_does() {
    const RULES: usize = 1000;
    const TARGETS: usize = 100;
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let mut daemon = Daemon::start(&net.gateway, &to_port(7000));
    let samples = |text: &str, prefix: &str| text.lines().filter(|line| line.starts_with(prefix)).count();
    let one = scrape(&net);
    let (of_rule, of_target) = (samples(&one, "rpxy_l4_rule_"), samples(&one, "rpxy_l4_target_"));
    assert!(of_rule > 0 && of_target > 0, "those of tcp_target");

    let name = |n: usize| format!("server_names = [\"{n}.test\"]");
    let port = |n: usize| 7100 + u16::try_from(n % TARGETS).unwrap();
    let rules = (0..RULES).map(|n| rule(&format!("tenant-{n}"), "tls", at(port(n)), &name(n)));
    daemon.reload(Edit::Rename, &format!("{}{}", to_port(7000), rules.collect::<String>()));
    let many = scrape(&net);
    assert_eq!(samples(&many, "rpxy_l4_rule_"), of_rule * (RULES + 1));
    assert_eq!(samples(&many, "rpxy_l4_target_"), of_target * (TARGETS + 1));

    for n in 0..20 {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, &Hello::to(&format!("{n}.stranger.test")).bytes());
        socket::read_to_end(&stream);
        assert_eq!(reached_by(&net, format!("GARBAGE{n}\r\n").as_bytes()).as_deref(), Some("served"));
    }
    wait_for(&net, "rpxy_l4_tcp_ended_total{outcome=\"unmatched\"}", 20);
    let all = |text: &str| samples(text, "rpxy_l4_");
    let text = scrape(&net);
    assert_eq!(all(&text), all(&many), "whatever clients say");

    let directory = owned::directory();
    let file = directory.path().join("metrics");
    fs::write(&file, text).unwrap();
    promtool(&["check", "metrics"], Some(&file));
}

#[test]
fn a_rule_and_its_target_have_series_for_as_long_as_they_are_in_the_file() {
    let Some(net) = Topology::or_skip() else { return };
    let sink = Recorder::start(&net.backend, at(7001));
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let full = rule("bulk", "ssh", at(7001), "max_connections = 1");
    let mut daemon = Daemon::start(&net.gateway, &format!("{}{full}", to_port(7000)));
    let of_rule = |what: &str, rest: &str| format!("rpxy_l4_rule_{what}{{transport=\"tcp\",rule=\"bulk\"{rest}}}");
    let of_target = |what: &str, port: u16, rest: &str| {
        format!("rpxy_l4_target_{what}{{transport=\"tcp\",target=\"{}\"{rest}}}", at(port))
    };
    assert_eq!(value(&net, &of_rule("started_total", "")), Some(0), "it is there before it is used");

    let stream = socket::dial(&net.client, front());
    let mut sent = 0;
    socket::send(&stream, b"SSH-2.0-test\r\n");
    sent += 14;
    for _ in 0..40 {
        socket::send(&stream, &[b'x'; 1 << 16]);
        sent += 1 << 16;
    }
    wait::until("bytes of the live connection are counted", || {
        value(&net, &of_rule("relayed_bytes_total", ",direction=\"up\"")).filter(|bytes| *bytes >= 1 << 20)
    });
    assert_eq!(value(&net, &of_rule("active", "")), Some(1));
    assert_eq!(value(&net, &of_target("active", 7001, "")), Some(1));

    // The rule is full.
    assert_eq!(reached_by(&net, b"SSH-2.0-test\r\n"), None);
    wait_for(&net, &of_rule("refused_total", ",reason=\"rule_connections\""), 1);

    assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
    wait_for(&net, &of_target("connect_seconds_count", 7000, ""), 1);
    wait_for(&net, &of_target("first_byte_seconds_count", 7000, ""), 1);
    assert_eq!(value(&net, &of_target("first_byte_seconds_count", 7001, "")), Some(0), "it says nothing");
    assert_eq!(
        value(&net, "rpxy_l4_rule_started_total{transport=\"tcp\",rule=\"tcp_target\"}"),
        Some(1),
        "the default targets have an account of their own"
    );

    daemon.reload(Edit::Rename, &to_port(7000));
    assert_eq!(value(&net, &of_rule("active", "")), Some(1), "the connection goes on");
    drop(stream);
    assert_eq!(sink.next().bytes.len(), sent);
    wait::until("the rule is gone with its last connection", || {
        let text = scrape(&net);
        (!text.contains("rule=\"bulk\"") && !text.contains(&at(7001).to_string())).then_some(())
    });
    assert_eq!(value(&net, &of_target("started_total", 7000, "")), Some(1), "what stays goes on counting");
    daemon.allow("max_connections");
    drop(daemon);
}

#[test]
fn attempts_that_fail_are_counted_by_target_and_rule() {
    let Some(net) = Topology::or_skip() else { return };
    let nobody = format!("{} cannot be reached", at(7004));
    let _daemon = Daemon::builder(&to_port(7004)).allow(&nobody).start(&net.gateway);
    assert_eq!(reached_by(&net, b"x"), None);
    wait_for(&net, &format!("rpxy_l4_target_connect_failed_total{{transport=\"tcp\",target=\"{}\"}}", at(7004)), 1);
    wait_for(&net, "rpxy_l4_rule_refused_total{transport=\"tcp\",rule=\"tcp_target\",reason=\"unreachable\"}", 1);
}

#[test]
fn sessions_that_are_refused_are_counted_by_rule() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let keys = "udp_new_sessions_per_source = 1\nudp_new_sessions_burst = 1";
    let _daemon = Daemon::start(&net.gateway, &config(&format!("{keys}\nudp_target = [\"{}\"]", at(7000))));
    let first = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    assert_eq!(first.ask_text(front(), "x"), "x");
    // One a second may start: of many at once, most may not.
    let others: Vec<UdpClient> = (0..20).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();
    for client in &others {
        client.send(front(), b"y");
    }
    let of_rule = |what: &str, rest: &str| {
        let series = format!("rpxy_l4_rule_{what}{{transport=\"udp\",rule=\"udp_target\"{rest}}}");
        value(&net, &series).unwrap()
    };
    wait::until("each has got a backend or was refused", || {
        let refused = of_rule("refused_total", ",reason=\"source_limited\"");
        (refused > 0 && refused + of_rule("started_total", "") == 21).then_some(())
    });
    assert_eq!(of_rule("active", ""), of_rule("started_total", ""));
    drop(server);
}

fn bytes_of_a_live_session_are_counted_on_both_planes() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let _daemon = Daemon::start(&net.gateway, &config(&format!("udp_target = [\"{}\"]", at(7000))));
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    for _ in 0..10 {
        assert_eq!(client.ask_text(front(), "0123456789"), "0123456789");
    }
    let rule = "transport=\"udp\",rule=\"udp_target\"";
    for direction in ["up", "down"] {
        wait_for(&net, &format!("rpxy_l4_rule_relayed_bytes_total{{{rule},direction=\"{direction}\"}}"), 100);
    }
    assert_eq!(value(&net, &format!("rpxy_l4_rule_active{{{rule}}}")), Some(1), "it is live");
}
