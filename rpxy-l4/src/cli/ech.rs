//! Arguments of `ech`.

use std::path::PathBuf;

use clap::{Args, Subcommand};

use rpxy_l4_proto::ech::{CipherSuite, Kem};

/// Commands about key files for Encrypted Client Hello (RFC 9934).
#[derive(Debug, Subcommand)]
pub(crate) enum EchCommand {
    /// Generate a key and its configuration
    Generate(GenerateArgs),
    /// Show the configurations of a key file and the DNS record to publish
    Show {
        /// The key file
        file: PathBuf,
        /// Print the private keys too, in the form of the configuration file
        #[arg(long)]
        private: bool,
    },
    /// Add a key with the parameters of the first one in front of a key file; older keys stay
    Rotate {
        /// The key file
        file: PathBuf,
    },
}

/// Arguments of `ech generate`.
#[derive(Debug, Args)]
pub(crate) struct GenerateArgs {
    /// Public name, sent in the clear, like public.example
    #[arg(long, value_name = "NAME")]
    pub public_name: String,

    /// Key encapsulation mechanism: x25519 or p256
    #[arg(long, value_name = "KEM", default_value = "x25519")]
    pub kem: Kem,

    /// Cipher suites offered to clients
    #[arg(
        long,
        value_name = "KDF/AEAD",
        value_delimiter = ',',
        default_value = "hkdf-sha256/aes-128-gcm,hkdf-sha256/chacha20-poly1305"
    )]
    pub suites: Vec<CipherSuite>,

    /// Identifier of the configuration, 0 to 255 [default: random]
    #[arg(long, value_name = "NUMBER")]
    pub config_id: Option<u8>,

    /// Length of the longest private name in bytes; padding hides that others are shorter
    #[arg(long, value_name = "BYTES", default_value_t = 64)]
    pub max_name_length: u8,

    /// File to create, readable by its owner only [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    pub out: Option<PathBuf>,
}
