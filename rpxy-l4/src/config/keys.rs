//! The keys of a configuration file: the one table that the unknown-key warning, the checker and the test of the
//! example file share.
//!
//! An unknown key is most often a slip of the pen, a key of another table or a name from older documentation, so each
//! gets a hint. The hint errs towards silence: a far-fetched guess would send the operator the wrong way.

/// The tables of a configuration file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Scope {
    /// The top level.
    Global,
    /// `[listeners."<name>"]`.
    Listener,
    /// `[confine]`.
    Confine,
    /// `[ebpf]`.
    Ebpf,
    /// `[protocols."<name>"]`.
    Rule,
    /// `[protocols."<name>".ech]`.
    Ech,
    /// `[[protocols."<name>".ech.private]]`.
    EchPrivate,
    /// A target written as a table.
    Target,
    /// `[health."<name>"]`.
    Health,
    /// Bytes written as a table.
    Bytes,
}

impl Scope {
    fn describe(self) -> &'static str {
        match self {
            Self::Global => "the top of the file, above the first [table]: below one, a key is that table's",
            Self::Listener => "[listeners.\"<name>\"]",
            Self::Confine => "[confine]",
            Self::Ebpf => "[ebpf]",
            Self::Rule => "[protocols.\"<name>\"]",
            Self::Ech => "[protocols.\"<name>\".ech]",
            Self::EchPrivate => "[[protocols.\"<name>\".ech.private]]",
            Self::Target => "a target's table",
            Self::Health => "[health.\"<name>\"]",
            Self::Bytes => "the table of send or expect",
        }
    }
}

const KEYS: &[(Scope, &str)] = &[
    (Scope::Global, "listen_port"),
    (Scope::Global, "listen_address_v4"),
    (Scope::Global, "listen_address_v6"),
    (Scope::Global, "listen_ipv6"),
    (Scope::Global, "reuse_port"),
    (Scope::Global, "listen_unix"),
    (Scope::Global, "listen_unix_mode"),
    (Scope::Global, "listen_unix_group"),
    (Scope::Global, "free_bind"),
    (Scope::Global, "include"),
    (Scope::Global, "transport"),
    (Scope::Global, "allow"),
    (Scope::Global, "deny"),
    (Scope::Global, "listeners"),
    (Scope::Global, "user"),
    (Scope::Global, "group"),
    (Scope::Global, "confine"),
    (Scope::Global, "workers"),
    (Scope::Global, "drain_timeout"),
    (Scope::Global, "upgrade_timeout"),
    (Scope::Global, "unmatched"),
    (Scope::Global, "tls_refused"),
    (Scope::Global, "access_log_format"),
    (Scope::Global, "access_log_refused"),
    (Scope::Global, "metrics_listen"),
    (Scope::Global, "status_listen"),
    (Scope::Global, "status_token_file"),
    (Scope::Global, "status_hosts"),
    (Scope::Global, "admin_socket"),
    (Scope::Global, "admin_group"),
    (Scope::Global, "dns_cache_min_ttl"),
    (Scope::Global, "dns_cache_max_ttl"),
    (Scope::Global, "tcp_backlog"),
    (Scope::Global, "tcp_max_connections"),
    (Scope::Global, "tcp_max_connections_per_source"),
    (Scope::Global, "tcp_new_connections_per_source"),
    (Scope::Global, "tcp_new_connections_burst"),
    (Scope::Global, "tcp_target"),
    (Scope::Global, "tcp_load_balance"),
    (Scope::Global, "tcp_probe_timeout"),
    (Scope::Global, "tcp_connect_timeout"),
    (Scope::Global, "tcp_connect_attempts"),
    (Scope::Global, "tcp_source_addresses"),
    (Scope::Global, "tcp_idle_timeout"),
    (Scope::Global, "tcp_half_closed_timeout"),
    (Scope::Global, "tcp_backend_closed_timeout"),
    (Scope::Global, "tcp_stall_timeout"),
    (Scope::Global, "tcp_target_retry"),
    (Scope::Global, "tcp_splice"),
    (Scope::Global, "udp_max_connections"),
    (Scope::Global, "udp_receive_buffer"),
    (Scope::Global, "udp_target"),
    (Scope::Global, "udp_load_balance"),
    (Scope::Global, "udp_idle_lifetime"),
    (Scope::Global, "udp_target_retry"),
    (Scope::Global, "udp_new_sessions_per_source"),
    (Scope::Global, "udp_new_sessions_burst"),
    (Scope::Global, "source_prefix_v4"),
    (Scope::Global, "source_prefix_v6"),
    (Scope::Global, "orphan"),
    (Scope::Global, "quic_unknown_version"),
    (Scope::Global, "quic_affinity_lifetime"),
    (Scope::Global, "ban"),
    (Scope::Global, "ebpf"),
    (Scope::Global, "protocols"),
    (Scope::Global, "health"),
    (Scope::Global, "tcp_health"),
    (Scope::Global, "tcp_only_healthy"),
    (Scope::Global, "udp_health"),
    (Scope::Global, "udp_only_healthy"),
    (Scope::Confine, "capabilities"),
    (Scope::Confine, "landlock"),
    (Scope::Confine, "seccomp"),
    (Scope::Confine, "memory"),
    (Scope::Ebpf, "mode"),
    (Scope::Ebpf, "interfaces"),
    (Scope::Ebpf, "max_flows"),
    (Scope::Ebpf, "tcp"),
    (Scope::Ebpf, "max_spliced"),
    (Scope::Ebpf, "early_drop"),
    (Scope::Ebpf, "ban"),
    (Scope::Ebpf, "pin"),
    (Scope::Ebpf, "pin_path"),
    (Scope::Rule, "protocol"),
    (Scope::Rule, "listeners"),
    (Scope::Rule, "from"),
    (Scope::Rule, "target"),
    (Scope::Rule, "load_balance"),
    (Scope::Rule, "idle_lifetime"),
    (Scope::Rule, "affinity"),
    (Scope::Rule, "splice"),
    (Scope::Rule, "max_connections"),
    (Scope::Rule, "public_key"),
    (Scope::Rule, "reserved"),
    (Scope::Rule, "server_names"),
    (Scope::Rule, "alpns"),
    (Scope::Rule, "alpn"),
    (Scope::Rule, "health"),
    (Scope::Rule, "only_healthy"),
    (Scope::Rule, "ech"),
    (Scope::Ech, "ech_config_list"),
    (Scope::Ech, "private_keys"),
    (Scope::Ech, "private_server_names"),
    (Scope::Ech, "config_files"),
    (Scope::Ech, "policy"),
    (Scope::Ech, "private"),
    (Scope::EchPrivate, "server_names"),
    (Scope::EchPrivate, "alpns"),
    (Scope::EchPrivate, "alpn"),
    (Scope::EchPrivate, "target"),
    (Scope::EchPrivate, "load_balance"),
    (Scope::Target, "address"),
    (Scope::Target, "weight"),
    (Scope::Target, "backup"),
    (Scope::Target, "down"),
    (Scope::Target, "max_connections"),
    (Scope::Target, "quic_server_id"),
    (Scope::Health, "kind"),
    (Scope::Health, "interval"),
    (Scope::Health, "timeout"),
    (Scope::Health, "fall"),
    (Scope::Health, "rise"),
    (Scope::Health, "close"),
    (Scope::Health, "port"),
    (Scope::Health, "path"),
    (Scope::Health, "host"),
    (Scope::Health, "status"),
    (Scope::Health, "server_name"),
    (Scope::Health, "send"),
    (Scope::Health, "expect"),
    (Scope::Bytes, "hex"),
];

