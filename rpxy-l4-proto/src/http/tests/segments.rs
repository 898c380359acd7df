//! The answer does not depend on how the bytes arrive.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::{
    http2::{block, frame},
    *,
};
use crate::properties;

const HEAD: &[u8] = b"POST /x HTTP/1.1\r\nAccept: */*\r\nHost: a.example\r\n\r\n";

fn http2_request() -> Vec<u8> {
    let (first, rest) = (block()[..7].to_vec(), block()[7..].to_vec());
    [PREFACE.to_vec(), frame(4, 0, 0, &[]), frame(1, 0, 1, &first), frame(9, 4, 1, &rest)].concat()
}

#[test]
fn every_truncation_needs_more() {
    for stream in [HEAD.to_vec(), http2_request()] {
        for len in 0..stream.len() {
            assert_eq!(probe(true, &stream[..len]), NeedMore, "{len} bytes");
        }
        assert!(matches!(probe(true, &stream), Match(HttpRequest { host: Some(_), .. })));
    }
}

/// Requests, some with one byte changed.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let field = prop_oneof![
        "[Hh]ost:[ \t]{0,2}[a-b.]{0,4}(:[0-9]{0,2})?",
        "[HhX]ost ?: ?\\[?[a-f0-9:]{0,6}\\]?",
        "[ a-zA-Z-]{0,6}:[ -~]{0,20}",
    ];
    let target = prop_oneof!["/[ -~]{0,10}", "https?://[a-b.@]{0,5}/", "[ -~]{0,6}"];
    let http1 = (
        "(\r?\n| ){0,2}[A-Z]{1,5}[ \t]{1,2}",
        target,
        " {1,2}(HTTP/[12]\\.[0-9]{1,2})? ?\r?\n",
        vec((field, "\r?\n"), 0..6),
        "\r?\n",
    )
        .prop_map(|(method, target, version, fields, end)| {
            let fields: String = fields.into_iter().map(|(field, end)| field + &end).collect();
            format!("{method}{target}{version}{fields}{end}").into_bytes()
        });
    let http2 = vec((0..10_u8, any::<u8>(), 0..4_u32, vec(any::<u8>(), 0..20)), 0..5).prop_map(|frames| {
        let frames = frames.into_iter().map(|(typ, flags, stream, payload)| frame(typ, flags, stream, &payload));
        [PREFACE.to_vec(), frame(4, 0, 0, &[]), frames.collect::<Vec<_>>().concat()].concat()
    });
    let change = proptest::option::weighted(0.4, (any::<Index>(), any::<u8>()));
    (prop_oneof![http1, http2, Just(http2_request())], change).prop_map(|(mut stream, change)| {
        if let Some((index, byte)) = change {
            let at = index.index(stream.len());
            stream[at] = byte;
        }
        stream
    })
}

proptest! {
    #[test]
    fn properties_hold_near_requests(stream in streams()) {
        let _outcome = properties::http(&stream);
    }

    #[test]
    fn properties_hold_for_any_bytes(stream in vec(any::<u8>(), 0..100)) {
        let _outcome = properties::http(&stream);
    }

    #[test]
    fn any_segmentation_gives_the_same_answer(stream in streams(), cuts in vec(any::<Index>(), 0..12)) {
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let mut segmented = HttpProbe::new(true);
        let first_answer =
            ends.iter().map(|&end| segmented.advance(&stream[..end])).find(|outcome| *outcome != NeedMore);
        prop_assert_eq!(first_answer.unwrap_or(NeedMore), probe(true, &stream));
    }
}
