//! The checks that the programs apply to handshakes: the keys of WireGuard servers, and the number of handshakes that
//! each source network may begin.
//!
//! The limit of the kernel is wider than the daemon's, since a program cannot tell a session's first datagram from the rest
//! of its handshake.

use rpxy_l4_common::{
    mac1::{MOST_KEYS, Mac1Key},
    map::{SourceLimit, drop_class},
};

use crate::{
    config::model::{Config, LimitOf, Listener, Matcher, NewSessions, Unmatched},
    limit::timing,
};

/// Datagrams per session that a client may send before its first answer arrives: a ClientHello of two or three, or
/// retransmissions. Those of a steered session are not charged.
const HANDSHAKE_DATAGRAMS: u32 = 4;

/// Values for the maps. There is one of each, so that some listeners may have to do without.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Guards {
    /// Keys of the servers of all listeners whose initiations are checked; empty if none are.
    pub(crate) keys: Vec<Mac1Key>,
    pub(crate) limit: SourceLimit,
    /// The listeners that share the limit.
    limit_of: LimitOf,
}

impl Guards {
    /// The bits of `map::drop_class` that depend on guards.
    pub(crate) const BITS: u32 = drop_class::WIREGUARD_MAC1 | drop_class::SOURCE_LIMIT;

    pub(crate) fn new(config: &Config) -> Self {
        if !config.ebpf.early_drop {
            return Self::default();
        }
        let mut keys: Vec<[u8; 32]> = Vec::new();
        for key in config.listeners().filter_map(mac1_keys).flatten() {
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
        if keys.len() > MOST_KEYS {
            keys.clear();
        }
        let limited = config.listeners().find_map(|listener| Some((listener.udp.new_sessions?, listener)));
        let (limit, limit_of) = match limited {
            Some((limit, listener)) => (source_limit(limit), listener.udp.new_sessions_of.clone()),
            None => Default::default(),
        };
        Self { keys: keys.iter().map(Mac1Key::new).collect(), limit, limit_of }
    }

    /// Returns the bits of `map::drop_class` that the sockets of `listener` need for them.
    pub(crate) fn bits(&self, listener: &Listener) -> u32 {
        let when = |used: bool, bit| if used { bit } else { 0 };
        let has_keys = mac1_keys(listener).is_some_and(|keys| !keys.is_empty());
        let limited = listener.udp.new_sessions.is_some() && listener.udp.new_sessions_of == self.limit_of;
        when(has_keys && !self.keys.is_empty(), drop_class::WIREGUARD_MAC1)
            | when(limited && self.limit.interval > 0, drop_class::SOURCE_LIMIT)
    }
}

/// Returns the keys of all rules of a listener, if an initiation for none of them has no destination
/// (`UdpRoutes::wireguard`).
fn mac1_keys(listener: &Listener) -> Option<Vec<[u8; 32]>> {
    if listener.unmatched == Unmatched::Default && listener.udp.default.is_some() {
        return None;
    }
    let wireguard = listener.rules.iter().filter_map(|rule| match &rule.matcher {
        Matcher::WireGuard { public_key, .. } => Some(*public_key),
        Matcher::Http { .. } | Matcher::Tls(_) | Matcher::Ssh | Matcher::Socks5 | Matcher::Quic(_) => None,
    });
    wireguard.collect()
}

fn source_limit(limit: NewSessions) -> SourceLimit {
    let (interval, window) = timing(&limit, HANDSHAKE_DATAGRAMS);
    SourceLimit { interval, zero: 0, window, mask_v4: mask(limit.prefix.v4), mask_v6: mask(limit.prefix.v6) }
}

/// Returns a mask of the first `bits` bits, laid out as addresses in the maps.
fn mask(bits: u8) -> [u8; 16] {
    let rest = 128 - u32::from(bits);
    u128::MAX.checked_shl(rest).unwrap_or_default().to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEY: [&str; 2] =
        ["i6MmfpY2tEzA2ntGSGiN+D9Cg8AItdNaYNuo1W5EWRw=", "AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE="];

    /// The guards, and the bits of the listener `default`.
    fn guards(top: &str, rules: &str) -> (Guards, u32) {
        let text = format!("listen_port = 1\n{top}\n[ebpf]\nmode = 'tc'\n{rules}");
        let config = crate::config::parse(&text).unwrap().config;
        let guards = Guards::new(&config);
        let bits = guards.bits(&config.top);
        (guards, bits)
    }

    fn keyed(name: &str, key: &str) -> String {
        format!("[protocols.{name}]\nprotocol = 'wireguard'\ntarget = ['a:1']\npublic_key = '{key}'\n")
    }

    #[test]
    fn initiations_are_dropped_where_the_daemon_would_drop_them() {
        let on = "early_drop = true\n";
        let [one, two] = [keyed("one", KEY[0]), keyed("two", KEY[1])];
        let keyless = "[protocols.k]\nprotocol = 'wireguard'\ntarget = ['a:1']\n".to_owned();
        let many = |count: u8| -> String {
            (0..count)
                .map(|n| keyed(&format!("n{n}"), &KEY[1].replacen("AQ", &format!("A{}", char::from(b'A' + n)), 1)))
                .collect()
        };
        let quic = "[protocols.q]\nprotocol = 'quic'\ntarget = ['a:1']\n".to_owned();
        for (row, top, rules, expected) in [
            ("one key", "", on.to_owned() + &one, 1),
            ("two keys", "", on.to_owned() + &one + &two, 2),
            ("not asked for", "", one.clone(), 0),
            ("a rule without key takes the rest", "", on.to_owned() + &one + &keyless, 0),
            ("no rule", "", on.to_owned() + &quic, 0),
            ("a default target", "udp_target = ['a:1']", on.to_owned() + &one, 1),
            ("one that takes the rest", "unmatched = 'default'\nudp_target = ['a:1']", on.to_owned() + &one, 0),
            ("no default target", "unmatched = 'default'", on.to_owned() + &one, 1),
            ("as many as there may be", "", on.to_owned() + &many(8), 8),
            ("more", "", on.to_owned() + &many(9), 0),
        ] {
            let (guards, bits) = guards(top, &rules);
            assert_eq!(guards.keys.len(), expected, "{row}");
            assert_eq!(bits, if expected > 0 { drop_class::WIREGUARD_MAC1 } else { 0 }, "{row}");
        }
    }

    #[test]
    fn the_limit_is_that_of_the_daemon_and_wider() {
        let rules = format!("early_drop = true\n{}", keyed("one", KEY[0]));
        let (limited, bits) =
            guards("udp_new_sessions_per_source = 25\nsource_prefix_v4 = 20\nsource_prefix_v6 = 128", &rules);
        assert_eq!(bits, drop_class::WIREGUARD_MAC1 | drop_class::SOURCE_LIMIT);
        let SourceLimit { interval, window, mask_v4, mask_v6, .. } = limited.limit;
        assert_eq!((interval, window), (10_000_000, 200 * 10_000_000));
        assert_eq!((&mask_v4[..4], mask_v6), (&[255, 255, 240, 0][..], [255; 16]));
        let (off, bits) = guards("udp_new_sessions_per_source = 25", &keyed("one", KEY[0]));
        assert_eq!((off, bits), (Guards::default(), 0), "not without early_drop");
        assert_eq!(guards("", &rules).1, drop_class::WIREGUARD_MAC1, "no limit");
    }
    #[test]
    fn each_listener_is_guarded_as_far_as_its_own_rules_allow() {
        let [one, two] = [keyed("one", KEY[0]), keyed("two", KEY[1])];
        let text = format!(
            "listen_port = 1\nudp_new_sessions_per_source = 25\n[ebpf]\nmode = 'tc'\nearly_drop = true\n\
             [listeners.shares]\nlisten_port = 2\n\
             [listeners.own]\nlisten_port = 3\nudp_new_sessions_per_source = 1\n\
             [listeners.open]\nlisten_port = 4\n\
             {one}{two}listeners = ['shares', 'own']\n\
             [protocols.k]\nprotocol = 'wireguard'\ntarget = ['a:1']\nlisteners = ['open']\n"
        );
        let config = crate::config::parse(&text).unwrap().config;
        let guards = Guards::new(&config);
        assert_eq!(guards.keys.len(), 2, "those of all listeners");
        let (mac1, limit) = (drop_class::WIREGUARD_MAC1, drop_class::SOURCE_LIMIT);
        for (listener, expected) in config.listeners().zip([mac1 | limit, mac1 | limit, mac1, limit]) {
            assert_eq!(guards.bits(listener), expected, "{}", listener.name);
        }
    }
}
