//! Sans-IO recognition of what a stream carries: bytes in, values out.
//!
//! No socket, clock, randomness or logging enters this crate. Every parser is total: no input makes it panic, read past
//! its bounds or allocate for bytes that have not arrived. A probe answers with a [`Probe`] and, once it has said
//! anything but [`Probe::NeedMore`], more bytes of the same stream never change the answer.
#![forbid(unsafe_code)]
#![deny(clippy::indexing_slicing)]

pub mod ech;
pub mod http;
#[cfg(any(test, feature = "properties"))]
#[doc(hidden)]
pub mod properties;
pub mod proxy_protocol;
pub mod quic;
mod reader;
pub mod socks5;
pub mod ssh;
#[cfg(any(test, feature = "properties"))]
#[expect(clippy::unwrap_used, reason = "a test input that cannot be built must stop whoever asks for it")]
mod testing;
pub mod tls;
pub mod wireguard;

/// Answer of the bytes seen so far to the question for a protocol.
#[must_use]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Probe<T> {
    /// The stream carries this protocol; further bytes do not change that.
    Match(T),
    /// The stream carries this protocol, and what names its destination cannot be read, whatever follows: it is malformed,
    /// too long, or of a form that has no name. What is certain is never given away for being odd.
    Unreadable,
    /// The stream does not carry this protocol, whatever follows. This is not an error.
    NotThis,
    /// Both are still possible.
    NeedMore,
}

impl<T> Probe<T> {
    /// The same answer about another value.
    pub fn map<U>(self, f: impl FnOnce(T) -> U) -> Probe<U> {
        match self {
            Self::Match(value) => Probe::Match(f(value)),
            Self::Unreadable => Probe::Unreadable,
            Self::NotThis => Probe::NotThis,
            Self::NeedMore => Probe::NeedMore,
        }
    }

    /// Returns whether the answer is [`Probe::Match`].
    #[must_use]
    pub const fn is_match(&self) -> bool {
        matches!(self, Self::Match(_))
    }
}
