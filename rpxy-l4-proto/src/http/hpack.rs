//! HPACK (RFC 7541) for one header block, the first of a connection: static table, dynamic table, Huffman code.
//!
//! Fields are slices of the block; the dynamic table refers to them and copies nothing, so a small block cannot grow
//! into many bytes. It errs towards refusing: a block that is wrong anywhere has no fields at all.

use std::collections::VecDeque;

use super::{authority, huffman};
use crate::reader::Reader;

/// `SETTINGS_HEADER_TABLE_SIZE` before the server has said another value, in bytes (RFC 9113 section 6.5.2).
const MAX_TABLE: usize = 4096;
/// Size of an entry of the dynamic table beyond name and value, in bytes (RFC 7541 section 4.1).
const ENTRY_OVERHEAD: usize = 32;

/// The host of the request that `block` encodes: `:authority`, or `host` without it (RFC 9113 section 8.3.1). `None`
/// also when the field comes twice: such a request is malformed, and decoding every copy would let a small block with
/// many references cost much time.
pub(super) fn host(block: &[u8]) -> Option<String> {
    let mut decoder = Decoder::new(block);
    let mut authority = Found::Nothing;
    let mut host = Found::Nothing;
    while !decoder.block.is_empty() {
        // `Some(None)` is a size update.
        let Some((name, value)) = decoder.next_field()? else { continue };
        if name.is(b":authority") {
            authority = authority.and(value);
        } else if name.is(b"host") {
            host = host.and(value);
        }
    }
    match if matches!(authority, Found::Nothing) { host } else { authority } {
        Found::Once(value) => authority::host(&value.to_vec()),
        Found::Nothing | Found::Repeatedly => None,
    }
}

/// Occurrences of a field.
#[derive(Clone, Copy)]
enum Found<'a> {
    Nothing,
    Once(Text<'a>),
    Repeatedly,
}

impl<'a> Found<'a> {
    const fn and(self, value: Text<'a>) -> Self {
        match self {
            Self::Nothing => Self::Once(value),
            Self::Once(_) | Self::Repeatedly => Self::Repeatedly,
        }
    }
}

/// A name or value as it stands in the block, or in the static table.
#[derive(Debug, Clone, Copy)]
struct Text<'a> {
    raw: &'a [u8],
    huffman: bool,
    /// The length of the decoded text, in bytes.
    len: usize,
}

impl<'a> Text<'a> {
    const fn plain(raw: &'a [u8]) -> Self {
        Self { raw, huffman: false, len: raw.len() }
    }

    /// `None` when the encoding is wrong.
    fn huffman(raw: &'a [u8]) -> Option<Self> {
        let len = huffman::decode(raw).try_fold(0_usize, |len, byte| byte.map(|_| len.saturating_add(1)))?;
        Some(Self { raw, huffman: true, len })
    }

    fn is(&self, text: &[u8]) -> bool {
        if self.huffman {
            self.len == text.len() && huffman::decode(self.raw).eq(text.iter().copied().map(Some))
        } else {
            self.raw == text
        }
    }

    fn to_vec(self) -> Vec<u8> {
        if self.huffman { huffman::decode(self.raw).flatten().collect() } else { self.raw.to_vec() }
    }
}

type Field<'a> = (Text<'a>, Text<'a>);

struct Decoder<'a> {
    block: Reader<'a>,
    /// Newest first.
    table: VecDeque<Field<'a>>,
    /// The size of `table` as RFC 7541 section 4.1 counts it.
    size: usize,
    max_size: usize,
    /// A size update may still come: only in front of the first field (RFC 7541 section 4.2).
    at_start: bool,
}

impl<'a> Decoder<'a> {
    const fn new(block: &'a [u8]) -> Self {
        Self { block: Reader::new(block), table: VecDeque::new(), size: 0, max_size: MAX_TABLE, at_start: true }
    }

