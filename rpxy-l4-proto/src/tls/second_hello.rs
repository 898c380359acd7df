//! The client's stream behind its first hello, until its second one is there or is not wanted.
//!
//! Between the two there may be a ChangeCipherSpec (RFC 8446 appendix D.4) and early data, which belong to the backend
//! as they are. It errs towards passing on: bytes that are not a hello are not ours.

use super::{ClientHello, HelloProbe, first_bytes::HANDSHAKE};
use crate::Probe;

/// The largest fragment of an encrypted record, in bytes (RFC 8446 section 5.2).
const MAX_ENCRYPTED: u16 = (1 << 14) + 256;

/// Looks for the second hello.
#[derive(Debug, Default)]
pub struct SecondHello {
    /// Bytes not passed on: the beginning of a record header, or the records of the hello so far.
    held: Vec<u8>,
    /// Bytes of the current record that are passed on without a look.
    pass: usize,
    /// Set once the hello is wanted.
    probe: Option<HelloProbe>,
}

/// The second hello of a connection.
#[derive(Debug)]
pub struct Found {
    /// The hello.
    pub hello: ClientHello,
    /// The second byte of its `legacy_record_version`.
    pub version: u8,
    /// The bytes behind it.
    pub rest: Vec<u8>,
}

impl SecondHello {
    /// From now on handshake records are read. Until then they are held: before a HelloRetryRequest no client sends any.
    pub fn expect(&mut self) {
        self.probe.get_or_insert_default();
    }

    /// Returns whether a handshake record waits for [`SecondHello::expect`], so that nothing behind it can be passed on
    /// either.
    #[must_use]
    pub fn is_waiting(&self) -> bool {
        self.probe.is_none() && self.pass == 0 && self.held.first() == Some(&HANDSHAKE)
    }

    /// Goes on with the next `bytes` of the stream. What can be passed on is put behind `forward`, in order.
    ///
    /// After a match, `forward` is what came before the hello. After [`Probe::NotThis`] all bytes are in `forward`:
    /// the stream holds no hello that could be read.
    pub fn advance(&mut self, bytes: &[u8], forward: &mut Vec<u8>) -> Probe<Found> {
        self.held.extend_from_slice(bytes);
        // How far of what is held has been looked at: it is moved once, however many records there are.
        let mut at: usize = 0;
        let outcome = loop {
            let rest = self.held.get(at..).unwrap_or_default();
            if self.pass > 0 {
                let passed = self.pass.min(rest.len());
                at = at.saturating_add(passed);
                self.pass = self.pass.saturating_sub(passed);
                if self.pass > 0 {
                    break Probe::NeedMore;
                }
                continue;
            }
            match *rest {
                // change_cipher_spec, alert, application_data
                [20 | 21 | 23, _, _, high, low, ..] if u16::from_be_bytes([high, low]) <= MAX_ENCRYPTED => {
                    self.pass = usize::from(u16::from_be_bytes([high, low])).saturating_add(5);
                }
                []
                | [HANDSHAKE, ..]
                | [20 | 21 | 23]
                | [20 | 21 | 23, _]
                | [20 | 21 | 23, _, _]
                | [20 | 21 | 23, _, _, _] => break Probe::NeedMore,
                _ => break Probe::NotThis,
            }
        };
        forward.extend(self.held.drain(..at));
        match outcome {
            Probe::NeedMore if self.held.first() == Some(&HANDSHAKE) => self.look(forward),
            Probe::NotThis => {
                forward.append(&mut self.held);
                Probe::NotThis
            }
            Probe::NeedMore | Probe::Unreadable | Probe::Match(()) => Probe::NeedMore,
        }
    }

    /// Looks for the hello in what is held, which starts with a handshake record.
    fn look(&mut self, forward: &mut Vec<u8>) -> Probe<Found> {
        let Some(probe) = &mut self.probe else { return Probe::NeedMore };
        let outcome = probe.advance(&self.held);
        match (outcome, probe.end()) {
            (Probe::NeedMore, _) => Probe::NeedMore,
            (Probe::Match(hello), Some(end)) => {
                let version = self.held.get(2).copied().unwrap_or(3);
                let rest = self.held.split_off(end);
                self.held.clear();
                Probe::Match(Found { hello, version, rest })
            }
            (Probe::Match(_) | Probe::Unreadable | Probe::NotThis, _) => {
                forward.append(&mut self.held);
                Probe::NotThis
            }
        }
    }

    /// Returns the bytes held back, when a second hello will not come any more.
    #[must_use]
    pub fn into_held(self) -> Vec<u8> {
        self.held
    }
}
