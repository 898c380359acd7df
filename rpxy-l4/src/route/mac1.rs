//! mac1 of WireGuard initiations, as the daemon asks for it: the server of an initiation, told by public keys alone.
//!
//! mac1 proves that the sender knows the public key, and can be replayed.

use rpxy_l4_common::{
    bytes::Span,
    mac1::{self, Mac1Key},
};
use rpxy_l4_proto::wireguard::{Message, Reserved, parse};

/// Bytes up to the end of mac1 (WireGuard whitepaper section 5.4.2).
const LEN: usize = 132;

/// An initiation that is compared with several keys.
pub(super) struct Initiation(mac1::Initiation);

impl Initiation {
    /// Reads a datagram; `None` when it is not an initiation. The reserved bytes count as zero, which they were when
    /// the MAC was made: Cloudflare WARP overwrites them later.
    pub(super) fn read(datagram: &[u8]) -> Option<Self> {
        let Message::Initiation { .. } = parse(datagram, Reserved::Any)? else { return None };
        let mut bytes: [u8; LEN] = *datagram.first_chunk()?;
        bytes[1..4].fill(0);
        let mut initiation = mac1::Initiation::default();
        initiation.read(&bytes.as_slice(), Span { offset: 0, len: LEN })?;
        Some(Self(initiation))
    }

    /// Returns whether the initiation was made for the server with `key`. Takes the same time for every key.
    pub(super) fn is_for(&mut self, key: &Mac1Key) -> bool {
        self.0.is_for(key)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An initiation of wireguard-go.
    const INITIATION: &[u8; 148] = include_bytes!("../../../rpxy-l4-proto/src/wireguard/testdata/initiation.bin");
    /// The public key of the server that it was sent to.
    const PUBLIC_KEY: [u8; 32] = [
        0x8b, 0xa3, 0x26, 0x7e, 0x96, 0x36, 0xb4, 0x4c, 0xc0, 0xda, 0x7b, 0x46, 0x48, 0x68, 0x8d, 0xf8, 0x3f, 0x42,
        0x83, 0xc0, 0x08, 0xb5, 0xd3, 0x5a, 0x60, 0xdb, 0xa8, 0xd5, 0x6e, 0x44, 0x59, 0x1c,
    ];

    fn verifies(key: &[u8; 32], datagram: &[u8]) -> bool {
        Initiation::read(datagram).is_some_and(|mut initiation| initiation.is_for(&Mac1Key::new(key)))
    }

    #[test]
    fn an_initiation_verifies_with_the_key_it_was_made_for_and_no_other() {
        assert!(verifies(&PUBLIC_KEY, INITIATION));
        for bit in 0..256 {
            let mut other = PUBLIC_KEY;
            other[bit / 8] ^= 1 << (bit % 8);
            assert!(!verifies(&other, INITIATION), "key bit {bit}");
        }
    }

    #[test]
    fn any_changed_bit_that_mac1_covers_fails() {
        for bit in 0..INITIATION.len() * 8 {
            let mut changed = *INITIATION;
            changed[bit / 8] ^= 1 << (bit % 8);
            let expected = match bit / 8 {
                // Cloudflare WARP writes them after the MACs are made.
                1..4 => true,
                // mac1 itself is what is compared.
                0..132 => false,
                // mac2 is made from a cookie that only client and server know.
                _ => true,
            };
            assert_eq!(verifies(&PUBLIC_KEY, &changed), expected, "byte {}, bit {bit}", bit / 8);
        }
    }

    #[test]
    fn only_an_initiation_verifies() {
        let longer = [&INITIATION[..], &[0]].concat();
        assert!(!verifies(&PUBLIC_KEY, &longer), "a byte long");
        for len in 0..INITIATION.len() {
            assert!(!verifies(&PUBLIC_KEY, &INITIATION[..len]), "{len} bytes");
        }
    }
}
