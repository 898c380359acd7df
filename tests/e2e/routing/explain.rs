//! `rpxy-l4 explain` against the running daemon: the same first bytes are sent and explained, by the daemon and by its
//! file.

use std::{fs, path::Path};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{self, Daemon},
    hello::Hello,
    initial::{Initial, short_header, unknown_version},
    peers::{
        programs::{self, curl},
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, Topology},
    wait,
};
use serde_json::{Value, json};

use crate::support::{
    admin::{Scratch, say},
    at, front, http_request, rule,
};

const TAGS: [(&str, &str, &str); 9] = [
    ("any", "tls", ""),
    ("named", "tls", "server_names = [\"one.test\"]"),
    ("wild", "tls", "server_names = [\"*.one.test\"]\nalpn = [\"h2\"]"),
    ("elsewhere", "tls", "from = [\"203.0.113.0/24\"]"),
    ("web", "http", "server_names = [\"web.test\"]"),
    ("ssh", "ssh", ""),
    ("h3", "quic", "server_names = [\"one.test\"]"),
    ("tunnel", "wireguard", "public_key = \"BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=\""),
    ("tunnels", "wireguard", ""),
];

/// First bytes, over UDP as datagrams.
struct Row {
    name: &'static str,
    udp: bool,
    first: Vec<Vec<u8>>,
    /// The rule whose server gets them, or the reason for which nobody does.
    becomes: Result<&'static str, &'static str>,
}

fn tcp(name: &'static str, first: Vec<u8>, becomes: Result<&'static str, &'static str>) -> Row {
    Row { name, udp: false, first: vec![first], becomes }
}

fn udp(name: &'static str, first: Vec<Vec<u8>>, becomes: Result<&'static str, &'static str>) -> Row {
    Row { name, udp: true, first, becomes }
}

fn rows() -> Vec<Row> {
    let hello = |name: &str| Hello::to(name);
    let quic = |hello: &Hello| Initial::v1(&[7; 8], &[8; 8]).datagrams(hello);
    vec![
        tcp("an exact name", hello("one.test").bytes(), Ok("named")),
        tcp("a wildcard with ALPN", hello("a.one.test").alpns(&["h2"]).bytes(), Ok("wild")),
        tcp("a wildcard without its ALPN", hello("a.one.test").bytes(), Ok("any")),
        tcp("no name", Hello::new().bytes(), Ok("any")),
        tcp("in many records", hello("one.test").records(16), Ok("named")),
        tcp("a host", http_request("web.test"), Ok("web")),
        tcp("another host", http_request("other.test"), Err("unmatched")),
        tcp("SSH", b"SSH-2.0-x\r\n".to_vec(), Ok("ssh")),
        tcp("nothing that is known", b"\0\0\0\0".to_vec(), Err("not_recognised")),
        udp("QUIC", quic(&hello("one.test")), Ok("h3")),
        udp("QUIC over several datagrams", quic(&hello("one.test").padding(2000)), Ok("h3")),
        udp("QUIC for another name", quic(&hello("two.test")), Err("unmatched")),
        udp("QUIC of another version", vec![unknown_version(0x1a2a_3a4a, &[7; 8], &[8; 8])], Err("unknown_version")),
        udp("a stray", vec![short_header(&[9; 8])], Err("orphan")),
        udp("a WireGuard initiation", vec![[&[1, 0, 0, 0][..], &[3; 144]].concat()], Ok("tunnels")),
        udp("a query", vec![b"a query".to_vec()], Err("not_recognised")),
    ]
}

/// The bytes in hex, each datagram behind an empty line.
fn write_hex(path: &Path, first: &[Vec<u8>]) {
    let hex = |bytes: &Vec<u8>| bytes.iter().map(|byte| format!("{byte:02x}")).collect::<Vec<_>>().join(" ");
    fs::write(path, first.iter().map(hex).collect::<Vec<_>>().join("\n\n")).unwrap();
}

/// What became of it, as a row has it.
fn verdict(explained: &Value) -> Result<&str, &str> {
    let verdict = &explained["verdict"];
    match verdict["is"].as_str() {
        Some("goes") => Ok(verdict["rule"].as_str().unwrap_or("default")),
        Some("refused") => Err(verdict["reason"].as_str().unwrap()),
        // It is counted like that.
        Some("answered") => Err("unknown_version"),
        _ => panic!("{explained}"),
    }
}

fn counted(net: &Topology, counter: &str) -> u64 {
    let text = programs::text(curl(&net.gateway).arg("http://127.0.0.1:9901/metrics"));
    text.lines().find_map(|line| line.strip_prefix(counter)?.trim().parse().ok()).unwrap_or(0)
}

