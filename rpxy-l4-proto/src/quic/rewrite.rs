//! Puts another ClientHello into the Initial packets of a client, in place.
//!
//! A proxy that decrypts Encrypted Client Hello (RFC 9849) has to give the backend the inner hello where the client
//! sent the outer one. The inner one is shorter, so that every CRYPTO frame can keep its place: it gets the inner bytes
//! of its own offset, or fewer, or none, and PADDING fills it up. Packet numbers, connection IDs, tokens and all sizes
//! stay, so that acknowledgements, the limits before address validation (RFC 9000 section 8.1) and Retry go on working;
//! answers need no change at all. A packet is rewritten by itself: it may come in any order, twice, or cut otherwise
//! when the client repeats itself.
//!
//! After a HelloRetryRequest the CRYPTO stream goes on with a second hello, which is put behind the first inner one.

use std::ops::Range;

use super::{
    ConnectionId, CryptoStream, Frame, InitialKeys, LongPacket, LongType, Opened, Version, frames, packets, varint,
};
use crate::{Probe, tls::ClientHello};

/// PADDING (RFC 9000 section 19.1).
const PADDING: u8 = 0;
/// PING (RFC 9000 section 19.2).
const PING: u8 = 1;
/// CRYPTO (RFC 9000 section 19.6).
const CRYPTO: u8 = 6;

/// Result for a datagram.
#[derive(Debug, PartialEq, Eq)]
pub enum Rewritten {
    /// It can be sent on.
    Done,
    /// It carries a part of a second hello that has not arrived in full: it is as it was, and is to be shown again when
    /// [`InitialRewriter::second`] has been called.
    Wait,
    /// It carries one that was not to be gathered: it is as it was, and nothing of it is remembered.
    Refused,
    /// As before, and with it the second hello is complete.
    Second(Box<ClientHello>),
    /// It does not fit what came before, or a hello that would be longer inside: the connection cannot go on.
    Broken,
}

/// The rewriting of one connection's Initial packets.
#[derive(Debug)]
pub struct InitialRewriter {
    keys: Keys,
    first: Part,
    second: Second,
}

/// A hello and what takes its place.
#[derive(Debug)]
struct Part {
    /// Length of the outer message, in bytes.
    outer: u64,
    inner: Vec<u8>,
}

#[derive(Debug)]
enum Second {
    /// The part of it that has arrived.
    Arriving(CryptoStream),
    Known(Part),
}

/// Keys of both versions from the same connection ID: a client may change the version in between (RFC 9368).
#[derive(Debug)]
struct Keys {
    dcid: ConnectionId,
    v1: Option<InitialKeys>,
    v2: Option<InitialKeys>,
    /// The largest packet number that was opened.
    largest: Option<u64>,
}

impl InitialRewriter {
    /// For a connection whose first packet went to `dcid`, with the first outer hello and what takes its place. `None`
    /// when that is longer, which the inner hello of Encrypted Client Hello never is.
    #[must_use]
    pub fn new(dcid: ConnectionId, outer: &ClientHello, inner: &ClientHello) -> Option<Self> {
        let keys = Keys { dcid, v1: None, v2: None, largest: None };
        Some(Self { keys, first: Part::new(outer, inner)?, second: Second::Arriving(CryptoStream::default()) })
    }

    /// Sets the replacement of the second hello, `outer`. Datagrams that had to wait are to be shown again. `None` when
    /// it is longer.
    #[must_use]
    pub fn second(&mut self, outer: &ClientHello, inner: &ClientHello) -> Option<()> {
        self.second = Second::Known(Part::new(outer, inner)?);
        Some(())
    }

    /// Returns whether the first Initial packet of `datagram` is under the keys of this connection.
    #[must_use]
    pub fn opens(&mut self, datagram: &[u8]) -> bool {
        let initial = packets(datagram).find(|packet| packet.typ == LongType::Initial);
        initial.is_some_and(|packet| self.keys.open(&packet).is_some())
    }

    /// Rewrites all Initial packets of `datagram`. What does not open stays as it is: nobody could read a hello in it,
    /// and the backend drops it. So do other packets, and those without CRYPTO frames.
    ///
    /// A second hello takes up to [`MAX_CRYPTO_STREAM`](super::MAX_CRYPTO_STREAM) bytes of memory, which the client need
    /// not have a use for. So `may_gather` is asked before a part of one is kept.
    pub fn rewrite(&mut self, datagram: &mut [u8], may_gather: impl FnOnce() -> bool) -> Rewritten {
        let mut opened: Vec<(Range<usize>, Version, Opened)> = Vec::new();
        for packet in packets(datagram).filter(|packet| packet.typ == LongType::Initial) {
            if let Some(plain) = self.keys.open(&packet) {
                self.keys.largest = self.keys.largest.max(Some(plain.packet_number));
                opened.push((packet.range(), packet.version, plain));
            }
        }
        // Nothing is changed before everything can be.
        let answer = self.look(&opened, may_gather);
        if answer != Rewritten::Done {
            return answer;
        }
        for (range, version, mut plain) in opened {
            let Some(payload) = self.payload(&plain.payload) else { return Rewritten::Broken };
            if payload == plain.payload {
                continue;
            }
            plain.payload = payload;
            let sealed = datagram.get_mut(range).and_then(|packet| self.keys.of(version).seal(packet, &plain));
            if sealed.is_none() {
                return Rewritten::Broken;
            }
        }
        Rewritten::Done
    }

