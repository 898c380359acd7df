//! Reads an `ECHConfigList` (RFC 9849 section 4) for the operator who configures Encrypted Client Hello.
//!
//! The exact bytes of every configuration are kept, since HPKE's `info` covers them (section 6.1). It errs towards
//! refusing: a list that is not well-formed throughout is an error, because one that works in part would fail in
//! front of clients only. Configurations of a version not known here are skipped by their length, as clients do.

use thiserror::Error;

use crate::reader::Reader;

/// The version, and the TLS extension number, of RFC 9849.
pub const ECH_VERSION: u16 = 0xfe0d;

/// The configurations of a list, in its order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchConfigList {
    /// Those of version [`ECH_VERSION`].
    pub configs: Vec<EchConfig>,
    /// Number of configurations of another version, which were skipped.
    pub skipped: usize,
}

/// One `ECHConfig` of version [`ECH_VERSION`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EchConfig {
    /// The bytes of this `ECHConfig` as they stood in the list, with version and length: what follows `"tls ech\0"` in
    /// the HPKE `info` (RFC 9849 section 6.1).
    pub raw: Vec<u8>,
    /// The number a client names the configuration by. Not necessarily unique in a list.
    pub config_id: u8,
    /// The HPKE KEM (RFC 9180 section 7.1).
    pub kem_id: u16,
    /// The public key as the KEM serialises it; its length is not checked against the KEM here.
    pub public_key: Vec<u8>,
    /// The offered pairs of KDF and AEAD; at least one.
    pub cipher_suites: Vec<CipherSuite>,
    /// The longest server name, in bytes, that padding is to hide; 0 when not told.
    pub maximum_name_length: u8,
    /// The name in the outer hello: 1 to 255 visible ASCII characters.
    pub public_name: String,
    /// Types and bodies of the extensions, no type twice.
    pub extensions: Vec<(u16, Vec<u8>)>,
}

/// A `HpkeSymmetricCipherSuite` (RFC 9849 section 4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CipherSuite {
    /// The HPKE KDF (RFC 9180 section 7.2).
    pub kdf_id: u16,
    /// The HPKE AEAD (RFC 9180 section 7.3).
    pub aead_id: u16,
}

/// Error of bytes that are not an `ECHConfigList`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[non_exhaustive]
pub enum EchConfigListError {
    /// The two-byte length in front does not equal what follows it.
    #[error("ECHConfigList {}", length_error(*.announced, *.present))]
    ListLength {
        /// The length as announced, in bytes; `None` when fewer than two bytes are there.
        announced: Option<u16>,
        /// The bytes that follow it.
        present: usize,
    },
    /// The list holds no configuration at all.
    #[error("ECHConfigList is empty")]
    Empty,
    /// The configuration at this index, counted from 0, reaches past the end of the list.
    #[error("ECHConfig {index} reaches past the end of the list")]
    Truncated {
        /// Index in the list.
        index: usize,
    },
    /// A field of the configuration at this index is not as RFC 9849 section 4 has it.
    #[error("ECHConfig {index} has a malformed {field}")]
    Field {
        /// Index in the list, with skipped ones counted.
        index: usize,
        /// The name of the field in the RFC.
        field: &'static str,
    },
}

fn length_error(announced: Option<u16>, present: usize) -> String {
    match announced {
        None => format!("is too short for its length field ({present} bytes)"),
        Some(announced) => format!("announces {announced} bytes, but {present} follow"),
    }
}

/// Parses an `ECHConfigList` with its two-byte length, as published in the `ech` parameter of DNS (RFC 9848).
///
/// # Errors
///
/// The first departure from RFC 9849 section 4, with the index of its configuration.
pub fn parse_config_list(bytes: &[u8]) -> Result<EchConfigList, EchConfigListError> {
    let mut reader = Reader::new(bytes);
    let announced = reader.u16().ok_or(EchConfigListError::ListLength { announced: None, present: bytes.len() })?;
    if reader.rest().len() != usize::from(announced) {
        return Err(EchConfigListError::ListLength { announced: Some(announced), present: reader.rest().len() });
    }
    if reader.is_empty() {
        return Err(EchConfigListError::Empty);
    }

    let mut list = EchConfigList { configs: Vec::new(), skipped: 0 };
    let mut index: usize = 0;
    while !reader.is_empty() {
        let entry = reader.clone();
        let (version, contents) = reader.u16().zip(reader.vec16()).ok_or(EchConfigListError::Truncated { index })?;
        if version == ECH_VERSION {
            let raw_len = entry.rest().len().saturating_sub(reader.rest().len());
            let raw = entry.rest().get(..raw_len).unwrap_or_default();
            let config = parse_contents(raw, contents).map_err(|field| EchConfigListError::Field { index, field })?;
            list.configs.push(config);
        } else {
            list.skipped = list.skipped.saturating_add(1);
        }
        index = index.saturating_add(1);
    }
    Ok(list)
}