/// Sends the bytes of a row and returns the tag of the server that they reach.
fn send(net: &Topology, row: &Row) -> Option<String> {
    if !row.udp {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, &row.first[0]);
        drop(stream.shutdown(std::net::Shutdown::Write));
        return socket::read_line(&stream);
    }
    let client = UdpClient::new(&net.client);
    row.first.iter().for_each(|datagram| client.send(front(), datagram));
    let answer = row.becomes.is_ok().then(|| client.receive().bytes)?;
    let tag = TAGS.iter().map(|(tag, ..)| *tag).find(|tag| answer.starts_with(format!("{tag}:").as_bytes()));
    tag.map(str::to_owned)
}

#[test]
fn the_daemon_does_what_it_explains_and_its_file_explains_the_same() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let mut config = scratch.top("metrics_listen = \"127.0.0.1:9901\"\norphan = \"drop\"");
    let (mut servers, mut udp_servers) = (Vec::new(), Vec::new());
    for ((tag, protocol, keys), port) in TAGS.iter().zip(7001..) {
        config += &rule(tag, protocol, at(port), keys);
        if matches!(*protocol, "quic" | "wireguard") {
            udp_servers.push(UdpServer::echo(&net.backend, at(port), &format!("{tag}:")));
        } else {
            servers.push(Server::tagged(&net.backend, at(port), tag));
        }
    }
    let _daemon = Daemon::start(&net.gateway, &config);
    let (file, hex) = (scratch.named("config.toml"), scratch.named("first.hex"));
    fs::write(&file, &config).unwrap();
    let (file, hex_argument) = (file.display().to_string(), hex.display().to_string());
    let from = CLIENT_V4.to_string();
    let by_daemon = |row: &Row| -> Value {
        write_hex(&hex, &row.first);
        let transport = if row.udp { "--udp" } else { "--tcp" };
        let (code, lines) =
            say(&net, &scratch, &["explain", transport, "--from", &from, "--hex", &hex_argument, "--json"]);
        assert_eq!((code, lines.len()), (Some(0), 1), "{}: {lines:?}", row.name);
        serde_json::from_str(&lines[0]).unwrap()
    };
    for row in rows() {
        let explained = by_daemon(&row);
        assert_eq!(verdict(&explained), row.becomes, "{}: {explained:#}", row.name);
        let transport = if row.udp { "--udp" } else { "--tcp" };
        let arguments = ["explain", transport, "--from", &from, "--hex", &hex_argument, "--json", "--config", &file];
        let (status, lines) = daemon::run_to_end(&net.gateway, &arguments);
        assert!(status.success(), "{}: {lines:?}", row.name);
        let by_file: Value = serde_json::from_str(&lines[0]).unwrap();
        for key in ["verdict", "recognised", "chosen", "others"] {
            assert_eq!(by_file[key], explained[key], "{}, {key}", row.name);
        }

        let counter = |reason: &str| match row.udp {
            true => format!("rpxy_l4_udp_dropped_total{{reason=\"{reason}\"}}"),
            false => format!("rpxy_l4_tcp_ended_total{{outcome=\"{reason}\"}}"),
        };
        let before = row.becomes.map_or_else(|reason| counted(&net, &counter(reason)), |_| 0);
        let reached = send(&net, &row);
        assert_eq!(reached.as_deref(), row.becomes.ok(), "{}", row.name);
        if let Err(reason) = row.becomes {
            wait::until(&format!("{} is counted as {reason}", row.name), || {
                (counted(&net, &counter(reason)) > before).then_some(())
            });
        }
    }

    // What an operator does is known to the daemon alone.
    let ssh = || tcp("SSH", b"SSH-2.0-x\r\n".to_vec(), Ok("ssh"));
    let ask = |request: Value| Admin::connect(&scratch.socket()).ask(&request);
    let target = at(7006).to_string();
    ask(json!({ "command": "drain", "target": target }));
    assert_eq!(verdict(&by_daemon(&ssh())), Err("unreachable"));
    assert_eq!(send(&net, &ssh()), None);
    ask(json!({ "command": "up", "target": target }));
    assert_eq!(send(&net, &ssh()).as_deref(), Some("ssh"));
    ask(json!({ "command": "ban", "network": from }));
    let explained = by_daemon(&ssh());
    assert_eq!(verdict(&explained), Err("banned"), "{explained:#}");
    assert_eq!(send(&net, &ssh()), None);
    let (code, lines) = say(&net, &scratch, &["explain", "--from", &from, "--protocol", "ssh"]);
    assert_eq!(
        (code, lines[1].as_str()),
        (Some(0), &*format!("is refused (banned): {from}/32 is banned by command: `rpxy-l4 unban {from}/32`"))
    );
    let (code, lines) = say(&net, &scratch, &["explain", "--sni", "one.test", "--listener", "nowhere"]);
    assert_eq!(code, Some(1));
    assert!(lines.concat().contains("there is no listener nowhere (the file has default)"), "{lines:?}");
}
