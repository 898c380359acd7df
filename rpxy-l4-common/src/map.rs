//! Keys and values of the BPF maps that the daemon fills and the programs read.
//!
//! Every type is plain data with its layout proven: no padding, no `bool`, no enum, no `Option`. Addresses and ports are
//! in network byte order, as they stand in packets; everything else is in the machine's. IPv4 addresses stand in the
//! first four bytes of a field, the rest is zero: one map then serves both families.

mod layout;

use core::num::NonZero;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

pub(crate) use layout::layout;

/// Names of the maps in the object.
pub mod name {
    /// Hash: [`super::FlowKey`] to [`super::FlowEntry`].
    pub const FLOWS: &str = "FLOWS";
    /// Hash: [`super::Socket`] to [`super::Listener`].
    pub const LISTENERS: &str = "LISTENERS";
    /// Hash: an address of this machine (16 bytes) to 1; asked for listeners of the wildcard address.
    pub const LOCAL: &str = "LOCAL";
    /// Longest prefix match: banned source networks, [`super::Prefix`] to 1.
    pub const BANNED: &str = "BANNED";
    /// Array, indexed by [`super::HopKey`]: [`super::Hop`]; all zeros where there is none.
    pub const HOPS: &str = "HOPS";
    /// Array with one element: [`super::SourceLimit`].
    pub const SOURCE_LIMIT: &str = "SOURCE_LIMIT";
    /// LRU hash: a source network ([`super::Socket`] of port 0) to when its bucket is full again ([`crate::bucket`]).
    pub const SOURCES: &str = "SOURCES";
    /// Array: [`crate::mac1::Mac1Key`] of the servers, those that are used first.
    pub const MAC1_KEYS: &str = "MAC1_KEYS";
    /// Per-CPU array with one element: the [`crate::mac1::Initiation`] that is looked at.
    pub const INITIATION: &str = "INITIATION";
    /// Array with one element, a `u64`: from when on TC does nothing any more, in nanoseconds of CLOCK_MONOTONIC, unless the
    /// daemon puts it off; 0 for never. Filters of TC stay when their process is killed, where there are no links for them.
    pub const LEASE: &str = "LEASE";
    /// Per-CPU array, indexed by [`crate::verdict::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of numbers of 64 bits, indexed by [`super::log_state`]. Only in an object that logs.
    pub const LOG_STATE: &str = "LOG_STATE";
}

/// What `LOG_STATE` holds, and the rate of messages that it keeps.
pub mod log_state {
    /// When the bucket of messages is full again ([`crate::bucket`]).
    pub const DUE: u32 = 0;
    /// Messages that there were, told or not.
    pub const MESSAGES: u32 = 1;
    /// How many numbers there are.
    pub const LEN: usize = 2;
    /// Nanoseconds until one more message is told.
    pub const INTERVAL: u32 = 1_000_000;
    /// Nanoseconds: as many messages as there are intervals in it are told at once. They fit into the ring of aya-log
    /// (128 KiB) twice.
    pub const WINDOW: u64 = 200 * INTERVAL as u64;
}

/// Version of the Internet Protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u8)]
pub enum Family {
    /// IPv4.
    V4 = 4,
    /// IPv6.
    V6 = 6,
}

/// A UDP socket address. Aligned, for the programs then move it by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C, align(4))]
pub struct Socket {
    /// The address; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// The bytes of the port (big-endian), of the family (4 or 6), and a zero. One word, so that the programs write it
    /// at once: hashes read whole words, and a processor that puts one together from several writes has to wait.
    pub end: u32,
}

impl Socket {
    /// An address of a family and a port, big-endian.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u8; 16], port: [u8; 2], family: Family) -> Self {
        let [high, low] = port;
        Self { address, end: u32::from_ne_bytes([high, low, family as u8, 0]) }
    }

    /// The port, big-endian.
    #[inline(always)]
    #[must_use]
    pub const fn port(&self) -> [u8; 2] {
        let [high, low, ..] = self.end.to_ne_bytes();
        [high, low]
    }

    /// 4 or 6.
    #[inline(always)]
    #[must_use]
    pub const fn family(&self) -> u8 {
        let [_, _, family, _] = self.end.to_ne_bytes();
        family
    }

    /// The same address with another port, big-endian.
    #[inline(always)]
    #[must_use]
    pub const fn with_port(self, port: [u8; 2]) -> Self {
        let ([high, low], [_, _, family, zero]) = (port, self.end.to_ne_bytes());
        Self { end: u32::from_ne_bytes([high, low, family, zero]), ..self }
    }
}

/// A flow as its packets show it when they arrive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// Sender.
    pub source: Socket,
    /// Receiver: this machine.
    pub destination: Socket,
}

/// The value of `FLOWS`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowEntry {
    /// What has passed.
    pub counted: Counted,
    /// What to do.
    pub flow: Flow,
}

/// What the programs write into the entry of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counted {
    /// When the last packet was steered: nanoseconds of CLOCK_MONOTONIC_COARSE (`bpf_ktime_get_coarse_ns`), which is a few
    /// milliseconds behind and costs no read of the hardware's clock; 0 for never. Written without a lock: only its rough
    /// size matters.
    pub last_seen: u64,
    /// Packets steered. Written by atomic addition.
    pub packets: u64,
    /// UDP payload bytes steered. Written by atomic addition.
    pub bytes: u64,
}

