//! Properties of mac1 of every datagram.

use crate::datagram::WIREGUARD_INITIATION_LEN;
use crate::mac1::Mac1Key;

/// An initiation of wireguard-go.
pub const INITIATION: &[u8; WIREGUARD_INITIATION_LEN] = include_bytes!("initiation.bin");

/// The public key of the server that [`INITIATION`] was sent to.
pub const PUBLIC_KEY: [u8; 32] = [
    0x8b, 0xa3, 0x26, 0x7e, 0x96, 0x36, 0xb4, 0x4c, 0xc0, 0xda, 0x7b, 0x46, 0x48, 0x68, 0x8d, 0xf8, 0x3f, 0x42, 0x83,
    0xc0, 0x08, 0xb5, 0xd3, 0x5a, 0x60, 0xdb, 0xa8, 0xd5, 0x6e, 0x44, 0x59, 0x1c,
];

/// mac1 depends neither on the reserved bytes nor on mac2. Returns true for an initiation for [`PUBLIC_KEY`].
pub fn mac1(data: &[u8]) -> bool {
    let key = Mac1Key::new(&PUBLIC_KEY);
    let verified = key.verifies(data);
    let Ok(mut changed) = <[u8; WIREGUARD_INITIATION_LEN]>::try_from(data) else {
        assert!(!verified);
        return false;
    };
    changed.iter_mut().skip(1).take(3).for_each(|byte| *byte = !*byte);
    changed.iter_mut().skip(132).for_each(|byte| *byte = !*byte);
    assert_eq!(key.verifies(&changed), verified);
    verified
}
