//! Bounds on connections and sessions, in all and for each source.

use std::num::NonZeroU32;

use super::{BASE, accepted, refuses, warns};
use crate::config::model::Config;

fn with(text: &str) -> Config {
    accepted(&format!("{BASE}{text}\n"))
}

#[test]
fn limits() {
    assert_eq!(with("tcp_backlog = 0").top.tcp.backlog, 0, "as 0.2.x");
    assert_eq!(with("tcp_backlog = 4_294_967_295").top.tcp.backlog, u32::MAX);
    assert_eq!(with("tcp_max_connections = 1").top.tcp.max_connections.get(), 1);
    assert_eq!(with("udp_max_connections = 4294967295").top.udp.max_connections.map(NonZeroU32::get), Some(u32::MAX));
    assert_eq!(with("workers = 1").workers.unwrap().get(), 1);
    assert_eq!(with("").top.udp.receive_buffer, None);
    for bytes in [4096, 1_073_741_823] {
        let config = with(&format!("udp_receive_buffer = {bytes}"));
        assert_eq!(config.top.udp.receive_buffer.map(NonZeroU32::get), Some(bytes));
    }
    refuses(&[
        ("too small a buffer", "udp_receive_buffer = 4095", "3: udp_receive_buffer"),
        ("too large a buffer", "udp_receive_buffer = 1073741824", "3: udp_receive_buffer"),
        ("backlog", "tcp_backlog = -1", "3: tcp_backlog"),
        ("no TCP connections", "tcp_max_connections = 0", "3: tcp_max_connections"),
        ("no UDP sessions", "udp_max_connections = 0", "3: udp_max_connections"),
        ("beyond 32 bits", "udp_max_connections = 4294967296", "3: udp_max_connections"),
        ("no workers", "workers = 0", "3: workers"),
        ("absurdly many workers", "workers = 100000", "3: workers"),
    ]);
}

#[test]
fn new_sessions_of_each_source() {
    let limit = |text: &str| {
        let limit = with(text).top.udp.new_sessions?;
        Some((limit.rate.get(), limit.burst.get(), limit.prefix.v4, limit.prefix.v6))
    };
    assert_eq!(limit(""), None);
    assert_eq!(limit("udp_new_sessions_per_source = 0"), None);
    assert_eq!(limit("udp_new_sessions_per_source = 50"), Some((50, 100, 32, 56)));
    assert_eq!(
        limit(
            "udp_new_sessions_per_source = 1\nudp_new_sessions_burst = 7\nsource_prefix_v4 = 24\nsource_prefix_v6 = 64"
        ),
        Some((1, 7, 24, 64))
    );
    refuses(&[
        ("rate", "udp_new_sessions_per_source = 1000001", "3: udp_new_sessions_per_source"),
        ("burst", "udp_new_sessions_per_source = 1\nudp_new_sessions_burst = 0", "4: udp_new_sessions_burst"),
        ("IPv4 prefix", "udp_new_sessions_per_source = 1\nsource_prefix_v4 = 33", "4: source_prefix_v4"),
        ("IPv6 prefix", "udp_new_sessions_per_source = 1\nsource_prefix_v6 = 0", "4: source_prefix_v6"),
    ]);
    warns(&[
        ("burst alone", "udp_new_sessions_burst = 5", Some("3: udp_new_sessions_burst")),
        ("prefix alone, which counts for TCP", "source_prefix_v6 = 48", None),
        ("both", "udp_new_sessions_per_source = 5\nudp_new_sessions_burst = 5", None),
    ]);
}

#[test]
fn connections_of_each_source() {
    for (row, text, expected) in [
        ("three quarters", "", Some(768)),
        ("of more", "tcp_max_connections = 4000", Some(3000)),
        ("of few, all", "tcp_max_connections = 63", None),
        ("told", "tcp_max_connections_per_source = 9", Some(9)),
        ("switched off", "tcp_max_connections_per_source = 0", None),
    ] {
        assert_eq!(with(text).top.tcp.max_connections_per_source.map(NonZeroU32::get), expected, "{row}");
    }
    let limit = with("tcp_new_connections_per_source = 5\nsource_prefix_v4 = 24").top.tcp.new_connections.unwrap();
    assert_eq!((limit.rate.get(), limit.burst.get(), limit.prefix.v4, limit.prefix.v6), (5, 10, 24, 56));
    assert_eq!(with("").top.tcp.new_connections, None);
    assert_eq!(with("tcp_connect_attempts = 9").top.tcp.connect_attempts.get(), 9);
    refuses(&[("no attempt", "tcp_connect_attempts = 0", "3: tcp_connect_attempts")]);
    let rule = |keys: &str| with(&format!("\n[protocols.a]\nprotocol = 'ssh'\n{keys}"));
    let limited = rule("max_connections = 7\ntarget = [{ address = '192.0.2.1:22', max_connections = 3 }]");
    assert_eq!(limited.top.rules[0].max_connections.map(NonZeroU32::get), Some(7));
    assert_eq!(limited.top.rules[0].upstream.targets[0].max_connections.map(NonZeroU32::get), Some(3));
    refuses(&[(
        "none",
        "\n[protocols.a]\nprotocol='ssh'\ntarget=['192.0.2.1:22']\nmax_connections=0",
        "7: protocols.\"a\".max_connections",
    )]);
    let udp = with(
        "\n[protocols.a]\nprotocol='quic'\nmax_connections=1\ntarget=[{address='192.0.2.1:22',max_connections=4294967295}]",
    );
    assert_eq!(udp.top.rules[0].max_connections.map(NonZeroU32::get), Some(1));
    assert_eq!(udp.top.rules[0].upstream.targets[0].max_connections, NonZeroU32::new(u32::MAX));
    let from = with("tcp_source_addresses = ['192.0.2.2', '2001:db8::2', '192.0.2.2', '::ffff:192.0.2.3']");
    let expected = ["192.0.2.2", "2001:db8::2", "192.0.2.3"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap());
    assert_eq!(*from.top.tcp.source_addresses, expected);
    refuses(&[
        ("no source", "tcp_source_addresses = []", "3: tcp_source_addresses"),
        ("a name", "tcp_source_addresses = ['lo']", "3: tcp_source_addresses[0]"),
        ("every address", "tcp_source_addresses = ['192.0.2.2', '0.0.0.0']", "3: tcp_source_addresses[1]"),
        ("multicast", "tcp_source_addresses = ['ff02::1']", "3: tcp_source_addresses[0]"),
        ("link-local", "tcp_source_addresses = ['fe80::1']", "3: tcp_source_addresses[0]"),
    ]);
    warns(&[("burst alone", "tcp_new_connections_burst = 5", Some("3: tcp_new_connections_burst"))]);
}
