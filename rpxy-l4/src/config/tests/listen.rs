//! Ports and addresses of a listener.

use super::{
    accepted, errors,
    global::{addresses, with},
    refuses, warns,
};

#[test]
fn listen_port() {
    let rows: &[(&str, &str, &[u16])] = &[
        ("lowest", "1", &[1]),
        ("highest", "65535", &[65535]),
        ("hexadecimal, as TOML allows", "0x1F90", &[8080]),
        ("several", "[8448, 443]", &[8448, 443]),
        ("duplicates are dropped", "[443, 8448, 443]", &[443, 8448]),
        ("a range", "'8000-8002'", &[8000, 8001, 8002]),
        ("a range of one", "'65535-65535'", &[65535]),
        (
            "ports and ranges, which may overlap",
            "[443, '8000-8002', '8001-8003', 8000]",
            &[443, 8000, 8001, 8002, 8003],
        ),
    ];
    for (name, value, expected) in rows {
        let config = accepted(&format!("listen_port = {value}\ntcp_target = [\"a:1\"]"));
        let ports: Vec<u16> = config.top.listen.ports.iter().map(|port| port.get()).collect();
        assert_eq!(ports, *expected, "{name}");
    }
    let most = accepted("listen_port = '1-4096'\ntcp_target = ['a:1']");
    assert_eq!(most.top.listen.ports.len(), 4096);
    let rows = [
        ("zero", "0", "1: listen_port"),
        ("too large", "65536", "1: listen_port"),
        ("far too large", "99999999999999999999999999999999999999999999", "1: listen_port"),
        ("negative", "-1", "1: listen_port"),
        ("string", "\"8448\"", "1: listen_port"),
        ("float", "84.48", "1: listen_port"),
        ("empty array", "[]", "1: listen_port"),
        ("zero in an array", "[1, 0]", "1: listen_port[1]"),
        ("range from zero", "'0-5'", "1: listen_port"),
        ("range beyond", "'65535-65536'", "1: listen_port"),
        ("range backwards", "'9-8'", "1: listen_port"),
        ("half a range", "'9-'", "1: listen_port"),
        ("range with blanks", "['8 - 9']", "1: listen_port[0]"),
        ("more ports than there may be", "'1-4097'", "1: listen_port"),
    ];
    for (name, value, expected) in rows {
        assert_eq!(errors(&format!("listen_port = {value}\ntcp_target = [\"a:1\"]")), [expected], "{name}");
    }
    assert_eq!(errors("tcp_target = [\"a:1\"]"), ["1: listen_port"], "missing");
}

