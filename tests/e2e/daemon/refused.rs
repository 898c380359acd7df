//! Whoever asks why a client was turned away finds a line in the access log, and fail2ban does, too.

use std::{fs, net::SocketAddr, path::Path, process::Command};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    initial::Initial,
    owned,
    peers::{programs, server::Server, udp::UdpClient},
    socket,
    topology::{CLIENT_V4, Topology, client_pool},
    wait,
};
use serde_json::Value;

use crate::support::{PORT, at, front, front_v6, http_request, rule};

/// Rules about names, and no default target.
fn config(top: &str) -> String {
    let mut config = format!("listen_port = {PORT}\nlisten_ipv6 = true\n{top}\n");
    config += &rule("secret", "tls", at(7001), "server_names = [\"one.test\"]");
    config += &rule("clear", "http", at(7001), "server_names = [\"one.test\"]");
    config += &rule("quick", "quic", at(7001), "server_names = [\"one.test\"]");
    config += &rule("nobody", "ssh", at(7004), "");
    config
}

/// Sends `first` to the daemon, which closes the connection, and returns the client's address.
fn turned_away(net: &Topology, to: SocketAddr, first: &[u8]) -> SocketAddr {
    let stream = socket::dial(&net.client, to);
    socket::send(&stream, first);
    let address = stream.local_addr().unwrap();
    socket::read_to_end(&stream);
    address
}

#[test]
fn every_reason_has_its_line_with_client_listener_protocol_and_name() {
    let Some(net) = Topology::or_skip() else { return };
    let banned = client_pool(0);
    let top = format!("ban = [\"{banned}\"]\ntcp_probe_timeout = \"500ms\"");
    let nobody = format!("{} cannot be reached", at(7004));
    let mut daemon = Daemon::builder(&config(&top)).allow(&nobody).start(&net.gateway);

    let hello = |name: &str| Hello::to(name).bytes();
    let (v4, v6) = (front(), front_v6());
    for (row, to, first, proto, reason) in [
        ("a name without a rule", v4, hello("two.test"), "tcp:tls", "unmatched (two.test)"),
        ("over IPv6", v6, hello("two.test"), "tcp:tls", "unmatched (two.test)"),
        ("no name", v4, Hello::new().bytes(), "tcp:tls", "unmatched"),
        ("a host without a rule", v4, http_request("two.test"), "tcp:http", "unmatched (two.test)"),
        ("a protocol without a rule", v4, b"\x05\x01\x00".to_vec(), "tcp", "not_recognised"),
        ("half a protocol", v4, b"GE".to_vec(), "tcp", "not_recognised"),
        ("nobody behind the rule", v4, b"SSH-2.0-x\r\n".to_vec(), "tcp:ssh", "unreachable"),
    ] {
        let from = turned_away(&net, to, &first);
        let line = daemon.wait_for(0, &format!("[refused] {proto}: {from} -> {to}: "));
        assert!(line.ends_with(&format!(" -> {to}: {reason}")), "{row}: {line}");
    }

    let stream = socket::dial_from(&net.client, banned, v4);
    let from = stream.local_addr().unwrap();
    socket::read_to_end(&stream);
    daemon.wait_for(0, &format!("[refused] tcp: {from} -> {v4}: banned"));

    let initial = Initial::v1(&[7; 8], &[7; 4]).datagrams(&Hello::to("two.test")).remove(0);
    for (row, source, datagram, proto, reason) in [
        ("a name without a rule", CLIENT_V4, &initial[..], "udp:quic", "unmatched (two.test)"),
        ("something else", CLIENT_V4, b"hello", "udp", "not_recognised"),
        ("a banned network", banned, b"hello", "udp", "banned"),
    ] {
        let client = UdpClient::bind(&net.client, (source, 0));
        client.send(v4, datagram);
        let line = daemon.wait_for(0, &format!("[refused] {proto}: {} -> {v4}: ", client.address()));
        assert!(line.ends_with(&format!(" -> {v4}: {reason}")), "{row}: {line}");
    }

    // A health check asks for nothing, and a client that leaves was not turned away.
    let mark = daemon.process().mark();
    let stream = socket::dial(&net.client, v4);
    socket::finish(&stream);
    socket::read_to_end(&stream);
    let silent = stream.local_addr().unwrap();
    daemon.reload(Edit::Rename, &config("access_log_refused = \"off\""));
    let quiet = turned_away(&net, v4, &hello("two.test"));
    daemon.reload(Edit::Rename, &config("access_log_refused = \"all\""));
    let from = turned_away(&net, v4, &hello("two.test"));
    daemon.wait_for(mark, &from.to_string());
    for address in [silent, quiet] {
        assert!(daemon.lines_with(&address.to_string()).is_empty(), "{:#?}", daemon.lines_with("[refused]"));
    }
}

