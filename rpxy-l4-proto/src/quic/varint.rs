//! Variable-length integers (RFC 9000 section 16).

use crate::reader::Reader;

/// Reads an integer below 2^62. Encodings longer than needed are legal, so they are read like others.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<u64> {
    let first = reader.u8()?;
    let more = (1_usize << (first >> 6)).saturating_sub(1);
    let rest = reader.take(more)?;
    Some(rest.iter().fold(u64::from(first & 0x3f), |value, &byte| value << 8 | u64::from(byte)))
}

/// The length of the encoding that starts with `first`, in bytes: 1, 2, 4 or 8.
pub(super) const fn len(first: u8) -> usize {
    1 << (first >> 6)
}

/// Writes `value` in `len` bytes, which the caller takes from an encoding of a value no smaller. `None` when it does not
/// fit, or when there is no encoding of this length.
pub(super) fn write(value: u64, len: usize, out: &mut Vec<u8>) -> Option<()> {
    let (prefix, bits) = match len {
        1 => (0, 6),
        2 => (0x40, 14),
        4 => (0x80, 30),
        8 => (0xc0, 62),
        _ => return None,
    };
    let bytes = value.to_be_bytes();
    let [first, rest @ ..] = bytes.get(bytes.len().checked_sub(len)?..)? else { return None };
    if value >> bits != 0 {
        return None;
    }
    out.push(first | prefix);
    out.extend_from_slice(rest);
    Some(())
}

/// Reads a vector behind a variable-length integer that gives its length in bytes.
pub(super) fn read_vec<'a>(reader: &mut Reader<'a>) -> Option<&'a [u8]> {
    let len = read(reader)?;
    reader.take(usize::try_from(len).ok()?)
}
