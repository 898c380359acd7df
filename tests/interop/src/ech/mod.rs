//! Clients and servers that speak Encrypted Client Hello.
//!
//! A private backend needs no keys: that a hello was decrypted before it (split mode, RFC 9849 section 3.1) shows by the
//! empty extension in the inner hello, and BoringSSL confirms it then. A server of the public name has keys, to hand out
//! as `retry_configs`.

pub mod keys;
pub mod nss;
pub mod quic;
pub mod tls;

pub use tls::{Answer, Refused};
