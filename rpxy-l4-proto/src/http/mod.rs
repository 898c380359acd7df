//! HTTP at the start of a stream: an HTTP/1 request line (RFC 9112 section 3) or the HTTP/2 preface (RFC 9113 section
//! 3.4), and on request the host that the first request is for.
//!
//! Recognition errs towards HTTP: whatever some server would serve is HTTP (RFC 9112 sections 2.2 and 3 ask recipients
//! to be lenient), while other text (`SSH-2.0 x`, `EHLO x`) ceases to be possible at the end of its first line. The host
//! errs towards "none": whenever two readers could disagree about it, none is told, and the stream is still HTTP.

mod authority;
mod fields;
mod frames;
mod hpack;
mod huffman;
mod request_line;

#[cfg(test)]
mod tests;

use fields::Fields;
use frames::Frames;
use request_line::RequestLine;

use crate::Probe;

/// Bytes of a stream that are read in search of the host: an HTTP/1 head with the empty line at its end, or the HTTP/2
/// frames from the preface to the last one of the first header block. A request line has as much room.
pub const MAX_HEAD: usize = 64 * 1024;

/// The client's side of the HTTP/2 connection preface (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// The first request of an HTTP stream.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct HttpRequest {
    /// The protocol version.
    pub version: HttpVersion,
    /// The host of the first request, if it was wanted and is beyond doubt: lower case, no port, no trailing dot; an
    /// IPv6 address in its canonical text without brackets.
    pub host: Option<String>,
}

/// A major version of HTTP over TCP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HttpVersion {
    /// HTTP/1.0 and HTTP/1.1.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
}

/// Looks for HTTP at the start of a stream.
///
/// The probe keeps its place, so that all calls together cost time linear in the stream, also when it arrives byte by
/// byte.
#[derive(Debug)]
pub struct HttpProbe {
    want_host: bool,
    stage: Stage,
}

#[derive(Debug)]
enum Stage {
    Start(RequestLine),
    Http1(Fields),
    Http2(Frames),
    Unreadable,
    Rejected,
}

impl HttpProbe {
    /// A probe that answers when HTTP is recognised, or, if `want_host`, when the host is known too.
    #[must_use]
    pub const fn new(want_host: bool) -> Self {
        Self { want_host, stage: Stage::Start(RequestLine::new()) }
    }

    /// Looks at `stream`: everything received since its start, so each call passes at least what the last one did.
    ///
    /// Without `want_host` the answer comes with the end of the request line or of the preface. With it, the HTTP/1
    /// head is read to its end, since a second `Host` takes away the trust in the first, unless the request target
    /// already names the host. A head without a usable host is a match without host, and so is HTTP/2 without a host in
    /// [`MAX_HEAD`] bytes; an HTTP/1 request line or head of more bytes is [`Probe::Unreadable`]. A call after a match
    /// begins anew and gives the same answer.
    pub fn advance(&mut self, stream: &[u8]) -> Probe<HttpRequest> {
        let outcome = self.read(stream);
        match outcome {
            Probe::Match(_) => self.stage = Stage::Start(RequestLine::new()),
            Probe::Unreadable => self.stage = Stage::Unreadable,
            Probe::NotThis => self.stage = Stage::Rejected,
            Probe::NeedMore => {}
        }
        outcome
    }

    /// The version, as soon as it is beyond doubt, while the host is still looked for. An HTTP/2 client may wait for
    /// the server's first frame before it sends a request; when the deadline passes, this is what is known.
    #[must_use]
    pub const fn version(&self) -> Option<HttpVersion> {
        match self.stage {
            Stage::Start(_) | Stage::Unreadable | Stage::Rejected => None,
            Stage::Http1(_) => Some(HttpVersion::Http1),
            Stage::Http2(_) => Some(HttpVersion::Http2),
        }
    }

    /// Returns whether a request has begun: a method with a space behind it, which the beginning of the preface has as
    /// well. When no more comes, this is what is known; a whole line could still tell otherwise.
    #[must_use]
    pub const fn has_begun(&self) -> bool {
        match &self.stage {
            Stage::Start(line) => line.has_method(),
            Stage::Http1(_) | Stage::Http2(_) | Stage::Unreadable => true,
            Stage::Rejected => false,
        }
    }

    fn read(&mut self, stream: &[u8]) -> Probe<HttpRequest> {
        loop {
            let (version, host) = match &mut self.stage {
                Stage::Rejected => return Probe::NotThis,
                Stage::Unreadable => return Probe::Unreadable,
                Stage::Start(line) => match start(line, stream) {
                    Probe::Match(Start::Known(version, host)) => (version, Probe::Match(host)),
                    Probe::Match(Start::Http1(_)) if !self.want_host => (HttpVersion::Http1, Probe::Match(None)),
                    Probe::Match(Start::Http2) if !self.want_host => (HttpVersion::Http2, Probe::Match(None)),
                    Probe::Match(Start::Http1(fields)) => {
                        self.stage = Stage::Http1(fields);
                        continue;
                    }
                    Probe::Match(Start::Http2) => {
                        self.stage = Stage::Http2(Frames::after(PREFACE.len()));
                        continue;
                    }
                    Probe::Unreadable => return Probe::Unreadable,
                    Probe::NotThis => return Probe::NotThis,
                    Probe::NeedMore => return Probe::NeedMore,
                },
                Stage::Http1(fields) => (HttpVersion::Http1, fields.advance(stream)),
                Stage::Http2(frames) => (HttpVersion::Http2, frames.advance(stream)),
            };
            let want_host = self.want_host;
            return host.map(|host| HttpRequest { version, host: host.filter(|_| want_host) });
        }
    }
}

/// Result of the first line.
enum Start {
    /// All there is to know: the target names the host, or names it in a way that cannot be used.
    Known(HttpVersion, Option<String>),
    /// The host is in the fields.
    Http1(Fields),
    /// The host is in the frames.
    Http2,
}

fn start(line: &mut RequestLine, stream: &[u8]) -> Probe<Start> {
    if stream.starts_with(PREFACE) {
        return Probe::Match(Start::Http2);
    }
    let line = line.advance(stream);
    if PREFACE.starts_with(stream) {
        // It begins with a whole request line, which would be one of HTTP/1.
        return Probe::NeedMore;
    }
    line.map(|line| match authority::of_target(line.method, line.target) {
        _ if line.is_doubtful => Start::Known(HttpVersion::Http1, None),
        authority::Target::Host(host) => Start::Known(HttpVersion::Http1, host),
        authority::Target::Path => Start::Http1(Fields::after(line.len)),
    })
}
