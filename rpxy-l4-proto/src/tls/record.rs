//! Takes a ClientHello out of the TLS record layer (RFC 8446 section 5.1), however it is cut into records and
//! segments. It errs towards "unreadable": a record that no client sends before its hello is complete settles it.

use super::{
    ClientHello,
    first_bytes::{ALERT, HANDSHAKE, MAJOR_VERSION, first_bytes},
    walk::Walk,
};
use crate::Probe;

/// The largest fragment of a plaintext record, in bytes (RFC 8446 section 5.1).
pub(super) const MAX_FRAGMENT: u16 = 1 << 14;
/// Empty records passed over. RFC 8446 section 5.1 forbids them; OpenSSL takes as many.
const MAX_EMPTY_RECORDS: u8 = 32;

/// Looks for a ClientHello at the start of a stream.
///
/// The probe keeps its place, so that all calls together cost time linear in the stream, also when it arrives byte by
/// byte. Memory grows with the bytes that have arrived, never with a length that was merely announced.
#[derive(Debug, Default)]
pub struct HelloProbe {
    /// Bytes of the stream that have been read.
    cursor: usize,
    /// Bytes of the current record's fragment that are still to be read.
    fragment_left: usize,
    empty_records: u8,
    message: Vec<u8>,
    walk: Walk,
    settled: Settled,
    /// Set by a match; see [`HelloProbe::end`].
    end: Option<usize>,
}

/// What has been settled for good.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
enum Settled {
    #[default]
    Nothing,
    /// The stream is TLS; the hello is still arriving.
    Tls,
    Unreadable,
    NotTls,
}

impl HelloProbe {
    /// Looks at `stream`: everything received since its start, so each call passes at least what the last one did.
    ///
    /// The answer is a match as soon as the last byte of the hello is there, whatever follows it. [`Probe::NotThis`]
    /// and [`Probe::Unreadable`] come with the first byte that proves them, the former among the first eleven bytes or
    /// never. A call after a match begins anew and gives the same hello.
    pub fn advance(&mut self, stream: &[u8]) -> Probe<ClientHello> {
        match self.settled {
            Settled::NotTls => return Probe::NotThis,
            Settled::Unreadable => return Probe::Unreadable,
            Settled::Nothing | Settled::Tls => {}
        }
        match self.read(stream) {
            Probe::Match(()) => {
                let done = std::mem::take(self);
                let gathered = done.message.len();
                let hello = done.walk.into_hello(done.message);
                let at_record_end = done.fragment_left == 0 && gathered == hello.message().len();
                self.end = at_record_end.then_some(done.cursor);
                Probe::Match(hello)
            }
            // What was gathered is of no use to anybody any more.
            Probe::Unreadable => {
                *self = Self { settled: Settled::Unreadable, ..Self::default() };
                Probe::Unreadable
            }
            Probe::NotThis => {
                *self = Self { settled: Settled::NotTls, ..Self::default() };
                Probe::NotThis
            }
            Probe::NeedMore => Probe::NeedMore,
        }
    }

    /// Returns whether the stream is TLS for certain while the hello is still arriving. When no more comes, this is what
    /// is known.
    #[must_use]
    pub fn is_certain(&self) -> bool {
        self.settled == Settled::Tls
    }

    /// After a match, where in the stream the hello's last record ends; `None` when that record holds more than the
    /// hello, which no client of TLS 1.3 sends (RFC 8446 section 5.1: nothing may follow it under the same keys).
    #[must_use]
    pub fn end(&self) -> Option<usize> {
        self.end
    }

    /// The memory held for the message, in bytes.
    #[cfg(test)]
    pub(super) fn buffered(&self) -> usize {
        self.message.capacity()
    }

    fn read(&mut self, stream: &[u8]) -> Probe<()> {
        if self.settled == Settled::Nothing {
            match first_bytes(stream) {
                Probe::Match(()) => self.settled = Settled::Tls,
                undecided @ (Probe::Unreadable | Probe::NotThis | Probe::NeedMore) => return undecided,
            }
        }
        loop {
            let arrived = stream.get(self.cursor..).unwrap_or_default();
            if self.fragment_left == 0 {
                match record_length(arrived) {
                    Probe::Match(length) => {
                        self.fragment_left = usize::from(length);
                        self.cursor = self.cursor.saturating_add(5);
                        if length == 0 {
                            self.empty_records = self.empty_records.saturating_add(1);
                            if self.empty_records > MAX_EMPTY_RECORDS {
                                return Probe::Unreadable;
                            }
                        }
                        continue;
                    }
                    Probe::NotThis | Probe::Unreadable => return Probe::Unreadable,
                    Probe::NeedMore => return Probe::NeedMore,
                }
            }
            let len = arrived.len().min(self.fragment_left);
            let Some(fragment @ [_, ..]) = arrived.get(..len) else { return Probe::NeedMore };
            self.message.extend_from_slice(fragment);
            self.cursor = self.cursor.saturating_add(len);
            self.fragment_left = self.fragment_left.saturating_sub(len);
            match self.walk.advance(&self.message) {
                Probe::NeedMore => {}
                Probe::Match(()) => return Probe::Match(()),
                // Another message, or none at all: TLS all the same.
                Probe::NotThis | Probe::Unreadable => return Probe::Unreadable,
            }
        }
    }
}

/// Records with a handshake message, as a client sends them (RFC 8446 section 5.1). `version` is the second byte of
/// `legacy_record_version`.
#[must_use]
pub fn handshake_records(message: &[u8], version: u8) -> Vec<u8> {
    let fragments = message.chunks(usize::from(MAX_FRAGMENT));
    let mut records = Vec::with_capacity(message.len().saturating_add(fragments.len().saturating_mul(5)));
    for fragment in fragments {
        // A fragment has at most 2^14 bytes.
        let [high, low] = u16::try_from(fragment.len()).unwrap_or(MAX_FRAGMENT).to_be_bytes();
        records.extend_from_slice(&[HANDSHAKE, MAJOR_VERSION, version, high, low]);
        records.extend_from_slice(fragment);
    }
    records
}

/// The record of a fatal alert before any key is known (RFC 8446 section 6).
#[must_use]
pub fn fatal_alert(description: u8) -> [u8; 7] {
    const FATAL: u8 = 2;
    [ALERT, MAJOR_VERSION, 3, 0, 2, FATAL, description]
}

/// The length of the fragment behind a handshake record's header that may still be arriving.
pub(super) fn record_length(header: &[u8]) -> Probe<u16> {
    let wrong = match header {
        [] => false,
        [content_type] => *content_type != HANDSHAKE,
        [content_type, major, rest @ ..] => {
            *content_type != HANDSHAKE
                || *major != MAJOR_VERSION
                || match rest {
                    [] | [_] => false,
                    [_, high] => u16::from_be_bytes([*high, 0]) > MAX_FRAGMENT,
                    [_, high, low, ..] => u16::from_be_bytes([*high, *low]) > MAX_FRAGMENT,
                }
        }
    };
    match header {
        _ if wrong => Probe::NotThis,
        [_, _, _, high, low, ..] => Probe::Match(u16::from_be_bytes([*high, *low])),
        _ => Probe::NeedMore,
    }
}
