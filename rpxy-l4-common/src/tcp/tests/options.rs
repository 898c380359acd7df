//! Where options are found, and where not.

use proptest::{collection::vec, prelude::*};

use super::*;
use crate::bytes::Span;
use crate::tcp::options::{MAX_BLOCKS, Options, find};

fn found(options: &[u8]) -> Options {
    find(&options, Span { offset: 0, len: options.len() })
}

#[test]
fn options_are_found_in_any_order_and_place() {
    let blocks = |count: usize| sack(&vec![9; 2 * count]);
    let rows: Vec<(&str, Vec<u8>, Options)> = vec![
        ("none", vec![], Options::default()),
        ("padding alone", vec![0; 40], Options::default()),
        ("no operations alone", vec![1; 40], Options::default()),
        ("timestamps as Linux has them", timestamps(1, 2), Options { timestamps: Some(4), sack: None }),
        ("timestamps first", [&timestamps(1, 2)[2..], &[0, 0]].concat(), Options { timestamps: Some(2), sack: None }),
        (
            "timestamps at an odd place",
            [&[1], &timestamps(1, 2)[2..], &[0]].concat(),
            Options { timestamps: Some(3), sack: None },
        ),
        ("one block", blocks(1), Options { timestamps: None, sack: Some((4, 1)) }),
        ("four blocks", blocks(4), Options { timestamps: None, sack: Some((4, 4)) }),
        (
            "timestamps and three blocks",
            [timestamps(1, 2), blocks(3)].concat(),
            Options { timestamps: Some(4), sack: Some((16, 3)) },
        ),
        (
            "blocks before timestamps",
            [blocks(2), timestamps(1, 2)].concat(),
            Options { timestamps: Some(24), sack: Some((4, 2)) },
        ),
        (
            "unknown ones between",
            [&[254, 4, 9, 9, 30, 3, 8][..], &timestamps(1, 2)].concat(),
            Options { timestamps: Some(11), sack: None },
        ),
        (
            "the last of two counts",
            [timestamps(1, 2), timestamps(3, 4)].concat(),
            Options { timestamps: Some(16), sack: None },
        ),
        ("behind the end", [&[0][..], &timestamps(1, 2)].concat(), Options::default()),
        ("behind a length of 0", [&[30, 0][..], &timestamps(1, 2)].concat(), Options::default()),
        ("behind a length of 1", [&[30, 1][..], &timestamps(1, 2)].concat(), Options::default()),
        ("behind a length that is too long", [&[30, 41][..], &timestamps(1, 2)].concat(), Options::default()),
        ("a kind without a length", vec![1, 1, 1, 8], Options::default()),
        ("timestamps of 9 bytes", [&[8, 9][..], &[0; 8]].concat(), Options::default()),
        ("timestamps of 11 bytes", [&[8, 11][..], &[0; 9]].concat(), Options::default()),
        ("timestamps that are cut", vec![1, 1, 8, 10, 0, 0, 0, 1], Options::default()),
        ("SACK without a block", vec![5, 2, 1, 1], Options::default()),
        ("SACK of half a block", vec![5, 6, 0, 0, 0, 1, 1, 1], Options::default()),
        ("SACK-permitted", vec![4, 2, 1, 1], Options::default()),
    ];
    for (row, options, expected) in rows {
        assert_eq!(found(&options), expected, "{row}");
    }
}

proptest! {
    #[test]
    fn whatever_is_found_lies_within_the_options(options in vec(prop_oneof![0..=8_u8, any::<u8>()], 0..=40)) {
        let Options { timestamps, sack } = found(&options);
        if let Some(at) = timestamps {
            prop_assert_eq!(&options[at - 2..at], &[8, 10]);
            prop_assert!(at + 8 <= options.len());
        }
        if let Some((at, blocks)) = sack {
            prop_assert!((1..=MAX_BLOCKS).contains(&blocks));
            prop_assert_eq!(usize::from(options[at - 1]), 2 + 8 * blocks);
            prop_assert!(at + 8 * blocks <= options.len());
        }
    }
}
