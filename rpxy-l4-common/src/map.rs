//! Keys and values of the BPF maps that the daemon fills and the programs read.
//!
//! Every type is plain data with its layout proven: no padding, no `bool`, no enum, no `Option`. Addresses and ports
//! are in network byte order, as they stand in packets; everything else is in the machine's. IPv4 addresses stand in
//! the first four bytes of a field, the rest is zero: one map then serves both families.

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
    /// Hash: an address of this machine (16 bytes) to 1; consulted for listeners of the wildcard address.
    pub const LOCAL: &str = "LOCAL";
    /// Longest prefix match: banned source networks, [`super::Prefix`] to 1.
    pub const BANNED: &str = "BANNED";
    /// Longest prefix match: networks in access lists, [`super::Listed`] to one of [`super::access`].
    pub const ACCESS: &str = "ACCESS";
    /// Array, indexed by [`super::HopKey`]: [`super::Hop`]; all zeros where there is none.
    pub const HOPS: &str = "HOPS";
    /// Array with one element: [`super::SourceLimit`].
    pub const SOURCE_LIMIT: &str = "SOURCE_LIMIT";
    /// LRU hash: a source network ([`super::Socket`] of port 0) to its bucket ([`crate::bucket`]).
    pub const SOURCES: &str = "SOURCES";
    /// Array: [`crate::mac1::Mac1Key`] of the servers, without gaps from the first on.
    pub const MAC1_KEYS: &str = "MAC1_KEYS";
    /// Per-CPU array with one element: the [`crate::mac1::Initiation`] that is being checked.
    pub const INITIATION: &str = "INITIATION";
    /// Array with one element, a `u64`: the time from which TC passes everything, in nanoseconds of CLOCK_MONOTONIC,
    /// unless the daemon renews it; 0 for never. Without links, filters of TC survive a process that is killed.
    pub const LEASE: &str = "LEASE";
    /// Per-CPU array, indexed by [`crate::verdict::Counter`].
    pub const COUNTERS: &str = "COUNTERS";
    /// Array of numbers of 64 bits, indexed by [`super::log_state`]. Only in an object that logs.
    pub const LOG_STATE: &str = "LOG_STATE";
}

/// Indices of `LOG_STATE`, and the rate of messages that it enforces.
pub mod log_state {
    /// Time at which the bucket of messages is full again ([`crate::bucket`]).
    pub const DUE: u32 = 0;
    /// Number of messages, told or withheld.
    pub const MESSAGES: u32 = 1;
    /// Number of indices.
    pub const LEN: usize = 2;
    /// Nanoseconds for one more message.
    pub const INTERVAL: u32 = 1_000_000;
    /// Burst size, as the nanoseconds in which it is regained. The ring of aya-log (128 KiB) takes two bursts.
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

/// A UDP socket address. Aligned, so that the programs move it by words.
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
    /// Creates a socket address from an address, a big-endian port and its family.
    #[inline(always)]
    #[must_use]
    pub const fn new(address: [u8; 16], port: [u8; 2], family: Family) -> Self {
        let [high, low] = port;
        Self { address, end: u32::from_ne_bytes([high, low, family as u8, 0]) }
    }

    /// Returns the port, big-endian.
    #[inline(always)]
    #[must_use]
    pub const fn port(&self) -> [u8; 2] {
        let [high, low, ..] = self.end.to_ne_bytes();
        [high, low]
    }

    /// Returns the family: 4 or 6.
    #[inline(always)]
    #[must_use]
    pub const fn family(&self) -> u8 {
        let [_, _, family, _] = self.end.to_ne_bytes();
        family
    }

    /// Returns the same address with another port, big-endian.
    #[inline(always)]
    #[must_use]
    pub const fn with_port(self, port: [u8; 2]) -> Self {
        let ([high, low], [_, _, family, zero]) = (port, self.end.to_ne_bytes());
        Self { end: u32::from_ne_bytes([high, low, family, zero]), ..self }
    }
}

/// The addresses of a flow's packets when they arrive.
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
    /// Counters.
    pub counted: Counted,
    /// Instructions.
    pub flow: Flow,
}

