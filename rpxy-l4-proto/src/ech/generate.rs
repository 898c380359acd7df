//! New configurations and keys. Randomness is the caller's.

use thiserror::Error;

use super::{CipherSuite, ECH_VERSION, EchConfig, EchKey, Kem, hpke::PrivateKey, parse_config_list};

/// Contents of a new configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Parameters {
    /// The name in the clear.
    pub public_name: String,
    /// The mechanism of its key.
    pub kem: Kem,
    /// The pairs that clients may choose from.
    pub cipher_suites: Vec<CipherSuite>,
    /// The number that clients name it by.
    pub config_id: u8,
    /// The longest server name, in bytes, that padding is to hide; 0 leaves it to the client.
    pub maximum_name_length: u8,
}

/// A parameter that no configuration can have.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum GenerateError {
    /// The public name is not a host name with letters, or longer than 255 bytes (RFC 9849 section 4).
    #[error("the public name is not a host name such as public.example")]
    PublicName,
    /// There is no cipher suite, or there are more than fit.
    #[error("a configuration has 1 to 1000 cipher suites")]
    CipherSuites,
}

/// A new key. `material` is 32 bytes that nobody else knows, from a cryptographically secure source.
///
/// # Errors
///
/// A parameter that a configuration cannot have.
pub fn generate(parameters: &Parameters, material: &[u8; 32]) -> Result<EchKey, GenerateError> {
    if !is_public_name(&parameters.public_name) {
        return Err(GenerateError::PublicName);
    }
    if !(1..=1000).contains(&parameters.cipher_suites.len()) {
        return Err(GenerateError::CipherSuites);
    }
    let private_key = PrivateKey::derive(parameters.kem, material);
    let config = encode(parameters, &private_key.public_key()).ok_or(GenerateError::PublicName)?;
    EchKey::new(config, &zeroize::Zeroizing::new(private_key.to_bytes())).ok_or(GenerateError::PublicName)
}

/// An `ECHConfigList` of these configurations, as it is published; `None` when they are longer than 64 KiB, or none.
#[must_use]
pub fn encode_config_list<'c, I: IntoIterator<Item = &'c EchConfig>>(configs: I) -> Option<Vec<u8>> {
    let body: Vec<u8> = configs.into_iter().flat_map(|config| config.raw.iter().copied()).collect();
    if body.is_empty() {
        return None;
    }
    vec16(&body)
}

/// RFC 9849 section 4: dot-separated labels of letters, digits and hyphens; not what looks like an IPv4 address.
fn is_public_name(name: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
            && !label.starts_with('-')
            && !label.ends_with('-')
    };
    let is_number = |label: &str| {
        label.bytes().all(|byte| byte.is_ascii_digit())
            || label
                .strip_prefix("0x")
                .or_else(|| label.strip_prefix("0X"))
                .is_some_and(|hex| hex.bytes().all(|byte| byte.is_ascii_hexdigit()))
    };
    name.len() <= 253 && name.split('.').all(label) && !name.rsplit('.').next().is_some_and(is_number)
}

/// The configuration, read back from its own bytes.
fn encode(parameters: &Parameters, public_key: &[u8]) -> Option<EchConfig> {
    let suites: Vec<u8> = parameters
        .cipher_suites
        .iter()
        .flat_map(|suite| [suite.kdf_id.to_be_bytes(), suite.aead_id.to_be_bytes()].concat())
        .collect();
    let name = parameters.public_name.to_ascii_lowercase();
    let mut contents = vec![parameters.config_id];
    contents.extend(parameters.kem.id().to_be_bytes());
    contents.extend(vec16(public_key)?);
    contents.extend(vec16(&suites)?);
    contents.push(parameters.maximum_name_length);
    contents.push(u8::try_from(name.len()).ok()?);
    contents.extend(name.bytes());
    contents.extend([0, 0]);
    let config = [&ECH_VERSION.to_be_bytes()[..], &vec16(&contents)?].concat();
    parse_config_list(&vec16(&config)?).ok()?.configs.pop()
}

fn vec16(bytes: &[u8]) -> Option<Vec<u8>> {
    Some([&u16::try_from(bytes.len()).ok()?.to_be_bytes(), bytes].concat())
}
