//! mac1 of WireGuard initiations (WireGuard whitepaper section 5.4.4), which tells with the public key of a server
//! alone if an initiation is made for it.
//!
//! BLAKE2s (RFC 7693) as far as that takes: the MAC covers 116 bytes, two blocks behind that of the key, which is
//! compressed beforehand. Rounds are a loop and message words are read from memory, because the programs have few
//! registers and half a kibibyte of stack.

#[cfg(test)]
mod tests;

use core::hint::black_box;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::bytes::{Bytes, Span};
use crate::datagram::WIREGUARD_INITIATION_LEN;
use crate::map::layout;

/// Largest number of keys that the programs try.
pub const MOST_KEYS: usize = 8;

/// Offset of mac1 in an initiation; it covers all bytes before.
const MAC1_AT: usize = 116;
const MAC1_LEN: usize = 16;
const BLOCK: usize = 64;

const IV: [u32; 8] =
    [0x6a09_e667, 0xbb67_ae85, 0x3c6e_f372, 0xa54f_f53a, 0x510e_527f, 0x9b05_688c, 0x1f83_d9ab, 0x5be0_cd19];

/// The order of the message words in each round (RFC 7693 section 2.7), the first in the lowest four bits.
const SIGMA: [u64; 10] = [
    0xfedc_ba98_7654_3210,
    0x357b_20c1_6df9_84ae,
    0x4917_63ea_df25_0c8b,
    0x8f04_a562_ebcd_1397,
    0xd386_cb1e_fa42_7509,
    0x91ef_57d4_38b0_a6c2,
    0xb829_3670_a4de_f15c,
    0xa268_4f05_931c_e7bd,
    0x5a41_7d2c_803b_9ef6,
    0x0dc3_e9bf_5167_482a,
];

/// A public key, as far as it can be computed beforehand: BLAKE2s after the block of the key
/// BLAKE2s("mac1----" and the public key).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Mac1Key {
    /// The state of the hash.
    pub state: [u32; 8],
    /// 1; 0 in slots without a key.
    pub used: u32,
}

/// The part of an initiation that is hashed and compared, in words of the machine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Initiation {
    /// The bytes that mac1 covers, with zeros up to the end of the second block.
    pub blocks: [[u32; 16]; 2],
    /// mac1.
    pub mac1: [u32; 4],
    /// The state of the hash. Not on the stack, where it would not fit.
    pub state: [u32; 8],
    /// The working state of a round; likewise.
    pub work: [u32; 16],
}

layout! {
    Mac1Key: 36 bytes, aligned to 4;
    Initiation: 240 bytes, aligned to 4;
}

impl Mac1Key {
    /// Prepares the check for the server with this static public key (Curve25519).
    #[must_use]
    pub fn new(public_key: &[u8; 32]) -> Self {
        let mut block = [0; 16];
        put(&mut block, 0, *b"mac1----");
        put(&mut block, 2, *public_key);
        // Parameters (RFC 7693 section 2.5): length of the hash, of the key, and a tree of one.
        let mut key = start(32, 0);
        compress(&mut key, &mut [0; 16], &block, 40, true);
        let mut block = [0; 16];
        block.iter_mut().zip(key).for_each(|(to, word)| *to = word);
        let mut state = start(16, 32);
        compress(&mut state, &mut [0; 16], &block, 64, false);
        Self { state, used: 1 }
    }

    /// Returns true if a datagram is an initiation whose mac1 was made for this key.
    ///
    /// The reserved bytes count as zero, which they were when the MAC was made: Cloudflare WARP writes a client's
    /// identity there afterwards. Every initiation takes the same work, and the comparison the same time.
    #[must_use]
    pub fn verifies(&self, datagram: &[u8]) -> bool {
        let payload = Span { offset: 0, len: datagram.len() };
        let mut initiation = Initiation::default();
        datagram.len() == WIREGUARD_INITIATION_LEN
            && datagram.first() == Some(&1)
            && initiation.read(&datagram, payload).is_some()
            && {
                initiation.blocks[0][0] = 1;
                initiation.is_for(self)
            }
    }

    /// Writes mac1 of an initiation, whose reserved bytes are zero, for the server with this key.
    pub fn sign(&self, datagram: &mut [u8; WIREGUARD_INITIATION_LEN]) {
        let payload = Span { offset: 0, len: datagram.len() };
        let mut initiation = Initiation::default();
        if initiation.read(&datagram.as_slice(), payload).is_none() {
            return;
        }
        initiation.hash(self);
        let words = initiation.state.iter().flat_map(|word| word.to_le_bytes());
        datagram.iter_mut().skip(MAC1_AT).take(MAC1_LEN).zip(words).for_each(|(to, byte)| *to = byte);
    }
}

