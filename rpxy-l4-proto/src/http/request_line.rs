//! The HTTP/1 request line (RFC 9112 section 3), byte by byte: method, one space, target, one space, `HTTP/1.` and a
//! digit, line end. The line end may be a bare LF (RFC 9112 section 2.2), the spaces may be nothing else.

use super::MAX_REQUEST_LINE;
use crate::Probe;

/// The longest method, in bytes.
const MAX_METHOD: usize = 32;
/// The version up to its minor digit.
const VERSION: &[u8] = b"HTTP/1.";

/// A whole request line.
pub(super) struct Line<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    /// The bytes of the line with its end.
    pub(super) len: usize,
}

/// The place in a request line that is still arriving.
#[derive(Debug)]
pub(super) struct RequestLine {
    part: Part,
    /// The next byte to look at; it stays on a byte that is wrong.
    at: usize,
    method_end: usize,
    target_end: usize,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    Method,
    Target,
    Version,
    Minor,
    LineEnd,
    LineFeed,
    Done,
}

impl RequestLine {
    pub(super) const fn new() -> Self {
        Self { part: Part::Method, at: 0, method_end: 0, target_end: 0 }
    }

    pub(super) fn advance<'a>(&mut self, stream: &'a [u8]) -> Probe<Line<'a>> {
        loop {
            if matches!(self.part, Part::Done) {
                return Probe::Match(Line {
                    method: stream.get(..self.method_end).unwrap_or_default(),
                    target: stream.get(self.method_end.saturating_add(1)..self.target_end).unwrap_or_default(),
                    len: self.at,
                });
            }
            if self.at >= MAX_REQUEST_LINE {
                return Probe::NotThis;
            }
            let Some(&byte) = stream.get(self.at) else { return Probe::NeedMore };
            match self.after(byte) {
                Some(part) => self.part = part,
                None => return Probe::NotThis,
            }
            self.at = self.at.saturating_add(1);
        }
    }

    /// The part that the byte behind `byte` belongs to; `None` if `byte` has no place here.
    fn after(&mut self, byte: u8) -> Option<Part> {
        match (self.part, byte) {
            (Part::Method, b' ') if self.at > 0 => {
                self.method_end = self.at;
                Some(Part::Target)
            }
            (Part::Method, _) => (self.at < MAX_METHOD && is_tchar(byte)).then_some(Part::Method),
            (Part::Target, b' ') if self.at > self.method_end.saturating_add(1) => {
                self.target_end = self.at;
                Some(Part::Version)
            }
            // Bytes above ASCII are not allowed, yet sent, and no other text protocol gets to `HTTP/1.` behind them.
            (Part::Target, _) => (byte > b' ' && byte != 0x7f).then_some(Part::Target),
            (Part::Version, _) => {
                let place = self.at.saturating_sub(self.target_end).saturating_sub(1);
                let last = place.saturating_add(1) == VERSION.len();
                let next = if last { Part::Minor } else { Part::Version };
                (VERSION.get(place) == Some(&byte)).then_some(next)
            }
            (Part::Minor, _) => byte.is_ascii_digit().then_some(Part::LineEnd),
            (Part::LineEnd, b'\r') => Some(Part::LineFeed),
            (Part::LineEnd | Part::LineFeed, b'\n') => Some(Part::Done),
            (Part::LineEnd | Part::LineFeed | Part::Done, _) => None,
        }
    }
}

/// A character of a token (RFC 9110 section 5.6.2).
pub(super) const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}
