//! What the daemon tells the programs about one direction of a spliced connection, and what they note.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::map::{Family, FlowKey, Socket, layout};
use crate::rewrite::checksum::{difference, sum_ipv4, sum_ipv6};

/// The instructions for what one side of a connection sends: the value of `TCP_FLOWS`, under the addresses that its packets
/// arrive with. All differences are added, and wrap.
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
    /// One of [`state`].
    pub state: u8,
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
    /// Index in `TCP_NOTES` of the connection.
    pub slot: u32,
    /// Index in [`Notes::sides`] of the sender: 0 for the client, 1 for the backend.
    pub side: u8,
    /// Bits of [`may`].
    pub may: u8,
    /// Of the client's direction: mark of its rule, a number that the programs do not look at.
    pub mark: [u8; 2],
    /// The acknowledgement number that the daemon's own packets towards this sender may carry: the only one in state LIVE,
    /// the highest one in state DRAINING.
    pub promised: u32,
    /// Change of checksums by the addresses, as [`crate::rewrite::checksum::difference`] has it.
    pub address_change: u16,
    /// Change of checksums by the ports.
    pub port_change: u16,
    /// [`TcpFlow::seal_for`] the key.
    pub seal: u64,
}

impl TcpFlow {
    /// Returns this entry as it is stored under `key`, which says what changes by its addresses.
    #[must_use]
    pub const fn stored(self, key: &FlowKey) -> Self {
        let (old, new) = (key, &self);
        let v4 = key.source.family() == Family::V4 as u8;
        let (before, after) = if v4 {
            (
                sum_ipv4(&old.source.address) + sum_ipv4(&old.destination.address),
                sum_ipv4(&new.source.address) + sum_ipv4(&new.destination.address),
            )
        } else {
            (
                sum_ipv6(&old.source.address) + sum_ipv6(&old.destination.address),
                sum_ipv6(&new.source.address) + sum_ipv6(&new.destination.address),
            )
        };
        let address_change = difference(before, after);
        let port_change =
            difference(port(&old.source) + port(&old.destination), port(&new.source) + port(&new.destination));
        Self { address_change, port_change, ..self }.sealed(key)
    }
}

const fn port(socket: &Socket) -> u32 {
    u16::from_be_bytes(socket.port()) as u32
}

/// States of one leg, in the order of a connection's life.
pub mod state {
    /// The daemon connects: its SYN is on the way to the backend.
    pub const CONNECTING: u8 = 1;
    /// A hand-over reads the sockets: nothing may be acknowledged meanwhile.
    pub const BLOCKED: u8 = 2;
    /// A hand-over waits for the other end: nothing more may be acknowledged.
    pub const DRAINING: u8 = 3;
    /// Forwarded.
    pub const LIVE: u8 = 4;
    /// Forwarded, and ended by both sides: a new SYN is a new connection.
    pub const ENDING: u8 = 5;
}

/// What the daemon's own packets towards a sender may do. Bits of [`TcpFlow::may`].
pub mod may {
    /// Carry the bytes that the daemon held at the hand-over, in state LIVE.
    pub const SEND_HELD: u8 = 1;
    /// Be sent twice, as SYN in state CONNECTING, so that the backend takes no round-trip time from its handshake.
    pub const DOUBLE: u8 = 2;
    /// In state CONNECTING: offer timestamps no more than in name (they become no operations).
    pub const NO_TIMESTAMPS: u8 = 4;
    /// Likewise for SACK.
    pub const NO_SACK: u8 = 8;
    /// In state CONNECTING: show a TSecr of 0 behind the SYN, so that the backend takes no round-trip time from it (RFC
    /// 7323 section 4.1).
    pub const HIDE_CLOCK: u8 = 16;
}

/// What the programs note of a connection: an element of `TCP_NOTES`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Notes {
    /// Time of the last sign of life: nanoseconds of CLOCK_MONOTONIC_COARSE.
    pub last_seen: u64,
    /// Time at which the connection has ended, likewise; 0 while it lives.
    pub ended: u64,
    /// Packets forwarded, and their payload in bytes, for each sender. Written by atomic addition.
    pub counted: [Forwarded; 2],
    /// Both sides: client, backend.
    pub sides: [Side; 2],
}

/// What was forwarded for one sender.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Forwarded {
    /// Packets, as the network stack has them.
    pub packets: u64,
    /// Payload, in bytes.
    pub bytes: u64,
}

/// What has been seen of one side of a connection, in the numbers that it uses itself. Written without a lock, by packets of
/// this side alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Side {
    /// The number behind the last one that it has sent: SND.NXT of RFC 9293.
    pub next: u32,
    /// The highest number that it has acknowledged: the RCV.NXT that its peer may rely on.
    pub acknowledged: u32,
    /// The largest window that its peer was offered, in bytes: by it, or by the daemon before the hand-over.
    pub largest_window: u32,
    /// Places that its windows are scaled by, 0 to 14 (RFC 7323 section 2.3).
    pub scale: u8,
    /// Bits of [`seen`].
    pub seen: u8,
    /// Zero.
    pub zero: [u8; 2],
    /// The number behind its FIN; only with [`seen::FIN`].
    pub end: u32,
    /// TSval of the daemon's last probe towards it; only with [`seen::PROBE`].
    pub clock: u32,
    /// TSecr of that probe: the newest TSval of this side.
    pub echo: u32,
    /// Longest time without a sign of life, in seconds, for the daemon: of the client's side, that of the connection; of the
    /// backend's side, that after the backend's FIN.
    pub idle: u32,
}

/// Bits of [`Side::seen`].
pub mod seen {
    /// A FIN.
    pub const FIN: u8 = 1;
    /// An RST that its peer has to accept.
    pub const RST: u8 = 4;
    /// A probe of the daemon's, in state BLOCKED.
    pub const PROBE: u8 = 8;
}

layout! {
    TcpFlow: 96 bytes, aligned to 8;
    Notes: 112 bytes, aligned to 8;
    Side: 32 bytes, aligned to 4;
    Forwarded: 16 bytes, aligned to 8;
}