impl Initiation {
    /// Reads a datagram of the class [`crate::datagram::DatagramClass::WireGuardInitiation`]. Returns `None` if it
    /// cannot be read. Not a constructor, since the programs have no room on the stack.
    #[inline(always)]
    pub fn read<B: Bytes>(&mut self, bytes: &B, payload: Span) -> Option<()> {
        let [first, second] = &mut self.blocks;
        put::<BLOCK>(first, 0, payload.read(bytes, 0)?);
        *second = [0; 16];
        put::<{ MAC1_AT - BLOCK }>(second, 0, payload.read(bytes, BLOCK)?);
        let mac1: [u8; 16] = payload.read(bytes, MAC1_AT)?;
        let (words, _) = mac1.as_chunks();
        self.mac1.iter_mut().zip(words).for_each(|(to, word)| *to = u32::from_le_bytes(*word));
        Some(())
    }

    /// Returns true if this is made for `key`.
    #[inline(always)]
    #[must_use]
    pub fn is_for(&mut self, key: &Mac1Key) -> bool {
        self.hash(key);
        let ([a, b, c, d, ..], [e, f, g, h]) = (self.state, self.mac1);
        (a ^ e) | (b ^ f) | (c ^ g) | (d ^ h) == 0
    }

    /// Computes the MAC for `key` into the state.
    #[inline(always)]
    #[expect(clippy::cast_possible_truncation, reason = "at most 180")]
    fn hash(&mut self, key: &Mac1Key) {
        let Self { blocks, mac1: _, state, work } = self;
        *state = key.state;
        for (index, block) in blocks.iter().enumerate() {
            let last = index == 1;
            compress(state, work, block, if last { BLOCK + MAC1_AT } else { 2 * BLOCK } as u32, last);
        }
    }
}

/// The state before the first block.
const fn start(hash: u32, key: u32) -> [u32; 8] {
    let mut state = IV;
    state[0] ^= 0x0101_0000 | key << 8 | hash;
    state
}

/// Writes bytes into words from the word `at` on.
#[inline(always)]
fn put<const N: usize>(words: &mut [u32; 16], at: usize, bytes: [u8; N]) {
    let (from, _) = bytes.as_chunks();
    words.iter_mut().skip(at).zip(from).for_each(|(to, word)| *to = u32::from_le_bytes(*word));
}

/// Mixes two words of the message into four of the work (RFC 7693 section 3.1), which are read and written back here:
/// more at a time would be kept on the stack than fits there.
macro_rules! mix {
    ($work:ident, $a:literal, $b:literal, $c:literal, $d:literal, $x:expr, $y:expr) => {
        let work = black_box(&mut *$work);
        let (mut a, mut b, mut c, mut d) = (work[$a], work[$b], work[$c], work[$d]);
        a = a.wrapping_add(b).wrapping_add($x);
        d = (d ^ a).rotate_right(16);
        c = c.wrapping_add(d);
        b = (b ^ c).rotate_right(12);
        a = a.wrapping_add(b).wrapping_add($y);
        d = (d ^ a).rotate_right(8);
        c = c.wrapping_add(d);
        b = (b ^ c).rotate_right(7);
        (work[$a], work[$b], work[$c], work[$d]) = (a, b, c, d);
    };
}

/// The message word whose number is at a position of the order. The mask keeps it within the block, which the verifier
/// wants to see.
#[inline(always)]
#[expect(clippy::cast_possible_truncation, reason = "four bits are left")]
fn word(block: &[u32; 16], order: u64, position: u32) -> u32 {
    block.get((order >> (4 * position)) as usize & 15).copied().unwrap_or_default()
}

/// The compression function (RFC 7693 section 3.2). `so_far` is the number of bytes up to the end of this block.
#[inline(always)]
fn compress(state: &mut [u32; 8], work: &mut [u32; 16], block: &[u32; 16], so_far: u32, last: bool) {
    let [h0, h1, h2, h3, h4, h5, h6, h7] = *state;
    let [i0, i1, i2, i3, i4, i5, i6, i7] = IV;
    let end = if last { u32::MAX } else { 0 };
    *work = [h0, h1, h2, h3, h4, h5, h6, h7, i0, i1, i2, i3, i4 ^ so_far, i5, i6 ^ end, i7];
    for order in &SIGMA {
        let half = *order;
        mix!(work, 0, 4, 8, 12, word(block, half, 0), word(block, half, 1));
        mix!(work, 1, 5, 9, 13, word(block, half, 2), word(block, half, 3));
        mix!(work, 2, 6, 10, 14, word(block, half, 4), word(block, half, 5));
        mix!(work, 3, 7, 11, 15, word(block, half, 6), word(block, half, 7));
        let half = *black_box(order) >> 32;
        mix!(work, 0, 5, 10, 15, word(block, half, 0), word(block, half, 1));
        mix!(work, 1, 6, 11, 12, word(block, half, 2), word(block, half, 3));
        mix!(work, 2, 7, 8, 13, word(block, half, 4), word(block, half, 5));
        mix!(work, 3, 4, 9, 14, word(block, half, 6), word(block, half, 7));
    }
    let state = black_box(state);
    let [a0, a1, a2, a3, a4, a5, a6, a7, b0, b1, b2, b3, b4, b5, b6, b7] = *work;
    let mixed = [a0 ^ b0, a1 ^ b1, a2 ^ b2, a3 ^ b3, a4 ^ b4, a5 ^ b5, a6 ^ b6, a7 ^ b7];
    state.iter_mut().zip(mixed).for_each(|(word, mixed)| *word ^= mixed);
}