/// Keys of the cargo feature `proxy-protocol`; unknown without it.
const PROXY_KEYS: &[(Scope, &str)] = &[
    (Scope::Global, "tcp_send_proxy_protocol"),
    (Scope::Global, "tcp_recv_proxy_protocol"),
    (Scope::Global, "tcp_trusted_proxies"),
    (Scope::Rule, "send_proxy_protocol"),
];

/// Keys of the top level that are about the process and not about a listener.
const PROCESS_KEYS: &[&str] = &[
    "access_log_refused",
    "ban",
    "include",
    "listeners",
    "user",
    "group",
    "confine",
    "workers",
    "drain_timeout",
    "upgrade_timeout",
    "access_log_format",
    "metrics_listen",
    "status_listen",
    "status_token_file",
    "status_hosts",
    "admin_socket",
    "admin_group",
    "dns_cache_min_ttl",
    "dns_cache_max_ttl",
    "quic_affinity_lifetime",
    "ebpf",
    "health",
    "protocols",
];

/// Keys of the top level whose values are tables with names of the operator's choice.
pub(super) const NAMED_TABLES: &[&str] = &["health", "listeners", "protocols"];

/// Keys of a listener whose value at the top of the file is that of `default` alone.
const NOT_INHERITED: &[&str] = &["listen_unix", "transport", "tcp_target", "udp_target"];

/// Names that the documentation of 0.2.x uses in passing.
const OTHER_NAMES: &[(&str, &str)] = &[("tls_alpn", "alpns"), ("tls_sni", "server_names")];

/// All known keys with their tables.
pub(super) fn known() -> impl Iterator<Item = (Scope, &'static str)> {
    let proxy = if cfg!(feature = "proxy-protocol") { PROXY_KEYS } else { &[] };
    let here = KEYS.iter().chain(proxy).copied();
    // A listener has all keys of the top level but those of the process.
    let of_listeners = here.clone().filter(|(scope, key)| *scope == Scope::Global && !PROCESS_KEYS.contains(key));
    here.chain(of_listeners.map(|(_, key)| (Scope::Listener, key)))
}

/// Returns whether a listener has the value of `key` at the top of the file, unless it says another one.
pub(super) fn is_inherited(key: &str) -> bool {
    !NOT_INHERITED.contains(&key)
}

