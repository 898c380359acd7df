//! Walks the fields of a ClientHello (RFC 8446 section 4.1.2) while its bytes arrive, and stops at the first one that
//! cannot be right. Every nested length must fill its parent exactly.

use std::{collections::BTreeSet, ops::Range};

use super::{ClientHello, Extension, MAX_HELLO, extension};
use crate::Probe;

/// Handshake type `client_hello` (RFC 8446 section 4).
const CLIENT_HELLO: u8 = 1;
/// Handshake header, version, random, empty session id, one cipher suite, one compression method, in bytes.
const MIN_HELLO: usize = 4 + 2 + 32 + 1 + 4 + 2;
/// Offset of `legacy_session_id`: behind handshake header, version and random.
const SESSION_ID_AT: usize = 4 + 2 + 32;
/// The longest `legacy_session_id`, in bytes.
const MAX_SESSION_ID: usize = 32;

impl ClientHello {
    /// Reads a handshake message from its four-byte header on, such as the CRYPTO stream of QUIC carries it.
    ///
    /// The answer is [`Probe::NeedMore`] while the message is a proper beginning of a hello, [`Probe::NotThis`] for
    /// another message, and [`Probe::Unreadable`] for a hello with an extension twice, one that is longer than
    /// [`MAX_HELLO`], or whose lengths do not fit. Bytes behind its end are dropped.
    pub fn parse(message: Vec<u8>) -> Probe<Self> {
        let mut walk = Walk::default();
        walk.advance(&message).map(|()| walk.into_hello(message))
    }
}

/// The field that is read next.
#[derive(Debug, Default, Clone, Copy)]
enum Field {
    #[default]
    Type,
    Length,
    SessionId,
    CipherSuites,
    CompressionMethods,
    ExtensionsLength,
    Extension,
    Done,
}

/// The place in a message, and what was found on the way there.
#[derive(Debug, Default)]
pub(super) struct Walk {
    field: Field,
    /// Offset of `field`; ahead of the arrived bytes while the body of a field is skipped.
    at: usize,
    /// The length of the message with its header, once `Field::Length` is behind.
    end: usize,
    session_id: Range<usize>,
    cipher_suites: Range<usize>,
    extensions: Vec<Extension>,
    seen: BTreeSet<u16>,
    server_name: Option<Range<usize>>,
    alpn: Option<Range<usize>>,
}

/// A step that cannot be taken: either the message is wrong, or the bytes are not there yet.
enum Stop {
    Wrong,
    Short,
}

impl Walk {
    /// Goes on in `message`, which holds all bytes from the handshake header on, and possibly bytes behind the end.
    pub(super) fn advance(&mut self, message: &[u8]) -> Probe<()> {
        loop {
            if matches!(self.field, Field::Done) {
                return if message.len() < self.end { Probe::NeedMore } else { Probe::Match(()) };
            }
            match self.step(message) {
                Ok(next) => self.field = next,
                Err(Stop::Wrong) if matches!(self.field, Field::Type) => return Probe::NotThis,
                Err(Stop::Wrong) => return Probe::Unreadable,
                Err(Stop::Short) => return Probe::NeedMore,
            }
        }
    }

    /// The hello, after a match; bytes of `message` behind its end are dropped.
    pub(super) fn into_hello(self, mut message: Vec<u8>) -> ClientHello {
        message.truncate(self.end);
        ClientHello {
            message,
            session_id: self.session_id,
            cipher_suites: self.cipher_suites,
            extensions: self.extensions,
            server_name: self.server_name,
            alpn: self.alpn,
        }
    }

