//! QUIC as far as a router needs it: which packets a datagram holds, and the ClientHello of a flow whose route is
//! undecided ([`InitialProbe`]).
//!
//! Versions 1 (RFC 9000) and 2 (RFC 9369) are read; of others, what RFC 8999 promises for all of them
//! ([`LongHeader`]). Initial packets are protected with keys that anybody can derive from the client's first
//! Destination Connection ID, so no private key enters here. It errs towards "not QUIC" until a packet has opened
//! under those keys, and towards ignoring what does not open afterwards: strangers can send to a known flow, too.

mod connection_id;
mod crypto_stream;
mod frame;
mod header;
mod key_schedule;
mod keys;
mod packet;
mod packet_number;
mod probe;
mod rewrite;
mod varint;
mod write;

#[cfg(test)]
mod tests;

pub use connection_id::ConnectionId;
pub use crypto_stream::{CryptoStream, CryptoStreamError, MAX_CRYPTO_PIECES, MAX_CRYPTO_STREAM};
pub use frame::{Frame, Frames, Malformed, frames};
pub use header::{LongHeader, LongType, Version, version_negotiation};
pub use keys::{InitialKeys, Opened};
pub use packet::{LongPacket, Packets, packets};
pub use probe::InitialProbe;
pub use rewrite::{InitialRewriter, Rewritten};
pub use write::first_datagrams;

/// The shortest UDP payload that may carry an Initial packet, in bytes (RFC 9000 section 14.1).
pub const MIN_INITIAL_DATAGRAM: usize = 1200;
/// The shortest Destination Connection ID that a client may make up, in bytes (RFC 9000 section 7.2).
pub const MIN_FIRST_DCID: usize = 8;
