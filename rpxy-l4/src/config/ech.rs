//! Keys for Encrypted Client Hello (RFC 9849) as an operator gives them: in base64, or in files.
//!
//! No text that this module makes contains a private key.

use std::{
    fs, io,
    os::unix::fs::MetadataExt as _,
    path::{Path, PathBuf},
};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};
use rpxy_l4_proto::ech::{EchConfig, EchConfigListError, EchKey, Kem, PemError, parse_config_list, read_pem};

use super::report::open_to_others;
use thiserror::Error;
use zeroize::Zeroizing;

/// The standard alphabet, padded or not.
pub(super) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Keys from base64 text: an `ECHConfigList` (RFC 9849 section 4) with the raw private keys of its configurations. A
/// configuration without a private key is left out.
///
/// # Errors
///
/// The list or a key cannot be read, or a key belongs to no configuration of the list.
#[cfg(test)]
pub(crate) fn from_base64(
    config_list: &str,
    private_keys: &[&str],
) -> Result<rpxy_l4_proto::ech::EchKeys, EchKeysError> {
    let list = ConfigList::from_base64(config_list)?;
    let mut taken = Vec::new();
    for private_key in private_keys {
        taken.extend(list.with_private_key(private_key)?);
    }
    Ok(list.in_order(taken).into_iter().collect())
}

/// Error of keys in base64. Never quotes them: they might be private.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub(crate) enum EchKeysError {
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
pub(super) struct ConfigList(Vec<EchConfig>);

impl ConfigList {
    pub(super) fn from_base64(text: &str) -> Result<Self, EchKeysError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_not_base64| EchKeysError::ListEncoding)?;
        let mut list = parse_config_list(&bytes).map_err(EchKeysError::List)?;
        let total = list.configs.len();
        list.configs.retain(|config| Kem::from_id(config.kem_id).is_some());
        if list.configs.is_empty() {
            return Err(EchKeysError::NothingUsable { skipped: list.skipped, other_kems: total });
        }
        Ok(Self(list.configs))
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// The configurations that the private key in `text` opens; at least one.
    pub(super) fn with_private_key(&self, text: &str) -> Result<Vec<EchKey>, EchKeysError> {
        let bytes = BASE64.decode(text.trim()).map_err(|_not_base64| EchKeysError::KeyEncoding)?;
        let private_key = Zeroizing::new(bytes);
        let keys: Vec<EchKey> = self.0.iter().filter_map(|config| EchKey::new(config.clone(), &private_key)).collect();
        if keys.is_empty() { Err(EchKeysError::KeyWithoutConfig) } else { Ok(keys) }
    }

    /// Keys of this list in its order.
    pub(super) fn in_order(&self, mut keys: Vec<EchKey>) -> Vec<EchKey> {
        keys.sort_by_key(|key| self.0.iter().position(|config| config == key.config()));
        keys.dedup();
        keys
    }
}

/// The longest key file, in bytes; see [`read_pem`].
const MAX_FILE: u64 = 1 << 20;

/// Error of a key file.
#[derive(Debug, Error)]
pub(crate) enum KeyFileError {
    /// It is missing, may not be read, is too long or is not text.
    #[error("cannot read {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
    /// It is not a key file.
    #[error("{}: {error}", path.display())]
    Invalid {
        /// The file.
        path: PathBuf,
        /// The error in the file.
        error: PemError,
    },
}

/// A key file that was read.
#[derive(Debug)]
pub(crate) struct KeyFile {
    /// Its keys, the newest first.
    pub keys: Vec<EchKey>,
    /// Its mode, if others than its owner and group have rights to it.
    pub exposed: Option<u32>,
}

/// Reads a key file (RFC 9934). Blocks for as long as that takes.
///
/// # Errors
///
/// It cannot be read, or something in it is wrong.
pub(crate) fn read_key_file(path: &Path) -> Result<KeyFile, KeyFileError> {
    let unreadable = |error| KeyFileError::Unreadable { path: path.to_owned(), error };
    let metadata = fs::metadata(path).map_err(unreadable)?;
    if !metadata.is_file() || metadata.len() > MAX_FILE {
        return Err(unreadable(io::Error::other("not a file of at most 1 MiB")));
    }
    let text = Zeroizing::new(fs::read_to_string(path).map_err(unreadable)?);
    let keys = read_pem(&text).map_err(|error| KeyFileError::Invalid { path: path.to_owned(), error })?;
    Ok(KeyFile { keys, exposed: open_to_others(metadata.mode()) })
}
