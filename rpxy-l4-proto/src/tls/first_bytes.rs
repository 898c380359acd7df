//! The first bytes of a client's TLS stream, which tell what it is long before there is a hello.
//!
//! It errs towards TLS where a server would: OpenSSL takes an SSLv2-compatible hello (RFC 5246 appendix E.2), passes over
//! empty records with a change of cipher specs in front of the hello, and answers an alert there by one of its own. None
//! of these has a name that could be read here.

use crate::Probe;

/// Content type of handshake records (RFC 8446 section 5.1).
pub(super) const HANDSHAKE: u8 = 22;
/// Content type of alerts.
pub(super) const ALERT: u8 = 21;
/// Content type of records that change cipher specs (RFC 8446 section 5.1).
const CHANGE_CIPHER_SPEC: u8 = 20;
/// First byte of `legacy_record_version`; the second one is to be ignored (RFC 8446 section 5.1).
pub(super) const MAJOR_VERSION: u8 = 3;
/// The bytes of an SSLv2-compatible hello up to its cipher specs: length, type, version and three lengths.
const V2_FIXED: usize = 11;
/// What the length of such a hello does not count: itself.
const V2_LENGTH: usize = 2;
/// Message type of the hello in SSL 2.0.
const V2_CLIENT_HELLO: u8 = 1;
/// The bytes of a cipher spec in SSL 2.0.
const V2_CIPHER_SPEC: usize = 3;
/// The longest session ID in bytes.
const MAX_SESSION_ID: usize = 32;

/// A match when records with handshake messages begin: three bytes that no other protocol begins with.
pub(super) fn first_bytes(stream: &[u8]) -> Probe<()> {
    match stream {
        // RFC 8446 section 5.1: the minor version is to be ignored.
        [HANDSHAKE, MAJOR_VERSION, _, ..] => Probe::Match(()),
        [] | [HANDSHAKE] | [HANDSHAKE, MAJOR_VERSION] => Probe::NeedMore,
        [ALERT, rest @ ..] => alert(rest),
        [CHANGE_CIPHER_SPEC, rest @ ..] => change_cipher_spec(rest),
        [0x80..=0xff, ..] => v2_hello(stream),
        _ => Probe::NotThis,
    }
}

/// An alert record behind its content type: one alert, a level and a description.
fn alert(rest: &[u8]) -> Probe<()> {
    match rest {
        [MAJOR_VERSION, _, 0, 2, 1 | 2, ..] => Probe::Unreadable,
        [] | [MAJOR_VERSION] | [MAJOR_VERSION, _] | [MAJOR_VERSION, _, 0] | [MAJOR_VERSION, _, 0, 2] => Probe::NeedMore,
        _ => Probe::NotThis,
    }
}

/// A record with a change of cipher specs behind its content type: one byte of 1 (RFC 8446 section 5), or empty.
fn change_cipher_spec(rest: &[u8]) -> Probe<()> {
    match rest {
        [MAJOR_VERSION, _, 0, 0, ..] | [MAJOR_VERSION, _, 0, 1, 1, ..] => Probe::Unreadable,
        [] | [MAJOR_VERSION] | [MAJOR_VERSION, _] | [MAJOR_VERSION, _, 0] | [MAJOR_VERSION, _, 0, 1] => Probe::NeedMore,
        _ => Probe::NotThis,
    }
}

/// A hello in the form of SSL 2.0 for version 3.x, told by its lengths, which must add up.
fn v2_hello(stream: &[u8]) -> Probe<()> {
    let expected = |at: usize, value: u8| stream.get(at).is_none_or(|byte| *byte == value);
    if !expected(2, V2_CLIENT_HELLO) || !expected(3, MAJOR_VERSION) {
        return Probe::NotThis;
    }
    let Some(&[high, low, _, _, _, c0, c1, s0, s1, r0, r1]) = stream.first_chunk::<V2_FIXED>() else {
        return Probe::NeedMore;
    };
    let length = |high, low| usize::from(u16::from_be_bytes([high, low]));
    let (cipher_specs, session_id, challenge) = (length(c0, c1), length(s0, s1), length(r0, r1));
    let fits = cipher_specs > 0
        && cipher_specs.is_multiple_of(V2_CIPHER_SPEC)
        && session_id <= MAX_SESSION_ID
        && V2_FIXED.saturating_add(cipher_specs).saturating_add(session_id).saturating_add(challenge)
            == length(high & 0x7f, low).saturating_add(V2_LENGTH);
    if fits { Probe::Unreadable } else { Probe::NotThis }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::hex;
    use Probe::{Match, NeedMore, NotThis, Unreadable};

    #[test]
    fn the_first_bytes_tell() {
        // 27 bytes of cipher specs, no session ID, a challenge of 16 bytes.
        let v2 = "8034 01 0301 001b 0000 0010";
        let rows = [
            ("nothing", "", NeedMore),
            ("content type", "16", NeedMore),
            ("major version", "1603", NeedMore),
            ("minor version", "160301", Match(())),
            ("a minor version that nobody has", "1603ff", Match(())),
            ("version 2 in the record", "1602", NotThis),
            ("application data", "17", NotThis),
            ("an empty change of cipher specs", "1403010000", Unreadable),
            ("a change of cipher specs", "140303000101", Unreadable),
            ("half of one", "1403030001", NeedMore),
            ("a change to something else", "140303000102", NotThis),
            ("a long change of cipher specs", "1403030002", NotThis),
            ("version 2 in its record", "1402", NotThis),
            ("half an alert", "1503010002", NeedMore),
            ("a warning", "150301000201", Unreadable),
            ("a fatal alert", "15030300020228", Unreadable),
            ("an alert of no level", "150301000203", NotThis),
            ("a long alert", "15030100 03", NotThis),
            ("an SSLv2-compatible hello", v2, Unreadable),
            ("all of it but a byte", "8034 01 0301 001b 0000 00", NeedMore),
            ("for TLS 1.2, with a session ID", "8045 01 0303 001b 0010 0011", Unreadable),
            ("longer than 255 bytes", "813b 01 0300 0102 0000 0030", Unreadable),
            ("SSL 2.0 itself", "802e 01 0002", NotThis),
            ("another message", "8034 04", NotThis),
            ("lengths that do not add up", "8035 01 0301 001b 0000 0010", NotThis),
            ("half a cipher spec", "8033 01 0301 001a 0000 0010", NotThis),
            ("no cipher spec", "8019 01 0301 0000 0000 0010", NotThis),
            ("a record mark of RPC", "8000002c 00000001 00000000", NotThis),
        ];
        for (row, bytes, answer) in rows {
            assert_eq!(first_bytes(&hex(bytes)), answer, "{row}");
        }
    }
}
