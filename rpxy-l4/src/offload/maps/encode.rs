//! Conversion between the daemon's types, those of `rpxy_l4_common::map`, and the bytes that the kernel stores.
//!
//! Byte arrays are plain data for aya, so no `unsafe` promise is needed.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_common::{
    mac1::Mac1Key,
    map::{Family, Flow, FlowEntry, FlowKey, Hop, Listed, Listener, Prefix, Socket, SourceLimit},
};

pub(crate) type FlowKeyBytes = [u8; size_of::<FlowKey>()];
pub(crate) type FlowBytes = [u8; size_of::<FlowEntry>()];
pub(super) type SocketBytes = [u8; size_of::<Socket>()];
pub(super) type ListenerBytes = [u8; size_of::<Listener>()];
pub(super) type HopBytes = [u8; size_of::<Hop>()];
pub(super) type SourceLimitBytes = [u8; size_of::<SourceLimit>()];
pub(super) type Mac1KeyBytes = [u8; size_of::<Mac1Key>()];
/// A [`Prefix`] without its length, which aya's own key type holds.
pub(super) type NetworkBytes = [u8; size_of::<Prefix>() - size_of::<u32>()];

/// Returns the bytes of an address: IPv4 in the first four, the rest zero.
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

fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// Converts a socket address. IPv4-mapped addresses become IPv4.
pub(crate) fn socket(from: SocketAddr) -> Socket {
    let ip = from.ip().to_canonical();
    Socket::new(address(ip), from.port().to_be_bytes(), family(ip))
}

/// Converts a socket of the maps; `None` if it has no family.
pub(crate) fn socket_address(socket: &Socket) -> Option<SocketAddr> {
    matches!(socket.family(), 4 | 6).then(|| SocketAddr::new(ip(socket), u16::from_be_bytes(socket.port())))
}

/// Returns the address of a socket of the maps that has a family.
pub(crate) fn ip(socket: &Socket) -> IpAddr {
    match (socket.family(), socket.address) {
        (4, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        (_, address) => IpAddr::from(address),
    }
}

/// Converts a network to the number of bits that count and the bytes they are of.
pub(super) fn network(network: ipnet::IpNet) -> (u32, NetworkBytes) {
    let bits = 8 + u32::from(network.prefix_len());
    let (family, address) = (family(network.addr()) as u8, address(network.network()));
    let [_, _, _, _, bytes @ ..] = Prefix { bits, family, address, zero: [0; 3] }.to_bytes();
    (bits, bytes)
}

/// The same for a network in an access list.
pub(super) fn listed(list: u16, network: ipnet::IpNet) -> (u32, NetworkBytes) {
    let listed = Listed::new(list, network.prefix_len().into(), &socket(SocketAddr::new(network.network(), 0)));
    let [_, _, _, _, bytes @ ..] = listed.to_bytes();
    (listed.bits, bytes)
}

/// Reads a flow back; `None` if the entry was not stored as a whole.
pub(crate) fn read_flow(key: FlowKeyBytes, entry: FlowBytes) -> Option<(FlowKey, Flow)> {
    let (key, FlowEntry { flow, .. }) = (FlowKey::from_bytes(key), FlowEntry::from_bytes(entry));
    flow.is_whole(&key).then_some((key, flow))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use rpxy_l4_common::map::Counted;

    use super::*;

    #[test]
    fn an_entry_is_read_back_when_it_is_whole() {
        let near: SocketAddr = "192.0.2.1:443".parse().unwrap();
        let far: SocketAddr = "[2001:db8::1]:51820".parse().unwrap();
        let flow = Flow {
            source: socket(near),
            destination: socket(far),
            hop: 4,
            interface: 5,
            ingress: 10,
            station: [11; 6],
            kind: 6,
            cid_len: 7,
            cid: [8; 20],
            mark: [9; 2],
            seal: 0,
        };
        let key = FlowKey { source: socket(near), destination: socket(far) };
        let entry = FlowEntry {
            counted: Counted { last_seen: 1, packets: 2, bytes: 3, elsewhere: 4 },
            flow: flow.sealed(&key),
        };
        let (again, read) = read_flow(key.to_bytes(), entry.to_bytes()).unwrap();
        assert_eq!((again, read), (key, flow.sealed(&key)));
        let mut torn = entry.to_bytes();
        torn[offset_of!(FlowEntry, flow)] ^= 1;
        assert_eq!(read_flow(key.to_bytes(), torn), None);
        assert_eq!([near, far].map(|address| socket_address(&socket(address))), [Some(near), Some(far)]);
        assert_eq!(socket_address(&Socket::default()), None);
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
    fn networks_of_access_lists() {
        let (bits, bytes) = listed(0x0102, "192.0.2.77/24".parse().unwrap());
        let [high, low] = 0x0102_u16.to_ne_bytes();
        assert_eq!((bits, &bytes[..8]), (56, &[high, low, 4, 0, 192, 0, 2, 0][..]));
        let (bits, bytes) = listed(1, "2001:db8::/32".parse().unwrap());
        assert_eq!((bits, &bytes[2..8]), (64, &[6, 0, 0x20, 1, 0x0d, 0xb8][..]));
        assert_eq!(size_of::<Listed>(), size_of::<Prefix>());
    }

    #[test]
    fn mapped_addresses_are_ipv4() {
        assert_eq!(socket("[::ffff:192.0.2.1]:7".parse().unwrap()), socket("192.0.2.1:7".parse().unwrap()));
    }
}
