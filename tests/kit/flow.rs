//! Long streams of known bytes: written, and compared on arrival without keeping them.

use std::{
    io::{self, Read as _, Write as _},
    net::TcpStream,
};

/// Length of a block. Odd, so that blocks drift against every buffer size on the way.
const BLOCK: usize = 65_521;

/// A stream of `length` bytes that depends on `seed` and on the position.
#[derive(Debug, Clone, Copy)]
pub struct Flow {
    /// Tells streams apart.
    pub seed: u64,
    /// Bytes in all.
    pub length: u64,
}

impl Flow {
    /// Writes the whole stream.
    ///
    /// # Errors
    ///
    /// When the connection fails.
    pub fn write(self, mut stream: &TcpStream) -> io::Result<()> {
        let mut blocks = self.blocks();
        while let Some(block) = blocks.next() {
            stream.write_all(block)?;
        }
        Ok(())
    }

    /// Reads the whole stream and compares it. What follows it is not read.
    ///
    /// # Errors
    ///
    /// When the connection fails or ends, and when a byte is wrong.
    pub fn verify(self, mut stream: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; BLOCK];
        let mut blocks = self.blocks();
        while let Some(expected) = blocks.next() {
            let received = buffer.get_mut(..expected.len()).ok_or(io::ErrorKind::InvalidInput)?;
            stream.read_exact(received)?;
            self.compare(received, expected)?;
        }
        Ok(())
    }

    /// The stream in blocks, for what is not a [`TcpStream`].
    pub fn blocks(self) -> Blocks {
        // The body of a block depends on the seed, its first bytes also on its number.
        let mut word = self.seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut block: Vec<u8> = Vec::with_capacity(BLOCK + 8);
        while block.len() < BLOCK {
            // xorshift64 (Marsaglia 2003)
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            block.extend(word.to_be_bytes());
        }
        block.truncate(BLOCK);
        Blocks { block, number: 0, left: self.length }
    }

    /// Compares a received block with the one expected.
    ///
    /// # Errors
    ///
    /// When a byte is wrong.
    pub fn compare(self, received: &[u8], expected: &[u8]) -> io::Result<()> {
        if received == expected {
            return Ok(());
        }
        let wrong = received.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
        let number = expected.iter().take(8).fold(0_u64, |number, byte| number << 8 | u64::from(*byte));
        Err(io::Error::other(format!("byte {wrong} of block {number} of flow {} is wrong", self.seed)))
    }
}

/// Iterator of [`Flow::blocks`].
#[derive(Debug)]
pub struct Blocks {
    block: Vec<u8>,
    number: u64,
    left: u64,
}

impl Blocks {
    /// The next block; `None` at the end of the stream.
    #[expect(clippy::should_implement_trait, reason = "an iterator cannot lend its buffer")]
    pub fn next(&mut self) -> Option<&[u8]> {
        if self.left == 0 {
            return None;
        }
        for (byte, new) in self.block.iter_mut().zip(self.number.to_be_bytes()) {
            *byte = new;
        }
        let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(BLOCK);
        self.left -= count as u64;
        self.number += 1;
        self.block.get(..count)
    }
}