/// The counters of a flow, which the programs write.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Counted {
    /// Time of the last steered packet: nanoseconds of CLOCK_MONOTONIC_COARSE (`bpf_ktime_get_coarse_ns`), which is a
    /// few milliseconds behind and costs no read of the hardware's clock; 0 for never. Written without a lock: only its
    /// rough size matters.
    pub last_seen: u64,
    /// Packets steered. Written by atomic addition.
    pub packets: u64,
    /// UDP payload bytes steered. Written by atomic addition.
    pub bytes: u64,
    /// Packets that were passed because they arrived by another interface than [`Flow::ingress`]. Written by atomic
    /// addition.
    pub elsewhere: u64,
}

/// The instructions for the packets of a flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Flow {
    /// New sender: this machine, as the other side sees it.
    pub source: Socket,
    /// New receiver.
    pub destination: Socket,
    /// Interface that packets leave by.
    pub interface: u32,
    /// Interface that packets arrive by: the one that leads to their sender. What comes by another one may be forged, and
    /// is left to the rules of the host.
    pub ingress: u32,
    /// Ethernet address of that interface. Frames to other stations are not this machine's.
    pub station: [u8; 6],
    /// Key of the next hop in `HOPS`.
    pub hop: HopKey,
    /// Bits of [`kind`]: the datagrams that may be steered.
    pub kind: u8,
    /// Length of `cid`, 0 to 20; with 0 it is not compared. 4 for a WireGuard index.
    pub cid_len: u8,
    /// QUIC short headers are steered only when they carry this destination connection ID; others go to the daemon,
    /// which learns them. In the same way, with [`kind::ONLY_WIREGUARD_TRANSPORT`], messages are steered only when they
    /// carry these 4 bytes as the receiver's index. Only on flows towards backends.
    pub cid: [u8; 20],
    /// A note of the daemon, which the programs do not read: the rule of the session in entries of clients' packets,
    /// zero in those of backends'.
    pub mark: [u8; 2],
    /// [`Flow::seal_for`] the key, by which a program knows that it has read this entry and all of it.
    pub seal: u64,
}

/// Conditions on the datagrams of a flow that may be steered. Bits of [`Flow::kind`].
pub mod kind {
    /// Only QUIC short headers: the first bit of the payload is clear. Long headers go to the daemon.
    pub const NO_QUIC_LONG: u8 = 1;
    /// No WireGuard handshake initiations, whatever their reserved bytes.
    pub const NO_WIREGUARD_INITIATION: u8 = 2;
    /// Only WireGuard transport messages (type 4).
    pub const ONLY_WIREGUARD_TRANSPORT: u8 = 4;
    /// No QUIC long headers of a version that exists. For flows of other protocols, some of which set the first bit as
    /// well (RTP, DNS).
    pub const NO_QUIC_VERSION: u8 = 8;
    /// No messages of STUN and WireGuard, no records of DTLS. For flows of QUIC whose datagrams are not told by an ID.
    pub const NO_OTHER_PROTOCOL: u8 = 16;
}

/// The policy for datagrams to a socket of the daemon that belong to no flow.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listener {
    /// Bits of [`drop_class`]: classes that have no destination; and from [`access::SHIFT`] on the number of the listener's
    /// access list, 0 for none. One number, so that the programs read it at once.
    pub drop: u32,
}

/// Access lists of listeners.
pub mod access {
    /// The bit of [`super::Listener::drop`] from which on it is the number of an access list.
    pub const SHIFT: u32 = 16;
    /// Largest number of a list.
    pub const MOST: u16 = u16::MAX;
    /// Bit of [`super::Listener::drop`]: senders that the list does not name are refused.
    pub const UNLISTED: u32 = 1 << 15;
    /// Value of a network whose senders are taken.
    pub const ALLOWED: u8 = 1;
    /// Value of a network whose senders are refused.
    pub const DENIED: u8 = 2;
}

/// A network in an access list. Aligned, so that the programs move the address by words.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Listed {
    /// Number of leading bits (of all the fields below): 32 for list and family, then those of the address.
    pub bits: u32,
    /// The bytes of the number of the list, of the family (4 or 6), and a zero.
    pub list: u32,
    /// The address; IPv4 in the first four bytes.
    pub address: [u32; 4],
}

impl Listed {
    /// Creates the key of a network by the number of its list, the length of its prefix, and an address in it.
    #[inline(always)]
    #[must_use]
    pub const fn new(list: u16, len: u32, source: &Socket) -> Self {
        let [low, high] = list.to_ne_bytes();
        let list = u32::from_ne_bytes([low, high, source.family(), 0]);
        Self { bits: 32 + len, list, address: zerocopy::transmute!(source.address) }
    }

