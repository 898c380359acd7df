//! The Internet checksum (RFC 1071) and its incremental update (RFC 1624).
//!
//! Words are numbers of the network's byte order. A change is kept as one word: the sum of what is new, less the sum of
//! what was there.

/// The sum of the IPv4 address in an address field.
#[inline(always)]
#[must_use]
pub const fn sum_ipv4(address: &[u8; 16]) -> u32 {
    let [a, b, c, d, ..] = *address;
    sum(pair(a, b, c, d))
}

/// The sum of the IPv6 address in an address field.
#[inline(always)]
#[must_use]
pub const fn sum_ipv6(address: &[u8; 16]) -> u32 {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = *address;
    sum(pair(a, b, c, d) + pair(e, f, g, h) + pair(i, j, k, l) + pair(m, n, o, p))
}

/// Two words as they stand in memory, for fewer loads: a sum comes out alike in either byte order (RFC 1071 section 2).
#[inline(always)]
const fn pair(a: u8, b: u8, c: u8, d: u8) -> u64 {
    u32::from_ne_bytes([a, b, c, d]) as u64
}

/// The sum of a few pairs as one word of the network's byte order.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "a few pairs leave 32 bits when folded")]
const fn sum(pairs: u64) -> u32 {
    let pairs = (pairs & 0xffff) + (pairs >> 16 & 0xffff) + (pairs >> 32);
    u16::from_be(fold(pairs as u32)) as u32
}

/// A sum of words as one word, carries added.
#[inline(always)]
#[must_use]
#[expect(clippy::cast_possible_truncation, reason = "two additions of the carry leave 16 bits")]
pub const fn fold(sum: u32) -> u16 {
    let sum = (sum & 0xffff) + (sum >> 16);
    ((sum & 0xffff) + (sum >> 16)) as u16
}

/// The change from words with the sum `old` to words with the sum `new`: `~m + m'` of RFC 1624.
#[inline(always)]
#[must_use]
pub const fn difference(old: u32, new: u32) -> u16 {
    fold(!fold(old) as u32 + fold(new) as u32)
}

/// The checksum after a change: `~(~HC + ~m + m')`, equation 3 of RFC 1624.
#[inline(always)]
#[must_use]
pub const fn update(checksum: u16, difference: u16) -> u16 {
    !fold(!checksum as u32 + difference as u32)
}

/// A change as a `__wsum` of the kernel: the word as it is in memory. The helpers `bpf_l3_csum_replace` and
/// `bpf_l4_csum_replace` take it as `to` if the size in their flags is 0 (and `from` is 0).
#[inline(always)]
#[must_use]
pub const fn kernel_sum(difference: u16) -> u32 {
    difference.to_be() as u32
}
