//! Targets and load balancing, at the top and in rules alike.

use super::{accepted, errors, parse, warnings};
use crate::config::model::{Balance, Host, Target, Upstream};

fn group(value: &str) -> String {
    format!("listen_port = 1\nudp_target = {value}")
}

fn upstream(value: &str) -> Upstream {
    accepted(&group(value)).top.udp.default.unwrap()
}

#[test]
fn addresses() {
    let rows = [
        ("IPv4", "192.0.2.1:80", "192.0.2.1:80"),
        ("IPv6", "[2001:db8::1]:80", "[2001:db8::1]:80"),
        ("name", "backend.example:80", "backend.example:80"),
        ("one label", "localhost:80", "localhost:80"),
        ("upper case", "Backend.EXAMPLE:80", "backend.example:80"),
        ("trailing dot", "backend.example.:80", "backend.example.:80"),
        ("underscore", "_my.svc_1:80", "_my.svc_1:80"),
        ("highest port", "a:65535", "a:65535"),
        ("plus sign, as 0.2.x", "a:+80", "a:80"),
        ("leading zero", "a:080", "a:80"),
        ("service", "srv:_dns._udp.Example.com", "srv:_dns._udp.example.com"),
        ("service, complete", "srv:_dns._udp.example.com.", "srv:_dns._udp.example.com."),
        ("service of Consul", "srv:web.service.consul", "srv:web.service.consul"),
    ];
    for (name, text, expected) in rows {
        let upstream = upstream(&format!("[\"{text}\"]"));
        assert_eq!(upstream.targets[0].to_string(), expected, "{name}");
        assert_eq!(warnings(&group(&format!("[\"{text}\"]"))), [""; 0], "{name}");
    }
    assert!(matches!(upstream("['192.0.2.1:1']").targets[0].host, Host::Ip { .. }));
    assert!(matches!(upstream("['localhost:1']").targets[0].host, Host::Name(_)));
}

#[test]
fn order_is_kept() {
    let targets: Vec<String> = upstream("['b:1', 'a:1', 'c:1']").targets.iter().map(ToString::to_string).collect();
    assert_eq!(targets, ["b:1", "a:1", "c:1"]);
}

#[test]
fn a_zone_is_kept() {
    let target = &upstream("['[fe80::1%eth0]:80']").targets[0];
    assert!(matches!(&target.host, Host::LinkLocal { zone, .. } if &**zone == "eth0"));
    assert_eq!((target.literal(), target.to_string().as_str()), (None, "[fe80::1%eth0]:80"));
    let target = &upstream("['[fe80::1%3]:80']").targets[0];
    assert_eq!(target.literal().map(|address| address.to_string()).as_deref(), Some("[fe80::1%3]:80"));
    assert_eq!(target.to_string(), "[fe80::1%3]:80");
}

#[test]
fn accepted_with_a_warning() {
    let rows = [
        ("port 0", "['a:1', 'b:0']", "2: udp_target[1]"),
        ("no IPv4 address", "['300.1.1.1:80']", "2: udp_target[0]"),
        ("service over TCP", "['srv:_dns._tcp.example.com']", "2: udp_target"),
        ("weights for nothing", "[{ address = 'a:1', weight = 2 }]", "2: udp_target"),
    ];
    for (name, value, expected) in rows {
        assert_eq!(warnings(&group(value)), [expected], "{name}");
    }
}

