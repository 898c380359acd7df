//! HPKE mechanisms: numbers of the registries of RFC 9180 section 7, and names for a command line and its output.

use std::{fmt, str::FromStr};

use thiserror::Error;

use super::CipherSuite;

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
    #[must_use]
    pub fn from_id(id: u16) -> Option<Self> {
        [Self::P256, Self::X25519].into_iter().find(|kem| kem.id() == id)
    }

    /// The number in the registry of RFC 9180 section 7.1.
    #[must_use]
    pub const fn id(self) -> u16 {
        match self {
            Self::P256 => 0x0010,
            Self::X25519 => 0x0020,
        }
    }
}

const KEMS: [(&str, Kem); 2] = [("x25519", Kem::X25519), ("p256", Kem::P256)];
/// RFC 9180 section 7.2.
const KDFS: [(&str, u16); 3] = [("hkdf-sha256", 1), ("hkdf-sha384", 2), ("hkdf-sha512", 3)];
/// RFC 9180 section 7.3.
const AEADS: [(&str, u16); 3] = [("aes-128-gcm", 1), ("aes-256-gcm", 2), ("chacha20-poly1305", 3)];

/// A text that names no mechanism; displays as the names that exist.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum UnknownMechanism {
    /// Not a KEM.
    #[error("expected {}", names(&KEMS, " or "))]
    Kem,
    /// Not a pair of KDF and AEAD.
    #[error("expected KDF/AEAD, with a KDF of {} and an AEAD of {}", names(&KDFS, ", "), names(&AEADS, ", "))]
    CipherSuite,
}

/// `x25519` or `p256`, in any case.
impl FromStr for Kem {
    type Err = UnknownMechanism;

    fn from_str(text: &str) -> Result<Self, UnknownMechanism> {
        value(&KEMS, text).ok_or(UnknownMechanism::Kem)
    }
}

impl fmt::Display for Kem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(name(&KEMS, self))
    }
}

/// `KDF/AEAD`, as in `hkdf-sha256/aes-128-gcm`, in any case.
impl FromStr for CipherSuite {
    type Err = UnknownMechanism;

    fn from_str(text: &str) -> Result<Self, UnknownMechanism> {
        let parse = || {
            let (kdf, aead) = text.split_once('/')?;
            Some(Self { kdf_id: value(&KDFS, kdf)?, aead_id: value(&AEADS, aead)? })
        };
        parse().ok_or(UnknownMechanism::CipherSuite)
    }
}

/// `KDF/AEAD`; a part without a name here is `unknown`.
impl fmt::Display for CipherSuite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", name(&KDFS, &self.kdf_id), name(&AEADS, &self.aead_id))
    }
}

fn value<T: Copy>(table: &[(&str, T)], text: &str) -> Option<T> {
    table.iter().find(|(name, _)| name.eq_ignore_ascii_case(text)).map(|(_, value)| *value)
}

fn name<T: PartialEq>(table: &[(&'static str, T)], value: &T) -> &'static str {
    table.iter().find(|(_, other)| other == value).map_or("unknown", |(name, _)| name)
}

fn names<T>(table: &[(&str, T)], between: &str) -> String {
    table.iter().map(|(name, _)| *name).collect::<Vec<_>>().join(between)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_read_in_any_case_and_written_in_lower_case() {
        for (text, expected) in [("x25519", Some(Kem::X25519)), ("P256", Some(Kem::P256)), ("x448", None), ("", None)] {
            assert_eq!(text.parse().ok(), expected, "{text}");
            assert_eq!(expected.map(|kem| kem.to_string()), expected.map(|_| text.to_ascii_lowercase()));
        }
        let suite = |kdf_id, aead_id| Some(CipherSuite { kdf_id, aead_id });
        for (text, expected) in [
            ("hkdf-sha256/aes-128-gcm", suite(1, 1)),
            ("HKDF-SHA512/ChaCha20-Poly1305", suite(3, 3)),
            ("hkdf-sha256", None),
            ("hkdf-sha256/des", None),
            ("md5/aes-128-gcm", None),
        ] {
            assert_eq!(text.parse().ok(), expected, "{text}");
            assert_eq!(expected.map(|suite| suite.to_string()), expected.map(|_| text.to_ascii_lowercase()));
        }
        assert_eq!(CipherSuite { kdf_id: 9, aead_id: 2 }.to_string(), "unknown/aes-256-gcm");
    }

    #[test]
    fn an_error_lists_the_names() {
        assert_eq!(UnknownMechanism::Kem.to_string(), "expected x25519 or p256");
        assert!(UnknownMechanism::CipherSuite.to_string().contains("hkdf-sha256, hkdf-sha384, hkdf-sha512 and"));
    }
}
