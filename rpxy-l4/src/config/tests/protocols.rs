//! Section 2 of the contract: the `[protocols.*]` tables.

use std::{sync::Arc, time::Duration};

use rpxy_l4_proto::wireguard::Reserved;

use super::{BASE, accepted, errors, refuses, warnings, warns};
use crate::config::model::{Balance, Matcher, NamePattern, Rule, SplicePolicy, TlsMatcher};

fn rule(protocol: &str, text: &str) -> Arc<Rule> {
    let text = format!("listen_port = 1\n[protocols.'r']\nprotocol = '{protocol}'\ntarget = ['a:1']\n{text}");
    let [rule] = accepted(&text).top.rules.try_into().unwrap();
    rule
}

fn exact(name: &str) -> NamePattern {
    NamePattern::Exact(name.into())
}

fn wildcard(suffix: &str) -> NamePattern {
    NamePattern::Wildcard(suffix.into())
}

const ANY: TlsMatcher = TlsMatcher { server_names: Vec::new(), alpns: Vec::new(), ech: None };

#[test]
fn protocols_and_their_defaults() {
    let seconds = Duration::from_secs;
    let rows = [
        ("http", Matcher::Http { server_names: Vec::new() }, None),
        ("tls", Matcher::Tls(ANY), None),
        ("ssh", Matcher::Ssh, None),
        ("socks5", Matcher::Socks5, None),
        ("wireguard", Matcher::WireGuard { public_key: None, reserved: Reserved::Zero }, Some(seconds(300))),
        ("quic", Matcher::Quic(ANY), Some(seconds(60))),
        ("TLS", Matcher::Tls(ANY), None),
    ];
    for (protocol, matcher, idle_lifetime) in rows {
        let rule = rule(protocol, "");
        assert_eq!(rule.matcher, matcher, "{protocol}");
        assert_eq!(rule.idle_lifetime, idle_lifetime, "{protocol}");
        assert_eq!(&*rule.name, "r");
        assert_eq!(rule.upstream.targets.len(), 1);
        assert_eq!(rule.upstream.balance, Balance::None);
    }
}

#[test]
fn required_keys() {
    refuses(&[
        ("no protocol", "[protocols.a]\ntarget = ['a:1']", "3: protocols.\"a\".protocol"),
        ("unknown protocol", "[protocols.a]\nprotocol = 'ftp'\ntarget = ['a:1']", "4: protocols.\"a\".protocol"),
        ("protocol is a number", "[protocols.a]\nprotocol = 1\ntarget = ['a:1']", "4: protocols.\"a\".protocol"),
        ("no target", "[protocols.a]\nprotocol = 'ssh'", "3: protocols.\"a\".target"),
        ("empty target", "[protocols.a]\nprotocol = 'ssh'\ntarget = []", "5: protocols.\"a\".target"),
        ("wrong target", "[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1', 'b']", "5: protocols.\"a\".target[1]"),
        ("rule is no table", "[protocols]\na = 1", "4: protocols.\"a\""),
        (
            "balance",
            "[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']\nload_balance = 'x'",
            "6: protocols.\"a\".load_balance",
        ),
        ("a name in need of quotes", "[protocols.\"a b\"]\nprotocol = 'ssh'", "3: protocols.\"a b\".target"),
    ]);
}

#[test]
fn all_mistakes_are_reported_at_once() {
    let text = "tcp_target = 1\nworkers = 0\n[protocols.a]\nprotocol = 'ftp'\ntarget = ['x']\nidle_lifetime = -1\n\
                server_names = ['']\n[protocols.b]\nech = 1\npublic_key = ''";
    assert_eq!(
        errors(text),
        [
            "1: listen_port",
            "1: tcp_target",
            "2: workers",
            "4: protocols.\"a\".protocol",
            "5: protocols.\"a\".target[0]",
            "6: protocols.\"a\".idle_lifetime",
            "7: protocols.\"a\".server_names[0]",
            "8: protocols.\"b\".protocol",
            "8: protocols.\"b\".target",
            "9: protocols.\"b\".ech",
            "10: protocols.\"b\".public_key",
        ]
    );
}

