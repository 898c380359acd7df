//! Tells SOCKS version 5 by the client's method selection message (RFC 1928 section 3), which must be complete: one
//! byte 5 alone would claim too much binary traffic. What follows the list is not looked at.

use crate::Probe;

const VERSION: u8 = 5;

/// Looks at `stream`, everything received since its start, for the version and a whole, non-empty method list.
pub fn probe(stream: &[u8]) -> Probe<()> {
    match stream {
        [] | [VERSION] => Probe::NeedMore,
        [VERSION, 0, ..] => Probe::NotThis,
        [VERSION, count, methods @ ..] if methods.len() < usize::from(*count) => Probe::NeedMore,
        [VERSION, ..] => Probe::Match(()),
        _ => Probe::NotThis,
    }
}

#[cfg(test)]
mod tests {
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
            ("version 4", &[4], NotThis),
        ];
        for (name, stream, answer) in rows {
            assert_eq!(probe(stream), answer, "{name}");
        }
    }
}
