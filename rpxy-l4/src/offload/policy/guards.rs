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
    config::model::{Config, Matcher, Unmatched},
    limit::timing,
};

/// Datagrams per session that a client may send before its first answer arrives: a ClientHello of two or three, or
/// retransmissions. Those of a steered session are not charged.
const HANDSHAKE_DATAGRAMS: u32 = 4;

/// Values for the maps.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Guards {
    /// Keys of all servers; empty if initiations are not checked.
    pub(crate) keys: Vec<Mac1Key>,
    pub(crate) limit: SourceLimit,
}

impl Guards {
    pub(crate) fn new(config: &Config) -> Self {
        if !config.ebpf.early_drop {
            return Self::default();
        }
        let keys = mac1_keys(config).unwrap_or_default();
        Self { keys: keys.iter().map(Mac1Key::new).collect(), limit: source_limit(config) }
    }

    /// Returns the bits of `map::drop_class` that listeners need for them.
    pub(crate) fn bits(&self) -> u32 {
        let unless = |unused: bool, bit| if unused { 0 } else { bit };
        unless(self.keys.is_empty(), drop_class::WIREGUARD_MAC1)
            | unless(self.limit.interval == 0, drop_class::SOURCE_LIMIT)
    }
}

/// Returns the keys of all rules, if an initiation for none of them has no destination (`UdpRoutes::wireguard`) and the
/// programs can try them all.
fn mac1_keys(config: &Config) -> Option<Vec<[u8; 32]>> {
    if config.unmatched == Unmatched::Default && config.udp.default.is_some() {
        return None;
    }
    let mut keys: Vec<[u8; 32]> = Vec::new();
    for rule in &config.rules {
        if let Matcher::WireGuard { public_key, .. } = &rule.matcher {
            let key = (*public_key)?;
            if !keys.contains(&key) {
                keys.push(key);
            }
        }
    }
    (keys.len() <= MOST_KEYS).then_some(keys)
}

fn source_limit(config: &Config) -> SourceLimit {
    let Some(limit) = config.udp.new_sessions else { return SourceLimit::default() };
    let (interval, window) = timing(&limit, HANDSHAKE_DATAGRAMS);
    SourceLimit { interval, zero: 0, window, mask_v4: mask(limit.prefix_v4), mask_v6: mask(limit.prefix_v6) }
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

    fn guards(top: &str, rules: &str) -> Guards {
        let text = format!("listen_port = 1\n{top}\n[ebpf]\nmode = 'tc'\n{rules}");
        Guards::new(&crate::config::parse(&text).unwrap().config)
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
            let guards = guards(top, &rules);
            assert_eq!(guards.keys.len(), expected, "{row}");
            assert_eq!(guards.bits(), if expected > 0 { drop_class::WIREGUARD_MAC1 } else { 0 }, "{row}");
        }
    }

    #[test]
    fn the_limit_is_that_of_the_daemon_and_wider() {
        let rules = format!("early_drop = true\n{}", keyed("one", KEY[0]));
        let limited = guards("udp_new_sessions_per_source = 25\nsource_prefix_v4 = 20\nsource_prefix_v6 = 128", &rules);
        assert_eq!(limited.bits(), drop_class::WIREGUARD_MAC1 | drop_class::SOURCE_LIMIT);
        let SourceLimit { interval, window, mask_v4, mask_v6, .. } = limited.limit;
        assert_eq!((interval, window), (10_000_000, 200 * 10_000_000));
        assert_eq!((&mask_v4[..4], mask_v6), (&[255, 255, 240, 0][..], [255; 16]));
        let off = guards("udp_new_sessions_per_source = 25", &keyed("one", KEY[0]));
        assert_eq!(off, Guards::default(), "not without early_drop");
        assert_eq!(guards("", &rules).bits(), drop_class::WIREGUARD_MAC1, "no limit");
    }
}