#[test]
fn file_order_is_kept() {
    let rules = "[protocols.z]\nprotocol = 'ssh'\ntarget = ['a:1']\n[protocols.a]\nprotocol = 'http'\ntarget = ['a:1']\n\
                 [protocols.m]\nprotocol = 'tls'\ntarget = ['a:1']";
    let names: Vec<String> =
        accepted(&format!("{BASE}{rules}")).top.rules.iter().map(|rule| rule.name.to_string()).collect();
    assert_eq!(names, ["z", "a", "m"]);
}

#[test]
fn load_balance_is_not_inherited() {
    let text = format!("{BASE}tcp_load_balance = 'random'\n[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']");
    let config = accepted(&text);
    assert_eq!(config.top.tcp.default.unwrap().balance, Balance::Random);
    assert_eq!(config.top.rules[0].upstream.balance, Balance::None);
}

#[test]
fn idle_lifetime() {
    let rows = [
        ("seconds", "quic", "idle_lifetime = 5", Some(Duration::from_secs(5))),
        ("with unit", "wireguard", "idle_lifetime = '5m'", Some(Duration::from_secs(300))),
        ("no limit", "quic", "idle_lifetime = 0", None),
        ("over TCP", "tls", "idle_lifetime = 5", None),
    ];
    for (name, protocol, text, expected) in rows {
        assert_eq!(rule(protocol, text).idle_lifetime, expected, "{name}");
    }
    let text = format!("{BASE}udp_idle_lifetime = 7\n[protocols.a]\nprotocol = 'quic'\ntarget = ['a:1']");
    assert_eq!(accepted(&text).top.rules[0].idle_lifetime, Some(Duration::from_secs(60)), "not inherited");
}

#[test]
fn server_names() {
    let rows = [
        ("one", "['example.com']", vec![exact("example.com")]),
        ("case", "['Example.COM']", vec![exact("example.com")]),
        ("trailing dot", "['example.com.']", vec![exact("example.com")]),
        ("wildcard", "['*.Example.com.']", vec![wildcard("example.com")]),
        ("order", "['b', '*.b', 'a']", vec![exact("b"), wildcard("b"), exact("a")]),
        ("twice", "['a', 'A.']", vec![exact("a")]),
        ("empty equals absent", "[]", vec![]),
    ];
    for (name, value, expected) in rows {
        let text = format!("server_names = {value}");
        let matcher = TlsMatcher { server_names: expected.clone(), ..ANY };
        assert_eq!(rule("tls", &text).matcher, Matcher::Tls(matcher.clone()), "{name}, tls");
        assert_eq!(rule("quic", &text).matcher, Matcher::Quic(matcher), "{name}, quic");
        assert_eq!(rule("http", &text).matcher, Matcher::Http { server_names: expected }, "{name}, http");
    }
    for protocol in ["ssh", "socks5", "wireguard"] {
        let text = format!("[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']\nserver_names = ");
        refuses(&[(protocol, &format!("{text}['a']"), "6: protocols.\"a\".server_names")]);
        warns(&[(protocol, &format!("{text}[]"), None)]);
    }
    let tls = "[protocols.a]\nprotocol = 'tls'\ntarget = ['a:1']\nserver_names = ";
    refuses(&[
        ("blank", &format!("{tls}['a', '']"), "6: protocols.\"a\".server_names[1]"),
        ("space only", &format!("{tls}[' ']"), "6: protocols.\"a\".server_names[0]"),
        ("string", &format!("{tls}'a'"), "6: protocols.\"a\".server_names"),
        ("number", &format!("{tls}[1]"), "6: protocols.\"a\".server_names[0]"),
    ]);
    warns(&[
        ("star alone", &format!("{tls}['*']"), Some("6: protocols.\"a\".server_names[0]")),
        ("star inside", &format!("{tls}['a.*.b']"), Some("6: protocols.\"a\".server_names[0]")),
        ("beyond ASCII", &format!("{tls}['bücher.example']"), Some("6: protocols.\"a\".server_names[0]")),
    ]);
    let unmatchable = Matcher::Tls(TlsMatcher { server_names: vec![exact("*")], ..ANY });
    assert_eq!(rule("tls", "server_names = ['*']").matcher, unmatchable, "a name that cannot match is no catch-all");
}