    /// Reads the current field and returns the one behind it.
    fn step(&mut self, message: &[u8]) -> Result<Field, Stop> {
        match self.field {
            Field::Type => match message.first() {
                Some(&CLIENT_HELLO) => Ok(Field::Length),
                Some(_) => Err(Stop::Wrong),
                None => Err(Stop::Short),
            },
            Field::Length => {
                // MAX_HELLO leaves nothing to say for the first of the three bytes.
                if message.get(1).ok_or(Stop::Short)? != &0 {
                    return Err(Stop::Wrong);
                }
                self.end = usize::from(u16_at(message, 2)?).saturating_add(4);
                ensure((MIN_HELLO..=MAX_HELLO).contains(&self.end))?;
                // The version is not looked at: servers take any, to answer with one of their own.
                self.at = SESSION_ID_AT;
                Ok(Field::SessionId)
            }
            Field::SessionId => {
                let len = message.get(self.at).copied().map(usize::from).ok_or(Stop::Short)?;
                ensure(len <= MAX_SESSION_ID)?;
                self.session_id = self.skip(1, len)?;
                Ok(Field::CipherSuites)
            }
            Field::CipherSuites => {
                ensure(self.end.saturating_sub(self.at) >= 2)?;
                let len = usize::from(u16_at(message, self.at)?);
                ensure(len >= 2 && len.is_multiple_of(2))?;
                self.cipher_suites = self.skip(2, len)?;
                Ok(Field::CompressionMethods)
            }
            Field::CompressionMethods => {
                ensure(self.at < self.end)?;
                let len = message.get(self.at).copied().map(usize::from).ok_or(Stop::Short)?;
                ensure(len >= 1)?;
                self.skip(1, len)?;
                // Hellos of TLS 1.2 and before may end here (RFC 5246 section 7.4.1.2).
                Ok(if self.at == self.end { Field::Done } else { Field::ExtensionsLength })
            }
            Field::ExtensionsLength => {
                ensure(self.end.saturating_sub(self.at) >= 2)?;
                let len = usize::from(u16_at(message, self.at)?);
                self.at = self.at.saturating_add(2);
                ensure(len == self.end.saturating_sub(self.at))?;
                Ok(if len == 0 { Field::Done } else { Field::Extension })
            }
            Field::Extension => {
                ensure(self.end.saturating_sub(self.at) >= 4)?;
                self.extension(message)?;
                Ok(if self.at == self.end { Field::Done } else { Field::Extension })
            }
            Field::Done => Ok(Field::Done),
        }
    }

    fn extension(&mut self, message: &[u8]) -> Result<(), Stop> {
        let typ = u16_at(message, self.at)?;
        // RFC 8446 section 4.2: no more than one extension of a type.
        ensure(!self.seen.contains(&typ))?;
        let len = usize::from(u16_at(message, self.at.saturating_add(2))?);
        let start = self.at.saturating_add(4);
        let range = start..start.saturating_add(len);
        ensure(range.end <= self.end)?;
        // A body that is looked into has to be there; others are passed over.
        let within = |found: Range<usize>| found.start.saturating_add(start)..found.end.saturating_add(start);
        if typ == extension::SERVER_NAME {
            let body = message.get(range.clone()).ok_or(Stop::Short)?;
            self.server_name = extension::host_name(body).map(within);
        } else if typ == extension::ALPN {
            let body = message.get(range.clone()).ok_or(Stop::Short)?;
            self.alpn = extension::protocol_names(body).map(within);
        }
        self.at = range.end;
        self.seen.insert(typ);
        self.extensions.push(Extension { typ, range });
        Ok(())
    }

    /// Moves behind a vector of `len` bytes whose length field takes `prefix` bytes, and returns the body's range.
    fn skip(&mut self, prefix: usize, len: usize) -> Result<Range<usize>, Stop> {
        let start = self.at.saturating_add(prefix);
        let body = start..start.saturating_add(len);
        ensure(body.end <= self.end)?;
        self.at = body.end;
        Ok(body)
    }
}

fn ensure(holds: bool) -> Result<(), Stop> {
    if holds { Ok(()) } else { Err(Stop::Wrong) }
}

fn u16_at(message: &[u8], at: usize) -> Result<u16, Stop> {
    let bytes = message.get(at..).and_then(<[u8]>::first_chunk).ok_or(Stop::Short)?;
    Ok(u16::from_be_bytes(*bytes))
}