    /// Returns the key that a sender is looked up by in a list: all bits of its address.
    #[inline(always)]
    #[must_use]
    pub const fn of(list: u16, source: &Socket) -> Self {
        Self::new(list, if source.family() == Family::V4 as u8 { 32 } else { 128 }, source)
    }
}

/// Classes of datagrams without a destination. Bits of [`Listener::drop`].
pub mod drop_class {
    /// All bits of classes.
    pub const ALL: u32 = super::access::UNLISTED - 1;
    /// QUIC long headers of versions 1 and 2.
    pub const QUIC_LONG: u32 = 1;
    /// QUIC long headers of other versions.
    pub const QUIC_OTHER_VERSION: u32 = 2;
    /// QUIC Initials of versions 1 and 2 in datagrams under 1200 bytes (RFC 9000 section 14.1).
    pub const QUIC_SMALL_INITIAL: u32 = 4;
    /// WireGuard handshake initiations.
    pub const WIREGUARD_INITIATION: u32 = 8;
    /// Everything that no other class of datagrams takes.
    pub const UNKNOWN: u32 = 16;
    /// Possible QUIC short headers.
    pub const QUIC_SHORT: u32 = 32;
    /// WireGuard messages of types 2 to 4.
    pub const WIREGUARD_OTHER: u32 = 64;
    /// WireGuard handshake initiations that are made for none of the keys in `MAC1_KEYS`, if there are keys.
    pub const WIREGUARD_MAC1: u32 = 128;
    /// Datagrams that begin handshakes, beyond the `SOURCE_LIMIT` of their network.
    pub const SOURCE_LIMIT: u32 = 256;
}

/// A source network.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Prefix {
    /// Number of leading bits (of all the fields below): 8 for the family, then those of the address.
    pub bits: u32,
    /// 4 or 6.
    pub family: u8,
    /// The address; IPv4 in the first four bytes.
    pub address: [u8; 16],
    /// Zero; not part of the prefix.
    pub zero: [u8; 3],
}

/// The rate of datagrams that begin handshakes, for each source network; see [`crate::bucket::charge`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SourceLimit {
    /// Nanoseconds for one more; 0 for no limit.
    pub interval: u32,
    /// Zero.
    pub zero: u32,
    /// Burst size, as the nanoseconds in which it is regained.
    pub window: u64,
    /// The bits of an IPv4 address that make the network.
    pub mask_v4: [u8; 16],
    /// The bits of an IPv6 address that make the network.
    pub mask_v6: [u8; 16],
}

impl SourceLimit {
    /// Returns the number of events that is charged for `handshakes` at once: no more than a full bucket holds. Those
    /// in one buffer of the kernel are allowed together or not at all, and otherwise some never would be.
    #[inline(always)]
    #[must_use]
    pub fn charged(&self, handshakes: u32) -> u32 {
        let most = NonZero::new(u64::from(self.interval)).map_or(u64::MAX, |interval| self.window / interval);
        u32::try_from(most).map_or(handshakes, |most| if handshakes < most { handshakes } else { most })
    }

    /// Returns the network of a sender, as a key of `SOURCES`.
    #[inline(always)]
    #[must_use]
    pub fn network(&self, source: &Socket) -> Socket {
        let mask = if source.family() == 4 { &self.mask_v4 } else { &self.mask_v6 };
        let mut network = source.with_port([0; 2]);
        network.address.iter_mut().zip(mask).for_each(|(byte, mask)| *byte &= mask);
        network
    }
}

/// Bits of [`Hop::flags`].
pub mod hop_flag {
    /// XDP redirects packets also when they leave by the interface that they came by (as `XDP_REDIRECT`, not `XDP_TX`).
    pub const REDIRECT: u16 = 1;
}

/// Key of `HOPS`, allocated by the daemon.
pub type HopKey = u16;

/// A next hop on its link, which XDP has to know by itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, IntoBytes, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Hop {
    /// Interface that packets leave by.
    pub interface: u32,
    /// Largest IP packet, in bytes.
    pub mtu: u16,
    /// Bits of [`hop_flag`].
    pub flags: u16,
    /// Ethernet address of the neighbour.
    pub destination: [u8; 6],
    /// Ethernet address of the interface.
    pub source: [u8; 6],
    /// [`Hop::seal_for`] the key.
    pub seal: u32,
}