#[test]
fn server_names_that_are_none() {
    let told = |protocol: &str, name: &str| {
        let rule = format!("[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']\nserver_names = ['{name}']");
        let loaded = crate::config::parse(&format!("{BASE}{rule}")).unwrap();
        let (Matcher::Tls(TlsMatcher { server_names, .. }) | Matcher::Http { server_names }) =
            loaded.config.top.rules[0].matcher.clone()
        else {
            panic!("{protocol}");
        };
        (server_names, loaded.warnings.first().map(|warning| format!("{} / {:?}", warning.message, warning.remedy)))
    };
    let nameless = "is an address, for which clients send no server name / \
                    Some(\"leave server_names out to match connections without a name, too\")";
    for (row, protocol, name, kept, said) in [
        (
            "a star",
            "tls",
            "*",
            "*",
            Some(
                "\"*\" matches nothing: it is not a name / Some(\"leave server_names out to match any name, or none\")"
                    .to_owned(),
            ),
        ),
        ("an IPv6 address", "tls", "::1", "::1", Some(format!("\"::1\" {nameless}"))),
        ("in brackets", "tls", "[::1]", "::1", Some(format!("\"[::1]\" {nameless}"))),
        ("an IPv4 address", "tls", "192.0.2.1", "192.0.2.1", Some(format!("\"192.0.2.1\" {nameless}"))),
        ("the host of a request", "http", "[2001:DB8:0::1]", "2001:db8::1", None),
        ("without brackets", "http", "2001:DB8:0::1", "2001:db8::1", None),
        ("with a port", "http", "[::1]:443", "::1", None),
        ("an IPv4 host", "http", "192.0.2.1", "192.0.2.1", None),
        (
            "a name with a port",
            "tls",
            "a.example:443",
            "a.example:443",
            Some(
                "\"a.example:443\" can never match: only letters, digits, hyphens, underscores and dots are allowed / \
                 Some(\"leave the port out: server names have none\")"
                    .to_owned(),
            ),
        ),
    ] {
        assert_eq!(told(protocol, name), (vec![exact(kept)], said), "{row}");
    }
}

#[test]
fn alpns() {
    let expected = |names: &[&[u8]]| {
        let alpns = names.iter().map(|name| Arc::from(*name)).collect();
        TlsMatcher { alpns, ..ANY }
    };
    assert_eq!(rule("tls", "alpns = ['h2', 'http/1.1']").matcher, Matcher::Tls(expected(&[b"h2", b"http/1.1"])));
    assert_eq!(rule("quic", "alpn = ['h3', 'h3']").matcher, Matcher::Quic(expected(&[b"h3"])));
    assert_eq!(rule("tls", "alpns = ['H2']").matcher, Matcher::Tls(expected(&[b"H2"])), "case counts");
    assert_eq!(rule("tls", "alpns = []").matcher, Matcher::Tls(ANY), "empty equals absent");
    let rule = |protocol: &str, text: &str| format!("[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']\n{text}");
    refuses(&[
        ("both spellings", &rule("tls", "alpns = ['h2']\nalpn = ['h2']"), "7: protocols.\"a\".alpn"),
        ("string", &rule("tls", "alpn = 'h2'"), "6: protocols.\"a\".alpn"),
        ("number", &rule("tls", "alpns = [2]"), "6: protocols.\"a\".alpns[0]"),
    ]);
    warns(&[
        ("on ssh", &rule("ssh", "alpns = ['h2']"), Some("6: protocols.\"a\".alpns")),
        ("empty on ssh", &rule("ssh", "alpn = []"), None),
        ("blank", &rule("tls", "alpns = ['']"), Some("6: protocols.\"a\".alpns[0]")),
    ]);
}

#[test]
fn wireguard_public_key() {
    let key = "HIgo9xNzJMWLKASShiTqIybxZ0U3wGLiUeJ1PKf8ykw=";
    for (name, text) in [("padded", key), ("unpadded", key.trim_end_matches('='))] {
        let matcher = &rule("wireguard", &format!("public_key = '{text}'")).matcher;
        let Matcher::WireGuard { public_key: Some(public_key), .. } = matcher else { panic!("{name}: {matcher:?}") };
        assert_eq!(public_key[..3], [0x1c, 0x88, 0x28], "{name}");
    }
    let rule = |protocol: &str, key: &str| {
        format!("[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']\npublic_key = '{key}'")
    };
    refuses(&[
        ("not base64", &rule("wireguard", "?"), "6: protocols.\"a\".public_key"),
        ("29 bytes", &rule("wireguard", &key[4..]), "6: protocols.\"a\".public_key"),
        ("31 bytes", &rule("wireguard", &"A".repeat(42)), "6: protocols.\"a\".public_key"),
        ("33 bytes", &rule("wireguard", &"A".repeat(44)), "6: protocols.\"a\".public_key"),
        ("empty", &rule("wireguard", ""), "6: protocols.\"a\".public_key"),
    ]);
    warns(&[
        ("on wireguard", &rule("wireguard", key), None),
        ("on quic", &rule("quic", key), Some("6: protocols.\"a\".public_key")),
    ]);
}