    /// The next representation (RFC 7541 section 6): a field, `Some(None)` for a size update, `None` for an error.
    fn next_field(&mut self) -> Option<Option<Field<'a>>> {
        let first = self.block.u8()?;
        if first & 0xe0 == 0x20 {
            // Nothing to evict: in front of the first field of a connection the table is empty.
            self.max_size = self.integer(first, 5).filter(|&size| self.at_start && size <= MAX_TABLE)?;
            return Some(None);
        }
        self.at_start = false;
        if first & 0x80 != 0 {
            let index = self.integer(first, 7)?;
            return self.entry(index).map(Some);
        }
        // With incremental indexing; the rest is without it, or never indexed.
        let indexed = first & 0x40 != 0;
        let name = match self.integer(first, if indexed { 6 } else { 4 })? {
            0 => self.text()?,
            index => self.entry(index)?.0,
        };
        let value = self.text()?;
        if indexed {
            self.insert((name, value));
        }
        Some(Some((name, value)))
    }

    /// An integer whose prefix is the low `bits` bits of `first` (RFC 7541 section 5.1).
    fn integer(&mut self, first: u8, bits: u32) -> Option<usize> {
        let mask = 0xff_u8 >> 8_u32.saturating_sub(bits);
        let mut value = usize::from(first & mask);
        if first & mask != mask {
            return Some(value);
        }
        // Four octets reach far beyond any length or index there can be here.
        for shift in [0, 7, 14, 21] {
            let octet = self.block.u8()?;
            value = value.checked_add(usize::from(octet & 0x7f).checked_shl(shift)?)?;
            if octet & 0x80 == 0 {
                return Some(value);
            }
        }
        None
    }

    /// A string literal (RFC 7541 section 5.2).
    fn text(&mut self) -> Option<Text<'a>> {
        let first = self.block.u8()?;
        let len = self.integer(first, 7)?;
        let raw = self.block.take(len)?;
        if first & 0x80 != 0 { Text::huffman(raw) } else { Some(Text::plain(raw)) }
    }

    /// The entry at `index` of both tables (RFC 7541 section 2.3.3), which counts from 1.
    fn entry(&self, index: usize) -> Option<Field<'a>> {
        let index = index.checked_sub(1)?;
        match STATIC_TABLE.get(index) {
            Some((name, value)) => Some((Text::plain(name.as_bytes()), Text::plain(value.as_bytes()))),
            None => self.table.get(index.checked_sub(STATIC_TABLE.len())?).copied(),
        }
    }

    fn insert(&mut self, field: Field<'a>) {
        let size = size(&field);
        self.evict(size);
        // RFC 7541 section 4.4: an entry larger than the table leaves it empty.
        if size <= self.max_size {
            self.table.push_front(field);
            self.size = self.size.saturating_add(size);
        }
    }

    /// Drops the oldest entries until `room` bytes fit.
    fn evict(&mut self, room: usize) {
        while self.size.saturating_add(room) > self.max_size {
            let Some(oldest) = self.table.pop_back() else { return };
            self.size = self.size.saturating_sub(size(&oldest));
        }
    }
}

fn size((name, value): &Field<'_>) -> usize {
    name.len.saturating_add(value.len).saturating_add(ENTRY_OVERHEAD)
}

/// The static table (RFC 7541 appendix A); its first entry has index 1.
const STATIC_TABLE: [(&str, &str); 61] = [
    (":authority", ""),
    (":method", "GET"),
    (":method", "POST"),
    (":path", "/"),
    (":path", "/index.html"),
    (":scheme", "http"),
    (":scheme", "https"),
    (":status", "200"),
    (":status", "204"),
    (":status", "206"),
    (":status", "304"),
    (":status", "400"),
    (":status", "404"),
    (":status", "500"),
    ("accept-charset", ""),
    ("accept-encoding", "gzip, deflate"),
    ("accept-language", ""),
    ("accept-ranges", ""),
    ("accept", ""),
    ("access-control-allow-origin", ""),
    ("age", ""),
    ("allow", ""),
    ("authorization", ""),
    ("cache-control", ""),
    ("content-disposition", ""),
    ("content-encoding", ""),
    ("content-language", ""),
    ("content-length", ""),
    ("content-location", ""),
    ("content-range", ""),
    ("content-type", ""),
    ("cookie", ""),
    ("date", ""),
    ("etag", ""),
    ("expect", ""),
    ("expires", ""),
    ("from", ""),
    ("host", ""),
    ("if-match", ""),
    ("if-modified-since", ""),
    ("if-none-match", ""),
    ("if-range", ""),
    ("if-unmodified-since", ""),
    ("last-modified", ""),
    ("link", ""),
    ("location", ""),
    ("max-forwards", ""),
    ("proxy-authenticate", ""),
    ("proxy-authorization", ""),
    ("range", ""),
    ("referer", ""),
    ("refresh", ""),
    ("retry-after", ""),
    ("server", ""),
    ("set-cookie", ""),
    ("strict-transport-security", ""),
    ("transfer-encoding", ""),
    ("user-agent", ""),
    ("vary", ""),
    ("via", ""),
    ("www-authenticate", ""),
];

#[cfg(test)]
mod tests;
