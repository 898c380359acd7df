//! Keys and inner hellos of Encrypted Client Hello.

use super::Hello;
use crate::ech::{CipherSuite, EchKey, Kem, Parameters, generate};

#[cfg(test)]
mod client;

#[cfg(test)]
pub(crate) use client::Client;

/// The pair that every client has: HKDF-SHA256 and AES-128-GCM.
pub(crate) const SUITE: CipherSuite = CipherSuite { kdf_id: 1, aead_id: 1 };

/// A key made from its number; the same number gives the same key.
pub(crate) fn key(kem: Kem, config_id: u8, cipher_suites: &[CipherSuite]) -> EchKey {
    let parameters = Parameters {
        public_name: "public.example".to_owned(),
        kem,
        cipher_suites: cipher_suites.to_vec(),
        config_id,
        maximum_name_length: 32,
    };
    generate(&parameters, &[config_id; 32]).unwrap()
}

/// The extensions of an inner hello for `name`: as few as are allowed.
pub(crate) fn inner_extensions(name: &str) -> Vec<(u16, Vec<u8>)> {
    vec![(0, super::server_name(name)), (43, vec![2, 3, 4]), (0xfe0d, vec![1])]
}

/// `EncodedClientHelloInner` without padding.
pub(crate) fn encoded(extensions: Vec<(u16, Vec<u8>)>) -> Vec<u8> {
    Hello { session_id: Vec::new(), ..Hello::with(extensions) }.message()[4..].to_vec()
}
