//! What the daemon tells the programs about one direction of a spliced connection, and what they note.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::map::Socket;

/// The instructions for what one side of a spliced connection sends. All differences are added, and wrap.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TcpFlow {
    /// New sender: this machine, as the other side sees it.
    pub source: Socket,
    /// New receiver.
    pub destination: Socket,
    /// Interface that packets leave by.
    pub interface: u32,
    /// Interface that packets arrive by.
    pub ingress: u32,
    /// Ethernet address of that interface.
    pub station: [u8; 6],
    /// Zero.
    pub zero: u8,
    /// Places by which a window is shifted to the left, or to the right if negative: the scale of its sender, less the one
    /// that its receiver reads it with.
    pub window_shift: i8,
    /// Added to sequence numbers.
    pub sequence: u32,
    /// Added to acknowledgement numbers and to the edges of SACK blocks.
    pub acknowledgement: u32,
    /// Added to TSval.
    pub timestamp: u32,
    /// Added to TSecr, unless that is 0.
    pub echo: u32,
}

/// What has been seen of one side of a connection, in the numbers that it uses itself. Written without a lock: two
/// processors may lose a step of each other, which the next segment makes up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Side {
    /// The number behind the last one that it has sent: SND.NXT of RFC 9293.
    pub next: u32,
    /// The highest number that it has acknowledged: the RCV.NXT that its peer may rely on.
    pub acknowledged: u32,
    /// The largest window that it has offered, in bytes.
    pub largest_window: u32,
    /// Places that its windows are scaled by, 0 to 14 (RFC 7323 section 2.3).
    pub scale: u8,
    /// Bits of [`seen`].
    pub seen: u8,
    /// Zero.
    pub zero: [u8; 2],
    /// The number behind its FIN; only with [`seen::FIN`].
    pub end: u32,
}

/// Bits of [`Side::seen`].
pub mod seen {
    /// A FIN.
    pub const FIN: u8 = 1;
    /// Its FIN has been acknowledged.
    pub const FIN_ACKNOWLEDGED: u8 = 2;
    /// An RST that its peer has to accept.
    pub const RST: u8 = 4;
}
