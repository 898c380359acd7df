//! The frames behind an HTTP/2 preface (RFC 9113 section 4) up to the end of the first header block, for the host of
//! the first request. The preface has settled the protocol already, so all that a wrong frame takes away is the host.

use super::{MAX_HEAD, hpack};
use crate::{Probe, reader::Reader};

/// The bytes of a frame header (RFC 9113 section 4.1).
const HEADER: usize = 9;
/// The largest payload before the server has allowed more, in bytes (RFC 9113 section 4.2).
const MAX_PAYLOAD: u32 = 1 << 14;

/// Frame types (RFC 9113 section 6).
mod frame {
    pub(super) const DATA: u8 = 0;
    pub(super) const HEADERS: u8 = 1;
    pub(super) const RST_STREAM: u8 = 3;
    pub(super) const SETTINGS: u8 = 4;
    pub(super) const PUSH_PROMISE: u8 = 5;
    pub(super) const GOAWAY: u8 = 7;
    pub(super) const CONTINUATION: u8 = 9;
}

/// Frame flags (RFC 9113 sections 6.2, 6.5 and 6.10).
mod flag {
    pub(super) const ACK: u8 = 0x1;
    pub(super) const END_HEADERS: u8 = 0x4;
    pub(super) const PADDED: u8 = 0x8;
    pub(super) const PRIORITY: u8 = 0x20;
}

/// The place among the frames that are still arriving.
#[derive(Debug)]
pub(super) struct Frames {
    /// Offset of the next frame; ahead of the arrived bytes while a payload is passed over.
    at: usize,
    expected: Expected,
    /// The fragments of the header block so far (RFC 9113 section 4.3).
    block: Vec<u8>,
}

#[derive(Debug, Clone, Copy)]
enum Expected {
    /// The first frame, which is SETTINGS (RFC 9113 section 3.4).
    Settings,
    /// Any frame that may stand before the first request, or its HEADERS.
    Request,
    /// CONTINUATION on this stream.
    Continuation(u32),
}

/// A frame header.
#[derive(Clone, Copy)]
struct Frame {
    len: u32,
    typ: u8,
    flags: u8,
    stream: u32,
}

impl Frames {
    /// For the frames from offset `at` of the stream on.
    pub(super) const fn after(at: usize) -> Self {
        Self { at, expected: Expected::Settings, block: Vec::new() }
    }

    /// A match with the host, if there is a good one, at the end of the header block, or with none as soon as there
    /// cannot be one.
    pub(super) fn advance(&mut self, stream: &[u8]) -> Probe<Option<String>> {
        loop {
            let payload_at = self.at.saturating_add(HEADER);
            if payload_at > MAX_HEAD {
                return Probe::Match(None);
            }
            let header = stream.get(self.at..).and_then(<[u8]>::first_chunk).copied();
            let Some(frame) = header.map(Frame::read) else { return Probe::NeedMore };
            let end = payload_at.saturating_add(usize::try_from(frame.len).unwrap_or(usize::MAX));
            if frame.len > MAX_PAYLOAD || end > MAX_HEAD {
                return Probe::Match(None);
            }
            match self.kind(frame) {
                Kind::Wrong => return Probe::Match(None),
                Kind::Other => {}
                Kind::Fragment => {
                    let Some(payload) = stream.get(payload_at..end) else { return Probe::NeedMore };
                    let Some(fragment) = fragment(frame, payload) else { return Probe::Match(None) };
                    self.block.extend_from_slice(fragment);
                    if frame.has(flag::END_HEADERS) {
                        return Probe::Match(hpack::host(&self.block));
                    }
                    self.expected = Expected::Continuation(frame.stream);
                }
            }
            self.at = end;
        }
    }

    /// The meaning of a frame here; sets the frames that may follow it.
    fn kind(&mut self, frame: Frame) -> Kind {
        match (self.expected, frame.typ) {
            (Expected::Settings, frame::SETTINGS) if frame.stream == 0 && !frame.has(flag::ACK) => {
                self.expected = Expected::Request;
                Kind::Other
            }
            (Expected::Settings, _) => Kind::Wrong,
            // RFC 9113 section 5.1.1: clients open streams of odd numbers.
            (Expected::Request, frame::HEADERS) if !frame.stream.is_multiple_of(2) => Kind::Fragment,
            (
                Expected::Request,
                frame::HEADERS
                | frame::DATA
                | frame::RST_STREAM
                | frame::PUSH_PROMISE
                | frame::GOAWAY
                | frame::CONTINUATION,
            ) => Kind::Wrong,
            // SETTINGS, WINDOW_UPDATE, PRIORITY, PING, and all types unknown here (RFC 9113 section 4.1).
            (Expected::Request, _) => Kind::Other,
            (Expected::Continuation(stream), frame::CONTINUATION) if frame.stream == stream => Kind::Fragment,
            (Expected::Continuation(_), _) => Kind::Wrong,
        }
    }
}

enum Kind {
    /// A fragment of the header block.
    Fragment,
    /// To be passed over.
    Other,
    /// Not allowed here.
    Wrong,
}

impl Frame {
    fn read(header: [u8; HEADER]) -> Self {
        let [len @ .., typ, flags, s0, s1, s2, s3] = header;
        let [len0, len1, len2] = len;
        Self {
            len: u32::from_be_bytes([0, len0, len1, len2]),
            typ,
            flags,
            // The highest bit is reserved and to be ignored (RFC 9113 section 4.1).
            stream: u32::from_be_bytes([s0 & 0x7f, s1, s2, s3]),
        }
    }

    const fn has(self, flag: u8) -> bool {
        self.flags & flag != 0
    }
}

/// The part of a HEADERS or CONTINUATION payload that belongs to the header block (RFC 9113 sections 6.2 and 6.10).
fn fragment(frame: Frame, payload: &[u8]) -> Option<&[u8]> {
    if frame.typ != frame::HEADERS {
        return Some(payload);
    }
    let mut reader = Reader::new(payload);
    let padding = if frame.has(flag::PADDED) { usize::from(reader.u8()?) } else { 0 };
    if frame.has(flag::PRIORITY) {
        reader.take(5)?;
    }
    let len = reader.rest().len().checked_sub(padding)?;
    reader.take(len)
}
