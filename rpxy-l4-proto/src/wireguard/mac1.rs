//! mac1 of an initiation: which server it is meant for, told by the public key alone. It errs on no side: 128 bits are
//! compared.

use blake2::{
    Blake2s256, Blake2sMac, Digest as _,
    digest::{KeyInit as _, Mac as _, consts::U16},
};

use super::{Message, Reserved, parse};

/// Where mac1 starts in an initiation; it covers all before it (WireGuard whitepaper section 5.4.4).
const MAC1_AT: usize = 116;
/// The length of mac1, in bytes.
const MAC1_LEN: usize = 16;

/// What is computed once for each public key.
#[derive(Clone)]
pub struct Mac1Key {
    keyed: Blake2sMac<U16>,
}

impl Mac1Key {
    /// For the server with this static public key (Curve25519).
    #[must_use]
    pub fn new(public_key: &[u8; 32]) -> Self {
        let key = Blake2s256::new_with_prefix(b"mac1----").chain_update(public_key).finalize();
        Self { keyed: Blake2sMac::new(&key) }
    }

    /// Whether this is an initiation whose mac1 was made for this key.
    ///
    /// The reserved bytes count as zero, which they were when the MAC was made. Every initiation takes the same work, and
    /// the comparison the same time.
    #[must_use]
    pub fn verifies(&self, initiation: &[u8]) -> bool {
        let Some(Message::Initiation { .. }) = parse(initiation, Reserved::Any) else { return false };
        let Some((covered, rest)) = initiation.split_at_checked(MAC1_AT) else { return false };
        let (Some(mac1), Some(behind)) = (rest.first_chunk::<MAC1_LEN>(), covered.get(4..)) else { return false };
        let type_and_reserved = [1, 0, 0, 0];
        self.keyed.clone().chain_update(type_and_reserved).chain_update(behind).verify(mac1.into()).is_ok()
    }
}

/// A public key is no secret, but no help in a log either.
impl std::fmt::Debug for Mac1Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Mac1Key").finish_non_exhaustive()
    }
}
