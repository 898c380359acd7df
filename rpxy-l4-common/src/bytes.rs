//! The source of a packet's bytes: a slice on the host, packet pointers or a kernel helper in the programs.
//!
//! Reads have a fixed size and return `None` past the end, because that is what the kernel's verifier can follow.

/// A packet, or as much of it as can be read.
pub trait Bytes {
    /// Returns the `N` bytes at `offset`, or `None` if one of them cannot be read.
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]>;

    /// Returns the length in bytes. Not all of them need be readable: the kernel may keep parts of a packet elsewhere.
    fn len(&self) -> usize;

    /// Returns true if there are at least `len` bytes. A program without CAP_PERFMON may compare the two ends of a
    /// packet, but not subtract them.
    #[inline(always)]
    fn reaches(&self, len: usize) -> bool {
        self.len() >= len
    }

    /// Returns the same number, about which the kernel's verifier knows nothing any more. It then takes all iterations
    /// of a loop for the same, and does not follow each path through them.
    #[inline(always)]
    fn opaque(&self, number: usize) -> usize {
        number
    }

    /// Returns true if there are no bytes.
    #[inline(always)]
    fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

impl Bytes for &[u8] {
    #[inline(always)]
    fn read<const N: usize>(&self, offset: usize) -> Option<[u8; N]> {
        self.get(offset..)?.first_chunk().copied()
    }

    #[inline(always)]
    fn len(&self) -> usize {
        <[u8]>::len(self)
    }
}

/// A part of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    /// Offset in the packet, in bytes.
    pub offset: usize,
    /// Length in bytes.
    pub len: usize,
}

impl Span {
    /// Returns the `N` bytes at offset `at` of the part, or `None` if they do not lie within it.
    #[inline(always)]
    pub fn read<const N: usize, B: Bytes>(self, bytes: &B, at: usize) -> Option<[u8; N]> {
        if at + N > self.len {
            return None;
        }
        bytes.read(self.offset + at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_end_where_the_bytes_and_the_part_end() {
        let bytes: &[u8] = &[1, 2, 3, 4, 5];
        assert_eq!(bytes.read::<2>(3), Some([4, 5]));
        assert_eq!(bytes.read::<2>(4), None);
        assert_eq!(bytes.read::<0>(5), Some([]));
        assert_eq!(bytes.read::<0>(6), None);
        assert_eq!(bytes.read::<1>(usize::MAX), None);
        let part = Span { offset: 1, len: 3 };
        assert_eq!(part.read::<2, _>(&bytes, 1), Some([3, 4]));
        assert_eq!(part.read::<2, _>(&bytes, 2), None);
        assert_eq!(Span { offset: 1, len: 9 }.read::<2, _>(&bytes, 4), None, "less is there than the part says");
    }
}