#[test]
fn a_client_before_a_load_balancer_is_named_and_so_is_one_that_sends_no_header() {
    let Some(net) = Topology::or_skip() else { return };
    let receiving =
        |trusted: &str| config(&format!("tcp_recv_proxy_protocol = true\ntcp_trusted_proxies = [\"{trusted}\"]"));
    let mut daemon = Daemon::start(&net.gateway, &receiving("192.0.2.0/24"));
    let header = b"PROXY TCP4 203.0.113.7 203.0.113.1 5555 443\r\n";
    turned_away(&net, front(), &[header, &Hello::to("two.test").bytes()[..]].concat());
    daemon.wait_for(0, &format!("[refused] tcp:tls: 203.0.113.7:5555 -> {}: unmatched (two.test)", front()));
    let from = turned_away(&net, front(), &Hello::to("two.test").bytes());
    daemon.wait_for(0, &format!("[refused] tcp: {from} -> {}: proxy_invalid", front()));
    daemon.reload(Edit::Rename, &receiving("203.0.113.0/24"));
    let stream = socket::dial(&net.client, front());
    let from = stream.local_addr().unwrap();
    socket::read_to_end(&stream);
    daemon.wait_for(0, &format!("[refused] tcp: {from} -> {}: proxy_untrusted", front()));
}

#[test]
fn limits_have_their_lines() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::echo(&net.backend, at(7001));
    for (keys, reason) in [
        ("tcp_max_connections = 1", "too_many"),
        ("tcp_max_connections_per_source = 1", "source_connections"),
        ("tcp_new_connections_per_source = 1\ntcp_new_connections_burst = 1", "source_rate"),
    ] {
        let builder = Daemon::builder(&config(keys)).allow("reached").allow("closing new connections of its network");
        let daemon = builder.start(&net.gateway);
        let held = socket::dial(&net.client, front());
        let hello = Hello::to("one.test").bytes();
        socket::send(&held, &hello);
        assert_eq!(socket::read_exactly(&held, hello.len()), hello, "{reason}");
        let turned_away = socket::dial(&net.client, front());
        assert_eq!(socket::read_to_end(&turned_away).0, b"", "{reason}");
        let from = turned_away.local_addr().unwrap();
        daemon.wait_for(0, &format!("[refused] tcp: {from} -> {}: {reason}", front()));
    }
}

#[test]
fn many_refusals_have_few_lines_and_the_rest_is_counted() {
    const TIMES: usize = 40;
    let Some(net) = Topology::or_skip() else { return };
    let mut daemon = Daemon::start(&net.gateway, &config(""));
    for _ in 0..TIMES {
        turned_away(&net, front(), b"\0\0\0\0");
    }
    // Told at the latest when the daemon stops.
    daemon.process().signal(rustix::process::Signal::TERM).unwrap();
    assert!(daemon.wait().success());
    let withheld: usize = daemon
        .lines_with("more not shown")
        .iter()
        .map(|line| line.split_once("[refused] ").unwrap().1.split(' ').next().unwrap().parse::<usize>().unwrap())
        .sum();
    let shown = daemon.lines_with("not_recognised").len();
    assert!((10..TIMES).contains(&shown), "{shown} lines");
    assert_eq!(shown + withheld, TIMES);
}