#[test]
fn wireguard_reserved() {
    let rows = [
        ("absent", "", Reserved::Zero),
        ("zero", "reserved = 'zero'", Reserved::Zero),
        ("any", "reserved = 'any'", Reserved::Any),
        ("case", "reserved = 'ANY'", Reserved::Any),
    ];
    for (name, text, expected) in rows {
        let matcher = Matcher::WireGuard { public_key: None, reserved: expected };
        assert_eq!(rule("wireguard", text).matcher, matcher, "{name}");
    }
    let rule = |protocol: &str, value: &str| {
        format!("[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']\nreserved = {value}")
    };
    refuses(&[
        ("unknown word", &rule("wireguard", "'none'"), "6: protocols.\"a\".reserved"),
        ("number", &rule("wireguard", "0"), "6: protocols.\"a\".reserved"),
        ("bytes", &rule("wireguard", "[1, 2, 3]"), "6: protocols.\"a\".reserved"),
    ]);
    for protocol in ["http", "tls", "ssh", "socks5", "quic"] {
        refuses(&[(protocol, &rule(protocol, "'zero'"), "6: protocols.\"a\".reserved")]);
    }
    warns(&[("on wireguard", &rule("wireguard", "'any'"), None)]);
    assert_eq!(
        errors(&format!("{BASE}{}", rule("wire", "'any'"))),
        ["4: protocols.\"a\".protocol"],
        "a slip in the protocol is one mistake, not two"
    );
}

