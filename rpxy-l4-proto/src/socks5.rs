//! Tells SOCKS by what the client sends first: the method selection message of version 5 (RFC 1928 section 3), or the
//! request of version 4 or 4a. Each must be complete, and its fields plausible: a version byte alone would claim too much
//! binary traffic. What follows is not looked at.

use crate::Probe;

const VERSION_4: u8 = 4;
const VERSION_5: u8 = 5;

/// Commands of version 4: CONNECT and BIND.
const CONNECT: u8 = 1;
const BIND: u8 = 2;
/// The bytes of a version 4 request in front of the user ID.
const REQUEST: usize = 8;
/// The longest user ID or name waited for, in bytes: what DNS can carry.
const MAX_TEXT: usize = 255;
/// Methods of version 5 that a client may plausibly offer: ten are registered.
const PLAUSIBLE_METHODS: u8 = 16;

/// Looks at `stream`, everything received since its start, for a whole first message.
pub fn probe(stream: &[u8]) -> Probe<()> {
    match stream {
        [VERSION_4, rest @ ..] => version_4(stream, rest),
        [] | [VERSION_5] => Probe::NeedMore,
        [VERSION_5, 0, ..] => Probe::NotThis,
        [VERSION_5, count, methods @ ..] if methods.len() < usize::from(*count) => Probe::NeedMore,
        [VERSION_5, ..] => Probe::Match(()),
        _ => Probe::NotThis,
    }
}

/// Returns whether `stream`, for which [`probe`] needs more, is a beginning that nothing else is known to have: version
/// 5 with a plausible number of methods, or version 4 up to its address. When no more comes, this is what is known.
#[must_use]
pub fn has_begun(stream: &[u8]) -> bool {
    match stream {
        [VERSION_4, ..] => stream.len() >= REQUEST && probe(stream) != Probe::NotThis,
        [VERSION_5, count, ..] => (1..=PLAUSIBLE_METHODS).contains(count),
        _ => false,
    }
}

/// Version, command, port, address, user ID, zero; in version 4a the address is 0.0.0.x, and a name and a zero follow.
fn version_4(stream: &[u8], rest: &[u8]) -> Probe<()> {
    if !matches!(rest.first(), None | Some(&(CONNECT | BIND))) {
        return Probe::NotThis;
    }
    let Some(&[_, _, _, _, a, b, c, d]) = stream.first_chunk::<REQUEST>() else { return Probe::NeedMore };
    let has_name = match [a, b, c, d] {
        [0, 0, 0, 0] => return Probe::NotThis,
        [0, 0, 0, _] => true,
        _ => false,
    };
    let user = stream.get(REQUEST..).unwrap_or_default();
    let behind = match text(user) {
        Text::Ended(behind) => behind,
        Text::Open => return Probe::NeedMore,
        Text::TooLong => return Probe::Match(()),
        Text::Binary => return Probe::NotThis,
    };
    match text(behind) {
        _ if !has_name => Probe::Match(()),
        Text::Ended(_) | Text::TooLong => Probe::Match(()),
        Text::Open => Probe::NeedMore,
        Text::Binary => Probe::NotThis,
    }
}

/// A text that ends with a zero, in a stream.
enum Text<'a> {
    /// Whole, with what is behind its zero.
    Ended(&'a [u8]),
    Open,
    TooLong,
    Binary,
}

