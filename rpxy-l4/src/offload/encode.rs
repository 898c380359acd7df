//! What the daemon knows as the types and the bytes of the maps, and what the programs have counted.
//!
//! Byte arrays are plain data for aya, so that no promise in `unsafe` is needed: see `rpxy_l4_common::map`.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_common::map::{Flow, FlowKey, Hop, Listener, Prefix, Socket};

pub(super) type FlowKeyBytes = [u8; size_of::<FlowKey>()];
pub(super) type FlowBytes = [u8; size_of::<Flow>()];
pub(super) type SocketBytes = [u8; size_of::<Socket>()];
pub(super) type ListenerBytes = [u8; size_of::<Listener>()];
pub(super) type HopBytes = [u8; size_of::<Hop>()];
/// Behind the length of the prefix, which is a field of aya's own key.
pub(super) type NetworkBytes = [u8; size_of::<Prefix>() - 4];

/// An address as it stands in the maps.
pub(super) fn address(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => {
            let mut bytes = [0; 16];
            bytes[..4].copy_from_slice(&address.octets());
            bytes
        }
        IpAddr::V6(address) => address.octets(),
    }
}

/// 4 or 6.
pub(super) fn family(address: IpAddr) -> u8 {
    if address.is_ipv4() { 4 } else { 6 }
}

/// A socket address as it stands in the maps.
pub(super) fn socket(from: SocketAddr) -> Socket {
    let ip = from.ip().to_canonical();
    Socket { address: address(ip), port: from.port().to_be_bytes(), family: family(ip), zero: 0 }
}

/// A network as a key: bits that count, and the bytes behind.
pub(super) fn network(network: ipnet::IpNet) -> (u32, NetworkBytes) {
    let mut bytes = [0; size_of::<Prefix>() - 4];
    bytes[0] = family(network.addr());
    bytes[1..17].copy_from_slice(&address(network.network()));
    (8 + u32::from(network.prefix_len()), bytes)
}

/// What the programs have counted in an entry: last seen, packets, bytes.
pub(super) fn counted(flow: &FlowBytes) -> (u64, u64, u64) {
    let mut numbers = flow.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_ne_bytes));
    let mut number = || numbers.next().unwrap_or_default();
    (number(), number(), number())
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    #[test]
    fn what_was_counted_is_read_back() {
        let flow = Flow { last_seen: 1, packets: 2, bytes: 3, ..Flow::default() };
        assert_eq!(counted(&flow.to_bytes()), (1, 2, 3));
    }

    #[test]
    fn networks() {
        let (bits, bytes) = network("192.0.2.77/24".parse().unwrap());
        assert_eq!((bits, &bytes[..6]), (32, &[4, 192, 0, 2, 0, 0][..]));
        assert_eq!(offset_of!(Prefix, family), 4);
        assert_eq!(offset_of!(Prefix, address), 5);
        let (bits, bytes) = network("2001:db8::/32".parse().unwrap());
        assert_eq!((bits, &bytes[..5]), (40, &[6, 0x20, 1, 0x0d, 0xb8][..]));
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(socket("[::ffff:192.0.2.1]:7".parse().unwrap()), socket("192.0.2.1:7".parse().unwrap()));
    }
}