#[test]
fn refused() {
    let rows = [
        ("empty", "[]", "2: udp_target"),
        ("a bare string without a port", "'a'", "2: udp_target"),
        ("neither string, table nor array", "5", "2: udp_target"),
        ("a table alone without address", "{ weight = 2 }", "2: udp_target.address"),
        ("number", "[1]", "2: udp_target[0]"),
        ("no port", "['a']", "2: udp_target[0]"),
        ("unix socket, of UDP", "['unix:/run/a']", "2: udp_target"),
        ("path", "['/run/a']", "2: udp_target[0]"),
        ("service with a port", "['srv:_dns._udp.example.com:53']", "2: udp_target[0]"),
        ("service without a name", "['srv:']", "2: udp_target[0]"),
        ("service with an empty label", "['srv:_dns.._udp.a']", "2: udp_target[0]"),
        ("no host", "[':80']", "2: udp_target[0]"),
        ("port too large", "['a:65536']", "2: udp_target[0]"),
        ("port is a name", "['a:http']", "2: udp_target[0]"),
        ("URL", "['http://a:80']", "2: udp_target[0]"),
        ("space", "['a b:80']", "2: udp_target[0]"),
        ("empty label", "['a..b:80']", "2: udp_target[0]"),
        ("beyond ASCII", "['bücher.example:80']", "2: udp_target[0]"),
        ("IPv6 without brackets", "['::1:80']", "2: udp_target[0]"),
        ("IPv6 without port", "['::1']", "2: udp_target[0]"),
        ("brackets around a name", "['[a]:80']", "2: udp_target[0]"),
        ("link-local without a zone", "['[fe80::1]:80']", "2: udp_target[0]"),
        ("zone of a global address", "['[2001:db8::1%eth0]:80']", "2: udp_target[0]"),
        ("empty zone", "['[fe80::1%]:80']", "2: udp_target[0]"),
        ("no interface name", "['[fe80::1%a/b]:80']", "2: udp_target[0]"),
        ("zone without a port", "['[fe80::1%eth0]']", "2: udp_target[0]"),
        ("zone with a wrong port", "['[fe80::1%eth0]:x']", "2: udp_target[0]"),
        ("second element", "['a:1', 'b']", "2: udp_target[1]"),
        ("element on its own line", "['a:1',\n 'b',\n]", "3: udp_target[1]"),
        ("table without address", "[{ weight = 2 }]", "2: udp_target[0].address"),
        ("table with a wrong address", "[{ address = 'a' }]", "2: udp_target[0].address"),
        ("weight 0", "[{ address = 'a:1', weight = 0 }]", "2: udp_target[0].weight"),
        ("weight 257", "[{ address = 'a:1', weight = 257 }]", "2: udp_target[0].weight"),
        ("backup is no boolean", "[{ address = 'a:1', backup = 1 }]", "2: udp_target[0].backup"),
        ("down is no boolean", "[{ address = 'a:1', down = 1 }]", "2: udp_target[0].down"),
    ];
    for (name, value, expected) in rows {
        assert_eq!(errors(&group(value)), [expected], "{name}");
    }
}

#[test]
fn marks() {
    let marks = |value| {
        let targets = upstream(value).targets;
        targets.iter().map(|target| (target.backup, target.down)).collect::<Vec<_>>()
    };
    assert_eq!(marks("[{ address = 'a:1', backup = true }]"), [(true, false)], "backups alone");
    assert_eq!(marks("['a:1', { address = 'b:1', down = true }]"), [(false, false), (false, true)]);
    assert_eq!(warnings(&group("[{ address = 'a:1', down = true }]")), ["2: udp_target"]);
}

#[test]
fn addresses_of_no_backend() {
    for address in ["0.0.0.0", "255.255.255.255", "224.0.0.1", "[::]", "[ff02::1]", "[::ffff:0.0.0.0]"] {
        assert_eq!(errors(&group(&format!("['{address}:80']"))), ["2: udp_target[0]"], "{address}");
    }
}

#[test]
fn targets_that_are_a_listener() {
    for (row, keys, target, refused) in [
        ("loopback", "", "127.0.0.1:443", true),
        ("any address of loopback", "", "127.1.2.3:443", true),
        ("another port", "", "127.0.0.1:444", false),
        ("only the machine knows", "", "192.0.2.1:443", false),
        ("a family that is not listened on", "", "[::1]:443", false),
        ("both families", "listen_ipv6 = true", "[::1]:443", true),
        ("the listening address", "listen_address_v4 = '192.0.2.1'", "192.0.2.1:443", true),
        ("beside the listening address", "listen_address_v4 = '192.0.2.1'", "127.0.0.1:443", false),
    ] {
        let text = format!("listen_port = 443\ntcp_target = ['a:1', '{target}']\n{keys}\n");
        let expected = if refused { vec!["2: tcp_target"] } else { vec![] };
        assert_eq!(parse(&text).map_or_else(|_| errors(&text), |_| Vec::new()), expected, "{row}");
    }
    let rule = "listen_port = 443\n[protocols.\"web\"]\nprotocol = 'http'\ntarget = ['127.0.0.1:443']\n";
    assert_eq!(errors(rule).len(), 1);
}

#[test]
fn every_wrong_element_is_reported() {
    assert_eq!(errors(&group("['a', 'b:1', 2]")), ["2: udp_target[0]", "2: udp_target[2]"]);
}

#[test]
fn tables() {
    let upstream = upstream(
        "['a:1', { address = 'b:1', weight = 256 }, { address = 'c:1', backup = true }]\nudp_load_balance = 'random'",
    );
    let summary = |target: &Target| (target.to_string(), target.weight.get(), target.backup);
    let expected = [("a:1".to_owned(), 1, false), ("b:1".to_owned(), 256, false), ("c:1".to_owned(), 1, true)];
    assert_eq!(upstream.targets.iter().map(summary).collect::<Vec<_>>(), expected);
}

