//! A stream is the same in whatever pieces it comes, and bounded in what it holds.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use CryptoStreamError::{Conflict, TooLong, TooManyPieces};

/// Frames as offset and data.
type FrameList = &'static [(usize, &'static str)];

fn offset(offset: usize) -> u64 {
    offset.try_into().unwrap()
}

/// The prefix after each of some frames.
fn prefixes(frames: &[(usize, &str)]) -> Vec<String> {
    let mut stream = CryptoStream::default();
    let mut prefixes = Vec::new();
    for (at, data) in frames {
        stream.insert(offset(*at), data.as_bytes()).unwrap();
        prefixes.push(String::from_utf8(stream.prefix().to_vec()).unwrap());
    }
    prefixes
}

#[test]
fn frames_add_up() {
    let rows: [(&str, FrameList, &[&str]); 12] = [
        ("in order", &[(0, "ab"), (2, "cd")], &["ab", "abcd"]),
        ("the other way round", &[(2, "cd"), (0, "ab")], &["", "abcd"]),
        ("three, the middle one last", &[(4, "ef"), (0, "ab"), (2, "cd")], &["", "ab", "abcdef"]),
        ("a duplicate", &[(0, "ab"), (0, "ab")], &["ab", "ab"]),
        ("a part again", &[(0, "abcd"), (1, "bc")], &["abcd", "abcd"]),
        ("more of the same", &[(0, "ab"), (0, "abcd")], &["ab", "abcd"]),
        ("overlap at the end", &[(0, "abc"), (2, "cde")], &["abc", "abcde"]),
        ("overlap at the start", &[(2, "cde"), (0, "abc")], &["", "abcde"]),
        ("around a piece", &[(2, "c"), (1, "bcd"), (0, "abcde")], &["", "", "abcde"]),
        ("over two pieces and a hole", &[(1, "b"), (4, "e"), (0, "abcdef")], &["", "", "abcdef"]),
        ("from within a piece to within the next", &[(0, "abc"), (4, "efg"), (2, "cdef")], &["abc", "abc", "abcdefg"]),
        ("nothing", &[(0, ""), (7, ""), (0, "a"), (0, ""), (1, "")], &["", "", "a", "a", "a"]),
    ];
    for (row, frames, expected) in rows {
        assert_eq!(prefixes(frames), expected, "{row}");
    }
}

#[test]
fn other_bytes_at_the_same_place_are_a_conflict() {
    let rows = [
        ("at the start", 0, "xbc"),
        ("at the end", 0, "abx"),
        ("overlap at the end", 2, "xd"),
        ("in a piece behind the hole", 2, "cdx"),
        ("around", 0, "abcdefx"),
        ("one byte", 6, "x"),
    ];
    for (row, at, data) in rows {
        let mut stream = CryptoStream::default();
        stream.insert(0, b"abc").unwrap();
        stream.insert(4, b"efg").unwrap();
        assert_eq!(stream.insert(at, data.as_bytes()), Err(Conflict), "{row}");
        assert_eq!(stream.insert(3, b"d"), Ok(()), "as it was before, {row}");
        assert_eq!(stream.prefix(), b"abcdefg", "{row}");
    }
}

#[test]
fn the_stream_ends_at_16_kib() {
    let rows = [
        ("the last byte", offset(MAX_CRYPTO_STREAM - 1), 1, Ok(())),
        ("a byte behind", offset(MAX_CRYPTO_STREAM), 1, Err(TooLong)),
        ("over the end", offset(MAX_CRYPTO_STREAM - 1), 2, Err(TooLong)),
        ("all of it", 0, MAX_CRYPTO_STREAM, Ok(())),
        ("all of it and a byte", 0, MAX_CRYPTO_STREAM + 1, Err(TooLong)),
        ("nothing at its end", offset(MAX_CRYPTO_STREAM), 0, Ok(())),
        ("the largest offset", (1 << 62) - 2, 1, Err(TooLong)),
    ];
    for (row, at, len, expected) in rows {
        assert_eq!(CryptoStream::default().insert(at, &vec![7; len]), expected, "{row}");
    }
}

#[test]
fn only_bytes_that_arrived_are_held() {
    let mut stream = CryptoStream::default();
    stream.insert(16_000, b"a").unwrap();
    assert!(stream.allocated() <= 16, "{} bytes for one", stream.allocated());
    for at in (0..16_000).rev() {
        stream.insert(at, b"a").unwrap();
    }
    assert_eq!(stream.prefix().len(), 16_001);
    assert!(stream.allocated() <= 2 * 16_001, "{} bytes", stream.allocated());
}

#[test]
fn pieces_are_bounded() {
    let mut stream = CryptoStream::default();
    for piece in 0..MAX_CRYPTO_PIECES {
        stream.insert(offset(2 * piece), b"a").unwrap();
    }
    assert_eq!(stream.insert(offset(2 * MAX_CRYPTO_PIECES), b"a"), Err(TooManyPieces));
    // What closes a hole or grows a piece is no piece more.
    assert_eq!(stream.insert(offset(2 * MAX_CRYPTO_PIECES - 1), b"b"), Ok(()));
    assert_eq!(stream.insert(1, b"b"), Ok(()));
    assert_eq!(stream.insert(offset(2 * MAX_CRYPTO_PIECES + 1), b"a"), Ok(()), "there is room for one again");
    assert_eq!(stream.insert(offset(2 * MAX_CRYPTO_PIECES + 3), b"a"), Err(TooManyPieces));
}

proptest! {
    #[test]
    fn any_pieces_in_any_order_make_the_stream(
        content in vec(any::<u8>(), 1..600),
        cuts in vec((any::<Index>(), 0..60_usize), 0..80),
    ) {
        let mut stream = CryptoStream::default();
        let mut arrived = vec![false; content.len()];
        for (start, len) in cuts {
            let start = start.index(content.len());
            let end = (start + len).min(content.len());
            stream.insert(offset(start), &content[start..end]).unwrap();
            arrived[start..end].fill(true);
            let prefix = arrived.iter().take_while(|arrived| **arrived).count();
            prop_assert_eq!(stream.prefix(), &content[..prefix]);
            let held = arrived.iter().filter(|arrived| **arrived).count();
            prop_assert!(stream.allocated() <= 2 * held + 8 * MAX_CRYPTO_PIECES);
        }
    }
}
