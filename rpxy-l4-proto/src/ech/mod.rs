//! Encrypted Client Hello (RFC 9849) as a client-facing server of split mode sees it: keys, and hellos decrypted with
//! them. Where the inner hello goes is the caller's business, and so are confirmations: the backend makes them.
//!
//! It errs towards rejecting, which RFC 9849 section 7.1 wants: what does not open is somebody else's hello and goes on
//! untouched. An alert is the answer only to what no correct client sends.

mod config;
mod generate;
mod hpke;
pub(crate) mod inner;
mod key;
mod outer;
mod pem;
mod registry;
mod server;
#[cfg(test)]
pub(crate) mod tests;

use std::fmt;

pub use config::{CipherSuite, ECH_VERSION, EchConfig, EchConfigList, EchConfigListError, parse_config_list};
pub use generate::{GenerateError, Parameters, encode_config_list, generate};
pub use key::{EchKey, EchKeys};
pub use outer::{ECH_OUTER_EXTENSIONS, ENCRYPTED_CLIENT_HELLO};
pub use pem::{PemError, PemErrorKind, read_pem, write_pem};
pub use registry::{Kem, UnknownMechanism};
pub use server::{Context, FirstHello, Rejection, open_first};

/// A TLS alert that ends the handshake (RFC 8446 section 6.2).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Alert {
    /// `illegal_parameter`: a field that is well-formed and yet cannot be.
    IllegalParameter,
    /// `decode_error`: a field that is not well-formed.
    DecodeError,
    /// `decrypt_error`: the second hello does not open in the context of the first.
    DecryptError,
    /// `unexpected_message`: something else than the hello that a HelloRetryRequest asks for.
    UnexpectedMessage,
    /// `missing_extension`: the second hello came without the extension of the first.
    MissingExtension,
}

impl Alert {
    /// `AlertDescription` on the wire.
    #[must_use]
    pub const fn description(self) -> u8 {
        match self {
            Self::UnexpectedMessage => 10,
            Self::IllegalParameter => 47,
            Self::DecodeError => 50,
            Self::DecryptError => 51,
            Self::MissingExtension => 109,
        }
    }

    /// The name in RFC 8446.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::UnexpectedMessage => "unexpected_message",
            Self::IllegalParameter => "illegal_parameter",
            Self::DecodeError => "decode_error",
            Self::DecryptError => "decrypt_error",
            Self::MissingExtension => "missing_extension",
        }
    }
}

impl fmt::Display for Alert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
