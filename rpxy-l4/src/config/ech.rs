//! Keys for Encrypted Client Hello (RFC 9849): configurations that clients know, with the private keys that open them.
//!
//! A key is taken only when the public key derived from it stands in the list: a mismatch would show as failing
//! handshakes and nothing else. Private keys are wiped from memory when the last user lets go of them, and no text that
//! this module makes contains one.

use std::{fmt, sync::Arc};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use hpke::{
    Deserializable, Kem as KemTrait, Serializable,
    kem::{DhP256HkdfSha256, X25519HkdfSha256},
};
use rpxy_l4_proto::ech::{EchConfig, EchConfigListError, parse_config_list};
use thiserror::Error;
use zeroize::Zeroizing;

/// The standard alphabet, padded or not.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// The key encapsulation mechanisms that can be used (RFC 9180 section 7.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Kem {
    /// DHKEM(P-256, HKDF-SHA256), 0x0010.
    P256,
    /// DHKEM(X25519, HKDF-SHA256), 0x0020.
    X25519,
}

impl Kem {
    /// The mechanism with this number, if it is one of those here.
    pub fn from_id(id: u16) -> Option<Self> {
        [Self::P256, Self::X25519].into_iter().find(|kem| kem.id() == id)
    }

    /// The number in the registry of RFC 9180 section 7.1.
    pub fn id(self) -> u16 {
        match self {
            Self::P256 => DhP256HkdfSha256::KEM_ID,
            Self::X25519 => X25519HkdfSha256::KEM_ID,
        }
    }

    /// The public key of `private_key`, both serialised; `None` when the bytes are no private key.
    fn public_key(self, private_key: &[u8]) -> Option<Vec<u8>> {
        fn derive<K: KemTrait>(private_key: &[u8]) -> Option<Vec<u8>> {
            let private_key = K::PrivateKey::from_bytes(private_key).ok()?;
            Some(K::sk_to_pk(&private_key).to_bytes().to_vec())
        }
        match self {
            Self::P256 => derive::<DhP256HkdfSha256>(private_key),
            Self::X25519 => derive::<X25519HkdfSha256>(private_key),
        }
    }
}

/// The keys of one rule, in the order of the configuration list. Cheap to clone.
///
/// Equal when the configurations are equal: a private key follows from its public key.
#[derive(Clone, PartialEq)]
pub struct EchKeys(Arc<[EchKey]>);

impl EchKeys {
    /// Keys from base64 text: an `ECHConfigList` (RFC 9849 section 4) with the raw private keys of its configurations.
    /// A configuration without a private key is left out.
    ///
    /// # Errors
    ///
    /// The list or a key cannot be read, or a key belongs to no configuration of the list.
    pub fn from_base64(config_list: &str, private_keys: &[&str]) -> Result<Self, EchKeysError> {
        let list = ConfigList::from_base64(config_list)?;
        let mut keys = Vec::new();
        for private_key in private_keys {
            keys.extend(list.with_private_key(private_key)?);
        }
        Ok(Self::from(keys))
    }

    /// The keys, at most one for each configuration.
    pub fn iter(&self) -> std::slice::Iter<'_, EchKey> {
        self.0.iter()
    }

    /// The keys of configurations with this identifier. Identifiers need not be unique (RFC 9849 section 10.4).
    pub fn with_config_id(&self, config_id: u8) -> impl Iterator<Item = &EchKey> {
        self.iter().filter(move |key| key.config.config_id == config_id)
    }

    /// Whether there is no key at all.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl From<Vec<EchKey>> for EchKeys {
    fn from(mut keys: Vec<EchKey>) -> Self {
        keys.sort_by_key(|key| key.index);
        keys.dedup_by_key(|key| key.index);
        Self(keys.into())
    }
}

impl<'a> IntoIterator for &'a EchKeys {
    type Item = &'a EchKey;
    type IntoIter = std::slice::Iter<'a, EchKey>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl fmt::Debug for EchKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

/// A configuration and the private key that opens what clients seal with it.
pub struct EchKey {
    /// Position among the usable configurations of the list.
    index: usize,
    kem: Kem,
    config: EchConfig,
    private_key: Zeroizing<Vec<u8>>,
}

impl EchKey {
    /// The configuration; [`EchConfig::raw`] is what the HPKE `info` is made of.
    pub fn config(&self) -> &EchConfig {
        &self.config
    }

    /// The mechanism of both keys.
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The private key as the mechanism serialises it (RFC 9180 section 7.1.1). Keep copies no longer than needed.
    pub fn private_key(&self) -> &[u8] {
        &self.private_key
    }
}

impl PartialEq for EchKey {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl fmt::Debug for EchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchKey")
            .field("config_id", &self.config.config_id)
            .field("kem", &self.kem)
            .field("public_name", &self.config.public_name)
            .finish_non_exhaustive()
    }
}

/// Why [`EchKeys`] could not be made. Never quotes what it refuses: it might be a private key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum EchKeysError {
    /// The list is not base64 text.
    #[error("not base64")]
    ListEncoding,
    /// The list is not an `ECHConfigList`.
    #[error("not an ECHConfigList: {0}")]
    List(EchConfigListError),
    /// No configuration has a version and a mechanism that can be used.
    #[error(
        "no usable configuration: {skipped} of another version, {other_kems} with another KEM than X25519 or P-256"
    )]
    NothingUsable {
        /// Configurations of a version other than 0xfe0d.
        skipped: usize,
        /// Configurations with a mechanism that [`Kem`] does not have.
        other_kems: usize,
    },
    /// A private key is not base64 text.
    #[error("not base64")]
    KeyEncoding,
    /// A private key fits no configuration.
    #[error("this private key belongs to no configuration of ech_config_list")]
    KeyWithoutConfig,
}

/// The usable configurations of an `ECHConfigList`.
#[derive(Debug)]
pub(super) struct ConfigList(Vec<(Kem, EchConfig)>);

impl ConfigList {
    pub(super) fn from_base64(text: &str) -> Result<Self, EchKeysError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_not_base64| EchKeysError::ListEncoding)?;
        let list = parse_config_list(&bytes).map_err(EchKeysError::List)?;
        let total = list.configs.len();
        let usable: Vec<_> =
            list.configs.into_iter().filter_map(|config| Some((Kem::from_id(config.kem_id)?, config))).collect();
        if usable.is_empty() {
            return Err(EchKeysError::NothingUsable { skipped: list.skipped, other_kems: total });
        }
        Ok(Self(usable))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The configurations that the private key in `text` opens; at least one.
    pub(super) fn with_private_key(&self, text: &str) -> Result<Vec<EchKey>, EchKeysError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_not_base64| EchKeysError::KeyEncoding)?;
        let private_key = Zeroizing::new(bytes);
        let mut keys = Vec::new();
        for (index, (kem, config)) in self.0.iter().enumerate() {
            if kem.public_key(&private_key).as_ref() == Some(&config.public_key) {
                keys.push(EchKey { index, kem: *kem, config: config.clone(), private_key: private_key.clone() });
            }
        }
        if keys.is_empty() { Err(EchKeysError::KeyWithoutConfig) } else { Ok(keys) }
    }
}
