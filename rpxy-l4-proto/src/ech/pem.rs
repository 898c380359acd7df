//! Key files (RFC 9934): a private key in PKCS#8, then the configurations that it opens, in PEM.
//!
//! As a file of several keys, such pairs follow each other. Text outside the blocks is a comment (RFC 7468 section 2).
//! It errs towards refusing: a block that cannot be read, or a key without configuration, is an error with its line.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use pkcs8::{
    AlgorithmIdentifierRef, ObjectIdentifier, PrivateKeyInfoRef,
    der::{Decode as _, Encode as _, asn1::OctetStringRef},
};
use sec1::EcPrivateKey;
use thiserror::Error;
use zeroize::Zeroizing;

use super::{EchKey, Kem, encode_config_list, parse_config_list};

const PRIVATE_KEY: &str = "PRIVATE KEY";
const ECHCONFIG: &str = "ECHCONFIG";
/// The longest file that is looked at, in bytes: room for a thousand keys.
const MAX_FILE: usize = 1 << 20;

/// RFC 8410 section 3.
const ID_X25519: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.3.101.110");
/// RFC 5480 section 2.1.1.
const ID_EC_PUBLIC_KEY: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.2.1");
/// P-256 (RFC 5480 section 2.1.1.1).
const SECP256R1: ObjectIdentifier = ObjectIdentifier::new_unwrap("1.2.840.10045.3.1.7");

/// Error of a text that is not a key file.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("line {line}: {kind}")]
pub struct PemError {
    /// The line of the block, from 1.
    pub line: usize,
    /// The error.
    pub kind: PemErrorKind,
}

/// Error of a block. Never quotes it: it might be a private key.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum PemErrorKind {
    /// The file has more than 1 MiB.
    #[error("the file is longer than 1 MiB")]
    TooLong,
    /// There is no block at all.
    #[error("no PEM block")]
    Empty,
    /// A block does not end, or its end has another label.
    #[error("the block has no end")]
    Unfinished,
    /// A block ends that did not begin.
    #[error("the end of a block that has no beginning")]
    Unopened,
    /// The inside of a block is not base64.
    #[error("the block is not base64")]
    NotBase64,
    /// A block of another kind.
    #[error("neither a PRIVATE KEY nor an ECHCONFIG")]
    UnknownLabel,
    /// A private key that is not PKCS#8 for X25519 or P-256.
    #[error("not a private key for X25519 or P-256 in PKCS#8")]
    UnknownKey,
    /// Not an `ECHConfigList`.
    #[error("{0}")]
    Config(super::EchConfigListError),
    /// A private key without configurations behind it.
    #[error("no ECHCONFIG follows the private key")]
    KeyWithoutConfig,
    /// Configurations without a private key before them.
    #[error("no private key stands before the ECHCONFIG")]
    ConfigWithoutKey,
    /// The private key before them opens none of the configurations.
    #[error("the private key before it opens no configuration of the ECHCONFIG")]
    OtherKey,
}

/// The keys of a file. A configuration that its private key does not open is left out, as long as it opens another.
///
/// # Errors
///
/// The first thing that is wrong.
pub fn read_pem(text: &str) -> Result<Vec<EchKey>, PemError> {
    if text.len() > MAX_FILE {
        return Err(PemError { line: 1, kind: PemErrorKind::TooLong });
    }
    let mut keys = Vec::new();
    let mut waiting: Option<(usize, RawKey)> = None;
    let mut blocks = Blocks { lines: text.lines().enumerate() };
    while let Some(block) = blocks.next_block()? {
        let error = |kind| PemError { line: block.line, kind };
        match (block.label, waiting.take()) {
            (PRIVATE_KEY, Some((line, _))) => return Err(PemError { line, kind: PemErrorKind::KeyWithoutConfig }),
            (PRIVATE_KEY, None) => {
                let key = RawKey::from_pkcs8(&block.content).ok_or_else(|| error(PemErrorKind::UnknownKey))?;
                waiting = Some((block.line, key));
            }
            (ECHCONFIG, None) => return Err(error(PemErrorKind::ConfigWithoutKey)),
            (ECHCONFIG, Some((_, key))) => {
                let list = parse_config_list(&block.content).map_err(|cause| error(PemErrorKind::Config(cause)))?;
                let before = keys.len();
                let of_key = list.configs.into_iter().filter(|config| config.kem_id == key.kem.id());
                keys.extend(of_key.filter_map(|config| EchKey::new(config, &key.bytes)));
                if keys.len() == before {
                    return Err(error(PemErrorKind::OtherKey));
                }
            }
            _ => return Err(error(PemErrorKind::UnknownLabel)),
        }
    }
    match waiting {
        Some((line, _)) => Err(PemError { line, kind: PemErrorKind::KeyWithoutConfig }),
        None if keys.is_empty() => Err(PemError { line: 1, kind: PemErrorKind::Empty }),
        None => Ok(keys),
    }
}

