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
        self.blocks(|block| stream.write_all(block))
    }

    /// Reads the whole stream and compares it. What follows it is not read.
    ///
    /// # Errors
    ///
    /// When the connection fails or ends, and when a byte is wrong.
    pub fn verify(self, mut stream: &TcpStream) -> io::Result<()> {
        let mut buffer = vec![0; BLOCK];
        let mut position = 0;
        self.blocks(|expected| {
            let received = buffer.get_mut(..expected.len()).ok_or(io::ErrorKind::InvalidInput)?;
            stream.read_exact(received)?;
            if received != expected {
                let wrong = received.iter().zip(expected).position(|(a, b)| a != b).unwrap_or(0);
                return Err(io::Error::other(format!("byte {} of flow {} is wrong", position + wrong, self.seed)));
            }
            position += expected.len();
            Ok(())
        })
    }

    fn blocks(self, mut each: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
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

        let mut left = self.length;
        let mut number: u64 = 0;
        while left > 0 {
            for (byte, new) in block.iter_mut().zip(number.to_be_bytes()) {
                *byte = new;
            }
            let count = usize::try_from(left).unwrap_or(usize::MAX).min(BLOCK);
            each(block.get(..count).unwrap_or_default())?;
            left -= count as u64;
            number += 1;
        }
        Ok(())
    }
}
