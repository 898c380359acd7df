//! The PROXY protocol, versions 1 and 2: who really connected, in front of a stream or datagram.
//!
//! Section numbers refer to `proxy-protocol.txt` of HAProxy. Everything that is not a header is [`Decoded::Invalid`],
//! said with the first byte that proves it. It errs towards refusing: the addresses decide on access, so a header that is
//! odd in any way is not acted upon.

mod encode;
mod tlv;
mod v1;
mod v2;

#[cfg(test)]
mod tests;

use std::net::SocketAddr;

use thiserror::Error;

pub use encode::{encode_v1, encode_v1_unknown, encode_v2};
pub use tlv::Tlvs;

/// The longest version 1 header, in bytes, its line end included (section 2.1).
pub const MAX_V1: usize = 107;
/// The most bytes of TLVs kept of a version 2 header, to be passed on; fields beyond are skipped. The format allows
/// 64 KiB.
pub const MAX_TLVS: usize = 4096;

/// Answer of the start of a stream.
#[must_use]
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// A whole header.
    Complete {
        /// Its contents.
        header: Header,
        /// Its length in bytes; the payload starts there.
        len: usize,
    },
    /// A proper beginning of a header.
    NeedMore,
    /// Not a header, whatever follows.
    Invalid(DecodeError),
}

/// A header of either version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Header {
    /// The version it was written in.
    pub version: Version,
    /// The addresses of the connection that the sender speaks for.
    pub addresses: Addresses,
    /// Fields of version 2 beyond the addresses; empty in version 1 and for [`Addresses::Local`].
    pub tlvs: Tlvs,
}

/// The version of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Version {
    /// One line of text (section 2.1).
    V1,
    /// Binary (section 2.2).
    V2,
}

/// The addresses of a header.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Addresses {
    /// Version 2 `LOCAL`: the sender speaks for itself, for example in a health check. The addresses of the socket
    /// count.
    Local,
    /// A proxied connection without IP addresses: version 1 `UNKNOWN`, version 2 `AF_UNSPEC` and `AF_UNIX`. The
    /// addresses of the socket count.
    Unknown,
    /// A proxied stream, TCP. Both addresses are of one family.
    Stream {
        /// The client.
        source: SocketAddr,
        /// The address that the client connected to.
        destination: SocketAddr,
    },
    /// A proxied datagram, UDP (version 2 only). Both addresses are of one family.
    Datagram {
        /// The client.
        source: SocketAddr,
        /// The address that the client sent it to.
        destination: SocketAddr,
    },
}

/// Error of bytes that are not a PROXY header.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Error)]
#[non_exhaustive]
pub enum DecodeError {
    /// Neither signature stands at the start.
    #[error("no PROXY protocol signature")]
    NoSignature,
    /// Version 1: the protocol is not one of `TCP4`, `TCP6` and `UNKNOWN`.
    #[error("unknown protocol in a version 1 header")]
    Protocol,
    /// Version 1: an address is not one of the announced family.
    #[error("malformed address in a version 1 header")]
    Address,
    /// Version 1: a port is not a decimal number below 65,536 without leading zeros.
    #[error("malformed port in a version 1 header")]
    Port,
    /// Version 1: no line end where one is due, or none within [`MAX_V1`] bytes.
    #[error("version 1 header without its line end")]
    LineEnd,
    /// Version 2: the version nibble is not 2.
    #[error("version 2 signature with another version number")]
    Version,
    /// Version 2: the command is neither `LOCAL` nor `PROXY`.
    #[error("unknown command in a version 2 header")]
    Command,
    /// Version 2: an unassigned address family or transport.
    #[error("unknown address family or transport in a version 2 header")]
    Family,
    /// Version 2: the length does not cover the addresses.
    #[error("version 2 header too short for its addresses")]
    TooShort,
    /// Version 2: a TLV reaches past the end, or has a length that its type does not allow.
    #[error("malformed TLV in a version 2 header")]
    Tlv,
    /// Version 2: the CRC32C TLV does not fit the header.
    #[error("version 2 header with a wrong CRC32C")]
    Checksum,
}

/// Reads the header at the start of `stream`, everything received since it began. Work is bounded by the longest
/// header, so calling again on each segment is cheap.
pub fn decode(stream: &[u8]) -> Decoded {
    let decoded = match stream.first() {
        None => Err(Stop::Short),
        Some(&b'P') => v1::decode(stream),
        Some(_) => v2::decode(stream),
    };
    match decoded {
        Ok((header, len)) => Decoded::Complete { header, len },
        Err(Stop::Short) => Decoded::NeedMore,
        Err(Stop::Wrong(error)) => Decoded::Invalid(error),
    }
}

/// Returns whether `stream` has the whole signature of a header, so that nothing else can be meant.
#[must_use]
pub fn has_signature(stream: &[u8]) -> bool {
    stream.starts_with(v1::SIGNATURE) || stream.starts_with(&v2::SIGNATURE)
}

/// End of decoding without a header.
enum Stop {
    Short,
    Wrong(DecodeError),
}

impl Stop {
    /// For the start of `stream`, which has to be `expected`.
    fn unless_starts_with(stream: &[u8], expected: &[u8], error: DecodeError) -> Result<(), Self> {
        if stream.starts_with(expected) {
            Ok(())
        } else if expected.starts_with(stream) {
            Err(Self::Short)
        } else {
            Err(Self::Wrong(error))
        }
    }
}
