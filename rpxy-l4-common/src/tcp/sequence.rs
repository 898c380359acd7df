//! Sequence numbers: 32 bits that wrap (RFC 9293 section 3.4).

/// Returns true if `a` comes after `b`. Numbers that are half of the space apart come after each other; windows are
/// smaller than that (RFC 7323 section 2.3).
#[inline(always)]
#[must_use]
pub const fn is_after(a: u32, b: u32) -> bool {
    b.wrapping_sub(a).cast_signed() < 0
}

/// Returns the later one of two numbers.
#[inline(always)]
#[must_use]
pub const fn later(a: u32, b: u32) -> u32 {
    if is_after(a, b) { a } else { b }
}

/// Returns true if a number is one of `len` from `start` on.
#[inline(always)]
#[must_use]
pub const fn is_within(number: u32, start: u32, len: u32) -> bool {
    number.wrapping_sub(start) < len
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_wrap() {
        let rows = [
            ("the same", 7, 7, false),
            ("the next", 8, 7, true),
            ("the one before", 6, 7, false),
            ("over the end", 1, u32::MAX, true),
            ("back over the end", u32::MAX, 1, false),
            ("nearly half of all ahead", 0x7fff_ffff, 0, true),
        ];
        for (row, a, b, expected) in rows {
            assert_eq!(is_after(a, b), expected, "{row}");
            assert_eq!(later(a, b), if expected { a } else { b }, "{row}");
        }
    }

    #[test]
    fn a_range_may_wrap_and_may_be_empty() {
        let rows = [
            ("first", u32::MAX, u32::MAX, 3, true),
            ("last", 1, u32::MAX, 3, true),
            ("behind the last", 2, u32::MAX, 3, false),
            ("before the first", u32::MAX - 1, u32::MAX, 3, false),
            ("empty", 5, 5, 0, false),
        ];
        for (row, number, start, len, expected) in rows {
            assert_eq!(is_within(number, start, len), expected, "{row}");
        }
    }
}
