//! Packet numbers, of which the wire carries the low bytes only (RFC 9000 section 17.1).

/// The largest packet number (RFC 9000 section 12.3).
const MAX: u64 = (1 << 62) - 1;

/// The packet number nearest to the one after `largest` that ends in these bytes (RFC 9000 appendix A.3).
///
/// `largest` is the largest one that was opened; `bytes` are 1 to 4, without header protection.
pub(super) fn reconstruct(largest: Option<u64>, bytes: &[u8]) -> u64 {
    let truncated = bytes.iter().fold(0_u64, |value, &byte| value << 8 | u64::from(byte));
    let expected = largest.map_or(0, |largest| largest.saturating_add(1).min(MAX));
    let window = 1_u64 << bytes.len().saturating_mul(8).min(32);
    let half = window / 2;
    let candidate = expected & !window.saturating_sub(1) | truncated;
    if candidate.saturating_add(half) <= expected && candidate <= MAX - window {
        candidate.saturating_add(window)
    } else if candidate > expected.saturating_add(half) && candidate >= window {
        candidate.saturating_sub(window)
    } else {
        candidate
    }
}
