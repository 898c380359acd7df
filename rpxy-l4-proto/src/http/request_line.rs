//! The HTTP/1 request line (RFC 9112 section 3), as leniently as any server reads it: empty lines before it are passed
//! over, and words are told apart by any white space. A line that servers may read differently is marked doubtful.
//!
//! What tells it from other text is its end: the last word is a version, or the line is a request of HTTP/0.9.

use super::MAX_HEAD;
use crate::Probe;

/// The beginning of the last word.
const VERSION: &[u8] = b"HTTP/";

/// A whole request line.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line<'a> {
    pub(super) method: &'a [u8],
    pub(super) target: &'a [u8],
    /// Servers may read it differently, or refuse it.
    pub(super) is_doubtful: bool,
    /// The bytes up to the end of the line, those in front of it included.
    pub(super) len: usize,
}

/// The place in a request line that is still arriving.
#[derive(Debug)]
pub(super) struct RequestLine {
    part: Part,
    /// The next byte to look at; it stays on a byte that is wrong.
    at: usize,
    start: usize,
    method_end: usize,
    /// A blank is behind the method, rather than a lone CR, with which some other text ends.
    has_blank: bool,
}

#[derive(Debug, Clone, Copy)]
enum Part {
    /// Line ends and white space before the method.
    Before,
    Method,
    /// Everything behind the method, up to the line end.
    Rest,
    Done,
}

impl RequestLine {
    pub(super) const fn new() -> Self {
        Self { part: Part::Before, at: 0, start: 0, method_end: 0, has_blank: false }
    }

    /// Returns whether a method and a blank have arrived, and nothing that cannot stand behind them.
    pub(super) const fn has_method(&self) -> bool {
        self.has_blank
    }

    pub(super) fn advance<'a>(&mut self, stream: &'a [u8]) -> Probe<Line<'a>> {
        loop {
            if matches!(self.part, Part::Done) {
                return self.line(stream).map_or(Probe::NotThis, Probe::Match);
            }
            if self.at >= MAX_HEAD {
                // Only line ends and white space are as good as a method: nothing but HTTP passes over them.
                return if matches!(self.part, Part::Method) { Probe::NotThis } else { Probe::Unreadable };
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
            (Part::Before, _) if is_space(byte) || byte == b'\n' => Some(Part::Before),
            (Part::Before, _) => {
                self.start = self.at;
                is_tchar(byte).then_some(Part::Method)
            }
            (Part::Method, _) if is_space(byte) => {
                self.method_end = self.at;
                self.has_blank = byte != b'\r';
                Some(Part::Rest)
            }
            (Part::Method, _) => is_tchar(byte).then_some(Part::Method),
            (Part::Rest, b'\n') => Some(Part::Done),
            // Other control characters and bytes above ASCII are not allowed, yet sent.
            (Part::Rest, _) => (byte != 0).then_some(Part::Rest),
            (Part::Done, _) => None,
        }
    }

    /// The whole line; `None` if it is not a request.
    fn line<'a>(&self, stream: &'a [u8]) -> Option<Line<'a>> {
        let before = stream.get(..self.start)?;
        let method = stream.get(self.start..self.method_end)?;
        let rest = stream.get(self.method_end..self.at)?;
        let words = trim(rest);
        let target_end = words.iter().rposition(|&byte| is_space(byte)).map_or(0, |at| at.saturating_add(1));
        let (target, version) = words.split_at_checked(target_end)?;
        let (target, is_doubtful) = if starts_with_version(version) {
            let target = trim(target);
            let strange_space = |byte: &u8| is_space(*byte) && *byte != b' ';
            let is_doubtful = !is_common(version)
                || target.is_empty()
                || target.iter().any(|&byte| byte <= b' ' || byte == 0x7f)
                || before.iter().any(|byte| is_space(*byte) && *byte != b'\r')
                // The line end is no space, and what is left of the line behind its words is not of the target.
                || rest.strip_suffix(b"\n").is_some_and(|rest| rest.strip_suffix(b"\r").unwrap_or(rest).iter().any(strange_space));
            (target, is_doubtful)
        } else {
            let is_target = version.starts_with(b"/") || version.windows(3).any(|part| part == b"://");
            // RFC 1945 section 4.1: a simple request is GET and a target, and has no fields.
            if method != b"GET" || !target.is_empty() || !is_target {
                return None;
            }
            (version, true)
        };
        Some(Line { method, target, is_doubtful, len: self.at })
    }
}

/// Returns whether `word` begins like a version, in any case.
fn starts_with_version(word: &[u8]) -> bool {
    word.get(..VERSION.len()).is_some_and(|start| start.eq_ignore_ascii_case(VERSION))
}

/// Returns whether `version` is one of HTTP/1.
fn is_common(version: &[u8]) -> bool {
    let minor = version.strip_prefix(b"HTTP/1.").unwrap_or_default();
    (1..=2).contains(&minor.len()) && minor.iter().all(u8::is_ascii_digit)
}

/// `bytes` without white space and line ends around it.
fn trim(bytes: &[u8]) -> &[u8] {
    let is_word = |byte: &u8| !is_space(*byte) && *byte != b'\n';
    let start = bytes.iter().position(is_word).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(is_word).map_or(start, |last| last.saturating_add(1));
    bytes.get(start..end).unwrap_or_default()
}

/// White space between the words of a lenient reader (RFC 9112 section 3).
const fn is_space(byte: u8) -> bool {
    matches!(byte, b' ' | b'\t' | 0x0b | 0x0c | b'\r')
}

/// A character of a token (RFC 9110 section 5.6.2).
pub(super) const fn is_tchar(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#' | b'$' | b'%' | b'&' | b'\'' | b'*' | b'+' | b'-' | b'.' | b'^' | b'_' | b'`' | b'|' | b'~'
        )
}