#[test]
fn balances() {
    let rows = [
        ("none", Balance::None),
        ("source_ip", Balance::SourceIp),
        ("source_socket", Balance::SourceSocket),
        ("random", Balance::Random),
        ("round_robin", Balance::RoundRobin),
        ("least_conn", Balance::LeastConn),
        ("Source_IP", Balance::SourceIp),
    ];
    for (word, expected) in rows {
        assert_eq!(upstream(&format!("['a:1']\nudp_load_balance = '{word}'")).balance, expected, "{word}");
    }
    assert_eq!(errors(&group("['a:1']\nudp_load_balance = 'roundrobin'")), ["3: udp_load_balance"]);
}

#[test]
fn server_ids() {
    let rule = |name: &str, protocol: &str, port: u16, id: &str| {
        format!(
            "[protocols.{name}]\nprotocol = '{protocol}'\ntarget = [{{ address = 'a:{port}', quic_server_id = '{id}' }}]\n"
        )
    };
    let file = |rules: &[String]| format!("listen_port = 1\n{}", rules.concat());
    let config = accepted(&file(&[rule("a", "quic", 1, "00AAbb11")]));
    let (at, id) = &config.top.rules[0].upstream.server_ids[0];
    assert_eq!((*at, id.as_bytes()), (0, &[0, 0xaa, 0xbb, 0x11][..]));
    for (row, rules, refused, warned) in [
        ("15 bytes", vec![rule("a", "quic", 1, &"ab".repeat(15))], 0, 0),
        ("16 bytes", vec![rule("a", "quic", 1, &"ab".repeat(16))], 1, 0),
        ("none", vec![rule("a", "quic", 1, "")], 1, 0),
        ("half a byte", vec![rule("a", "quic", 1, "00112")], 1, 0),
        ("no digits", vec![rule("a", "quic", 1, "0011223x")], 1, 0),
        ("a sign", vec![rule("a", "quic", 1, "+1+2+3+4")], 1, 0),
        ("4 bytes", vec![rule("a", "quic", 1, "00112233")], 0, 0),
        ("3 bytes", vec![rule("a", "quic", 1, "001122")], 0, 1),
        ("not for QUIC", vec![rule("a", "wireguard", 1, "00112233")], 0, 1),
        ("twice", vec![rule("a", "quic", 1, "00112233"), rule("b", "tls", 2, "00112233")], 0, 1),
    ] {
        let text = file(&rules);
        if refused > 0 {
            assert_eq!(errors(&text).len(), refused, "{row}");
        } else {
            accepted(&text);
            assert_eq!(warnings(&text).len(), warned, "{row}");
        }
    }
    let named =
        |name: &str, port, id: &str| format!("{}server_names = ['{name}.test']\n", rule(name, "quic", port, id));
    for (row, second, refused) in [
        ("another one", named("b", 2, "44556677"), 0),
        ("the same of another target", named("b", 2, "00112233"), 1),
        ("one that begins another", named("b", 2, "0011223344"), 1),
        ("the same of the same target", named("b", 1, "00112233"), 0),
    ] {
        let text = file(&[named("a", 1, "00112233"), second]);
        if refused > 0 {
            assert_eq!(errors(&text).len(), refused, "{row}");
        } else {
            accepted(&text);
        }
    }
}

#[test]
fn all_groups_of_targets_are_told_with_transport_and_rule() {
    let config = accepted(
        "listen_port = 443\ntcp_target = ['a:1']\nudp_target = ['b:2']\n\
         [protocols.web]\nprotocol = 'tls'\ntarget = ['c:3', 'd:4']\n\
         [protocols.wg]\nprotocol = 'wireguard'\ntarget = ['e:5']\n\
         [protocols.h3]\nprotocol = 'quic'\ntarget = ['f:6']\n\
         [protocols.ssh]\nprotocol = 'ssh'\ntarget = 'g:7'\nlisteners = ['default', 'other']\n\
         [listeners.other]\nlisten_port = 9\ntcp_target = 'h:8'\n",
    );
    let told: Vec<String> = config
        .upstreams()
        .map(|(transport, rule, upstream)| {
            let targets: Vec<String> = upstream.targets.iter().map(ToString::to_string).collect();
            format!("{} {} {}", transport.name(), rule.map_or("-", |rule| rule), targets.join(","))
        })
        .collect();
    assert_eq!(
        told,
        ["tcp web c:3,d:4", "udp wg e:5", "udp h3 f:6", "tcp ssh g:7", "tcp - a:1", "udp - b:2", "tcp - h:8"]
    );
}