fn text(stream: &[u8]) -> Text<'_> {
    let within = stream.get(..=MAX_TEXT).unwrap_or(stream);
    let end = within.iter().position(u8::is_ascii_control);
    match (end, end.and_then(|end| stream.get(end..))) {
        (Some(_), Some([0, behind @ ..])) => Text::Ended(behind),
        (Some(_), _) => Text::Binary,
        (None, _) if within.len() > MAX_TEXT => Text::TooLong,
        (None, _) => Text::Open,
    }
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;
    use Probe::{Match, NeedMore, NotThis};

    #[test]
    fn version_and_method_list_decide() {
        let full_list = [&[5, 255][..], &[0; 255]].concat();
        let rows: [(&str, &[u8], Probe<()>); 11] = [
            ("nothing", &[], NeedMore),
            ("version", &[5], NeedMore),
            ("no method yet", &[5, 1], NeedMore),
            ("one method", &[5, 1, 0], Match(())),
            ("one of two", &[5, 2, 0], NeedMore),
            ("two of two, then a request", &[5, 2, 0, 2, 5, 1, 0, 1], Match(())),
            ("254 of 255", &full_list[..256], NeedMore),
            ("255 of 255", &full_list, Match(())),
            ("an empty list", &[5, 0], NotThis),
            ("an empty list with more", &[5, 0, 0], NotThis),
            ("version 3", &[3], NotThis),
        ];
        for (name, stream, answer) in rows {
            assert_eq!(probe(stream), answer, "{name}");
        }
    }

    #[test]
    fn a_whole_request_of_version_4_decides() {
        let request = |address: [u8; 4], behind: &[u8]| [&[4, 1, 0, 80][..], &address, behind].concat();
        let by_address = |behind: &[u8]| request([192, 0, 2, 1], behind);
        let by_name = |behind: &[u8]| request([0, 0, 0, 1], behind);
        let rows = [
            ("version", vec![4], NeedMore),
            ("command", vec![4, 1], NeedMore),
            ("up to the address", by_address(b""), NeedMore),
            ("user ID without its end", by_address(b"me"), NeedMore),
            ("no user ID", by_address(b"\0"), Match(())),
            ("a user ID", by_address(b"me\0and more"), Match(())),
            ("a user ID in UTF-8", by_address("ol\u{e9}\0".as_bytes()), Match(())),
            ("255 bytes of user ID", by_address(&[b'u'; 255]), NeedMore),
            ("256 bytes of user ID", by_address(&[b'u'; 256]), Match(())),
            ("BIND", [&[4, 2, 0, 0, 192, 0, 2, 1][..], b"\0"].concat(), Match(())),
            ("4a, no name yet", by_name(b"me\0"), NeedMore),
            ("4a, name without its end", by_name(b"\0a.example"), NeedMore),
            ("4a", by_name(b"\0a.example\0"), Match(())),
            ("4a, a long name", by_name(&[&[0][..], &[b'n'; 256]].concat()), Match(())),
            ("4a, control character in the name", by_name(b"\0a\x01"), NotThis),
            ("another command", vec![4, 3], NotThis),
            ("no address", request([0; 4], b""), NotThis),
            ("control character in the user ID", by_address(b"a\x01"), NotThis),
            // Flags, stream, STARTUP and the length of a body that begins with a count.
            ("a compressed frame of Cassandra", vec![4, 1, 0, 0, 1, 0, 0, 0, 22, 0, 1], NotThis),
        ];
        for (name, stream, answer) in rows {
            assert_eq!(probe(&stream), answer, "{name}");
        }
    }

    #[test]
    fn a_plausible_beginning_is_enough_when_no_more_comes() {
        let rows: [(&[u8], bool); 10] = [
            (&[], false),
            (&[5], false),
            (&[5, 2], true),
            (&[5, 16, 0], true),
            (&[5, 17, 0], false),
            (&[4], false),
            (&[4, 1, 0, 80, 192, 0, 2], false),
            (&[4, 1, 0, 80, 192, 0, 2, 1], true),
            (&[4, 1, 0, 80, 192, 0, 2, 1, b'm', b'e'], true),
            (&[6, 1], false),
        ];
        for (stream, expected) in rows {
            assert_eq!(has_begun(stream), expected, "{stream:02x?}");
        }
    }

    proptest! {
        #[test]
        fn properties_hold_near_requests(
            start in vec(prop_oneof![Just(0_u8), Just(1), Just(4), Just(5), any::<u8>()], 0..9),
            text in "[a-z\\x00]{0,20}",
        ) {
            let _answers = crate::properties::socks5_ssh(&[&start[..], text.as_bytes()].concat());
        }
    }
}
