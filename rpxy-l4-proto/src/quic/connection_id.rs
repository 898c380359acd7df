//! A connection ID of versions 1 and 2, as a key of tables. Longer ones, which other versions may have, are not values
//! of the type.

use std::{
    borrow::Borrow,
    fmt,
    hash::{Hash, Hasher},
};

/// A connection ID (RFC 9000 section 5.1): 0 to [`MAX_LEN`](Self::MAX_LEN) bytes.
///
/// Compared, ordered and hashed like its bytes, so that a table keyed by it can be asked with a slice.
#[derive(Clone, Copy, Default)]
pub struct ConnectionId {
    len: u8,
    /// Zero behind `len`.
    bytes: [u8; Self::MAX_LEN],
}

impl ConnectionId {
    /// The longest connection ID, in bytes (RFC 9000 section 17.2).
    pub const MAX_LEN: usize = 20;

    /// `None` over [`MAX_LEN`](Self::MAX_LEN) bytes.
    #[must_use]
    pub fn new(bytes: &[u8]) -> Option<Self> {
        let mut id = Self { len: u8::try_from(bytes.len()).ok()?, ..Self::default() };
        id.bytes.get_mut(..bytes.len())?.copy_from_slice(bytes);
        Some(id)
    }

    /// The bytes on the wire, without their length.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        self.bytes.get(..self.len()).unwrap_or_default()
    }

    /// The length in bytes.
    #[must_use]
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// Returns whether this is the zero-length connection ID, which tells no connections apart.
    #[must_use]
    pub const fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl AsRef<[u8]> for ConnectionId {
    fn as_ref(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl Borrow<[u8]> for ConnectionId {
    fn borrow(&self) -> &[u8] {
        self.as_bytes()
    }
}

impl PartialEq for ConnectionId {
    fn eq(&self, other: &Self) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl Eq for ConnectionId {}

impl PartialOrd for ConnectionId {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for ConnectionId {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.as_bytes().cmp(other.as_bytes())
    }
}

impl Hash for ConnectionId {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.as_bytes().hash(state);
    }
}

/// Hexadecimal, as logs and packet captures show it.
impl fmt::Debug for ConnectionId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.as_bytes().iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}