#[test]
fn splice() {
    let rows = [
        ("not said", "", "", SplicePolicy::Auto),
        ("inherited", "tcp_splice = 'off'", "", SplicePolicy::Off),
        ("overridden", "tcp_splice = 'off'", "splice = 'first'", SplicePolicy::First),
        ("here only", "", "splice = 'off'", SplicePolicy::Off),
    ];
    for (name, top, own, expected) in rows {
        let text = format!("{BASE}{top}\n[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']\n{own}");
        assert_eq!(accepted(&text).top.rules[0].upstream.splice, expected, "{name}");
    }
    let of_default = accepted(&format!("{BASE}tcp_splice = 'first'")).top.tcp.default.unwrap().splice;
    assert_eq!(of_default, SplicePolicy::First, "the default target");
    refuses(&[("a switch", "tcp_splice = true", "3: tcp_splice")]);
    let udp = "[protocols.a]\nprotocol = 'quic'\ntarget = ['a:1']\nsplice = 'off'";
    warns(&[("over UDP", udp, Some("6: protocols.\"a\".splice"))]);
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn send_proxy_protocol() {
    use crate::config::model::ProxyVersion::{V1, V2};
    let rows = [
        ("both absent", "", "", None),
        ("inherited", "tcp_send_proxy_protocol = 'v2'", "", Some(V2)),
        ("overridden", "tcp_send_proxy_protocol = 'v2'", "send_proxy_protocol = 'V1'", Some(V1)),
        ("switched off", "tcp_send_proxy_protocol = 'v2'", "send_proxy_protocol = 'none'", None),
        ("here only", "", "send_proxy_protocol = '2'", Some(V2)),
    ];
    for (name, global, own, expected) in rows {
        let text = format!("{BASE}{global}\n[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']\n{own}");
        assert_eq!(accepted(&text).top.rules[0].upstream.send_proxy, expected, "{name}");
    }
    let udp = format!("{BASE}tcp_send_proxy_protocol = 'v2'\n[protocols.a]\nprotocol = 'quic'\ntarget = ['a:1']\n");
    assert_eq!(accepted(&udp).top.rules[0].upstream.send_proxy, None, "not on UDP");
    let own = format!("{udp}send_proxy_protocol = 'v1'");
    assert_eq!(accepted(&own).top.rules[0].upstream.send_proxy, None, "not on UDP either");
    refuses(&[(
        "unknown version",
        "[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']\nsend_proxy_protocol = 'inherit'",
        "6: protocols.\"a\".send_proxy_protocol",
    )]);
    warns(&[(
        "has no effect",
        "[protocols.a]\nprotocol = 'quic'\ntarget = ['a:1']\nsend_proxy_protocol = 'v1'",
        Some("6: protocols.\"a\".send_proxy_protocol"),
    )]);
}

#[test]
fn keys_without_effect() {
    let rule = |protocol: &str, text: &str| format!("[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']\n{text}");
    for protocol in ["http", "tls", "ssh", "socks5"] {
        warns(&[(protocol, &rule(protocol, "idle_lifetime = 30"), Some("6: protocols.\"a\".idle_lifetime"))]);
    }
    for protocol in ["quic", "wireguard"] {
        warns(&[(protocol, &rule(protocol, "idle_lifetime = 30"), None)]);
    }
}

#[test]
fn unreachable_rules() {
    let key = |byte: char| format!("public_key = '{}'", byte.to_string().repeat(43));
    let (a, b) = (key('A'), key('E'));
    let rows: &[(&str, &str, &str, &str, bool)] = &[
        ("two of ssh", "ssh", "", "", true),
        ("two of socks5", "socks5", "", "", true),
        ("two catch-alls", "tls", "", "", true),
        ("the same name", "tls", "server_names = ['a', 'b']", "server_names = ['B']", true),
        ("one more name", "tls", "server_names = ['a']", "server_names = ['a', 'b']", false),
        ("exact under wildcard", "tls", "server_names = ['*.a']", "server_names = ['b.a']", false),
        ("a name under a catch-all", "tls", "", "server_names = ['a']", false),
        ("the same ALPN", "quic", "alpns = ['h3', 'x']", "alpn = ['x']", true),
        ("another ALPN", "quic", "alpns = ['h3']", "alpns = ['x']", false),
        (
            "same name, other ALPN",
            "tls",
            "server_names = ['a']\nalpns = ['x']",
            "server_names = ['a']\nalpns = ['y']",
            false,
        ),
        ("name and ALPN under name", "tls", "server_names = ['a']", "server_names = ['a']\nalpns = ['y']", false),
        ("the same host", "http", "server_names = ['a']", "server_names = ['a']", true),
        ("another host", "http", "server_names = ['a']", "server_names = ['b']", false),
        ("the same key", "wireguard", &a, &a, true),
        ("another key", "wireguard", &a, &b, false),
        ("no key after a key", "wireguard", &a, "", false),
        ("a key after no key", "wireguard", "", &a, false),
        ("no key twice", "wireguard", "", "", true),
        ("the same key, other reserved bytes", "wireguard", &a, &format!("{a}\nreserved = 'any'"), true),
        ("no key twice, other reserved bytes", "wireguard", "reserved = 'any'", "reserved = 'zero'", true),
    ];
    for (name, protocol, first, second, unreachable) in rows {
        let rule = |table: &str, text: &str| {
            format!("[protocols.{table}]\nprotocol = '{protocol}'\ntarget = ['a:1']\n{text}\n")
        };
        let text = format!("{}{}", rule("first", first), rule("second", second));
        let line = 7 + first.lines().count().max(1);
        let expected = format!("{}: protocols.\"second\"", line - 1);
        warns(&[(name, &text, unreachable.then_some(expected.as_str()))]);
    }
    let other = "[protocols.a]\nprotocol = 'tls'\ntarget = ['a:1']\n[protocols.b]\nprotocol = 'quic'\ntarget = ['a:1']";
    warns(&[("another protocol", other, None)]);
}

#[test]
fn affinity() {
    for (name, protocol, text, expected) in [
        ("by default", "quic", "", true),
        ("off", "wireguard", "affinity = false", false),
        ("on", "quic", "affinity = true", true),
    ] {
        assert_eq!(rule(protocol, text).affinity, expected, "{name}");
    }
    let text = "[protocols.a]\nprotocol = 'tls'\ntarget = ['a:1']\naffinity = false\n";
    assert_eq!(warnings(&format!("listen_port = 1\n{text}")).len(), 1, "over TCP");
    assert_eq!(errors(&format!("listen_port = 1\n{}", text.replace("false", "'no'"))).len(), 1, "no boolean");
}
