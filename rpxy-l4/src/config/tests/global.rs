//! Section 1 of the contract: the global keys.

use std::{num::NonZeroU16, time::Duration};

use super::{BASE, accepted, errors, refuses, warnings, warns};
use crate::config::model::{
    AccessLogFormat, AccessLogRefused, Balance, Config, Orphan, TlsRefused, UnknownVersion, Unmatched,
};

pub(super) fn with(text: &str) -> Config {
    accepted(&format!("{BASE}{text}"))
}

#[test]
fn defaults() {
    let config = accepted("listen_port = 8448\ntcp_target = [\"192.0.2.1:80\"]\nudp_target = [\"192.0.2.1:53\"]");
    assert_eq!(config.top.listen.ports, [NonZeroU16::new(8448).unwrap()]);
    assert_eq!(addresses(&config), ["0.0.0.0"]);
    assert!(!config.top.listen.reuse_port);
    assert_eq!(config.workers, None);
    assert_eq!(config.drain_timeout, Duration::from_secs(5));
    assert_eq!(config.upgrade_timeout, Duration::from_secs(3600));
    assert_eq!(config.top.unmatched, Unmatched::Drop);
    assert_eq!(config.top.tcp.tls_refused, TlsRefused::Close);
    assert_eq!(config.access_log_format, AccessLogFormat::Text);
    assert_eq!(config.metrics_listen, None);
    assert_eq!((&config.admin_socket, config.admin_group), (&None, None));
    assert_eq!(config.dns.min_ttl, Duration::from_secs(30));
    assert_eq!(config.dns.max_ttl, Duration::from_secs(3600));
    assert_eq!(config.top.tcp.backlog, 1024);
    assert_eq!(config.top.tcp.max_connections.get(), 1024);
    assert_eq!(config.top.tcp.connect_attempts.get(), 5);
    assert_eq!(config.top.tcp.probe_timeout, Duration::from_secs(3));
    assert_eq!(config.top.tcp.connect_timeout, Duration::from_secs(5));
    assert_eq!(config.top.tcp.idle_timeout, None);
    assert_eq!(config.top.tcp.half_closed_timeout, Some(Duration::from_secs(3600)));
    assert_eq!(config.top.tcp.backend_closed_timeout, Some(Duration::from_secs(60)));
    assert_eq!(config.top.tcp.stall_timeout, Some(Duration::from_secs(300)));
    assert_eq!(config.top.tcp.target_retry, Duration::from_secs(10));
    assert_eq!(config.top.udp.max_connections, None);
    assert_eq!(config.top.udp.idle_lifetime, Some(Duration::from_secs(30)));
    assert_eq!(config.top.udp.target_retry, Duration::from_secs(10));
    assert_eq!(config.top.udp.orphan, Orphan::Default);
    assert_eq!(config.top.udp.unknown_version, UnknownVersion::Default);
    assert_eq!(config.quic_affinity_lifetime, Duration::from_secs(300));
    assert_eq!(config.top.tcp.default.unwrap().balance, Balance::None);
    assert_eq!(config.top.udp.default.unwrap().balance, Balance::None);
    assert!(config.top.rules.is_empty());
    #[cfg(feature = "proxy-protocol")]
    assert_eq!(config.top.tcp.receive_proxy, None);
}

pub(super) fn addresses(config: &Config) -> Vec<String> {
    config.top.listen.addresses.iter().map(ToString::to_string).collect()
}

