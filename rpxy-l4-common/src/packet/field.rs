//! Fields of headers, at the offsets that network-types gives them.
//!
//! Its types only say where fields are; the bytes are read from arrays, so that no `unsafe` is needed. Single bytes and
//! words are indexed, with offsets that the compiler checks: the programs come out shorter than by slices.

/// A field of one byte, or the first byte of a longer one: `byte!(header: Ipv4Hdr, ttl)`.
macro_rules! byte {
    ($bytes:ident: $header:ty, $field:ident) => {{
        const AT: usize = ::core::mem::offset_of!($header, $field);
        $bytes[AT]
    }};
}

/// A field of two bytes in network byte order, as a number: `word!(header: UdpHdr, len)`.
macro_rules! word {
    ($bytes:ident: $header:ty, $field:ident) => {{
        const AT: usize = ::core::mem::offset_of!($header, $field);
        u16::from_be_bytes([$bytes[AT], $bytes[AT + 1]])
    }};
}

/// A field as it stands in the packet: `bytes!(header: UdpHdr, src)`.
macro_rules! bytes {
    ($bytes:ident: $header:ty, $field:ident) => {{
        const AT: usize = ::core::mem::offset_of!($header, $field);
        $crate::packet::field::chunk(&$bytes, AT)
    }};
}

/// Copies `N` bytes from an offset that lies within the header; the compiler sees that and leaves the checks out.
#[inline(always)]
pub(crate) const fn chunk<const LEN: usize, const N: usize>(header: &[u8; LEN], offset: usize) -> [u8; N] {
    match header.split_at_checked(offset) {
        Some((_, rest)) => match rest.first_chunk() {
            Some(field) => *field,
            None => [0; N],
        },
        None => [0; N],
    }
}
