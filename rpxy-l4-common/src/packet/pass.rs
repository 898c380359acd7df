//! Reasons to pass a packet that its headers give.

/// The reason why a packet can neither be steered nor dropped: the first one found, in the order of the headers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pass {
    /// It ends, or what can be read of it ends, before its headers or lengths say.
    Truncated,
    /// Neither IPv4 nor IPv6.
    NotIp,
    /// More VLAN tags than are read over.
    VlanDepth,
    /// Sent to a group of stations, or to all.
    LinkGroup,
    /// The version of the IP header is not the one that the header before announces.
    IpVersion,
    /// Another protocol over IP than the one that is looked for, and ICMP.
    OtherTransport,
    /// ICMP or ICMPv6.
    Icmp,
    /// The same, by which a router says that a packet is too big for the way.
    TooBig,
    /// An IPv4 header with options.
    IpOptions,
    /// An IPv4 header that is shorter than it can be.
    IpHeaderLength,
    /// A fragment, including the first one, or an IPv6 fragment header.
    Fragment,
    /// The transport may stand behind extension headers.
    ExtensionHeader,
    /// An IP packet too short for a header of the transport; IPv6 jumbograms are counted here, too.
    IpLength,
    /// The length in the header of the transport is not what the IP header leaves for it: that of a datagram, or of a TCP
    /// header.
    TransportLength,
    /// UDP over IPv6 without a checksum.
    NoChecksum,
}