#[test]
fn lengths_of_time() {
    let seconds = Duration::from_secs;
    let longest = seconds(u32::MAX.into());
    assert_eq!(with("drain_timeout = '1m'").drain_timeout, seconds(60));
    assert_eq!(with("drain_timeout = 0").drain_timeout, Duration::ZERO);
    assert_eq!(with("upgrade_timeout = '2d'").upgrade_timeout, seconds(2 * 86_400));
    assert_eq!(with("tcp_probe_timeout = '100ms'").top.tcp.probe_timeout, Duration::from_millis(100));
    assert_eq!(with("tcp_connect_timeout = 7").top.tcp.connect_timeout, seconds(7), "bare integers are seconds");
    assert_eq!(with("tcp_target_retry = '0s'").top.tcp.target_retry, Duration::ZERO);
    assert_eq!(with("tcp_idle_timeout = '2h'").top.tcp.idle_timeout, Some(seconds(7200)));
    assert_eq!(with("tcp_idle_timeout = 0").top.tcp.idle_timeout, None);
    assert_eq!(with("tcp_half_closed_timeout = 0").top.tcp.half_closed_timeout, None);
    assert_eq!(with("tcp_backend_closed_timeout = '5s'").top.tcp.backend_closed_timeout, Some(seconds(5)));
    assert_eq!(with("tcp_stall_timeout = '30s'").top.tcp.stall_timeout, Some(seconds(30)));
    assert_eq!(with("tcp_idle_timeout = '0s'").top.tcp.idle_timeout, None);
    assert_eq!(with("udp_idle_lifetime = 5").top.udp.idle_lifetime, Some(seconds(5)));
    assert_eq!(with("udp_idle_lifetime = '5m'").top.udp.idle_lifetime, Some(seconds(300)));
    assert_eq!(with("udp_idle_lifetime = 0").top.udp.idle_lifetime, None);
    assert_eq!(with("udp_target_retry = 0").top.udp.target_retry, Duration::ZERO);
    assert_eq!(with("udp_target_retry = '1ms'").top.udp.target_retry, Duration::from_millis(1));
    assert_eq!(with("udp_target_retry = 4294967295").top.udp.target_retry, longest);
    assert_eq!(with("udp_target_retry = 4294967296").top.udp.target_retry, longest, "cut");
    assert_eq!(with("udp_target_retry = 3").top.tcp.target_retry, seconds(10), "TCP has its own");
    assert_eq!(with("tcp_target_retry = 3").top.udp.target_retry, seconds(10), "UDP has its own");
    assert_eq!(with("quic_affinity_lifetime = 0").quic_affinity_lifetime, Duration::ZERO);
    assert_eq!(with("quic_affinity_lifetime = '1ms'").quic_affinity_lifetime, Duration::from_millis(1));
    assert_eq!(with("quic_affinity_lifetime = '4294967295s'").quic_affinity_lifetime, longest);
    assert_eq!(with("quic_affinity_lifetime = '4294967296s'").quic_affinity_lifetime, longest, "cut");
    assert_eq!(with("dns_cache_min_ttl = '0s'").dns.min_ttl, Duration::ZERO);
    assert_eq!(with("dns_cache_max_ttl = '30SEC'").dns.max_ttl, seconds(30), "equal to the minimum");
    refuses(&[
        ("no probe", "tcp_probe_timeout = 0", "3: tcp_probe_timeout"),
        ("no time to connect", "tcp_connect_timeout = '0ms'", "3: tcp_connect_timeout"),
        ("no unit", "dns_cache_min_ttl = '30'", "3: dns_cache_min_ttl"),
        ("space", "dns_cache_min_ttl = '30 s'", "3: dns_cache_min_ttl"),
        ("negative", "udp_idle_lifetime = -1", "3: udp_idle_lifetime"),
        ("negative retry", "udp_target_retry = -1", "3: udp_target_retry"),
        ("retry without unit", "udp_target_retry = '10'", "3: udp_target_retry"),
        ("negative affinity", "quic_affinity_lifetime = -1", "3: quic_affinity_lifetime"),
        ("affinity for ever", "quic_affinity_lifetime = 'never'", "3: quic_affinity_lifetime"),
        ("float", "drain_timeout = 1.5", "3: drain_timeout"),
        ("min over max", "dns_cache_max_ttl = '2m'\ndns_cache_min_ttl = '3m'", "4: dns_cache_min_ttl"),
        ("min over the default max", "dns_cache_min_ttl = '2h'", "3: dns_cache_min_ttl"),
        ("default min over max", "dns_cache_max_ttl = '29s'", "3: dns_cache_max_ttl"),
    ]);
}

