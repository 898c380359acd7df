//! Variable-length integers (RFC 9000 section 16).

use crate::reader::Reader;

/// Reads an integer below 2^62. Encodings longer than needed are legal, so they are read like others.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.u8()?;
    let more = (1_usize << (first >> 6)).saturating_sub(1);
    let rest = reader.take(more)?;
    Some(rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)))
}

/// Reads a vector behind a variable-length integer that gives its length in bytes.
pub(super) fn read_vec<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = read(reader)?;
    reader.take(usize::try_from(len).ok()?)
}
