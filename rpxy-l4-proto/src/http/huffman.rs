//! The Huffman code of HPACK (RFC 7541 section 5.2 and appendix B). The code is canonical, so the lengths of the code
//! words alone define it.

/// The number of bits of each symbol's code word; symbol 256 is EOS.
#[rustfmt::skip]
const LENGTHS: [u8; 257] = [
    13, 23, 28, 28, 28, 28, 28, 28, 28, 24, 30, 28, 28, 30, 28, 28,
    28, 28, 28, 28, 28, 28, 30, 28, 28, 28, 28, 28, 28, 28, 28, 28,
     6, 10, 10, 12, 13,  6,  8, 11, 10, 10,  8, 11,  8,  6,  6,  6,
     5,  5,  5,  6,  6,  6,  6,  6,  6,  6,  7,  8, 15,  6, 12, 10,
    13,  6,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,  7,
     7,  7,  7,  7,  7,  7,  7,  7,  8,  7,  8, 13, 19, 13, 14,  6,
    15,  5,  6,  5,  6,  5,  6,  6,  6,  5,  7,  7,  6,  6,  6,  5,
     6,  7,  6,  5,  5,  6,  7,  7,  7,  7,  7, 15, 11, 14, 13, 28,
    20, 22, 20, 20, 22, 22, 22, 23, 22, 23, 23, 23, 23, 23, 24, 23,
    24, 24, 22, 23, 24, 23, 23, 23, 23, 21, 22, 23, 22, 23, 23, 24,
    22, 21, 20, 22, 22, 23, 23, 21, 23, 22, 22, 24, 21, 22, 23, 23,
    21, 21, 22, 21, 23, 22, 23, 23, 20, 22, 22, 22, 23, 22, 22, 23,
    26, 26, 20, 19, 22, 23, 22, 25, 26, 26, 26, 27, 27, 26, 24, 25,
    19, 21, 26, 27, 27, 26, 27, 24, 21, 21, 26, 26, 28, 27, 27, 27,
    20, 24, 20, 21, 22, 21, 21, 23, 22, 22, 25, 25, 24, 24, 26, 23,
    26, 27, 26, 26, 27, 27, 27, 27, 27, 28, 27, 27, 27, 27, 27, 26,
    30,
];
/// The longest code word, in bits.
const MAX_LENGTH: usize = 30;
/// The symbol that must not appear.
const EOS: u16 = 256;

/// The canonical code: all symbols in the order of their code words, and the same by length.
struct Code {
    symbols: [u16; 257],
    /// For each length the number of code words.
    counts: [u32; MAX_LENGTH + 1],
}

const CODE: Code = Code::from_lengths();

impl Code {
    #[expect(clippy::indexing_slicing, reason = "evaluated by the compiler only, where a panic fails the build")]
    const fn from_lengths() -> Self {
        let mut code = Self { symbols: [0; 257], counts: [0; MAX_LENGTH + 1] };
        let mut placed = 0;
        let mut length = 1;
        while length <= MAX_LENGTH {
            let mut symbol: u16 = 0;
            while symbol <= EOS {
                if LENGTHS[symbol as usize] as usize == length {
                    code.symbols[placed] = symbol;
                    placed += 1;
                    code.counts[length] += 1;
                }
                symbol += 1;
            }
            length += 1;
        }
        assert!(placed == LENGTHS.len(), "every symbol has a code word of at most MAX_LENGTH bits");
        code
    }
}

/// Decodes a string literal; an item `None` ends it and says that the encoding is wrong.
pub(super) fn decode(encoded: &[u8]) -> impl Iterator<Item = Option<u8>> {
    let mut bits = encoded.iter().flat_map(|byte| (0..8).rev().map(move |shift| byte >> shift & 1));
    let mut ended = false;
    std::iter::from_fn(move || {
        if ended {
            return None;
        }
        match symbol(&mut bits) {
            Symbol::Byte(byte) => Some(Some(byte)),
            Symbol::End => {
                ended = true;
                None
            }
            Symbol::Wrong => {
                ended = true;
                Some(None)
            }
        }
    })
}

enum Symbol {
    Byte(u8),
    End,
    Wrong,
}

/// Reads one code word. Among words of one length those of the code are consecutive numbers, so comparing with the
/// first of them tells whether more bits are needed.
fn symbol(bits: &mut impl Iterator<Item = u8>) -> Symbol {
    let mut word: u32 = 0;
    let mut first: u32 = 0;
    let mut before: u32 = 0;
    let mut ones_only = true;
    for (read, &count) in CODE.counts.iter().enumerate().skip(1) {
        let Some(bit) = bits.next() else {
            // RFC 7541 section 5.2: padding is a beginning of EOS, all ones, shorter than a byte.
            return if ones_only && read <= 8 { Symbol::End } else { Symbol::Wrong };
        };
        ones_only &= bit == 1;
        word = word << 1 | u32::from(bit);
        first <<= 1;
        let place = word.wrapping_sub(first);
        if place < count {
            let index = usize::try_from(before.saturating_add(place)).unwrap_or(usize::MAX);
            let symbol = CODE.symbols.get(index).and_then(|&symbol| u8::try_from(symbol).ok());
            return symbol.map_or(Symbol::Wrong, Symbol::Byte);
        }
        first = first.wrapping_add(count);
        before = before.saturating_add(count);
    }
    Symbol::Wrong
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Code word and length of a symbol, counted out as RFC 7541 appendix B lists them.
    fn code_word(symbol: u16) -> (u32, u8) {
        let length_of = |symbol: u16| LENGTHS[usize::from(symbol)];
        let length = length_of(symbol);
        // Each word before this one takes up its share of the code space.
        let is_before = |other: u16| (length_of(other), other) < (length, symbol);
        let space: u64 = (0..=EOS).filter(|&other| is_before(other)).map(|other| 1 << (32 - length_of(other))).sum();
        (u32::try_from(space >> (32 - length)).unwrap(), length)
    }

    /// The Huffman code of a text, padded with ones.
    pub(in crate::http) fn encode(text: &[u8]) -> Vec<u8> {
        let mut bits = Vec::new();
        for &byte in text {
            let (word, length) = code_word(u16::from(byte));
            bits.extend((0..length).rev().map(|shift| word >> shift & 1 == 1));
        }
        bits.resize(bits.len().next_multiple_of(8), true);
        bits.chunks(8).map(|byte| byte.iter().fold(0, |value, &bit| value << 1 | u8::from(bit))).collect()
    }

    #[test]
    fn the_code_is_complete() {
        let space: u64 = LENGTHS.iter().map(|&length| 1 << (MAX_LENGTH - usize::from(length))).sum();
        assert_eq!(space, 1 << MAX_LENGTH, "Kraft's equality");
    }

    #[test]
    fn code_words_are_those_of_the_appendix() {
        let rows = [
            (u16::from(b'0'), (0x0, 5)),
            (u16::from(b't'), (0x9, 5)),
            (u16::from(b' '), (0x14, 6)),
            (u16::from(b':'), (0x5c, 7)),
            (u16::from(b'&'), (0xf8, 8)),
            (u16::from(b'!'), (0x3f8, 10)),
            (u16::from(b'{'), (0x7ffe, 15)),
            (0, (0x1ff8, 13)),
            (10, (0x3fff_fffc, 30)),
            (255, (0x3ff_ffee, 26)),
            (EOS, (0x3fff_ffff, 30)),
        ];
        for (symbol, expected) in rows {
            assert_eq!(code_word(symbol), expected, "symbol {symbol}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(decode(&encode(&all)).collect::<Option<Vec<u8>>>(), Some(all));
    }
}