    /// Returns whether these packets can be rewritten; gathers their parts of a second hello.
    fn look(&mut self, opened: &[(Range<usize>, Version, Opened)], may_gather: impl FnOnce() -> bool) -> Rewritten {
        let Second::Arriving(stream) = &mut self.second else { return Rewritten::Done };
        let mut may_gather = Some(may_gather);
        for frame in opened.iter().flat_map(|(_, _, plain)| frames(&plain.payload)) {
            // A malformed frame ends the connection at the backend; it sees all before it.
            let Ok(Frame::Crypto { offset, data }) = frame else { continue };
            let known = usize::try_from(self.first.outer.saturating_sub(offset)).unwrap_or(usize::MAX);
            let Some(behind @ [_, ..]) = data.get(known..) else { continue };
            if may_gather.take().is_some_and(|may_gather| !may_gather()) {
                return Rewritten::Refused;
            }
            if stream.insert(offset.saturating_sub(self.first.outer), behind).is_err() {
                return Rewritten::Broken;
            }
        }
        if may_gather.is_some() {
            return Rewritten::Done;
        }
        match ClientHello::parse(stream.prefix().to_vec()) {
            Probe::Match(hello) => Rewritten::Second(Box::new(hello)),
            Probe::NeedMore => Rewritten::Wait,
            Probe::NotThis | Probe::Unreadable => Rewritten::Broken,
        }
    }

    /// The payload with inner bytes in its CRYPTO frames, as long as before.
    fn payload(&self, payload: &[u8]) -> Option<Vec<u8>> {
        let mut rewritten = Vec::with_capacity(payload.len());
        let mut frames = frames(payload);
        let mut start = 0;
        while let Some(frame) = frames.next() {
            // The rest, should a frame be malformed.
            let end = frames.position();
            let original = payload.get(start..end)?;
            match frame {
                Ok(Frame::Crypto { offset, data }) => {
                    self.crypto(original, offset, u64::try_from(data.len()).ok()?, &mut rewritten)?;
                }
                Ok(Frame::Padding | Frame::Ping | Frame::Ack | Frame::ConnectionClose) | Err(_) => {
                    rewritten.extend_from_slice(original);
                }
            }
            rewritten.resize(end, PADDING);
            start = end;
        }
        Some(rewritten)
    }

    /// Writes the frame that takes the place of the CRYPTO frame `original`. Both of its integers keep their widths.
    fn crypto(&self, original: &[u8], offset: u64, len: u64, out: &mut Vec<u8>) -> Option<()> {
        let (start, end) = (self.inner_offset(offset), self.inner_offset(offset.checked_add(len)?));
        if start == end && len > 0 {
            // Without a frame that asks for one, the packet would never be acknowledged, and be repeated for ever.
            out.push(PING);
            return Some(());
        }
        let offset_len = varint::len(*original.get(1)?);
        let length_len = varint::len(*original.get(1_usize.checked_add(offset_len)?)?);
        out.push(CRYPTO);
        varint::write(start, offset_len, out)?;
        varint::write(end.checked_sub(start)?, length_len, out)?;
        self.inner_bytes(start, end, out);
        Some(())
    }

    /// Offset in the inner stream of the byte that has `offset` in the outer one, or would have it.
    fn inner_offset(&self, offset: u64) -> u64 {
        let (first, inner) = (&self.first, self.first.inner_len());
        match (&self.second, offset.checked_sub(first.outer)) {
            (_, None) | (Second::Arriving(_), Some(_)) => offset.min(inner),
            (Second::Known(second), Some(behind)) => inner.saturating_add(behind.min(second.inner_len())),
        }
    }

    fn inner_bytes(&self, start: u64, end: u64, out: &mut Vec<u8>) {
        let second = match &self.second {
            Second::Known(second) => second.inner.as_slice(),
            Second::Arriving(_) => &[],
        };
        let [start, end] = [start, end].map(|offset| usize::try_from(offset).unwrap_or(usize::MAX));
        let at = self.first.inner.len();
        out.extend_from_slice(self.first.inner.get(start.min(at)..end.min(at)).unwrap_or_default());
        let [start, end] = [start, end].map(|offset| offset.saturating_sub(at));
        out.extend_from_slice(second.get(start..end).unwrap_or_default());
    }
}

impl Part {
    fn new(outer: &ClientHello, inner: &ClientHello) -> Option<Self> {
        let (outer, inner) = (outer.message().len(), inner.message());
        (inner.len() <= outer).then_some(Self { outer: u64::try_from(outer).ok()?, inner: inner.to_vec() })
    }

    fn inner_len(&self) -> u64 {
        u64::try_from(self.inner.len()).unwrap_or(u64::MAX)
    }
}

impl Keys {
    fn open(&mut self, packet: &LongPacket<'_>) -> Option<Opened> {
        let largest = self.largest;
        self.of(packet.version).open(packet, largest)
    }

    fn of(&mut self, version: Version) -> &InitialKeys {
        let slot = match version {
            Version::V1 => &mut self.v1,
            Version::V2 => &mut self.v2,
        };
        slot.get_or_insert_with(|| InitialKeys::client(version, &self.dcid))
    }
}
