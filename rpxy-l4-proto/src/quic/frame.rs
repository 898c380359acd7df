//! The frames of an opened Initial packet. It errs towards malformed: a server closes the connection over anything that
//! RFC 9000 section 12.4 does not allow there, so nothing behind it is worth routing by.

use thiserror::Error;

use super::varint;
use crate::reader::Reader;

/// The largest offset of a CRYPTO stream (RFC 9000 section 19.6).
const MAX_OFFSET: u64 = (1 << 62) - 1;

/// A frame that an Initial packet may carry (RFC 9000 section 12.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Frame<'a> {
    /// A run of PADDING frames (section 19.1), each one byte.
    Padding,
    /// PING (section 19.2).
    Ping,
    /// ACK, with or without ECN counts (section 19.3).
    Ack,
    /// CRYPTO (section 19.6).
    Crypto {
        /// Offset of `data` in the CRYPTO stream, in bytes; the end is below 2^62.
        offset: u64,
        /// The bytes of the stream; may be empty.
        data: &'a [u8],
    },
    /// CONNECTION_CLOSE of type 0x1c (section 19.19).
    ConnectionClose,
}

/// A frame that is cut off, wrong in itself, or not allowed in Initial packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
#[error("malformed frame, or one that no Initial packet may have")]
pub struct Malformed;

/// The frames of a payload, in order. After [`Malformed`] nothing comes any more.
#[must_use]
pub const fn frames(payload: &[u8]) -> Frames<'_> {
    Frames { reader: Reader::new(payload), len: payload.len() }
}

/// See [`frames`].
#[derive(Debug, Clone)]
pub struct Frames<'a> {
    reader: Reader<'a>,
    /// Of the payload.
    len: usize,
}

impl Frames<'_> {
    /// Offset of the next frame in the payload, in bytes; the length of the payload after [`Malformed`].
    #[must_use]
    pub const fn position(&self) -> usize {
        self.len.saturating_sub(self.reader.rest().len())
    }
}

impl<'a> Iterator for Frames<'a> {
    type Item = Result<Frame<'a>, Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.reader.is_empty() {
            return None;
        }
        let frame = read(&mut self.reader).ok_or(Malformed);
        if frame.is_err() {
            self.reader = Reader::new(&[]);
        }
        Some(frame)
    }
}

fn read<'a>(reader: &mut Reader<'a>) -> Option<Frame<'a>> {
    // A type is a varint in its shortest form (RFC 9000 section 12.4), and all of these fit into one byte.
    match reader.u8()? {
        0x00 => {
            let run = reader.rest().iter().take_while(|&&byte| byte == 0).count();
            reader.take(run)?;
            Some(Frame::Padding)
        }
        0x01 => Some(Frame::Ping),
        0x02 => ack(reader).map(|()| Frame::Ack),
        0x03 => {
            ack(reader)?;
            // ECT(0), ECT(1) and CE counts.
            for _ in 0..3 {
                varint::read(reader)?;
            }
            Some(Frame::Ack)
        }
        0x06 => {
            let offset = varint::read(reader)?;
            let data = varint::read_vec(reader)?;
            let end = offset.checked_add(u64::try_from(data.len()).ok()?)?;
            (end <= MAX_OFFSET).then_some(Frame::Crypto { offset, data })
        }
        0x1c => {
            // Error code, type of the frame that caused it, reason phrase.
            varint::read(reader)?;
            varint::read(reader)?;
            varint::read_vec(reader)?;
            Some(Frame::ConnectionClose)
        }
        _ => None,
    }
}

/// Passes over the fields that both forms of ACK have (RFC 9000 section 19.3).
fn ack(reader: &mut Reader<'_>) -> Option<()> {
    let largest = varint::read(reader)?;
    let _delay = varint::read(reader)?;
    let ranges = varint::read(reader)?;
    // RFC 9000 section 19.3.1: a range below packet number 0 is an error.
    let mut smallest = largest.checked_sub(varint::read(reader)?)?;
    // Each turn takes two bytes or more, so that the number of turns is bounded by the payload.
    for _ in 0..ranges {
        let gap = varint::read(reader)?;
        let length = varint::read(reader)?;
        smallest = smallest.checked_sub(gap)?.checked_sub(2)?.checked_sub(length)?;
    }
    Some(())
}