#[test]
fn listen_addresses() {
    let rows: &[(&str, &str, &[&str])] = &[
        ("one v4", "listen_address_v4 = '127.0.0.1'", &["127.0.0.1"]),
        ("everywhere", "listen_address_v4 = ['0.0.0.0']", &["0.0.0.0"]),
        ("several v4", "listen_address_v4 = ['10.0.0.5', '127.0.0.1']", &["10.0.0.5", "127.0.0.1"]),
        ("duplicates are dropped", "listen_address_v4 = ['127.0.0.1', '127.0.0.1']", &["127.0.0.1"]),
        ("everywhere twice", "listen_address_v4 = ['0.0.0.0', '0.0.0.0']", &["0.0.0.0"]),
        ("IPv6 switched on", "listen_ipv6 = true", &["0.0.0.0", "[::]"]),
        ("IPv6 switched off", "listen_ipv6 = false", &["0.0.0.0"]),
        ("v6 address implies IPv6", "listen_address_v6 = '::1'", &["0.0.0.0", "[::1]"]),
        ("in brackets", "listen_address_v6 = '[::1]'", &["0.0.0.0", "[::1]"]),
        ("one v6 in two spellings", "listen_address_v6 = ['::1', '[0::1]']", &["0.0.0.0", "[::1]"]),
        ("several v6", "listen_address_v6 = ['::1', 'fd00::1']", &["0.0.0.0", "[::1]", "[fd00::1]"]),
        ("v6 narrows listen_ipv6", "listen_address_v6 = '::1'\nlisten_ipv6 = true", &["0.0.0.0", "[::1]"]),
        ("zone", "listen_address_v6 = 'fe80::1%eth0'", &["0.0.0.0", "[fe80::1%eth0]"]),
        ("zone in brackets", "listen_address_v6 = '[fe80::1%2]'", &["0.0.0.0", "[fe80::1%2]"]),
        (
            "zones tell addresses apart",
            "listen_address_v6 = ['fe80::1%a', 'fe80::1%b']",
            &["0.0.0.0", "[fe80::1%a]", "[fe80::1%b]"],
        ),
        ("no IPv6", "listen_address_v6 = []", &["0.0.0.0"]),
        ("no IPv6, though switched on", "listen_ipv6 = true\nlisten_address_v6 = []", &["0.0.0.0"]),
        ("no IPv4", "listen_address_v4 = []\nlisten_ipv6 = true", &["[::]"]),
        ("v4 and v6", "listen_address_v4 = '10.0.0.1'\nlisten_address_v6 = '::1'", &["10.0.0.1", "[::1]"]),
    ];
    for (name, text, expected) in rows {
        assert_eq!(addresses(&with(text)), *expected, "{name}");
    }
    refuses(&[
        ("neither", "listen_address_v4 = []", "3: listen_address_v4"),
        ("neither, said twice", "listen_address_v4 = []\nlisten_address_v6 = []", "4: listen_address_v6"),
        ("v6 as v4", "listen_address_v4 = '::1'", "3: listen_address_v4"),
        ("name", "listen_address_v4 = ['localhost']", "3: listen_address_v4[0]"),
        ("with port", "listen_address_v4 = '127.0.0.1:80'", "3: listen_address_v4"),
        ("everywhere beside another", "listen_address_v4 = ['0.0.0.0', '127.0.0.1']", "3: listen_address_v4"),
        ("number", "listen_address_v4 = 1", "3: listen_address_v4"),
        ("number in array", "listen_address_v4 = ['10.0.0.1', 1]", "3: listen_address_v4[1]"),
        ("v4 as v6", "listen_address_v6 = '127.0.0.1'", "3: listen_address_v6"),
        ("v4 in the form of v6", "listen_address_v6 = '::ffff:127.0.0.1'", "3: listen_address_v6"),
        ("half a bracket", "listen_address_v6 = '[::1'", "3: listen_address_v6"),
        ("v6 everywhere beside another", "listen_address_v6 = ['::', '::1']", "3: listen_address_v6"),
        ("empty zone", "listen_address_v6 = 'fe80::1%'", "3: listen_address_v6"),
        ("zone too long", "listen_address_v6 = 'fe80::1%abcdefghijklmnop'", "3: listen_address_v6"),
        ("zone on a global address", "listen_address_v6 = '2001:db8::1%eth0'", "3: listen_address_v6"),
        ("listen_ipv6 as a string", "listen_ipv6 = 'yes'", "3: listen_ipv6"),
        ("reuse_port as a number", "reuse_port = 1", "3: reuse_port"),
        ("free_bind as a number", "free_bind = 1", "3: free_bind"),
    ]);
    warns(&[
        ("switched off, yet given", "listen_ipv6 = false\nlisten_address_v6 = '::1'", Some("3: listen_ipv6")),
        ("multicast", "listen_address_v4 = '224.0.0.1'", Some("3: listen_address_v4")),
        ("broadcast", "listen_address_v4 = ['255.255.255.255']", Some("3: listen_address_v4[0]")),
        ("multicast of IPv6", "listen_address_v6 = 'ff02::1'", Some("3: listen_address_v6")),
        ("link-local without zone", "listen_address_v6 = ['fe80::1']", Some("3: listen_address_v6[0]")),
    ]);
    assert!(with("reuse_port = true").top.listen.reuse_port);
    assert!(with("free_bind = true").top.listen.free_bind && !with("").top.listen.free_bind);
}
