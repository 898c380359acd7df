//! The outcomes of packets, numbered for the programs and named for the metrics.

use crate::packet::Pass;

/// The fate of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Action {
    /// The program sends it on.
    Steer,
    /// The kernel goes on with it as if there were no program.
    Pass,
    /// It is dropped.
    Drop,
}

impl Action {
    /// Returns the name in the metrics.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Steer => "steer",
            Self::Pass => "pass",
            Self::Drop => "drop",
        }
    }
}

macro_rules! verdicts {
    ($($(#[$doc:meta])+ $variant:ident = $number:literal, $action:ident, $name:literal;)+) => {
        counters! {
            /// The outcome of a packet: index into `COUNTERS`. Every packet has exactly one.
            Counter: $($(#[$doc])+ $variant = $number, $name;)+
        }

        impl Counter {
            /// Returns the fate of the packets that it counts.
            #[must_use]
            pub const fn action(self) -> Action {
                match self {
                    $(Self::$variant => Action::$action,)+
                }
            }
        }
    };
}

verdicts! {
    /// Sent on by a program.
    Steered = 0, Steer, "steered";
    /// Passed: ends before its headers or lengths say, or cannot be read.
    Truncated = 1, Pass, "truncated";
    /// Passed: neither IPv4 nor IPv6.
    NotIp = 2, Pass, "not_ip";
    /// Passed: more than two VLAN tags.
    VlanDepth = 3, Pass, "vlan_depth";
    /// Passed: to a group of stations, broadcast included.
    LinkGroup = 4, Pass, "link_group";
    /// Passed: IP version and link header disagree.
    IpVersion = 5, Pass, "ip_version";
    /// Passed: neither UDP nor ICMP.
    NotUdp = 6, Pass, "not_udp";
    /// Passed: ICMP.
    Icmp = 7, Pass, "icmp";
    /// Passed: IPv4 options.
    IpOptions = 8, Pass, "ip_options";
    /// Passed: IPv4 header shorter than it can be.
    IpHeaderLength = 9, Pass, "ip_header_length";
    /// Passed: fragment.
    Fragment = 10, Pass, "fragment";
    /// Passed: IPv6 extension header.
    ExtensionHeader = 11, Pass, "extension_header";
    /// Passed: IP packet too short for a UDP header.
    IpLength = 12, Pass, "ip_length";
    /// Passed: length of the datagram disagrees with the packet's.
    UdpLength = 13, Pass, "udp_length";
    /// Passed: UDP over IPv6 without a checksum.
    NoChecksum = 14, Pass, "no_checksum";
    /// Passed: belongs to no flow, and not to a socket of ours.
    Foreign = 15, Pass, "foreign";
    /// Passed to the daemon: belongs to no flow, and its class has a destination.
    NoFlow = 16, Pass, "no_flow";
    /// Passed to the daemon: QUIC long header on a flow.
    QuicLong = 17, Pass, "quic_long";
    /// Passed to the daemon: WireGuard initiation on a flow.
    WireGuardInitiation = 18, Pass, "wireguard_initiation";
    /// Passed to the daemon: anything but a transport message on a WireGuard flow.
    NotWireGuardTransport = 19, Pass, "not_wireguard_transport";
    /// Passed to the daemon: another connection ID, or WireGuard index, than the one that the flow is known by.
    ConnectionId = 20, Pass, "connection_id";
    /// Passed to the daemon: too short to tell what it is, on a flow where that matters.
    Short = 21, Pass, "short";
    /// Passed: TTL or hop limit used up; the kernel answers.
    Ttl = 22, Pass, "ttl";
    /// Passed: larger than the way to the next hop takes; the kernel answers or fragments.
    Mtu = 23, Pass, "mtu";
    /// Passed: next hop not known (yet).
    NoHop = 24, Pass, "no_hop";
    /// Passed: carries a VLAN tag that another interface may not want.
    VlanTagged = 25, Pass, "vlan_tagged";
    /// Passed: more datagrams in one buffer of the kernel than are looked through.
    Segments = 26, Pass, "segments";
    /// Passed: the entry of the flow is for another family.
    FlowFamily = 27, Pass, "flow_family";
    /// Passed: the kernel refused a step before anything was changed.
    Refused = 28, Pass, "refused";
    /// Dropped: sender banned.
    Banned = 29, Drop, "banned";
    /// Dropped: QUIC long header of version 1 or 2.
    DroppedQuicLong = 30, Drop, "dropped_quic_long";
    /// Dropped: QUIC long header of another version.
    DroppedQuicOtherVersion = 31, Drop, "dropped_quic_other_version";
    /// Dropped: QUIC Initial in a datagram under 1200 bytes.
    DroppedQuicSmallInitial = 32, Drop, "dropped_quic_small_initial";
    /// Dropped: what may be a QUIC short header.
    DroppedQuicShort = 33, Drop, "dropped_quic_short";
    /// Dropped: WireGuard initiation.
    DroppedWireGuardInitiation = 34, Drop, "dropped_wireguard_initiation";
    /// Dropped: other WireGuard messages.
    DroppedWireGuardOther = 35, Drop, "dropped_wireguard_other";
    /// Dropped: none of the classes.
    DroppedUnknown = 36, Drop, "dropped_unknown";
    /// Dropped: the kernel refused a step when the packet was partly rewritten.
    Broken = 37, Drop, "broken";
    /// Passed to the daemon: the entry of the flow, or of its next hop, was being replaced.
    EntryChanged = 38, Pass, "entry_changed";
    /// Dropped: WireGuard initiation that is made for none of the public keys.
    DroppedWireGuardMac1 = 39, Drop, "dropped_wireguard_mac1";
    /// Dropped: begins a handshake, of which the sender's network has begun too many.
    DroppedSourceLimited = 40, Drop, "dropped_source_limited";
    /// Passed: the daemon that has attached the program is gone, and could not take it along.
    Lapsed = 41, Pass, "lapsed";
    /// Passed to the rules of the host: came by another interface than the one that leads to its sender.
    OtherInterface = 42, Pass, "other_interface";
    /// Passed: a frame to another station.
    OtherStation = 43, Pass, "other_station";
    /// Passed: ICMP that says that a packet is too big for the way; routes are looked up again.
    IcmpTooBig = 44, Pass, "icmp_too_big";
    /// Dropped: the access list of the listener refuses the sender.
    Denied = 45, Drop, "denied";
    /// Passed to the daemon: may be STUN, DTLS or WireGuard, on the flow of a QUIC connection whose server has no connection
    /// ID, or a short one.
    OtherProtocol = 46, Pass, "other_protocol";
}

impl From<Pass> for Counter {
    #[inline(always)]
    fn from(pass: Pass) -> Self {
        match pass {
            Pass::Truncated => Self::Truncated,
            Pass::NotIp => Self::NotIp,
            Pass::VlanDepth => Self::VlanDepth,
            Pass::LinkGroup => Self::LinkGroup,
            Pass::IpVersion => Self::IpVersion,
            Pass::OtherTransport => Self::NotUdp,
            Pass::Icmp => Self::Icmp,
            Pass::TooBig => Self::IcmpTooBig,
            Pass::IpOptions => Self::IpOptions,
            Pass::IpHeaderLength => Self::IpHeaderLength,
            Pass::Fragment => Self::Fragment,
            Pass::ExtensionHeader => Self::ExtensionHeader,
            Pass::IpLength => Self::IpLength,
            Pass::TransportLength => Self::UdpLength,
            Pass::NoChecksum => Self::NoChecksum,
        }
    }
}