/// `ECHConfigContents`; the error is the RFC's name of the first field that is malformed.
fn parse_contents(raw: &[u8], contents: &[u8]) -> Result<EchConfig, &'static str> {
    let mut reader = Reader::new(contents);
    let config_id = reader.u8().ok_or("config_id")?;
    let kem_id = reader.u16().ok_or("kem_id")?;
    let public_key = reader.vec16().filter(|key| !key.is_empty()).ok_or("public_key")?.to_vec();
    let cipher_suites = reader.vec16().and_then(parse_cipher_suites).ok_or("cipher_suites")?;
    let maximum_name_length = reader.u8().ok_or("maximum_name_length")?;
    let public_name = reader.vec8().and_then(parse_public_name).ok_or("public_name")?;
    let extensions = reader.vec16().and_then(parse_extensions).ok_or("extensions")?;
    if !reader.is_empty() {
        return Err("length");
    }
    Ok(EchConfig {
        raw: raw.to_vec(),
        config_id,
        kem_id,
        public_key,
        cipher_suites,
        maximum_name_length,
        public_name,
        extensions,
    })
}

fn parse_cipher_suites(bytes: &[u8]) -> Option<Vec<CipherSuite>> {
    let mut reader = Reader::new(bytes);
    let mut suites = Vec::new();
    while !reader.is_empty() {
        suites.push(CipherSuite { kdf_id: reader.u16()?, aead_id: reader.u16()? });
    }
    (!suites.is_empty()).then_some(suites)
}

fn parse_public_name(bytes: &[u8]) -> Option<String> {
    if bytes.is_empty() || !bytes.iter().all(u8::is_ascii_graphic) {
        return None;
    }
    String::from_utf8(bytes.to_vec()).ok()
}

