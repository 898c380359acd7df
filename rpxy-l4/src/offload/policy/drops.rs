//! The classes of datagrams that the kernel may drop early, because the configuration gives them no destination.
//!
//! A datagram without a flow in the kernel may still belong to a session that the daemon relays. So a class is dropped
//! only where no session of this configuration can use it.

use rpxy_l4_common::map::drop_class;

use rpxy_l4_proto::wireguard::Reserved;

use crate::config::model::{Listener, Matcher, UnknownVersion};

/// Returns the bits of `map::drop_class` for the sockets of `listener`, if it is to drop anything.
pub(crate) fn drops(listener: &Listener) -> u32 {
    let quic = listener.rules.iter().any(|rule| matches!(rule.matcher, Matcher::Quic(_)));
    let wireguard = listener.rules.iter().any(|rule| matches!(rule.matcher, Matcher::WireGuard { .. }));
    // Messages with filled reserved bytes are of no known class.
    let filled =
        listener.rules.iter().any(|rule| matches!(rule.matcher, Matcher::WireGuard { reserved: Reserved::Any, .. }));
    let default = listener.udp.default.is_some();

    let mut bits = 0;
    if quic && listener.udp.unknown_version == UnknownVersion::Drop {
        bits |= drop_class::QUIC_OTHER_VERSION;
    }
    if default {
        return bits;
    }
    if quic {
        // RFC 9000 section 14.1: a server discards them. Possible short headers, and unknown datagrams whose fixed bit
        // is clear (RFC 9287), can belong to a connection that has migrated.
        bits |= drop_class::QUIC_SMALL_INITIAL;
    } else {
        bits |= drop_class::QUIC_LONG
            | drop_class::QUIC_OTHER_VERSION
            | drop_class::QUIC_SMALL_INITIAL
            | drop_class::QUIC_SHORT;
        if !filled {
            bits |= drop_class::UNKNOWN;
        }
    }
    if !wireguard {
        bits |= drop_class::WIREGUARD_INITIATION | drop_class::WIREGUARD_OTHER;
    }
    bits
}

#[cfg(test)]
mod tests {
    use rpxy_l4_common::map::drop_class::{
        QUIC_LONG, QUIC_OTHER_VERSION, QUIC_SHORT, QUIC_SMALL_INITIAL, UNKNOWN, WIREGUARD_INITIATION, WIREGUARD_OTHER,
    };

    use super::*;

    const QUIC: &str = "[protocols.q]\nprotocol = 'quic'\ntarget = ['a:1']\n";
    const NAMED: &str = "[protocols.n]\nprotocol = 'quic'\ntarget = ['a:1']\nserver_names = ['a']\n";
    const WIREGUARD: &str = "[protocols.w]\nprotocol = 'wireguard'\ntarget = ['a:1']\n";
    const FILLED: &str = "[protocols.w]\nprotocol = 'wireguard'\ntarget = ['a:1']\nreserved = 'any'\n";

    #[test]
    fn classes_without_destination() {
        let all_quic = QUIC_LONG | QUIC_OTHER_VERSION | QUIC_SMALL_INITIAL | QUIC_SHORT;
        let all_wireguard = WIREGUARD_INITIATION | WIREGUARD_OTHER;
        let rows: &[(&str, &str, &[&str], u32)] = &[
            ("a default takes everything", "udp_target = ['a:1']", &[QUIC, WIREGUARD], 0),
            ("only WireGuard", "", &[WIREGUARD], all_quic | UNKNOWN),
            ("WireGuard with filled bytes", "", &[FILLED], all_quic),
            ("only QUIC", "", &[QUIC], QUIC_SMALL_INITIAL | all_wireguard),
            ("only named QUIC", "", &[NAMED], QUIC_SMALL_INITIAL | all_wireguard),
            ("named QUIC and a default", "udp_target = ['a:1']", &[NAMED], 0),
            ("both", "", &[QUIC, WIREGUARD], QUIC_SMALL_INITIAL),
            ("versions", "udp_target = ['a:1']\nquic_unknown_version = 'drop'", &[QUIC], QUIC_OTHER_VERSION),
            ("neither", "tcp_target = ['a:1']", &[], all_quic | UNKNOWN | all_wireguard),
        ];
        for (name, top, rules, expected) in rows {
            let rules = rules.concat();
            let config = crate::config::parse(&format!("listen_port = 1\n{top}\n{rules}")).unwrap().config;
            assert_eq!(drops(&config.top), *expected, "{name}");
        }
    }
}
