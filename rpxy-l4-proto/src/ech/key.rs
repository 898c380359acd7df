//! Configurations that clients know, with the private keys that open what clients seal with them.
//!
//! A key is taken only when the public key that follows from it stands in the configuration: a mismatch would show as
//! rejected hellos and nothing else. Private keys are wiped from memory when the last user lets go of them, and no
//! text that this module makes contains one.

use std::{fmt, sync::Arc};

use zeroize::Zeroizing;

use super::{EchConfig, Kem, hpke::PrivateKey};

/// The bytes before the configuration in the HPKE `info` (RFC 9849 section 6.1).
const INFO: &[u8] = b"tls ech\0";
/// The longest configuration that a key is made for, in bytes. Real ones have some 70; HPKE has no room for all of 64 KiB
/// in its `info` (RFC 9180 section 7.2.1).
const MAX_CONFIG: usize = 65_000;

/// A configuration and the private key that opens what clients seal with it.
pub struct EchKey {
    config: EchConfig,
    kem: Kem,
    private_key: PrivateKey,
    /// The HPKE `info` of all hellos for this configuration.
    info: Vec<u8>,
}

impl EchKey {
    /// The key for `config` with this private key, serialised as RFC 9180 section 7.1.1 has it. `None` when its public
    /// key is another, when the mechanism is not known here, or when the configuration has more than 65,000 bytes.
    #[must_use]
    pub fn new(config: EchConfig, private_key: &[u8]) -> Option<Self> {
        let kem = Kem::from_id(config.kem_id)?;
        let private_key = PrivateKey::new(kem, private_key)?;
        let fits = private_key.public_key() == config.public_key && config.raw.len() <= MAX_CONFIG;
        let info = [INFO, &config.raw].concat();
        fits.then_some(Self { config, kem, private_key, info })
    }

    /// The configuration.
    #[must_use]
    pub fn config(&self) -> &EchConfig {
        &self.config
    }

    /// The mechanism of both keys.
    #[must_use]
    pub fn kem(&self) -> Kem {
        self.kem
    }

    /// The private key as the mechanism serialises it (RFC 9180 section 7.1.1).
    #[must_use]
    pub fn private_key(&self) -> Zeroizing<Vec<u8>> {
        Zeroizing::new(self.private_key.to_bytes())
    }

    pub(super) fn secret(&self) -> &PrivateKey {
        &self.private_key
    }

    pub(super) fn info(&self) -> &[u8] {
        &self.info
    }
}

/// By what is public: a private key follows from its public key.
impl PartialEq for EchKey {
    fn eq(&self, other: &Self) -> bool {
        self.config == other.config
    }
}

impl Eq for EchKey {}

impl fmt::Debug for EchKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EchKey")
            .field("config_id", &self.config.config_id)
            .field("kem", &self.kem)
            .field("public_name", &self.config.public_name)
            .finish_non_exhaustive()
    }
}

/// Keys in the order of their configurations, no configuration twice. Cheap to clone.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct EchKeys(Arc<[EchKey]>);

impl EchKeys {
    /// The keys.
    pub fn iter(&self) -> std::slice::Iter<'_, EchKey> {
        self.0.iter()
    }

    /// The keys of configurations with this identifier. Identifiers need not be unique (RFC 9849 section 10.4).
    pub fn with_config_id(&self, config_id: u8) -> impl Iterator<Item = &EchKey> {
        self.iter().filter(move |key| key.config.config_id == config_id)
    }

    /// Returns whether there is no key at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl FromIterator<EchKey> for EchKeys {
    fn from_iter<I: IntoIterator<Item = EchKey>>(keys: I) -> Self {
        let mut distinct: Vec<EchKey> = Vec::new();
        for key in keys {
            if !distinct.contains(&key) {
                distinct.push(key);
            }
        }
        Self(distinct.into())
    }
}

impl<'a> IntoIterator for &'a EchKeys {
    type Item = &'a EchKey;
    type IntoIter = std::slice::Iter<'a, EchKey>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}