#[test]
fn words() {
    assert_eq!(with("unmatched = 'default'").top.unmatched, Unmatched::Default);
    assert_eq!(with("unmatched = 'Drop'").top.unmatched, Unmatched::Drop);
    assert_eq!(with("tls_refused = 'close'").top.tcp.tls_refused, TlsRefused::Close);
    assert_eq!(with("tls_refused = 'Alert'").top.tcp.tls_refused, TlsRefused::Alert);
    assert_eq!(with("orphan = 'drop'").top.udp.orphan, Orphan::Drop);
    assert_eq!(with("orphan = 'Default'").top.udp.orphan, Orphan::Default);
    assert_eq!(with("quic_unknown_version = 'default'").top.udp.unknown_version, UnknownVersion::Default);
    assert_eq!(with("quic_unknown_version = 'DROP'").top.udp.unknown_version, UnknownVersion::Drop);
    assert_eq!(with("access_log_format = 'json'").access_log_format, AccessLogFormat::Json);
    assert_eq!(with("access_log_format = 'OFF'").access_log_format, AccessLogFormat::Off);
    assert_eq!(with("").access_log_refused, AccessLogRefused::Limited);
    assert_eq!(with("access_log_refused = 'all'").access_log_refused, AccessLogRefused::All);
    assert_eq!(with("access_log_refused = 'off'").access_log_refused, AccessLogRefused::Off);
    assert_eq!(with("metrics_listen = '[::1]:9100'").metrics_listen, Some("[::1]:9100".parse().unwrap()));
    refuses(&[
        ("unmatched", "unmatched = 'reject'", "3: unmatched"),
        ("refused TLS", "tls_refused = 'reset'", "3: tls_refused"),
        ("refused TLS is a boolean", "tls_refused = true", "3: tls_refused"),
        ("orphan", "orphan = 'reject'", "3: orphan"),
        ("orphan is a boolean", "orphan = true", "3: orphan"),
        ("unknown version", "quic_unknown_version = 'forward'", "3: quic_unknown_version"),
        ("unknown version is a number", "quic_unknown_version = 2", "3: quic_unknown_version"),
        ("access log", "access_log_format = true", "3: access_log_format"),
        ("refused traffic", "access_log_refused = 'some'", "3: access_log_refused"),
        ("metrics without address", "metrics_listen = ':9100'", "3: metrics_listen"),
        ("metrics without port", "metrics_listen = '127.0.0.1'", "3: metrics_listen"),
    ]);
}

#[test]
fn unknown_words_get_a_remedy() {
    let wireguard = "[protocols.a]\nprotocol = 'wireguard'\ntarget = ['a:1']\nreserved = ";
    let rows: &[(&str, &str, &str)] = &[
        ("nothing like it", "orphan = 'reject'", "one of \"drop\", \"default\", \"balance\""),
        ("slip", "orphan = 'defualt'", "did you mean \"default\"?"),
        ("nothing like it", "quic_unknown_version = 'reject'", "one of \"drop\", \"default\""),
        ("slip", "quic_unknown_version = 'dorp'", "did you mean \"drop\"?"),
        ("nothing like it", &format!("{wireguard}'1,2,3'"), "one of \"zero\", \"any\""),
        ("slip", &format!("{wireguard}'zeros'"), "did you mean \"zero\"?"),
    ];
    for (name, text, expected) in rows {
        let problems = crate::config::parse(&format!("{BASE}{text}")).unwrap_err();
        let remedies: Vec<Option<&str>> = problems.iter().map(|problem| problem.remedy.as_deref()).collect();
        assert_eq!(remedies, [Some(*expected)], "{name}: {text}");
    }
}

