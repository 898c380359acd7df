//! Routing of QUIC connections: by server name and ALPN, with real clients and servers by quinn.

use std::time::Duration;

use rpxy_l4_tests::{
    daemon::Daemon,
    flow::Flow,
    peers::{
        programs::Certificate,
        quic::{QuicClient, QuicServer, filler},
    },
    topology::{CLIENT_V4, CLIENT_V6, Topology},
};
use serde_json::Value;

use crate::support::{PORT, at, front, front_v6, rule};

rpxy_l4_tests::offload_modes! {
    Steered {
        server_names_and_alpns_choose_the_backend,
        a_hello_over_several_initials_is_read_whole,
        unmatched_connections_are_dropped_or_go_to_the_default,
    }
    Unknown {
        one_client_socket_talks_to_several_servers_at_once,
    }
}

const NAMES: [&str; 4] = ["one.test", "two.test", "a.wild.test", "other.test"];
const ALPNS: [&str; 3] = ["h3", "hq", "doq"];

fn server(net: &Topology, port: u16, tag: &str, certificate: &Certificate) -> QuicServer {
    QuicServer::start(&net.backend, at(port), tag, certificate, &ALPNS)
}

fn names(names: &str) -> String {
    format!("server_names = [{names}]")
}

fn server_names_and_alpns_choose_the_backend() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let tags = ["name and alpn", "name", "alpn", "any", "wildcard"];
    let servers: Vec<_> = tags.iter().zip(7000..).map(|(tag, port)| server(&net, port, tag, &certificate)).collect();
    // The least specific first: the order in the file does not count.
    let config = format!("listen_port = {PORT}\nlisten_ipv6 = true\n")
        + &rule("any", "quic", at(7003), "")
        + &rule("alpn", "quic", at(7002), "alpns = [\"doq\"]")
        + &rule("name", "quic", at(7001), &names("\"one.test\", \"two.test\""))
        + &rule("wildcard", "quic", at(7004), &names("\"*.wild.test\""))
        + &rule("both", "quic", at(7000), "server_names = [\"ONE.test\"]\nalpns = [\"hq\", \"x\"]");
    let daemon = Daemon::start(&net.gateway, &config);
    let v4 = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    let v6 = QuicClient::new(&net.client, (CLIENT_V6, 0), &certificate);
    let rows: [(&str, &[&str], &str); 8] = [
        ("one.test", &["hq"], "name and alpn"),
        ("one.test", &["h3", "hq"], "name and alpn"),
        ("one.test", &["h3"], "name"),
        ("one.test", &["doq"], "name"),
        ("two.test", &["hq"], "name"),
        ("other.test", &["doq"], "alpn"),
        ("other.test", &["h3"], "any"),
        ("a.wild.test", &["doq"], "wildcard"),
    ];
    for (name, alpns, tag) in rows {
        for (client, to) in [(&v4, front()), (&v6, front_v6())] {
            let identity = client.connect(to, name, alpns).ask();
            assert_eq!((identity.tag.as_str(), identity.server_name.as_str()), (tag, name), "{alpns:?} to {to}");
        }
    }
    assert_eq!(servers.iter().map(QuicServer::accepted).sum::<usize>(), 16);
    daemon.wait_for(0, &format!("[start] udp:quic: {} -> {}", v4.address(), at(7000)));
}

fn one_client_socket_talks_to_several_servers_at_once() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let servers =
        [(7000, "one"), (7001, "two"), (7002, "other")].map(|(port, tag)| server(&net, port, tag, &certificate));
    let config = format!("listen_port = {PORT}\n")
        + &rule("one", "quic", at(7000), &names("\"one.test\""))
        + &rule("two", "quic", at(7001), &names("\"two.test\""))
        + &rule("other", "quic", at(7002), "");
    let _daemon = Daemon::start(&net.gateway, &config);
    let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    let targets = [("one.test", "one"), ("two.test", "two"), ("other.test", "other")];
    let connections: Vec<_> =
        (0..2).flat_map(|_| targets).map(|(name, tag)| (client.connect(front(), name, &["h3"]), tag)).collect();
    std::thread::scope(|scope| {
        for ((connection, tag), seed) in connections.iter().zip(0..) {
            scope.spawn(move || {
                for _ in 0..3 {
                    assert_eq!(connection.ask().tag, *tag);
                    connection.download(Flow { seed, length: 1_000_000 }).unwrap();
                    connection.upload(Flow { seed, length: 1_000_000 }).unwrap();
                }
            });
        }
    });
    assert_eq!(servers.each_ref().map(QuicServer::accepted), [2, 2, 2]);
}

fn a_hello_over_several_initials_is_read_whole() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let _one = server(&net, 7000, "one", &certificate);
    let _other = server(&net, 7001, "other", &certificate);
    let config = format!("listen_port = {PORT}\naccess_log_format = \"json\"\n")
        + &rule("both", "quic", at(7000), "server_names = [\"one.test\"]\nalpns = [\"h3\"]")
        + &rule("other", "quic", at(7001), "");
    let daemon = Daemon::start(&net.gateway, &config);
    let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    for length in [0, 600, 1500, 2800, 6000] {
        let fillers = filler(length);
        // The name of the only rule that fits comes last, in the last datagram.
        let alpns: Vec<_> = fillers.iter().map(String::as_str).chain(["h3"]).collect();
        let mark = daemon.process().mark();
        assert_eq!(client.connect(front(), "one.test", &alpns).ask().tag, "one", "{length} bytes of names");
        let line = daemon.wait_for(mark, "\"start\"");
        let event: Value = serde_json::from_str(&line[line.find('{').unwrap()..]).unwrap();
        assert_eq!((&event["proto"], &event["rule"]), (&Value::from("udp:quic"), &Value::from("both")));
        assert_eq!(event["server_name"], "one.test");
        assert_eq!(event["src"], client.address().to_string());
        assert_eq!(event["alpn_count"], alpns.len());
    }
}

fn unmatched_connections_are_dropped_or_go_to_the_default() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let default = server(&net, 7000, "default", &certificate);
    let _one = server(&net, 7001, "one", &certificate);
    let a_rule = rule("one", "quic", at(7001), &names("\"one.test\""));
    for (name, keys, rules, reached) in [
        ("a rule that does not fit", "", a_rule.as_str(), None),
        ("unmatched = default", "unmatched = \"default\"", &a_rule, Some("default")),
        ("no rule at all", "", "", Some("default")),
    ] {
        let config = format!("listen_port = {PORT}\n{keys}\nudp_target = [\"{}\"]\n{rules}", at(7000));
        let _daemon = Daemon::start(&net.gateway, &config);
        let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
        let before = default.accepted();
        if reached.is_none() {
            let refused = client.try_connect_within(Duration::from_secs(1), front(), "two.test", &["h3"]);
            assert!(refused.is_err() && default.accepted() == before, "{name}");
        } else {
            assert_eq!(Some(client.connect(front(), "two.test", &["h3"]).ask().tag.as_str()), reached, "{name}");
        }
        let expected = if rules.is_empty() { "default" } else { "one" };
        assert_eq!(client.connect(front(), "one.test", &["h3"]).ask().tag, expected, "{name}");
    }
}
