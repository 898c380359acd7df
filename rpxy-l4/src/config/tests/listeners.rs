//! Listeners: what a table inherits, what it has of its own, and which rules belong to it.

use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{BASE, accepted, errors, refuses, warnings, warns};
use crate::config::model::{AccessLists, Config, Listener, TOP, Transport, Unmatched};

/// Ends with a listener of its own port, to which rows add.
const WG: &str = "[listeners.wg]\nlisten_port = 51820\n";

fn named(text: &str) -> Listener {
    let [listener] = <[Listener; 1]>::try_from(accepted(text).named).expect("one listener");
    listener
}

fn ports(listener: &Listener) -> Vec<u16> {
    listener.listen.ports.iter().map(|port| port.get()).collect()
}

fn sockets(listener: &Listener) -> Vec<String> {
    listener.sockets().map(|(transport, address, port)| format!("{transport} {address}:{port}")).collect()
}

#[test]
fn a_listener_inherits_what_it_does_not_say_but_for_targets() {
    let top = "listen_address_v4 = '192.0.2.1'\nlisten_ipv6 = true\nunmatched = 'default'\ntcp_idle_timeout = '7s'\n\
               udp_idle_lifetime = 9\ndeny = '198.51.100.0/24'\ntcp_load_balance = 'random'\nreuse_port = true\n";
    let wg = named(&format!("{BASE}{top}{WG}"));
    assert_eq!((&*wg.name, ports(&wg)), ("wg", vec![51820]));
    assert_eq!(wg.listen.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["192.0.2.1", "[::]"]);
    assert!(wg.listen.reuse_port);
    assert_eq!(wg.unmatched, Unmatched::Default);
    assert_eq!(wg.tcp.idle_timeout, Some(Duration::from_secs(7)));
    assert_eq!(wg.udp.idle_lifetime, Some(Duration::from_secs(9)));
    assert_eq!(wg.access.deny, ["198.51.100.0/24".parse().unwrap()]);
    assert_eq!((&wg.tcp.default, &wg.udp.default), (&None, &None));

    let own = "listen_address_v4 = []\nlisten_address_v6 = '::1'\nunmatched = 'drop'\ntcp_idle_timeout = 0\ndeny = []\n\
               allow = ['10.0.0.0/8', '2001:db8::7']\ntcp_target = '192.0.2.9:1'\nreuse_port = false\n";
    let wg = named(&format!("{BASE}{top}{WG}{own}"));
    assert_eq!(wg.listen.addresses.iter().map(ToString::to_string).collect::<Vec<_>>(), ["[::1]"]);
    assert!(!wg.listen.reuse_port);
    assert_eq!((wg.unmatched, wg.tcp.idle_timeout), (Unmatched::Drop, None));
    let allow = vec!["10.0.0.0/8".parse().unwrap(), "2001:db8::7/128".parse().unwrap()];
    assert_eq!(wg.access, AccessLists { allow: Some(allow), deny: Vec::new() });
    assert_eq!(wg.tcp.default.unwrap().balance, crate::config::model::Balance::Random, "inherited");
}

#[test]
fn limits_are_shared_unless_a_listener_says_its_own() {
    let top = "tcp_max_connections = 100\nudp_max_connections = 200\ntcp_new_connections_per_source = 3\n\
               udp_new_sessions_per_source = 4\n";
    let shares = named(&format!("{BASE}{top}{WG}"));
    assert_eq!((shares.tcp.max_connections.get(), &shares.tcp.max_connections_of), (100, &None));
    assert_eq!((&shares.tcp.max_connections_per_source_of, &shares.tcp.new_connections_of), (&None, &None));
    assert_eq!((&shares.udp.max_connections_of, &shares.udp.new_sessions_of), (&None, &None));

    let own = format!(
        "{BASE}{top}{WG}tcp_max_connections = 10\nudp_max_connections = 20\ntcp_new_connections_burst = 5\n\
         source_prefix_v4 = 24\n"
    );
    let config = accepted(&own);
    assert_eq!((config.tcp_connections(), config.udp_sessions()), (110, 220), "each counts for itself");
    let wg = &config.named[0];
    let of = Some("wg".into());
    assert_eq!((wg.tcp.max_connections.get(), &wg.tcp.max_connections_of), (10, &of));
    assert_eq!((wg.tcp.max_connections_per_source, &wg.tcp.max_connections_per_source_of), (None, &of));
    assert_eq!((&wg.tcp.new_connections_of, &wg.udp.max_connections_of, &wg.udp.new_sessions_of), (&of, &of, &of));
    let rate = wg.tcp.new_connections.unwrap();
    assert_eq!((rate.rate.get(), rate.burst.get(), rate.prefix.v4), (3, 5, 24));
}