/// Returns whether `key` has a meaning in `scope`.
pub(super) fn is_known(scope: Scope, key: &str) -> bool {
    known().any(|known| known == (scope, key))
}

/// Suggests a known key for an unknown `key`.
pub(super) fn hint(scope: Scope, key: &str) -> Option<String> {
    if !cfg!(feature = "proxy-protocol") && PROXY_KEYS.contains(&(scope, key)) {
        return Some("this program was built without the feature proxy-protocol".to_owned());
    }
    if let Some((_, name)) = OTHER_NAMES.iter().find(|(other, name)| *other == key && is_known(scope, name)) {
        return Some(format!("the key is {name}"));
    }
    if let Some((home, _)) = known().find(|(_, name)| *name == key) {
        return Some(format!("it belongs to {}", home.describe()));
    }
    let here = known().filter(|(known_scope, _)| *known_scope == scope).map(|(_, name)| name);
    nearest(key, here).map(|name| format!("did you mean {name}?"))
}

/// The candidate that differs least from `word`, if it is close enough to be meant: one slip for every three letters.
pub(super) fn nearest<'c>(word: &str, candidates: impl Iterator<Item = &'c str>) -> Option<&'c str> {
    let word = word.to_ascii_lowercase();
    let tolerance = (word.chars().count() / 3).min(3);
    let best = candidates.map(|name| (edit_distance(&word, name), name)).min()?;
    (best.0 <= tolerance).then_some(best.1)
}

/// Insertions, deletions, replacements and swaps of neighbours that turn `a` into `b`.
fn edit_distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=b.len()).collect();
    let mut previous = None;
    for (i, from) in a.chars().enumerate() {
        let mut row = vec![i + 1; b.len() + 1];
        for (j, &to) in b.iter().enumerate() {
            let replaced = last[j] + usize::from(from != to);
            row[j + 1] = replaced.min(last[j + 1] + 1).min(row[j] + 1);
            if j > 0 && previous == Some(to) && from == b[j - 1] {
                row[j + 1] = row[j + 1].min(before[j - 1] + 1);
            }
        }
        before = std::mem::replace(&mut last, row);
        previous = Some(from);
    }
    last[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        let rows = [
            ("equal", "target", "target", 0),
            ("missing letter", "taget", "target", 1),
            ("swapped letters", "tagret", "target", 1),
            ("plural", "targets", "target", 1),
            ("nothing", "", "abc", 3),
            ("other word", "abc", "xyz", 3),
        ];
        for (name, a, b, expected) in rows {
            assert_eq!(edit_distance(a, b), expected, "{name}");
            assert_eq!(edit_distance(b, a), expected, "{name}, reversed");
        }
    }

    #[test]
    fn hints() {
        let rows = [
            ("slip", Scope::Global, "listen_prot", Some("did you mean listen_port?")),
            ("plural", Scope::Rule, "targets", Some("did you mean target?")),
            ("upper case", Scope::Global, "TCP_TARGET", Some("did you mean tcp_target?")),
            ("global key in a rule", Scope::Rule, "udp_target", Some("it belongs to the top of the file")),
            ("rule's key at the top", Scope::Global, "load_balance", Some("it belongs to [protocols.")),
            ("plural of orphan", Scope::Global, "orphans", Some("did you mean orphan?")),
            ("plural of version", Scope::Global, "quic_unknown_versions", Some("did you mean quic_unknown_version?")),
            (
                "plural of lifetime",
                Scope::Global,
                "quic_affinity_lifetimes",
                Some("did you mean quic_affinity_lifetime?"),
            ),
            (
                "slip, nearer to UDP than to TCP",
                Scope::Global,
                "udp_target_rety",
                Some("did you mean udp_target_retry?"),
            ),
            ("orphan in a rule", Scope::Rule, "orphan", Some("it belongs to the top of the file")),
            ("reserved at the top", Scope::Global, "reserved", Some("it belongs to [protocols.")),
            ("slip in a rule", Scope::Rule, "reserve", Some("did you mean reserved?")),
            ("name from old documentation", Scope::Rule, "tls_alpn", Some("the key is alpns")),
            ("nothing like it", Scope::Global, "experimental", None),
            ("key of ebpf at the top", Scope::Global, "early_drop", Some("it belongs to [ebpf]")),
            ("plural in ebpf", Scope::Ebpf, "interface", Some("did you mean interfaces?")),
            ("too short to guess", Scope::Rule, "x", None),
        ];
        for (name, scope, key, expected) in rows {
            match (hint(scope, key), expected) {
                (Some(hint), Some(expected)) => assert!(hint.starts_with(expected), "{name}: {hint}"),
                (hint, expected) => assert_eq!(hint.as_deref(), expected, "{name}"),
            }
        }
    }

    #[test]
    fn keys_of_a_missing_feature_say_so() {
        let hint = hint(Scope::Global, "tcp_recv_proxy_protocol");
        let expected =
            if cfg!(feature = "proxy-protocol") { "it belongs to" } else { "this program was built without" };
        assert!(hint.is_some_and(|hint| hint.starts_with(expected)));
    }
}