/// A file with this key, to be read by [`read_pem`] and by other programs. `None` never happens with a key of ours.
#[must_use]
pub fn write_pem(key: &EchKey) -> Option<Zeroizing<String>> {
    let raw = RawKey { kem: key.kem(), bytes: key.private_key() };
    let mut text = Zeroizing::new(String::with_capacity(1024));
    block(&mut text, PRIVATE_KEY, &raw.to_pkcs8()?);
    block(&mut text, ECHCONFIG, &encode_config_list([key.config()])?);
    Some(text)
}

fn block(text: &mut String, label: &str, content: &[u8]) {
    let encoded = Zeroizing::new(STANDARD.encode(content));
    text.push_str(&format!("-----BEGIN {label}-----\n"));
    let mut rest = encoded.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str(&format!("-----END {label}-----\n"));
}

/// A private key as HPKE serialises it.
struct RawKey {
    kem: Kem,
    bytes: Zeroizing<Vec<u8>>,
}

impl RawKey {
    fn from_pkcs8(der: &[u8]) -> Option<Self> {
        let info = PrivateKeyInfoRef::from_der(der).ok()?;
        let inside = info.private_key.as_bytes();
        let (kem, bytes) = match info.algorithm.oid {
            // RFC 8410 section 7: an octet string in an octet string.
            ID_X25519 => (Kem::X25519, <&OctetStringRef>::from_der(inside).ok()?.as_bytes()),
            ID_EC_PUBLIC_KEY if info.algorithm.parameters_oid() == Ok(SECP256R1) => {
                (Kem::P256, EcPrivateKey::from_der(inside).ok()?.private_key)
            }
            _ => return None,
        };
        Some(Self { kem, bytes: Zeroizing::new(bytes.to_vec()) })
    }

    fn to_pkcs8(&self) -> Option<Zeroizing<Vec<u8>>> {
        let (algorithm, inside) = match self.kem {
            Kem::X25519 => {
                let key = OctetStringRef::new(&self.bytes).ok()?.to_der().ok()?;
                (AlgorithmIdentifierRef { oid: ID_X25519, parameters: None }, key)
            }
            Kem::P256 => {
                let key = EcPrivateKey { private_key: &self.bytes, parameters: None, public_key: None };
                let parameters = Some((&SECP256R1).into());
                (AlgorithmIdentifierRef { oid: ID_EC_PUBLIC_KEY, parameters }, key.to_der().ok()?)
            }
        };
        let inside = Zeroizing::new(inside);
        let info = PrivateKeyInfoRef::new(algorithm, OctetStringRef::new(&inside).ok()?);
        info.to_der().ok().map(Zeroizing::new)
    }
}

struct Block<'t> {
    /// Its first line, from 1.
    line: usize,
    label: &'t str,
    content: Zeroizing<Vec<u8>>,
}

/// The blocks of a text in turn.
struct Blocks<'t> {
    lines: std::iter::Enumerate<std::str::Lines<'t>>,
}

impl<'t> Blocks<'t> {
    fn next_block(&mut self) -> Result<Option<Block<'t>>, PemError> {
        let begin = self.lines.find_map(|(index, line)| {
            let line_number = index.saturating_add(1);
            // An END outside of a block is the rest of one whose BEGIN is damaged: a key would be missing unnoticed.
            let stray =
                boundary(line, "END").map(|_| Err(PemError { line: line_number, kind: PemErrorKind::Unopened }));
            stray.or_else(|| boundary(line, "BEGIN").map(|label| Ok((line_number, label))))
        });
        let Some((line, label)) = begin.transpose()? else { return Ok(None) };
        let mut encoded: Vec<&str> = Vec::new();
        for (_, text) in self.lines.by_ref() {
            if let Some(end) = boundary(text, "END") {
                let error = |kind| Err(PemError { line, kind });
                if end != label {
                    return error(PemErrorKind::Unfinished);
                }
                // Put together in one allocation, so that no part of a key stays in memory that was given back.
                let encoded = Zeroizing::new(encoded.concat());
                return match STANDARD.decode(encoded.as_bytes()) {
                    Ok(content) => Ok(Some(Block { line, label, content: Zeroizing::new(content) })),
                    Err(_) => error(PemErrorKind::NotBase64),
                };
            }
            encoded.push(text.trim());
        }
        Err(PemError { line, kind: PemErrorKind::Unfinished })
    }
}

/// The label of a line `-----BEGIN LABEL-----`.
fn boundary<'t>(line: &'t str, what: &str) -> Option<&'t str> {
    let inside = line.trim().strip_prefix("-----")?.strip_suffix("-----")?;
    inside.strip_prefix(what)?.strip_prefix(' ')
}
