//! HPKE (RFC 9180) in base mode, behind a trait that keeps the context from one hello to the next.
//!
//! The crate fixes a suite at compile time; what a client chose is known at run time only, so each of the eighteen
//! suites is an implementation of its own.

use hpke::{
    Deserializable as _, Kem as KemTrait, OpModeR, Serializable as _,
    aead::{Aead, AeadCtxR, AesGcm128, AesGcm256, ChaCha20Poly1305},
    kdf::{HkdfSha256, HkdfSha384, HkdfSha512, Kdf},
    kem::{DhP256HkdfSha256, X25519HkdfSha256},
    setup_receiver,
};

use super::{CipherSuite, Kem};

/// A receiver's context. Each message that opens moves it on by one (RFC 9180 section 5.2); one that does not leaves it
/// where it is.
pub(super) trait Receiver: Send {
    /// The plaintext of `ciphertext`, or nothing when it was not sealed as the next one with this `aad`.
    fn open(&mut self, aad: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>>;
}

impl<A: Aead, F: Kdf, K: KemTrait> Receiver for AeadCtxR<A, F, K>
where
    Self: Send,
{
    fn open(&mut self, aad: &[u8], ciphertext: &[u8]) -> Option<Vec<u8>> {
        Self::open(self, ciphertext, aad).ok()
    }
}

/// A private key, ready for use. Wiped when dropped, by the crate that made it.
pub(super) enum PrivateKey {
    P256(<DhP256HkdfSha256 as KemTrait>::PrivateKey),
    X25519(<X25519HkdfSha256 as KemTrait>::PrivateKey),
}

impl PrivateKey {
    /// From its serialised form (RFC 9180 section 7.1.1).
    pub(super) fn new(kem: Kem, bytes: &[u8]) -> Option<Self> {
        match kem {
            Kem::P256 => KemPrivateKey::<DhP256HkdfSha256>::from_bytes(bytes).ok().map(Self::P256),
            Kem::X25519 => KemPrivateKey::<X25519HkdfSha256>::from_bytes(bytes).ok().map(Self::X25519),
        }
    }

    /// From keying material that nobody else knows, 32 bytes of it (RFC 9180 section 4, `DeriveKeyPair`).
    pub(super) fn derive(kem: Kem, material: &[u8; 32]) -> Self {
        match kem {
            Kem::P256 => Self::P256(DhP256HkdfSha256::derive_keypair(material).0),
            Kem::X25519 => Self::X25519(X25519HkdfSha256::derive_keypair(material).0),
        }
    }

    /// Its serialised form.
    pub(super) fn to_bytes(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => key.to_bytes().to_vec(),
            Self::X25519(key) => key.to_bytes().to_vec(),
        }
    }

    /// The public key that belongs to it, serialised.
    pub(super) fn public_key(&self) -> Vec<u8> {
        match self {
            Self::P256(key) => DhP256HkdfSha256::sk_to_pk(key).to_bytes().to_vec(),
            Self::X25519(key) => X25519HkdfSha256::sk_to_pk(key).to_bytes().to_vec(),
        }
    }

    /// The context for what was sealed to `enc`; `None` when the suite is not known here or `enc` is not a public key.
    pub(super) fn receiver(&self, suite: CipherSuite, enc: &[u8], info: &[u8]) -> Option<Box<dyn Receiver>> {
        match self {
            Self::P256(key) => by_kdf::<DhP256HkdfSha256>(suite, key, enc, info),
            Self::X25519(key) => by_kdf::<X25519HkdfSha256>(suite, key, enc, info),
        }
    }
}

type KemPrivateKey<K> = <K as KemTrait>::PrivateKey;

/// RFC 9180 section 7.2.
fn by_kdf<K: KemTrait + Send + 'static>(
    suite: CipherSuite,
    key: &K::PrivateKey,
    enc: &[u8],
    info: &[u8],
) -> Option<Box<dyn Receiver>> {
    match suite.kdf_id {
        1 => by_aead::<HkdfSha256, K>(suite, key, enc, info),
        2 => by_aead::<HkdfSha384, K>(suite, key, enc, info),
        3 => by_aead::<HkdfSha512, K>(suite, key, enc, info),
        _ => None,
    }
}

/// RFC 9180 section 7.3.
fn by_aead<F: Kdf + Send + 'static, K: KemTrait + Send + 'static>(
    suite: CipherSuite,
    key: &K::PrivateKey,
    enc: &[u8],
    info: &[u8],
) -> Option<Box<dyn Receiver>> {
    match suite.aead_id {
        1 => receiver::<AesGcm128, F, K>(key, enc, info),
        2 => receiver::<AesGcm256, F, K>(key, enc, info),
        3 => receiver::<ChaCha20Poly1305, F, K>(key, enc, info),
        _ => None,
    }
}

fn receiver<A: Aead + Send + 'static, F: Kdf + Send + 'static, K: KemTrait + Send + 'static>(
    key: &K::PrivateKey,
    enc: &[u8],
    info: &[u8],
) -> Option<Box<dyn Receiver>> {
    let enc = K::EncappedKey::from_bytes(enc).ok()?;
    let context = setup_receiver::<A, F, K>(&OpModeR::Base, key, &enc, info).ok()?;
    Some(Box::new(context))
}

/// Returns whether hellos sealed with `suite` can be opened here.
pub(super) fn is_known(suite: CipherSuite) -> bool {
    (1..=3).contains(&suite.kdf_id) && (1..=3).contains(&suite.aead_id)
}
