//! From the client's first Destination Connection ID to keys (RFC 9001 sections 5.1 and 5.2, RFC 9369 section 3.3).

use hkdf::{HmacImpl, hmac::Hmac};
use sha2::Sha256;

use super::{ConnectionId, Version};

/// Labels and salt of a version.
struct Labels {
    salt: [u8; 20],
    key: &'static [u8],
    iv: &'static [u8],
    hp: &'static [u8],
}

/// RFC 9001 sections 5.1 and 5.2.
const V1: Labels = Labels {
    salt: [
        0x38, 0x76, 0x2c, 0xf7, 0xf5, 0x59, 0x34, 0xb3, 0x4d, 0x17, 0x9a, 0xe6, 0xa4, 0xc8, 0x0c, 0xad, 0xcc, 0xbb,
        0x7f, 0x0a,
    ],
    key: b"quic key",
    iv: b"quic iv",
    hp: b"quic hp",
};

/// RFC 9369 sections 3.3.1 and 3.3.2.
const V2: Labels = Labels {
    salt: [
        0x0d, 0xed, 0xe3, 0xde, 0xf7, 0x00, 0xa6, 0xdb, 0x81, 0x93, 0x81, 0xbe, 0x6e, 0x26, 0x9d, 0xcb, 0xf9, 0xbd,
        0x2e, 0xd9,
    ],
    key: b"quicv2 key",
    iv: b"quicv2 iv",
    hp: b"quicv2 hp",
};

/// The keys of Initial packets of one side.
pub(super) struct Schedule {
    pub(super) key: [u8; 16],
    pub(super) iv: [u8; 12],
    pub(super) hp: [u8; 16],
}

impl Schedule {
    /// `side` is "client in" or "server in".
    pub(super) fn new(version: Version, dcid: &ConnectionId, side: &[u8]) -> Self {
        let labels = match version {
            Version::V1 => V1,
            Version::V2 => V2,
        };
        let initial = hmac(&labels.salt, &[dcid.as_bytes()]);
        let secret: [u8; 32] = expand_label(&initial, side);
        Self {
            key: expand_label(&secret, labels.key),
            iv: expand_label(&secret, labels.iv),
            hp: expand_label(&secret, labels.hp),
        }
    }
}

/// HKDF-Expand-Label without context (RFC 8446 section 7.1).
///
/// One block of HKDF-Expand (RFC 5869 section 2.3) is all that the outputs here take.
fn expand_label<const N: usize>(secret: &[u8; 32], label: &[u8]) -> [u8; N] {
    const { assert!(N <= 32) };
    let length = u16::try_from(N).unwrap_or(u16::MAX).to_be_bytes();
    let label_length = [u8::try_from(label.len().saturating_add(6)).unwrap_or(u8::MAX)];
    let block = hmac(secret, &[&length, &label_length, b"tls13 ", label, &[0], &[1]]);
    let mut output = [0; N];
    for (byte, &derived) in output.iter_mut().zip(&block) {
        *byte = derived;
    }
    output
}

/// HMAC-SHA256, which with the salt as the key is HKDF-Extract (RFC 5869 section 2.2).
fn hmac(key: &[u8], input: &[&[u8]]) -> [u8; 32] {
    let mut hmac = <Hmac<Sha256> as HmacImpl>::new_from_slice(key);
    for part in input {
        HmacImpl::update(&mut hmac, part);
    }
    HmacImpl::finalize(hmac).into()
}
