//! Properties of every datagram and every frame, as functions that panic if they do not hold. The fuzz targets call
//! them with new inputs, the tests with the committed corpus.

mod mac1;
mod packet;
mod packet_seeds;

pub use mac1::{INITIATION, PUBLIC_KEY, mac1};
pub use packet::{checksums, packet};
pub use packet_seeds::PACKET_SEEDS;

use crate::datagram::{DatagramClass, QUIC_LONG_MIN_LEN, QUIC_SHORT_MIN_LEN};

/// A class is backed by the bytes it is told by, and bytes it is not told by do not change it.
pub fn datagram_class(data: &[u8]) -> DatagramClass {
    let class = DatagramClass::of(data);
    let first = data.first().copied().unwrap_or_default();
    let message_type = data.first_chunk().map(|bytes| u32::from_le_bytes(*bytes));
    match class {
        DatagramClass::QuicLong { version } => {
            assert!(first & 0x80 != 0 && data.len() >= QUIC_LONG_MIN_LEN);
            assert_eq!(data.get(1..5), Some(&version.to_be_bytes()[..]));
        }
        DatagramClass::QuicShort => assert!(first & 0xc0 == 0x40 && data.len() >= QUIC_SHORT_MIN_LEN),
        DatagramClass::WireGuardInitiation => assert_eq!((message_type, data.len()), (Some(1), 148)),
        DatagramClass::WireGuardResponse => assert_eq!((message_type, data.len()), (Some(2), 92)),
        DatagramClass::WireGuardCookie => assert_eq!((message_type, data.len()), (Some(3), 64)),
        DatagramClass::WireGuardTransport => assert!(message_type == Some(4) && data.len() >= 32),
        DatagramClass::Unknown => {
            let wireguard = matches!((message_type, data.len()), (Some(1), 148) | (Some(2), 92) | (Some(3), 64))
                || (message_type == Some(4) && data.len() >= 32);
            let quic_short = first & 0xc0 == 0x40 && data.len() >= QUIC_SHORT_MIN_LEN;
            assert!(!wireguard && !quic_short);
        }
    }
    // Once a class without an exact length is told, a longer datagram has it too.
    if let (
        DatagramClass::QuicLong { .. } | DatagramClass::QuicShort | DatagramClass::WireGuardTransport,
        Some((_last, shorter)),
    ) = (class, data.split_last())
    {
        let shorter = DatagramClass::of(shorter);
        assert!(shorter == class || shorter == DatagramClass::Unknown);
    }
    class
}

/// A file of the first corpus of a fuzz target. Written out without an allocator: a start, then zeros.
#[derive(Debug, Clone, Copy)]
pub struct Seed {
    /// File name, which says what the datagram is.
    pub name: &'static str,
    /// First bytes of the payload.
    pub start: &'static [u8],
    /// Length of the payload in bytes, zeros behind `start` included.
    pub len: usize,
}

/// One seed for each class, and near misses.
pub const SEEDS: &[Seed] = &[
    seed("quic_v1_initial", &[0xc3, 0, 0, 0, 1, 8, 1, 2, 3, 4, 5, 6, 7, 8, 0, 0, 0x44, 0x9e], 1200),
    seed("quic_v2", &[0xd3, 0x6b, 0x33, 0x43, 0xcf, 8, 1, 2, 3, 4, 5, 6, 7, 8, 3, 9, 9, 9], 1200),
    seed("quic_version_negotiation", &[0x80, 0, 0, 0, 0, 1, 7, 1, 8, 0, 0, 0, 1], 13),
    seed("quic_long_id_in_v1", &[0xc0, 0, 0, 0, 1, 21], 60),
    seed("quic_cut", &[0xc0, 0, 0, 0, 1, 8, 1], 7),
    seed("quic_short", &[0x47, 1, 2, 3, 4], 40),
    seed("wireguard_initiation", &[1, 0, 0, 0, 9, 9, 9, 9], 148),
    seed("wireguard_response", &[2, 0, 0, 0, 9, 9, 9, 9], 92),
    seed("wireguard_cookie", &[3, 0, 0, 0, 9, 9, 9, 9], 64),
    seed("wireguard_transport", &[4, 0, 0, 0, 9, 9, 9, 9], 116),
    seed("wireguard_reserved", &[1, 0, 0, 1], 148),
    seed("dns_query", &[0x12, 0x34, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, b'a', 0, 0, 1, 0, 1], 19),
];

const fn seed(name: &'static str, start: &'static [u8], len: usize) -> Seed {
    Seed { name, start, len }
}

#[cfg(test)]
mod tests {
    use std::{
        collections::BTreeSet,
        format, fs,
        path::{Path, PathBuf},
        string::String,
        vec::Vec,
    };

    use super::*;

    fn corpus(target: &str) -> PathBuf {
        Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus").join(target)
    }

    fn files(target: &str) -> impl Iterator<Item = Vec<u8>> {
        fs::read_dir(corpus(target)).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap())
    }

    #[test]
    fn the_corpus_holds_and_reaches_every_class() {
        let mut classes = BTreeSet::new();
        for datagram in files("datagram_class") {
            let class = datagram_class(&datagram);
            let name = format!("{class:?}");
            classes.extend(name.split(' ').next().map(String::from));
        }
        let all = [
            "QuicLong",
            "QuicShort",
            "Unknown",
            "WireGuardCookie",
            "WireGuardInitiation",
            "WireGuardResponse",
            "WireGuardTransport",
        ];
        assert_eq!(classes, all.map(String::from).into());
    }

    #[test]
    fn the_corpus_holds_and_reaches_every_way_through_the_headers() {
        let outcomes: BTreeSet<_> = files("packet")
            .map(|frame| match packet(&frame) {
                Ok(family) => format!("{family:?}"),
                Err(reason) => format!("{reason:?}"),
            })
            .collect();
        let all = [
            "ExtensionHeader",
            "Fragment",
            "Icmp",
            "IpHeaderLength",
            "IpLength",
            "IpOptions",
            "IpVersion",
            "LinkGroup",
            "NoChecksum",
            "NotIp",
            "OtherTransport",
            "TransportLength",
            "Truncated",
            "V4",
            "V6",
            "VlanDepth",
        ];
        assert_eq!(outcomes, all.map(String::from).into());
    }

    #[test]
    fn the_corpus_has_initiations_for_the_key_and_others() {
        let verified: BTreeSet<_> = files("wireguard").map(|datagram| mac1(&datagram)).collect();
        assert_eq!(verified, [false, true].into());
    }

    #[test]
    fn the_seeds_are_committed() {
        for (target, seeds) in [("datagram_class", SEEDS), ("packet", PACKET_SEEDS)] {
            for Seed { name, start, len } in seeds {
                let mut bytes = start.to_vec();
                bytes.resize(*len, 0);
                assert_eq!(fs::read(corpus(target).join(name)).ok(), Some(bytes), "{target}/{name}");
            }
        }
    }
}
