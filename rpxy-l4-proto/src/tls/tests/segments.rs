//! The answer does not depend on how the bytes arrive: records, segments, single bytes.

use proptest::{collection::vec, prelude::*, sample::Index};

use super::*;
use crate::{properties, testing::records};

#[test]
fn every_truncation_needs_more() {
    let built = Hello::for_name("a.example", &["h2", "http/1.1"]);
    for stream in [built.record(), records(&built.message(), 3)] {
        for len in 0..stream.len() {
            assert_eq!(probe(&stream[..len]), Probe::NeedMore, "{len} bytes");
        }
        assert!(probe(&stream).is_match());
    }
    let message = built.message();
    for len in 0..message.len() {
        assert_eq!(ClientHello::parse(message[..len].to_vec()), Probe::NeedMore, "{len} bytes");
    }
}

#[test]
fn records_of_every_size_give_the_same_hello() {
    let built = Hello::for_name("a.example", &["h2", "http/1.1"]);
    let message = built.message();
    let expected = hello(probe(&built.record()));
    for size in 1..=message.len() {
        assert_eq!(properties::client_hello(&records(&message, size)), Probe::Match(expected.clone()), "{size}");
    }
}

/// Hellos that are good, or good but for one byte, or followed by something.
fn streams() -> impl Strategy<Value = Vec<u8>> {
    let extension = prop_oneof![
        "[a-z]{1,20}(\\.[a-z]{1,9})?\\.?".prop_map(|name| (0, server_name(&name))),
        vec("[a-z]{1,9}", 1..4)
            .prop_map(|names| (16, protocol_names(&names.iter().map(String::as_str).collect::<Vec<_>>()))),
        (17_u16.., vec(any::<u8>(), 0..30)),
    ];
    let built =
        (vec(extension, 0..8), vec(any::<u8>(), 0..=32), 1..200_usize).prop_map(|(extensions, session_id, size)| {
            records(&Hello { session_id, ..Hello::with(extensions) }.message(), size)
        });
    (built, vec(any::<u8>(), 0..20), proptest::option::weighted(0.6, (any::<Index>(), any::<u8>()))).prop_map(
        |(mut stream, tail, change)| {
            stream.extend(tail);
            if let Some((index, byte)) = change {
                let at = index.index(stream.len());
                stream[at] = byte;
            }
            stream
        },
    )
}

proptest! {
    #[test]
    fn properties_hold_near_hellos(stream in streams()) {
        let _outcome = properties::client_hello(&stream);
    }

    #[test]
    fn properties_hold_for_any_bytes(stream in vec(any::<u8>(), 0..200)) {
        let _outcome = properties::client_hello(&stream);
    }

    #[test]
    fn any_segmentation_gives_the_same_answer(stream in streams(), cuts in vec(any::<Index>(), 0..12)) {
        let whole = probe(&stream);
        let mut ends: Vec<usize> = cuts.iter().map(|cut| cut.index(stream.len() + 1)).collect();
        ends.push(stream.len());
        ends.sort_unstable();
        let mut segmented = HelloProbe::default();
        let first_answer = ends.iter().map(|&end| segmented.advance(&stream[..end])).find(|outcome| *outcome != Probe::NeedMore);
        prop_assert_eq!(first_answer.unwrap_or(Probe::NeedMore), whole);
    }
}
