//! TLS as far as a router needs it: the ClientHello, from a record stream ([`HelloProbe`]) or from QUIC CRYPTO bytes
//! ([`ClientHello::parse`]).
//!
//! The hello is kept as raw bytes with ranges into it, because ECH authenticates those bytes (RFC 9849 section 5.2).
//! Recognition errs towards TLS: three bytes are enough, and no oddity behind them takes it back. Reading errs towards
//! "no name": a hello with one wrong nested length is not read at all, rather than differently from the server behind,
//! and a name that cannot be compared is no name. What it does not know (GREASE, extensions, versions) it lets pass.

mod extension;
mod first_bytes;
mod hello;
mod record;
mod second_hello;
mod server_flight;
mod walk;
mod write;

#[cfg(test)]
mod tests;

pub use hello::{Alpn, ClientHello, Extension};
pub use record::{HelloProbe, fatal_alert, handshake_records};
pub use second_hello::{Found, SecondHello};
pub use server_flight::{ServerFlight, ServerFlightProbe};
pub use write::{Offer, client_hello};

/// The longest ClientHello read, in bytes, its four-byte handshake header included.
///
/// The protocol allows 16 MiB (RFC 8446 section 4); hellos with post-quantum key shares take 2 KiB. A record stream
/// holds at most six times as much, when every record carries a single byte of it.
pub const MAX_HELLO: usize = 64 * 1024;
