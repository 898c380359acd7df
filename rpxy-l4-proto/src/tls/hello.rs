//! A complete ClientHello: its exact bytes, and where in them the fields are that routing and ECH look at.

use std::ops::Range;

use crate::reader::Reader;

/// A well-formed ClientHello (RFC 8446 section 4.1.2), of any TLS version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ClientHello {
    pub(super) message: Vec<u8>,
    pub(super) session_id: Range<usize>,
    pub(super) cipher_suites: Range<usize>,
    pub(super) extensions: Vec<Extension>,
    pub(super) server_name: Option<Range<usize>>,
    pub(super) alpn: Option<Range<usize>>,
}

/// One extension of a [`ClientHello`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Extension {
    /// The extension type, as registered by IANA.
    pub typ: u16,
    /// Range of the body in [`ClientHello::message`]; type and length are the four bytes before it.
    pub range: Range<usize>,
}

impl ClientHello {
    /// The handshake message with its four-byte header; at most [`MAX_HELLO`](super::MAX_HELLO) bytes.
    #[must_use]
    pub fn message(&self) -> &[u8] {
        &self.message
    }

    /// `legacy_session_id`: 0 to 32 bytes.
    #[must_use]
    pub fn session_id(&self) -> &[u8] {
        self.bytes(&self.session_id)
    }

    /// The offered cipher suites, two bytes each, at least one.
    #[must_use]
    pub fn cipher_suites(&self) -> &[u8] {
        self.bytes(&self.cipher_suites)
    }

    /// The `host_name` of the `server_name` extension (RFC 6066 section 3): 1 to 255 visible ASCII characters, in the
    /// client's spelling (case, trailing dot). A name that cannot be compared is none.
    #[must_use]
    pub fn server_name(&self) -> Option<&str> {
        self.server_name.as_ref().and_then(|range| std::str::from_utf8(self.bytes(range)).ok())
    }

    /// The offered application protocols (RFC 7301 section 3.1), in the client's order; none without the extension,
    /// or when its list is malformed.
    #[must_use]
    pub fn alpn(&self) -> Alpn<'_> {
        Alpn { names: Reader::new(self.alpn.as_ref().map_or(&[], |range| self.bytes(range))) }
    }

    /// The body of the extension of this type.
    #[must_use]
    pub fn extension(&self, typ: u16) -> Option<&[u8]> {
        self.extensions.iter().find(|extension| extension.typ == typ).map(|extension| self.bytes(&extension.range))
    }

    /// All extensions in the client's order, no type twice.
    pub fn extensions(&self) -> impl ExactSizeIterator<Item = &Extension> {
        self.extensions.iter()
    }

    /// The ranges are set by [`Walk`] inside the message, so the default is never taken.
    fn bytes(&self, range: &Range<usize>) -> &[u8] {
        self.message.get(range.clone()).unwrap_or_default()
    }
}

/// The protocol names of a hello; see [`ClientHello::alpn`].
#[derive(Debug, Clone)]
pub struct Alpn<'a> {
    names: Reader<'a>,
}

impl<'a> Iterator for Alpn<'a> {
    type Item = &'a [u8];

    fn next(&mut self) -> Option<Self::Item> {
        self.names.vec8()
    }
}
