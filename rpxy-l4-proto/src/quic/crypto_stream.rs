//! Puts a CRYPTO stream together from frames in any order, repeated, overlapping and cut anew (RFC 9000 section 2.2).
//! It errs towards refusing: bytes that differ from those received before are an error, since one of the two peers of
//! the proxy might read the other ones.

use std::collections::BTreeMap;

use thiserror::Error;

/// The longest CRYPTO stream that is put together, in bytes. A hello of a browser takes 2 KiB.
pub const MAX_CRYPTO_STREAM: usize = 16 * 1024;
/// The most pieces, with holes between them, that are held at once. Browsers that scatter a hello make about ten.
pub const MAX_CRYPTO_PIECES: usize = 128;

/// Error of a frame. The stream is as it was before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Error)]
pub enum CryptoStreamError {
    /// It has other bytes at a place that was received before.
    #[error("CRYPTO bytes differ from those received before")]
    Conflict,
    /// It ends behind [`MAX_CRYPTO_STREAM`].
    #[error("CRYPTO stream of more than {MAX_CRYPTO_STREAM} bytes")]
    TooLong,
    /// It would be one piece more than [`MAX_CRYPTO_PIECES`].
    #[error("CRYPTO stream in more than {MAX_CRYPTO_PIECES} pieces")]
    TooManyPieces,
}

/// A CRYPTO stream, as far as it has arrived. It holds the bytes that have arrived, and none for the holes.
#[derive(Debug, Clone, Default)]
pub struct CryptoStream {
    /// Offset and bytes; no two pieces overlap or touch.
    pieces: BTreeMap<usize, Vec<u8>>,
}

impl CryptoStream {
    /// Takes the bytes of one frame.
    ///
    /// # Errors
    /// See [`CryptoStreamError`].
    pub fn insert(&mut self, offset: u64, data: &[u8]) -> Result<(), CryptoStreamError> {
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = start.saturating_add(data.len());
        if end > MAX_CRYPTO_STREAM {
            return Err(CryptoStreamError::TooLong);
        }
        let mut touching = Vec::new();
        for (&at, piece) in self.pieces.range(..=end).rev().take_while(|(at, piece)| end_of(**at, piece) >= start) {
            if overlap(start, data, at, piece) != overlap(at, piece, start, data) {
                return Err(CryptoStreamError::Conflict);
            }
            touching.push(at);
        }
        if data.is_empty() {
            return Ok(());
        }
        if touching.is_empty() && self.pieces.len() >= MAX_CRYPTO_PIECES {
            return Err(CryptoStreamError::TooManyPieces);
        }
        // From the lowest on: a piece that starts before the frame grows in place, so that a stream in order is copied
        // once; then comes the frame, and all others lie in it or start at its end at the latest.
        let grown = touching.pop_if(|at| *at <= start);
        let at = grown.unwrap_or(start);
        let mut whole = grown.and_then(|at| self.pieces.remove(&at)).unwrap_or_default();
        extend(at, &mut whole, start, data);
        for next in touching.into_iter().rev() {
            let piece = self.pieces.remove(&next).unwrap_or_default();
            extend(at, &mut whole, next, &piece);
        }
        self.pieces.insert(at, whole);
        Ok(())
    }

    /// The bytes from the start of the stream to the first hole.
    #[must_use]
    pub fn prefix(&self) -> &[u8] {
        self.pieces.get(&0).map_or(&[], Vec::as_slice)
    }

    /// The memory held for bytes of the stream, in bytes.
    #[cfg(test)]
    pub(super) fn allocated(&self) -> usize {
        self.pieces.values().map(Vec::capacity).sum()
    }
}

fn end_of(at: usize, piece: &[u8]) -> usize {
    at.saturating_add(piece.len())
}

/// The part of `piece` that `other` covers, too.
fn overlap<'a>(at: usize, piece: &'a [u8], other_at: usize, other: &[u8]) -> &'a [u8] {
    let from = other_at.max(at).saturating_sub(at);
    let to = end_of(other_at, other).min(end_of(at, piece)).saturating_sub(at);
    piece.get(from..to).unwrap_or_default()
}

/// Appends to `whole`, which starts at `at`, what `piece` has behind its end.
fn extend(at: usize, whole: &mut Vec<u8>, piece_at: usize, piece: &[u8]) {
    let known = end_of(at, whole).saturating_sub(piece_at);
    whole.extend_from_slice(piece.get(known..).unwrap_or_default());
}