fn parse_extensions(bytes: &[u8]) -> Option<Vec<(u16, Vec<u8>)>> {
    let mut reader = Reader::new(bytes);
    let mut extensions = Vec::new();
    let mut seen = std::collections::BTreeSet::new();
    while !reader.is_empty() {
        let typ = reader.u16()?;
        let body = reader.vec16()?;
        // RFC 9849 section 4.2: no more than one extension of a type.
        if !seen.insert(typ) {
            return None;
        }
        extensions.push((typ, body.to_vec()));
    }
    Some(extensions)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{hex, vec8, vec16};

    /// X25519, HKDF-SHA256, AES-128-GCM, `config_id` 0x41, public name `public.example`, no extensions.
    const VECTOR: &str = "0041 fe0d 003d 41 0020 0020 40df78025e9e6407aa990c3a1b662516985de9339f23fcf0d17a7ff760b6c45b
        0004 0001 0001 00 0e 7075626c69632e6578616d706c65 0000";

    /// `ECHConfigContents` with every field replaceable.
    struct Contents {
        public_key: Vec<u8>,
        suites: Vec<u8>,
        name: Vec<u8>,
        extensions: Vec<u8>,
        tail: Vec<u8>,
    }

    impl Default for Contents {
        fn default() -> Self {
            Self {
                public_key: vec![7; 32],
                suites: hex("0001 0001 0001 0003"),
                name: b"public.example".to_vec(),
                extensions: Vec::new(),
                tail: Vec::new(),
            }
        }
    }

    impl Contents {
        fn entry(&self) -> Vec<u8> {
            let contents = [
                hex("09 0020"),
                vec16(&self.public_key),
                vec16(&self.suites),
                vec![64],
                vec8(&self.name),
                vec16(&self.extensions),
                self.tail.clone(),
            ];
            [hex("fe0d"), vec16(&contents.concat())].concat()
        }
    }

    #[test]
    fn every_field_of_the_vector_is_read() {
        let bytes = hex(VECTOR);
        let list = parse_config_list(&bytes).unwrap();
        assert_eq!(list.skipped, 0);
        let [config] = list.configs.as_slice() else { panic!("one configuration, not {}", list.configs.len()) };
        assert_eq!(config.raw, bytes[2..], "the exact bytes with version and length");
        assert_eq!(config.config_id, 0x41);
        assert_eq!(config.kem_id, 0x0020);
        assert_eq!(config.public_key, bytes[11..43]);
        assert_eq!(config.cipher_suites, [CipherSuite { kdf_id: 1, aead_id: 1 }]);
        assert_eq!(config.maximum_name_length, 0);
        assert_eq!(config.public_name, "public.example");
        assert_eq!(config.extensions, []);
    }

    #[test]
    fn unknown_versions_are_counted_and_raw_bytes_are_those_of_the_entry() {
        let known = Contents { extensions: hex("abcd 0002 0102 8001 0000"), ..Contents::default() }.entry();
        let unknown = hex("fe0a 0003 010203");
        let list =
            parse_config_list(&vec16(&[unknown.clone(), known.clone(), unknown, known.clone()].concat())).unwrap();
        assert_eq!((list.configs.len(), list.skipped), (2, 2));
        for config in &list.configs {
            assert_eq!(config.raw, known);
            assert_eq!(config.cipher_suites.len(), 2);
            assert_eq!(config.maximum_name_length, 64);
            assert_eq!(config.extensions, [(0xabcd, vec![1, 2]), (0x8001, vec![])]);
        }
    }

    #[test]
    fn a_list_of_unknown_versions_only_is_no_error() {
        let list = parse_config_list(&hex("0004 fe0a 0000")).unwrap();
        assert_eq!((list.configs.len(), list.skipped), (0, 1));
    }

    #[test]
    fn malformed_lists_name_the_entry_and_the_field() {
        use EchConfigListError::{Empty, Field, ListLength, Truncated};
        let good = Contents::default().entry();
        let after_good = |entry: Vec<u8>| vec16(&[good.clone(), entry].concat());
        let with = |contents: Contents| after_good(contents.entry());
        let rows = [
            ("nothing", vec![], ListLength { announced: None, present: 0 }),
            ("half a length", vec![0], ListLength { announced: None, present: 1 }),
            ("length too long", hex("0005 fe0a 0000"), ListLength { announced: Some(5), present: 4 }),
            ("length too short", hex("0003 fe0a 0000"), ListLength { announced: Some(3), present: 4 }),
            ("empty list", hex("0000"), Empty),
            ("half a version", after_good(hex("fe")), Truncated { index: 1 }),
            ("contents cut", after_good(hex("fe0d 0002 41")), Truncated { index: 1 }),
            ("no contents", after_good(hex("fe0d 0000")), Field { index: 1, field: "config_id" }),
            ("no kem", after_good(hex("fe0d 0002 4100")), Field { index: 1, field: "kem_id" }),
            (
                "empty public key",
                with(Contents { public_key: vec![], ..Contents::default() }),
                Field { index: 1, field: "public_key" },
            ),
            (
                "no cipher suite",
                with(Contents { suites: vec![], ..Contents::default() }),
                Field { index: 1, field: "cipher_suites" },
            ),
            (
                "half a cipher suite",
                with(Contents { suites: vec![0, 1, 0, 1, 0, 1], ..Contents::default() }),
                Field { index: 1, field: "cipher_suites" },
            ),
            (
                "empty public name",
                with(Contents { name: vec![], ..Contents::default() }),
                Field { index: 1, field: "public_name" },
            ),
            (
                "space in the public name",
                with(Contents { name: b"a b".to_vec(), ..Contents::default() }),
                Field { index: 1, field: "public_name" },
            ),
            (
                "extension cut",
                with(Contents { extensions: hex("0001 0001"), ..Contents::default() }),
                Field { index: 1, field: "extensions" },
            ),
            (
                "extension twice",
                with(Contents { extensions: hex("0001 0000 0001 0000"), ..Contents::default() }),
                Field { index: 1, field: "extensions" },
            ),
            (
                "bytes after the extensions",
                with(Contents { tail: vec![0], ..Contents::default() }),
                Field { index: 1, field: "length" },
            ),
        ];
        for (name, bytes, error) in rows {
            assert_eq!(parse_config_list(&bytes), Err(error), "{name}");
        }
    }

    #[test]
    fn every_truncation_is_an_error() {
        let bytes = hex(VECTOR);
        for len in 0..bytes.len() {
            assert!(parse_config_list(&bytes[..len]).is_err(), "{len} bytes");
            // The same with a list length that fits, so that the cut is inside the configuration.
            if let Some(body) = bytes[..len].get(2..) {
                assert!(parse_config_list(&vec16(body)).is_err(), "{len} bytes, length mended");
            }
        }
    }
}