#[cfg(feature = "proxy-protocol")]
#[test]
fn proxy_protocol() {
    use crate::config::model::ProxyVersion;
    let rows = [
        ("'v1'", Some(ProxyVersion::V1)),
        ("'V1'", Some(ProxyVersion::V1)),
        ("'1'", Some(ProxyVersion::V1)),
        ("'v2'", Some(ProxyVersion::V2)),
        ("'2'", Some(ProxyVersion::V2)),
        ("'none'", None),
        ("'NONE'", None),
    ];
    for (value, expected) in rows {
        let config = with(&format!("udp_target = ['a:1']\ntcp_send_proxy_protocol = {value}"));
        assert_eq!(config.top.tcp.default.unwrap().send_proxy, expected, "{value}");
        assert_eq!(config.top.udp.default.unwrap().send_proxy, None, "{value} does not reach UDP");
    }
    let trusted = with(
        "tcp_recv_proxy_protocol = true\ntcp_trusted_proxies = ['10.1.2.3/8', '::1', '192.0.2.1', '::ffff:198.51.100.7/120', '::/0']",
    );
    let trusted: Vec<String> = trusted.top.tcp.receive_proxy.unwrap().trusted.iter().map(ToString::to_string).collect();
    assert_eq!(trusted, ["10.0.0.0/8", "::1/128", "192.0.2.1/32", "198.51.100.0/24", "::/0"]);
    for (value, optional) in [("true", false), ("'optional'", true), ("'Optional'", true)] {
        let config = with(&format!("tcp_recv_proxy_protocol = {value}\ntcp_trusted_proxies = ['::1']"));
        assert_eq!(config.top.tcp.receive_proxy.unwrap().optional, optional, "{value}");
    }
    refuses(&[
        ("another word", "tcp_recv_proxy_protocol = 'maybe'", "3: tcp_recv_proxy_protocol"),
        ("neither word nor boolean", "tcp_recv_proxy_protocol = 1", "3: tcp_recv_proxy_protocol"),
        ("nobody trusted to choose", "tcp_recv_proxy_protocol = 'optional'", "3: tcp_recv_proxy_protocol"),
        ("unknown version", "tcp_send_proxy_protocol = 'v3'", "3: tcp_send_proxy_protocol"),
        ("number", "tcp_send_proxy_protocol = 2", "3: tcp_send_proxy_protocol"),
        ("nobody trusted", "tcp_recv_proxy_protocol = true", "3: tcp_recv_proxy_protocol"),
        ("empty list", "tcp_recv_proxy_protocol = true\ntcp_trusted_proxies = []", "4: tcp_trusted_proxies"),
        ("no network", "tcp_recv_proxy_protocol = true\ntcp_trusted_proxies = ['a']", "4: tcp_trusted_proxies[0]"),
        (
            "long prefix",
            "tcp_recv_proxy_protocol = true\ntcp_trusted_proxies = ['::/129']",
            "4: tcp_trusted_proxies[0]",
        ),
    ]);
    warns(&[
        ("list without receiving", "tcp_trusted_proxies = ['10.0.0.0/8']", Some("3: tcp_trusted_proxies")),
        ("not even looked at, as in 0.2.x", "tcp_trusted_proxies = ['a']", Some("3: tcp_trusted_proxies")),
        ("receiving off", "tcp_recv_proxy_protocol = false", None),
    ]);
}

#[cfg(not(feature = "proxy-protocol"))]
#[test]
fn proxy_protocol_left_out_at_build_time() {
    let text = format!(
        "{BASE}tcp_send_proxy_protocol = 3\n[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']\nsend_proxy_protocol = 3"
    );
    let loaded = crate::config::parse(&text).unwrap();
    let remedies: Vec<_> = loaded.warnings.iter().filter_map(|warning| warning.remedy.as_deref()).collect();
    assert_eq!(remedies, ["this program was built without the feature proxy-protocol"; 2], "{:?}", loaded.warnings);
}

#[test]
fn something_to_forward_to() {
    let rule = "[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']";
    for (name, text) in [("tcp", "tcp_target = ['a:1']"), ("udp", "udp_target = ['a:1']"), ("rule", rule)] {
        accepted(&format!("listen_port = 1\n{text}"));
        assert_eq!(errors(text).len(), 1, "{name}: only the port is missing");
    }
    assert_eq!(errors("listen_port = 1"), ["1: "]);
    assert_eq!(errors("listen_port = 1\n[protocols]"), ["1: "]);
    assert_eq!(errors("listen_port = 1\nprotocols = 1"), ["2: protocols"]);
}