#[test]
fn fail2ban_finds_the_scanners_in_both_forms_and_nobody_else() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7001), "served");
    let filter = Path::new(env!("CARGO_MANIFEST_DIR")).join("../packaging/fail2ban/filter.d/rpxy-l4.conf");
    let found = |log: &Path| -> Vec<String> {
        let mut command = Command::new("fail2ban-regex");
        let lines = programs::text(command.args(["--usedns=no", "-o", "ip"]).args([log, &filter]));
        lines.lines().map(str::to_owned).collect()
    };
    for form in ["text", "json"] {
        let directory = owned::directory();
        let access = directory.path().join("access.log");
        let config = config(&format!("access_log_refused = \"all\"\naccess_log_format = \"{form}\""));
        let builder = Daemon::builder(&config).args(["--log-dir", &directory.path().display().to_string()]);
        let nobody = format!("{} cannot be reached", at(7004));
        let mut daemon = builder.allow(&nobody).launch(&net.gateway);
        wait::until("the daemon listens", || socket::is_listening(&net.gateway, PORT).then_some(()));

        let scan = |source: u8, first: &[u8]| {
            let stream = socket::dial_from(&net.client, client_pool(source), front());
            socket::send(&stream, first);
            socket::read_to_end(&stream);
        };
        // Who only looks like an offender, or whose address could be forged.
        let served = socket::dial_from(&net.client, client_pool(1), front());
        socket::send(&served, &Hello::to("one.test").bytes());
        assert_eq!(socket::read_line(&served).as_deref(), Some("served"));
        drop(served);
        scan(2, b"SSH-2.0-x\r\n");
        let datagrams = UdpClient::bind(&net.client, (client_pool(3), 0));
        datagrams.send(front(), b"hello");
        // Who names others.
        let innocent = client_pool(4);
        let forged = format!("a)[refused]tcp:{innocent}:1->{}:unmatched(b", front());
        scan(5, &Hello::to(&forged).bytes());
        let forged = format!(
            "\"}}{{\"time\":\"1\",\"event\":\"refused\",\"proto\":\"tcp\",\"src\":\"{innocent}:1\",\"listener\":\"{}\",\
             \"reason\":\"unmatched\",",
            front()
        );
        scan(6, &Hello::to(&forged).bytes());
        scan(7, &Hello::to("two.test").bytes());
        scan(8, b"\x05\x01\x00");
        let from_v6 = turned_away(&net, front_v6(), &http_request("two.test"));

        wait::until("the last line is written", || {
            let text = fs::read_to_string(&access).ok()?;
            (text.contains("unreachable") && text.contains(&from_v6.to_string())).then_some(())
        });
        let expected: Vec<String> =
            [5, 6, 7, 8].map(|n| client_pool(n).to_string()).into_iter().chain([from_v6.ip().to_string()]).collect();
        assert_eq!(found(&access), expected, "{form}: {}", fs::read_to_string(&access).unwrap());
        daemon.process().signal(rustix::process::Signal::TERM).unwrap();
        assert!(daemon.wait().success());
    }
}

#[test]
fn with_json_every_line_is_json() {
    let Some(net) = Topology::or_skip() else { return };
    let parse = |line: &String| {
        let value: Value = serde_json::from_str(line).unwrap_or_else(|error| panic!("{error}: {line}"));
        assert!(value["time"].is_string(), "{line}");
        value
    };
    let hostile = "h2\u{1b}[2J\u{7f}\u{9b}\u{202e}";
    for (args, top) in [(&["--json"] as &[&str], ""), (&[], "access_log_format = \"json\"")] {
        let config = config(&format!("{top}\nunknown_key = 1"));
        let builder = Daemon::builder(&config).args(args).allow("unknown_key").allow("configuration not reloaded");
        let mut daemon = builder.start(&net.gateway);
        let from = turned_away(&net, front(), &Hello::to("\"two.test").alpns(&[hostile]).bytes());
        let line = parse(&daemon.wait_for(0, "\"refused\""));
        assert_eq!((&line["src"], &line["reason"]), (&Value::from(from.to_string()), &Value::from("unmatched")));
        assert_eq!(
            (&line["server_name"], &line["listener"]),
            (&Value::from("\"two.test"), &Value::from(front().to_string()))
        );
        daemon.reload_refused(Edit::Rename, "listen_port = 0\n[\"\\u001b\\u202e\"]");
        daemon.process().signal(rustix::process::Signal::TERM).unwrap();
        assert!(daemon.wait().success());
        let lines = daemon.process().lines();
        // Before the file was read, only the command line can ask for JSON; nothing was said before.
        for line in &lines {
            parse(line);
            let obeyed = |c: char| c.is_control() || matches!(c, '\u{200e}'..='\u{200f}' | '\u{2028}'..='\u{202e}');
            assert!(!line.contains(obeyed), "{line:?}");
        }
        assert!(lines.len() > 5, "{lines:#?}");
    }
    // What ends a start, with and without a file that could be read.
    let directory = owned::directory();
    let file = directory.path().join("c.toml");
    for (args, text) in [
        (&["--json"] as &[&str], "listen_port = ["),
        (&["--json"], "listen_port = 0\nslip = 1"),
        (&[], "access_log_format = \"json\"\nlisten_port = 0"),
    ] {
        fs::write(&file, text).unwrap();
        let arguments = [&["--config", file.to_str().unwrap()], args].concat();
        let (status, lines) = rpxy_l4_tests::daemon::run_to_end(&net.gateway, &arguments);
        assert_eq!(status.code(), Some(1));
        for line in &lines {
            let level = if line.contains("unknown key") { "WARN" } else { "ERROR" };
            assert_eq!(parse(line)["level"], level, "{text}");
        }
        assert!(!lines.is_empty(), "{text}");
    }
}
