//! The check of WireGuard initiations against the keys of the servers.
//!
//! In functions of their own: the hash needs the stack for itself.
#![expect(unsafe_code, reason = "the verifier finds global functions by their names")]

use rpxy_l4_common::bytes::{Bytes, Span};
use rpxy_l4_common::datagram::WIREGUARD_INITIATION_LEN;
use rpxy_l4_common::mac1::MOST_KEYS;

use crate::maps::{initiation, mac1_key};

/// Returns true if an initiation is made for one of the keys, or cannot be checked.
#[inline(always)]
pub(crate) fn fits<B: Bytes>(bytes: &B, payload: Span) -> bool {
    !read_initiation(bytes, payload.offset) || rpxy_l4_fits_any_key()
}

/// Reads an initiation; false when not all of it can be read.
#[inline(never)]
fn read_initiation<B: Bytes>(bytes: &B, offset: usize) -> bool {
    let payload = Span { offset, len: WIREGUARD_INITIATION_LEN };
    initiation().and_then(|initiation| initiation.read(bytes, payload)).is_some()
}

/// Compares the initiation that was read with each key. Being global, it is one for all programs, and verified once and
/// not on every way that leads to it.
#[inline(never)]
#[unsafe(no_mangle)]
extern "C" fn rpxy_l4_fits_any_key() -> bool {
    let Some(initiation) = initiation() else { return true };
    for index in (0..).take(MOST_KEYS) {
        let Some(key) = mac1_key(index) else { return true };
        if key.used == 0 {
            return index == 0;
        }
        if initiation.is_for(&key) {
            return true;
        }
    }
    false
}