#[test]
fn rules_belong_to_the_listeners_that_they_name_or_to_the_top() {
    let rule = |name: &str, listeners: &str| {
        format!("[protocols.{name}]\nprotocol = 'tls'\nserver_names = ['{name}']\ntarget = 'a:1'\n{listeners}\n")
    };
    let text = [
        BASE.to_owned(),
        "[listeners.a]\nlisten_port = 1\n[listeners.b]\nlisten_port = 2\n".to_owned(),
        rule("plain", ""),
        rule("a", "listeners = 'a'"),
        rule("both", "listeners = ['b', 'a', 'b']"),
        rule("all", "listeners = ['default', 'a', 'b']"),
    ]
    .concat();
    let config = accepted(&text);
    let names: Vec<(String, Vec<String>)> = config
        .listeners()
        .map(|of| (of.name.to_string(), of.rules.iter().map(|rule| rule.name.to_string()).collect()))
        .collect();
    let expected = [("default", vec!["plain", "all"]), ("a", vec!["a", "both", "all"]), ("b", vec!["both", "all"])];
    let expected = expected.map(|(name, rules)| (name.to_owned(), rules.into_iter().map(str::to_owned).collect()));
    assert_eq!(names, expected);
    assert_eq!(config.rules, 4);
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn a_rule_has_the_defaults_of_each_of_its_listeners() {
    use crate::config::model::ProxyVersion::{V1, V2};
    let text = format!(
        "{BASE}tcp_send_proxy_protocol = 'v1'\n[listeners.a]\nlisten_port = 1\ntcp_send_proxy_protocol = 'v2'\n\
         tcp_recv_proxy_protocol = true\ntcp_trusted_proxies = ['10.0.0.0/8']\n\
         [listeners.b]\nlisten_port = 2\ntcp_send_proxy_protocol = 'none'\n\
         [protocols.r]\nprotocol = 'ssh'\ntarget = 'x:1'\nlisteners = ['default', 'a', 'b']\n"
    );
    let config = accepted(&text);
    let sent: Vec<_> = config.listeners().map(|listener| listener.rules[0].upstream.send_proxy).collect();
    assert_eq!(sent, [Some(V1), Some(V2), None]);
    let receives: Vec<_> = config.listeners().map(|listener| listener.tcp.receive_proxy.is_some()).collect();
    assert_eq!(receives, [false, true, false]);
}

#[test]
fn sockets_are_those_of_the_transports_that_have_a_destination() {
    let quic = "[protocols.q]\nprotocol = 'quic'\ntarget = 'a:1'\nlisteners = 'wg'\n";
    let ssh = "[protocols.s]\nprotocol = 'ssh'\ntarget = 'a:1'\nlisteners = 'wg'\n";
    for (row, more, expected) in [
        ("a UDP rule", quic.to_owned(), &["UDP 0.0.0.0:51820"] as &[&str]),
        ("a TCP rule", ssh.to_owned(), &["TCP 0.0.0.0:51820"]),
        ("both", format!("{quic}{ssh}"), &["TCP 0.0.0.0:51820", "UDP 0.0.0.0:51820"]),
        ("a default target", "udp_target = 'a:1'\n".to_owned(), &["UDP 0.0.0.0:51820"]),
        (
            "two ports",
            "listen_port = [1, '2-3']\nudp_target = 'a:1'\n".to_owned(),
            &["UDP 0.0.0.0:1", "UDP 0.0.0.0:2", "UDP 0.0.0.0:3"],
        ),
    ] {
        let text = format!("{BASE}{WG}{more}").replace("listen_port = 51820\nlisten_port =", "listen_port =");
        assert_eq!(sockets(&named(&text)), expected, "{row}");
    }
    let only = accepted("listen_port = 1\ntransport = 'tcp'\ntcp_target = 'a:1'");
    assert_eq!(only.top.listen.transport, Some(Transport::Tcp));
    assert_eq!(sockets(&only.top), ["TCP 0.0.0.0:1"]);
    assert_eq!(
        named(&format!("{BASE}transport = 'tcp'\n{WG}udp_target = 'a:1'")).listen.transport,
        None,
        "not inherited"
    );
}

#[test]
fn the_top_needs_no_port_beside_other_listeners() {
    let config = accepted("[listeners.a]\nlisten_port = 1\ntcp_target = 'a:1'\n");
    assert!(config.top.sockets().next().is_none());
    assert_eq!(sockets(&config.named[0]), ["TCP 0.0.0.0:1"]);
    for (row, text, expected) in [
        ("a default target", "tcp_target = 'a:1'\n[listeners.a]\nlisten_port = 1\nudp_target = 'a:1'", "1: tcp_target"),
        (
            "a rule",
            "[listeners.a]\nlisten_port = 1\nudp_target = 'a:1'\n[protocols.r]\nprotocol = 'ssh'\ntarget = 'a:1'",
            "4: protocols.\"r\"",
        ),
        ("no port anywhere", "[listeners.a]\nudp_target = 'a:1'", "1: listeners.\"a\".listen_port"),
        ("no listener at all", "tcp_target = 'a:1'\n[listeners]", "1: listen_port"),
    ] {
        assert_eq!(errors(text), [expected], "{row}");
    }
}

#[test]
fn refused() {
    let rule = "[protocols.r]\nprotocol = 'ssh'\ntarget = 'a:1'\n";
    let quic = "[protocols.r]\nprotocol = 'quic'\ntarget = 'a:1'\n";
    refuses(&[
        ("the name of the top", "[listeners.default]\nlisten_port = 1", "3: listeners.\"default\""),
        ("an empty name", "[listeners.'']\nlisten_port = 1", "3: listeners.\"\""),
        (
            "too long a name",
            &format!("[listeners.{}]\nlisten_port = 1", "a".repeat(65)),
            &format!("3: listeners.\"{}\"", "a".repeat(65)),
        ),
        ("no table", "listeners = 1", "3: listeners"),
        ("not a table", "[listeners]\na = 1", "4: listeners.\"a\""),
        ("an unknown transport", "transport = 'sctp'", "3: transport"),
        ("an unknown listener", &format!("{WG}{rule}listeners = ['gw']"), "8: protocols.\"r\".listeners[0]"),
        ("no listener", &format!("{rule}listeners = []"), "6: protocols.\"r\".listeners"),
        (
            "a rule over the other transport",
            &format!("{WG}transport = 'tcp'\n{quic}listeners = 'wg'"),
            "6: protocols.\"r\"",
        ),
        (
            "a target over the other transport",
            &format!("{WG}transport = 'udp'\ntcp_target = 'a:1'"),
            "6: listeners.\"wg\".tcp_target",
        ),
        ("nobody may come", "allow = []", "3: allow"),
        ("not a network", "deny = ['10.0.0.0/33']", "3: deny[0]"),
        ("a rule for nobody", &format!("{rule}from = []"), "6: protocols.\"r\".from"),
        ("a rule for no network", &format!("{rule}from = 'home'"), "6: protocols.\"r\".from"),
        ("the same socket", "[listeners.a]\nlisten_port = [1, 8448]\ntcp_target = 'a:1'", "3: listeners.\"a\""),
        ("the inherited port", "[listeners.a]\ntcp_target = 'a:1'", "3: listeners.\"a\""),
        (
            "a target that is another listener",
            "[listeners.a]\nlisten_port = 1\ntcp_target = '127.0.0.1:8448'",
            "5: listeners.\"a\".tcp_target",
        ),
        (
            "a rule that leads to one",
            &format!("{WG}tcp_target = 'a:1'\n[protocols.r]\nprotocol = 'ssh'\ntarget = '127.0.0.1:51820'"),
            "6: protocols.\"r\"",
        ),
    ]);
}

#[test]
fn not_refused() {
    let other_address =
        "listen_address_v4 = '192.0.2.1'\n[listeners.a]\nlisten_address_v4 = '192.0.2.2'\ntcp_target = 'a:1'";
    let more_specific = "[listeners.a]\nlisten_address_v4 = '192.0.2.2'\ntcp_target = 'a:1'";
    warns(&[
        ("the same port on another address", other_address, None),
        ("the same port on one address of all", more_specific, None),
        ("the same port over UDP", "[listeners.a]\nudp_target = 'a:1'", None),
        ("a UDP target where only TCP is listened on", &format!("{WG}udp_target = '127.0.0.1:8448'"), None),
        ("nothing to forward", WG, Some("3: listeners.\"wg\"")),
        ("a name of 64 bytes", &format!("[listeners.{}]\nlisten_port = 1\nudp_target = 'a:1'", "a".repeat(64)), None),
        ("what only heirs use", &format!("orphan = 'drop'\nudp_new_sessions_burst = 5\n{WG}udp_target = 'a:1'"), None),
    ]);
    let unused = format!("{BASE}{WG}udp_target = 'a:1'\norphan = 'drop'\n");
    assert_eq!(warnings(&unused), ["6: listeners.\"wg\".orphan"], "of the listener itself");
    let unknown = format!("{BASE}{WG}udp_target = 'a:1'\nworkers = 1\n");
    assert_eq!(warnings(&unknown), ["6: listeners.\"wg\".workers"], "a key of the process");
}

#[test]
fn unix_sockets() {
    let local =
        |keys: &str| format!("{BASE}[listeners.local]\nlisten_unix = '/run/in.sock'\ntcp_target = 'a:1'\n{keys}");
    let unix = |keys: &str| named(&local(keys)).listen.unix.unwrap();
    assert_eq!((&*unix("").path, unix("").mode, unix("").group), (Path::new("/run/in.sock"), 0o600, None));
    let open = unix("listen_unix_mode = '666'\nlisten_unix_group = 'root'");
    assert_eq!((open.mode, open.group), (0o666, Some(0)));
    let alone = named(&local(""));
    assert_eq!((ports(&alone), alone.listen.transport), (Vec::new(), Some(Transport::Tcp)), "no port of the top");
    assert_eq!(sockets(&named(&local("listen_port = 1"))), ["TCP 0.0.0.0:1"], "beside the socket");
    let at_the_top = accepted("listen_unix = '/run/in.sock'\ntcp_target = 'unix:/run/app.sock'");
    assert_eq!(at_the_top.top.tcp.default.unwrap().targets[0].to_string(), "unix:/run/app.sock");
    let quic = "[protocols.q]\nprotocol = 'quic'\ntarget = 'a:1'\nlisteners = 'local'\n";
    let longest = format!("/{}", "a".repeat(106));
    assert_eq!(unix_path(&longest), Some(longest.clone()));
    for (row, text, expected) in [
        ("relative", local("").replace("/run", "run"), "4: listeners.\"local\".listen_unix"),
        ("a directory", local("").replace("in.sock", ""), "4: listeners.\"local\".listen_unix"),
        ("too long", local("").replace("/run/in.sock", &format!("{longest}a")), "4: listeners.\"local\".listen_unix"),
        ("mode in words", local("listen_unix_mode = 'rw'"), "6: listeners.\"local\".listen_unix_mode"),
        ("mode beyond", local("listen_unix_mode = '1777'"), "6: listeners.\"local\".listen_unix_mode"),
        ("mode in decimal", local("listen_unix_mode = '8'"), "6: listeners.\"local\".listen_unix_mode"),
        ("no such group", local("listen_unix_group = '?'"), "6: listeners.\"local\".listen_unix_group"),
        ("datagrams", local("udp_target = 'a:1'"), "6: listeners.\"local\".udp_target"),
        ("rules for datagrams", local(quic), "6: protocols.\"q\""),
        (
            "the same path",
            local("[listeners.b]\nlisten_unix = '/run/in.sock'\ntcp_target = 'a:1'"),
            "6: listeners.\"b\"",
        ),
        ("itself", local("").replace("a:1", "unix:/run/in.sock"), "5: listeners.\"local\".tcp_target"),
        ("a relative target", local("").replace("a:1", "unix:app.sock"), "5: listeners.\"local\".tcp_target"),
        ("a target for datagrams", format!("{BASE}udp_target = 'unix:/run/app.sock'"), "3: udp_target"),
    ] {
        assert_eq!(errors(&text), [expected], "{row}");
    }
    warns(&[("mode without a socket", "listen_unix_mode = '0660'", Some("3: listen_unix_mode"))]);
    #[cfg(feature = "proxy-protocol")]
    assert!(named(&local("tcp_recv_proxy_protocol = true")).tcp.receive_proxy.unwrap().trusted.is_empty());
    #[cfg(feature = "proxy-protocol")]
    assert_eq!(
        errors(&local("listen_port = 1\ntcp_recv_proxy_protocol = true")),
        ["7: listeners.\"local\".tcp_recv_proxy_protocol"],
        "by IP, anybody could come"
    );
}

fn unix_path(path: &str) -> Option<String> {
    let text = format!("listen_unix = '{path}'\ntcp_target = 'a:1'");
    accepted(&text).top.listen.unix.map(|unix| unix.path.display().to_string())
}

#[test]
fn a_mistake_that_is_inherited_is_told_once() {
    let text = format!(
        "{BASE}tcp_idle_timeout = 'x'\nallow = 'y'\n{WG}udp_target = 'a:1'\n[listeners.b]\nlisten_port = 2\nudp_target = 'a:1'"
    );
    assert_eq!(errors(&text), ["3: tcp_idle_timeout", "4: allow"]);
    let rule = "[protocols.r]\nprotocol = 'tls'\ntarget = 'a'\ntypo = 1\nlisteners = ['wg', 'b']\n";
    let text = format!("{BASE}{WG}[listeners.b]\nlisten_port = 2\n{rule}");
    assert_eq!(errors(&text), ["9: protocols.\"r\".target"]);
}

#[test]
fn rules_that_differ_in_their_networks_alone_are_both_used() {
    let rule = |name: &str, from: &str| format!("[protocols.{name}]\nprotocol = 'ssh'\ntarget = 'a:1'\n{from}\n");
    let (lan, any) = (rule("lan", "from = '10.0.0.0/8'"), rule("any", ""));
    assert_eq!(warnings(&format!("{BASE}{any}{lan}")), [""; 0]);
    assert_eq!(warnings(&format!("{BASE}{lan}{}", rule("again", "from = '10.0.0.0/8'"))), ["7: protocols.\"again\""]);
    assert_eq!(warnings(&format!("{BASE}{lan}{}", rule("wider", "from = ['10.0.0.0/8', '::1']"))), [""; 0]);
    let config = accepted(&format!("{BASE}{}", rule("host", "from = ['::ffff:10.0.0.1', '10.0.0.1/8', '10.0.0.0/8']")));
    let from: Vec<String> = config.top.rules[0].from.iter().map(ToString::to_string).collect();
    assert_eq!(from, ["10.0.0.1/32", "10.0.0.0/8"]);
}

#[test]
fn ten_thousand_rules_on_a_hundred_listeners_are_checked_in_one_pass() {
    let mut text = BASE.to_owned();
    for listener in 0..100 {
        text += &format!("[listeners.l{listener}]\nlisten_port = {}\n", 10_000 + listener);
    }
    for rule in 0..10_000 {
        text += &format!(
            "[protocols.r{rule}]\nprotocol = 'tls'\nserver_names = ['s{rule}.example']\ntarget = '192.0.2.1:1'\n\
             listeners = 'l{}'\n",
            rule % 100
        );
    }
    let config = accepted(&text);
    assert_eq!(config.rules, 10_000);
    assert!(config.named.iter().all(|listener| listener.rules.len() == 100));
}

/// Lines of a file of before there were listeners: each key with values that it may have.
const OLD: &[(&str, &[&str])] = &[
    ("listen_address_v4", &["'0.0.0.0'", "['192.0.2.1', '127.0.0.1']"]),
    ("listen_ipv6", &["true", "false"]),
    ("listen_address_v6", &["'::1'", "['::']"]),
    ("reuse_port", &["true", "false"]),
    ("unmatched", &["'drop'", "'default'"]),
    ("tls_refused", &["'close'", "'alert'"]),
    ("tcp_backlog", &["0", "77"]),
    ("tcp_max_connections", &["1", "64", "100000"]),
    ("tcp_max_connections_per_source", &["0", "5"]),
    ("tcp_new_connections_per_source", &["0", "9"]),
    ("tcp_new_connections_burst", &["3"]),
    ("tcp_target", &["['a:1']", "['192.0.2.1:2', { address = 'b:3', weight = 2 }]"]),
    ("tcp_load_balance", &["'none'", "'least_conn'"]),
    ("tcp_probe_timeout", &["'100ms'", "7"]),
    ("tcp_idle_timeout", &["0", "'2h'"]),
    ("udp_max_connections", &["1", "4096"]),
    ("udp_target", &["['a:1']", "['[2001:db8::1]:2', 'b:3']"]),
    ("udp_load_balance", &["'source_ip'", "'random'"]),
    ("udp_idle_lifetime", &["0", "30"]),
    ("udp_new_sessions_per_source", &["0", "9"]),
    ("source_prefix_v4", &["8", "32"]),
    ("orphan", &["'default'", "'drop'"]),
    ("quic_unknown_version", &["'default'", "'drop'"]),
];

/// Rules of such a file.
const OLD_RULES: &[&str] = &[
    "protocol = 'tls'\nserver_names = ['a.example', '*.b.example']\nalpns = ['h2']",
    "protocol = 'tls'",
    "protocol = 'http'\nserver_names = ['a.example']",
    "protocol = 'ssh'",
    "protocol = 'quic'\nidle_lifetime = 0\naffinity = false",
    "protocol = 'wireguard'\nreserved = 'any'",
];

/// The keys and rules of a listener as a file: at the top, or in a table of their own.
fn file(keys: &[(usize, usize)], rules: &[usize], table: bool) -> String {
    let mut text = if table { "[listeners.x]\n".to_owned() } else { String::new() };
    text += "listen_port = 8448\n";
    for (key, value) in keys {
        let (key, values) = OLD[*key];
        text += &format!("{key} = {}\n", values[value % values.len()]);
    }
    for (number, rule) in rules.iter().enumerate() {
        let listeners = if table { "listeners = 'x'\n" } else { "" };
        text += &format!("[protocols.r{number}]\n{}\ntarget = ['192.0.2.1:9']\n{listeners}", OLD_RULES[*rule]);
    }
    text
}

fn without_owner(listener: Listener) -> Listener {
    let mut listener = Listener { name: TOP.into(), ..listener };
    (listener.tcp.max_connections_of, listener.tcp.max_connections_per_source_of) = (None, None);
    (listener.tcp.new_connections_of, listener.udp.max_connections_of) = (None, None);
    listener.udp.new_sessions_of = None;
    listener
}

proptest! {
    /// A file without listeners is one listener with everything that is in the file; and the same keys mean the same in a
    /// table of their own.
    #[test]
    fn a_file_without_listeners_means_what_it_meant(
        chosen in proptest::sample::subsequence((0..OLD.len()).collect::<Vec<_>>(), 0..=OLD.len()),
        values in proptest::collection::vec(0_usize..6, OLD.len()),
        rules in proptest::collection::vec(0..OLD_RULES.len(), 1..6),
    ) {
        let keys: Vec<(usize, usize)> = chosen.into_iter().zip(values).collect();
        let Config { top, named: others, rules: count, .. } = accepted(&file(&keys, &rules, false));
        prop_assert!(others.is_empty());
        prop_assert_eq!((&*top.name, top.rules.len(), count), (TOP, rules.len(), rules.len()));
        prop_assert_eq!(&top.access, &AccessLists::default());
        prop_assert_eq!(top.listen.transport, None);
        prop_assert!(top.rules.iter().all(|rule| rule.from.is_empty()));
        prop_assert_eq!(&without_owner(top.clone()), &top, "all limits are those of the whole daemon");
        let tabled = named(&file(&keys, &rules, true));
        prop_assert_eq!(without_owner(tabled), top);
    }
}
