//! Addresses of the three hosts.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};

/// The client's first address; `.11` and `.12` follow.
pub const CLIENT_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 10);
/// The client's address in IPv6.
pub const CLIENT_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 0x10);
/// The gateway as the client sees it.
pub const GATEWAY_V4: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 1);
/// The gateway as the client sees it, in IPv6.
pub const GATEWAY_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 1, 0, 0, 0, 0, 1);
/// The gateway as the backend sees it.
pub const GATEWAY_INSIDE_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 1);
/// The gateway as the backend sees it, in IPv6.
pub const GATEWAY_INSIDE_V6: Ipv6Addr = Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 1);
/// The backend's addresses.
pub const BACKENDS_V4: [Ipv4Addr; 3] =
    [Ipv4Addr::new(198, 51, 100, 10), Ipv4Addr::new(198, 51, 100, 11), Ipv4Addr::new(198, 51, 100, 12)];
/// The backend's addresses in IPv6.
pub const BACKENDS_V6: [Ipv6Addr; 3] = [
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x10),
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x11),
    Ipv6Addr::new(0x2001, 0xdb8, 2, 0, 0, 0, 0, 0x12),
];
/// An address on the backend's network where nobody lives. Nothing answers, not even ARP; see
/// [`Topology::blackhole`](super::Topology::blackhole) for a silent drop.
pub const NOBODY_V4: Ipv4Addr = Ipv4Addr::new(198, 51, 100, 99);

/// A port of the first backend address.
pub fn at(port: u16) -> SocketAddr {
    SocketAddr::from((BACKENDS_V4[0], port))
}

/// A port of the first backend address in IPv6.
pub fn at_v6(port: u16) -> SocketAddr {
    SocketAddr::from((BACKENDS_V6[0], port))
}

/// Further addresses of the client, `n` from 0 to 125: the client answers for all of 192.0.2.128/25.
pub fn client_pool(n: u8) -> Ipv4Addr {
    Ipv4Addr::new(192, 0, 2, 128 + n % 126)
}