/// What happens to the packets of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// New sender: this machine, as the other side knows it.
    pub source: Socket,
    /// New receiver.
    pub destination: Socket,
    /// Key of the next hop in `HOPS`.
    pub hop: u32,
    /// Interface that packets leave by.
    pub interface: u32,
    /// [`kind`]: which datagrams may be steered.
    pub kind: u8,
    /// Length of `cid`, 0 to 20; with 0 it is not compared. 4 for a WireGuard index.
    pub cid_len: u8,
    /// QUIC short headers are steered only when they carry this destination connection ID; others go to the daemon,
    /// which learns them. In the same way, with [`kind::ONLY_WIREGUARD_TRANSPORT`], messages are steered only when they
    /// carry these 4 bytes as the receiver's index. Only on flows towards backends.
    pub cid: [u8; 20],
    /// The daemon's own note, which the programs do not read: by what rule the session goes, in entries of clients'
    /// packets; zero in those of backends'.
    pub mark: [u8; 2],
    /// [`Flow::seal_for`] the key: by it a program knows that what it has read is this entry, and all of it.
    pub seal: u64,
}

/// Which datagrams of a flow may be steered. Bits of [`Flow::kind`].
pub mod kind {
    /// Only QUIC short headers: the first bit of the payload is clear. Long headers go to the daemon.
    pub const NO_QUIC_LONG: u8 = 1;
    /// No WireGuard handshake initiations, whatever their reserved bytes.
    pub const NO_WIREGUARD_INITIATION: u8 = 2;
    /// Only WireGuard transport messages (type 4).
    pub const ONLY_WIREGUARD_TRANSPORT: u8 = 4;
}

/// What the daemon wants of datagrams to a socket of its own that belong to no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// Bits of [`drop_class`]: classes that have no destination.
    pub drop: u32,
}

/// Classes of datagrams without a destination. Bits of [`Listener::drop`].
pub mod drop_class {
    /// QUIC long headers of versions 1 and 2.
    pub const QUIC_LONG: u32 = 1;
    /// QUIC long headers of other versions.
    pub const QUIC_OTHER_VERSION: u32 = 2;
    /// QUIC Initials of versions 1 and 2 in datagrams under 1200 bytes (RFC 9000 section 14.1).
    pub const QUIC_SMALL_INITIAL: u32 = 4;
    /// WireGuard handshake initiations.
    pub const WIREGUARD_INITIATION: u32 = 8;
    /// Everything that is none of the above and may be none of the below.
    pub const UNKNOWN: u32 = 16;
    /// What may be a QUIC short header.
    pub const QUIC_SHORT: u32 = 32;
    /// WireGuard messages of types 2 to 4.
    pub const WIREGUARD_OTHER: u32 = 64;
    /// WireGuard handshake initiations that are made for none of the keys in `MAC1_KEYS`; none while there is no key.
    pub const WIREGUARD_MAC1: u32 = 128;
    /// Datagrams that begin handshakes, beyond the `SOURCE_LIMIT` of their network.
    pub const SOURCE_LIMIT: u32 = 256;
}

/// A source network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Prefix {
    /// Leading bits that count (of all the fields below): 8 for the family, then those of the address.
    pub bits: u32,
    /// 4 or 6.
    pub family: u8,
    /// The address; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Zero; not part of the prefix.
    pub zero: [u8; 3],
}

/// How many datagrams that begin handshakes each source network may send; see [`crate::bucket::charge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceLimit {
    /// Nanoseconds until one more is allowed; 0 is no limit.
    pub interval: u32,
    /// Zero.
    pub zero: u32,
    /// Nanoseconds: as many as there are intervals in it are allowed at once.
    pub window: u64,
    /// The bits of an IPv4 address that make the network.
    pub mask_v4: [u8; 16],
    /// The bits of an IPv6 address that make the network.
    pub mask_v6: [u8; 16],
}

impl SourceLimit {
    /// How many are charged for so many at once: no more than a full bucket holds. Those in one buffer of the kernel are
    /// allowed together or not at all, and some would never be.
    #[inline(always)]
    #[must_use]
    pub fn charged(&self, handshakes: u32) -> u32 {
        let most = NonZero::new(u64::from(self.interval)).map_or(u64::MAX, |interval| self.window / interval);
        u32::try_from(most).map_or(handshakes, |most| if handshakes < most { handshakes } else { most })
    }

    /// The network of a sender, as a key of `SOURCES`.
    #[inline(always)]
    #[must_use]
    pub fn network(&self, source: &Socket) -> Socket {
        let mask = if source.family() == 4 { &self.mask_v4 } else { &self.mask_v6 };
        let mut network = source.with_port([0; 2]);
        network.address.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
        network
    }
}

/// Key of `HOPS`, given out by the daemon.
pub type HopKey = u32;

/// Where packets go on the link: what XDP has to know, since it asks nobody else.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hop {
    /// Interface that packets leave by.
    pub interface: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u32,
    /// Ethernet address of the neighbour.
    pub destination: [u8; 6],
    /// Ethernet address of the interface.
    pub source: [u8; 6],
    /// [`Hop::seal_for`] the key.
    pub seal: u32,
}
