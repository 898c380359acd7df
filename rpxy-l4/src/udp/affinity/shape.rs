//! Connection IDs that no other protocol's bytes are mistaken for.
//!
//! A first datagram is compared with known IDs at a fixed place, where other protocols have constants: the flags and counts
//! of a DNS query, the version and epoch of a DTLS record, the method of a SIP request. Whoever gets such bytes into the
//! table would be given that protocol's new flows. Servers choose IDs at random (RFC 9000 section 5.1), so that nearly
//! none of theirs is refused; a refused one costs its client the connection when its address changes, and nothing else.

use rpxy_l4_proto::quic::ConnectionId;

/// The shortest ID that is looked up, in bytes.
pub(in crate::udp) const SHORTEST: usize = 8;
/// Different values among the first eight bytes at least. A DNS header has four at most there, a DTLS record three.
const DIFFERENT: usize = 5;

/// Returns whether `id` is long and irregular enough. Of random IDs of 8 bytes one in 2,500 is not.
pub(in crate::udp) fn is_unmistakable(id: &ConnectionId) -> bool {
    let Some(start) = id.as_bytes().first_chunk::<SHORTEST>() else { return false };
    let is_first = |(at, byte): &(usize, &u8)| start.iter().take(*at).all(|earlier| earlier != *byte);
    let different = start.iter().enumerate().filter(is_first).count();
    let text = start.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\r' | b'\n' | b'\t'));
    different >= DIFFERENT && !text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_told_from_the_constants_of_other_protocols() {
        let rows: [(&str, &[u8], bool); 12] = [
            ("random", b"\x5e\x01\xc4\x9a\x33\x70\xee\x12", true),
            (
                "random, of 20 bytes",
                b"\x5e\x01\xc4\x9a\x33\x70\xee\x12\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00\x00",
                true,
            ),
            ("a server's number before a nonce", b"\x20\x00\x00\x00\x07\xd1\x9c\x44", true),
            ("short", b"\x5e\x01\xc4\x9a\x33\x70\xee", false),
            ("empty", b"", false),
            ("DTLS hello", b"\xfe\xff\x00\x00\x00\x00\x00\x00", false),
            ("DNS query", b"\x7f\x01\x00\x00\x01\x00\x00\x00", false),
            (
                "DNS query with AD, EDNS and a known name",
                b"\x7f\x01\x20\x00\x01\x00\x00\x00\x00\x00\x01\x03www\x07exa",
                false,
            ),
            ("DNS answer counts", b"\x00\x01\x00\x00\x01\x00\x00\x00\x00", false),
            ("SIP", b"NVITE sip:bob@exampl", false),
            ("statsd", b"pp.requests.total:1|", false),
            ("zeros", &[0; 20], false),
        ];
        for (row, bytes, expected) in rows {
            assert_eq!(is_unmistakable(&ConnectionId::new(bytes).unwrap()), expected, "{row}");
        }
    }
}
