//! An initiation of a real client against the public key that it was made for, and the hash against another
//! implementation.

use std::vec::Vec;

use blake2::{
    Blake2s256, Blake2sMac, Digest as _,
    digest::{KeyInit as _, Mac as _, consts::U16},
};
use proptest::prelude::*;

use super::*;
use crate::properties::{INITIATION, PUBLIC_KEY};

#[test]
fn an_initiation_verifies_with_the_key_it_was_made_for_and_no_other() {
    assert!(Mac1Key::new(&PUBLIC_KEY).verifies(INITIATION));
    for bit in 0..256 {
        let mut other = PUBLIC_KEY;
        other[bit / 8] ^= 1 << (bit % 8);
        assert!(!Mac1Key::new(&other).verifies(INITIATION), "key bit {bit}");
    }
}

#[test]
fn any_changed_bit_that_mac1_covers_fails() {
    let key = Mac1Key::new(&PUBLIC_KEY);
    for bit in 0..WIREGUARD_INITIATION_LEN * 8 {
        let mut changed = *INITIATION;
        changed[bit / 8] ^= 1 << (bit % 8);
        let expected = match bit / 8 {
            // Cloudflare WARP writes them after the MACs are made.
            1..4 => true,
            // mac1 itself is what is compared.
            0..132 => false,
            // mac2 is made from a cookie that only client and server know.
            _ => true,
        };
        assert_eq!(key.verifies(&changed), expected, "byte {}, bit {bit}", bit / 8);
    }
}

#[test]
fn only_an_initiation_verifies() {
    let key = Mac1Key::new(&PUBLIC_KEY);
    let longer = [&INITIATION[..], &[0]].concat();
    let rows: [(&str, &[u8]); 4] = [
        ("nothing", &[]),
        ("a byte short", &INITIATION[..147]),
        ("a byte long", &longer),
        ("the covered bytes and mac1 alone", &INITIATION[..132]),
    ];
    for (row, datagram) in rows {
        assert!(!key.verifies(datagram), "{row}");
    }
    for len in 0..WIREGUARD_INITIATION_LEN {
        assert!(!key.verifies(&INITIATION[..len]), "{len} bytes");
    }
}

proptest! {
    #[test]
    fn is_the_hash_of_the_whitepaper(public: [u8; 32], other: [u8; 32], body: [[u8; 28]; 4], flip in 0..148_usize) {
        let mut initiation: Vec<u8> = [&[1, 0, 0, 0][..], &body.concat(), &[0; 32]].concat();
        let key = Blake2s256::new_with_prefix(b"mac1----").chain_update(public).finalize();
        let mac1 = Blake2sMac::<U16>::new(&key).chain_update(&initiation[..116]).finalize().into_bytes();
        initiation[116..132].copy_from_slice(&mac1);
        // As the programs ask, and as the daemon does.
        let fits = |initiation: &[u8], public: &[u8; 32]| {
            let (mut read, key) = (Initiation::default(), Mac1Key::new(public));
            read.read(&initiation, Span { offset: 0, len: 148 }).unwrap();
            (read.is_for(&key), key.verifies(initiation))
        };
        prop_assert_eq!(fits(&initiation, &public), (true, true));
        prop_assert_eq!(fits(&initiation, &other), (public == other, public == other));
        initiation[flip] ^= 1;
        // Type and reserved bytes are not looked at alike: in the programs the class tells what they are.
        if flip >= 4 {
            prop_assert_eq!(fits(&initiation, &public), (flip >= 132, flip >= 132), "mac2 is not covered");
        }
    }
}
