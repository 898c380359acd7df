//! The tag of a datagram, which tells its reply from any other: flow, position and a number.

/// The first byte is neither that of a QUIC packet (RFC 9000 section 17) nor that of a WireGuard message, so that every
/// candidate takes it for something else.
const MAGIC: [u8; 4] = *b"!udp";

/// The beginning of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Tag {
    /// The flow that it belongs to.
    pub(super) flow: u32,
    /// The slot of the load generator that waits for it.
    pub(super) slot: u32,
    /// Its number, unique in a run.
    pub(super) sequence: u64,
}

impl Tag {
    /// Bytes of a tag.
    pub(super) const LENGTH: usize = 20;

    /// As it goes over the wire.
    pub(super) fn to_bytes(self) -> [u8; Self::LENGTH] {
        let mut bytes = [0; Self::LENGTH];
        bytes[..4].copy_from_slice(&MAGIC);
        bytes[4..8].copy_from_slice(&self.flow.to_be_bytes());
        bytes[8..12].copy_from_slice(&self.slot.to_be_bytes());
        bytes[12..].copy_from_slice(&self.sequence.to_be_bytes());
        bytes
    }

    /// Reads what [`Tag::to_bytes`] has made; `None` when it is anything else.
    pub(super) fn from_bytes(datagram: &[u8]) -> Option<Self> {
        let rest = datagram.strip_prefix(&MAGIC)?;
        let (flow, rest) = rest.split_first_chunk()?;
        let (slot, rest) = rest.split_first_chunk()?;
        let (sequence, _) = rest.split_first_chunk()?;
        Some(Self {
            flow: u32::from_be_bytes(*flow),
            slot: u32::from_be_bytes(*slot),
            sequence: u64::from_be_bytes(*sequence),
        })
    }
}
