//! A client of Encrypted Client Hello (RFC 9849 section 6): seals inner hellos with whatever fields a test wants.

use hpke::{
    Deserializable as _, Kem as KemTrait, OpModeS, Serializable as _,
    aead::{Aead, AeadCtxS, AesGcm128, AesGcm256, ChaCha20Poly1305},
    kdf::{HkdfSha256, HkdfSha384, HkdfSha512, Kdf},
    kem::{DhP256HkdfSha256, X25519HkdfSha256},
    rand_core::{TryCryptoRng, TryRng},
    setup_sender_with_rng,
};

use crate::{
    ech::{CipherSuite, EchKey, Kem},
    testing::{Hello, vec16},
};

type Seal = Box<dyn FnMut(&[u8], &[u8]) -> Vec<u8>>;

/// One connection of a client.
pub(crate) struct Client {
    pub(crate) suite: CipherSuite,
    pub(crate) config_id: u8,
    /// The encapsulated key; taken by the first hello.
    pub(crate) enc: Vec<u8>,
    seal: Seal,
}

impl Client {
    pub(crate) fn new(key: &EchKey, suite: CipherSuite) -> Self {
        let config = key.config();
        let info = [b"tls ech\0", config.raw.as_slice()].concat();
        let (enc, seal) = match key.kem() {
            Kem::X25519 => by_kdf::<X25519HkdfSha256>(suite, &config.public_key, &info),
            Kem::P256 => by_kdf::<DhP256HkdfSha256>(suite, &config.public_key, &info),
        };
        Self { suite, config_id: config.config_id, enc, seal }
    }

    /// An outer hello with these extensions and, behind them, `encoded` in its own. Called again: the second hello.
    pub(crate) fn hello(&mut self, outer: &Hello, encoded: &[u8]) -> Vec<u8> {
        let extension = |enc: &[u8], payload: &[u8]| {
            let suite = [self.suite.kdf_id.to_be_bytes(), self.suite.aead_id.to_be_bytes()].concat();
            [vec![0], suite, vec![self.config_id], vec16(enc), vec16(payload)].concat()
        };
        let with = |body: Vec<u8>| {
            let mut hello = outer.clone();
            hello.extensions.get_or_insert_default().push((0xfe0d, body));
            hello.message()
        };
        let enc = std::mem::take(&mut self.enc);
        // AEADs here have tags of 16 bytes.
        let aad = with(extension(&enc, &vec![0; encoded.len() + 16]));
        let payload = (self.seal)(&aad[4..], encoded);
        with(extension(&enc, &payload))
    }
}

fn by_kdf<K: KemTrait + 'static>(suite: CipherSuite, public_key: &[u8], info: &[u8]) -> (Vec<u8>, Seal) {
    match suite.kdf_id {
        2 => by_aead::<HkdfSha384, K>(suite, public_key, info),
        3 => by_aead::<HkdfSha512, K>(suite, public_key, info),
        _ => by_aead::<HkdfSha256, K>(suite, public_key, info),
    }
}

fn by_aead<F: Kdf + 'static, K: KemTrait + 'static>(suite: CipherSuite, key: &[u8], info: &[u8]) -> (Vec<u8>, Seal) {
    match suite.aead_id {
        2 => sender::<AesGcm256, F, K>(key, info),
        3 => sender::<ChaCha20Poly1305, F, K>(key, info),
        _ => sender::<AesGcm128, F, K>(key, info),
    }
}

fn sender<A: Aead + 'static, F: Kdf + 'static, K: KemTrait + 'static>(key: &[u8], info: &[u8]) -> (Vec<u8>, Seal) {
    let key = K::PublicKey::from_bytes(key).unwrap();
    let (enc, mut context): (_, AeadCtxS<A, F, K>) =
        setup_sender_with_rng(&OpModeS::Base, &key, info, &mut Counting(1)).unwrap();
    (enc.to_bytes().to_vec(), Box::new(move |aad, plaintext| context.seal(plaintext, aad).unwrap()))
}

/// Not random at all: tests are to be the same every time.
struct Counting(u64);

impl TryRng for Counting {
    type Error = std::convert::Infallible;

    fn try_next_u32(&mut self) -> Result<u32, Self::Error> {
        self.0 += 1;
        Ok(u32::try_from(self.0 & 0xffff_ffff).unwrap())
    }

    fn try_next_u64(&mut self) -> Result<u64, Self::Error> {
        self.0 += 1;
        Ok(self.0)
    }

    fn try_fill_bytes(&mut self, bytes: &mut [u8]) -> Result<(), Self::Error> {
        bytes.fill(7);
        Ok(())
    }
}

impl TryCryptoRng for Counting {}
