//! Segments that are given another shape, against the ones that should come out, checksums included.

use proptest::{collection::vec, prelude::*};

use super::translate::Memory;
use super::*;
use crate::bytes::Span;
use crate::tcp::flow::may;
use crate::tcp::shape::{apply, shape};

/// The same segment with another shape.
fn shaped(frame: &Frame, bits: u8) -> Vec<u8> {
    let bytes = frame.bytes();
    let options = Span { offset: frame.l4() + 20, len: frame.options.len() };
    let is_syn = frame.flags & flag::SYN != 0;
    let Some(shape) = shape(&bytes.as_slice(), frame.l4(), is_syn, options, bits) else { return bytes };
    let mut packet = Memory(bytes);
    let change = u16::from_be(u16::try_from(apply(&mut packet, &shape).unwrap()).unwrap());
    let at = frame.l4() + 16;
    let old = u16::from_be_bytes([packet.0[at], packet.0[at + 1]]);
    packet.0[at..at + 2].copy_from_slice(&crate::rewrite::checksum::update(old, change).to_be_bytes());
    packet.0
}

#[test]
fn options_become_no_operations() {
    let time = [8, 10, 0, 0, 0, 9, 0, 0, 0, 7];
    type Row = (&'static str, u8, u8, Vec<u8>, Vec<u8>);
    let rows: Vec<Row> = vec![
        ("nothing asked for", flag::SYN, 0, [&[4, 2][..], &time].concat(), [&[4, 2][..], &time].concat()),
        ("timestamps", flag::SYN, may::NO_TIMESTAMPS, [&[4, 2][..], &time].concat(), [&[4, 2][..], &[1; 10]].concat()),
        ("SACK", flag::SYN, may::NO_SACK, [&[4, 2][..], &time].concat(), [&[1, 1][..], &time].concat()),
        (
            "both, at odd places",
            flag::SYN,
            may::NO_SACK | may::NO_TIMESTAMPS,
            [&[1][..], &time, &[4, 2], &[3, 3, 7]].concat(),
            [&[1; 13][..], &[3, 3, 7]].concat(),
        ),
        ("what is not there", flag::SYN, may::NO_SACK | may::NO_TIMESTAMPS, vec![2, 4, 5, 6], vec![2, 4, 5, 6]),
        (
            "an echo",
            flag::ACK,
            may::HIDE_CLOCK,
            [&[1, 1][..], &time].concat(),
            [&[1, 1][..], &time[..6], &[0; 4]].concat(),
        ),
        ("the echo of a SYN", flag::SYN, may::HIDE_CLOCK, [&[1, 1][..], &time].concat(), [&[1, 1][..], &time].concat()),
        (
            "behind the SYN",
            flag::ACK,
            may::NO_TIMESTAMPS | may::NO_SACK,
            [&[1, 1][..], &time].concat(),
            [&[1, 1][..], &time].concat(),
        ),
    ];
    for (row, flags, bits, before, after) in rows {
        for frame in [Frame::v4(), Frame::v6()] {
            let frame = Frame { flags, options: before.clone(), ..frame };
            let expected = Frame { options: after.clone(), ..frame.clone() };
            assert_eq!(shaped(&frame, bits), expected.bytes(), "{row}");
        }
    }
}

proptest! {
    #[test]
    fn nothing_but_options_and_checksum_changes(
        options in vec(prop_oneof![0..=10_u8, any::<u8>()], 0..=40),
        syn: bool,
        bits: u8,
    ) {
        let mut options = options;
        options.resize(options.len() / 4 * 4, 0);
        let flags = if syn { flag::SYN } else { flag::ACK };
        let frame = Frame { flags, options: options.clone(), payload: vec![1, 2, 3], ..Frame::v4() };
        let out = shaped(&frame, bits);
        let at = frame.l4() + 20;
        let expected = Frame { options: out[at..at + options.len()].to_vec(), ..frame };
        // A sum of 0 has two forms.
        let sum = |bytes: &[u8]| u16::from_be_bytes([bytes[at - 4], bytes[at - 3]]) % 0xffff;
        prop_assert_eq!(sum(&out), sum(&expected.bytes()));
        let without = |bytes: &[u8]| [&bytes[..at - 4], &bytes[at - 2..]].concat();
        prop_assert_eq!(without(&out), without(&expected.bytes()));
    }
}