#[test]
fn defaults_of_what_is_missing_are_without_effect() {
    let target = "udp_target = ['a:1']";
    let rule = |protocol: &str| format!("[protocols.a]\nprotocol = '{protocol}'\ntarget = ['a:1']");
    let (quic, tls) = (rule("quic"), rule("tls"));
    warns(&[
        ("balance without target", "udp_load_balance = 'random'", Some("3: udp_load_balance")),
        ("orphans without target", &format!("orphan = 'default'\n{quic}"), None),
        ("orphans dropped with a rule", &format!("orphan = 'drop'\n{target}\n{quic}"), None),
        ("orphans dropped without a rule", &format!("orphan = 'drop'\n{target}"), Some("3: orphan")),
        ("version dropped without rule", "quic_unknown_version = 'drop'", Some("3: quic_unknown_version")),
        (
            "version dropped with another rule",
            &format!("quic_unknown_version = 'drop'\n{tls}"),
            Some("3: quic_unknown_version"),
        ),
        ("version dropped with rule", &format!("quic_unknown_version = 'drop'\n{quic}"), None),
        ("the default without rule", "quic_unknown_version = 'default'", None),
    ]);
    refuses(&[("and still checked", "udp_load_balance = 'rand'", "3: udp_load_balance")]);
}

#[test]
fn each_unknown_key_is_a_warning_with_its_remedy() {
    let text = format!(
        "{BASE}listen_prot = 1\n[experimental]\nx = 1\n[protocols.a]\nprotocol = 'ssh'\ntarget = ['a:1']\nudp_target = 1"
    );
    let loaded = crate::config::parse(&text).unwrap();
    let told: Vec<String> = loaded.warnings.iter().map(ToString::to_string).collect();
    assert_eq!(
        told,
        [
            "3: listen_prot: unknown key ignored (did you mean listen_port?)",
            "4: experimental: unknown key ignored",
            "9: protocols.\"a\".udp_target: unknown key ignored (it belongs to the top of the file, above the first [table]: \
             below one, a key is that table's)",
        ]
    );
}

#[test]
fn keys_of_the_top_below_a_table_explain_what_is_missing() {
    for (row, text, expected) in [
        (
            "the port",
            "tcp_target = ['a:1']\n[ebpf]\nmode = 'auto'\nlisten_port = 443",
            "1: listen_port: required key is missing (listen_port in line 4 is below a [table] and so belongs to that: move \
             it to the top of the file)",
        ),
        (
            "the target",
            "listen_port = 443\n[ebpf]\ntcp_target = ['a:1']",
            "1: nothing to forward to (tcp_target in line 3 is below a [table] and so belongs to that: move it to the top \
             of the file)",
        ),
        (
            "nowhere",
            "listen_port = 443",
            "1: nothing to forward to (give at least one of tcp_target, udp_target and [protocols.\"<name>\"])",
        ),
    ] {
        let problems = crate::config::parse(text).unwrap_err();
        assert!(problems.iter().any(|problem| problem.to_string() == expected), "{row}: {problems}");
    }
}

#[test]
fn bans_have_a_place_at_the_top() {
    for (row, text, expected) in [
        ("at the top", "ban = ['192.0.2.0/24']", &["192.0.2.0/24"] as &[&str]),
        ("where they were before", "[ebpf]\nban = ['192.0.2.0/24']", &["192.0.2.0/24"]),
        (
            "in both",
            "ban = ['192.0.2.1', '::1']\n[ebpf]\nban = ['192.0.2.1', '192.0.2.2']",
            &["192.0.2.1/32", "::1/128", "192.0.2.2/32"],
        ),
    ] {
        let bans: Vec<String> = accepted(&format!("{BASE}{text}")).ebpf.ban.iter().map(ToString::to_string).collect();
        assert_eq!(bans, expected, "{row}");
        assert_eq!(warnings(&format!("{BASE}{text}")), [""; 0], "{row}");
    }
    refuses(&[("no network", "ban = ['everybody']", "3: ban[0]")]);
}
