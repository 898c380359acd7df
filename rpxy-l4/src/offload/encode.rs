//! What the daemon knows as the types and the bytes of the maps, and what the programs have counted.
//!
//! Byte arrays are plain data for aya, so that no promise in `unsafe` is needed: see `rpxy_l4_common::map`.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_common::{
    mac1::Mac1Key,
    map::{Counted, Family, Flow, FlowEntry, FlowKey, Hop, Listener, Prefix, Socket, SourceLimit},
};

pub(super) type FlowKeyBytes = [u8; size_of::<FlowKey>()];
pub(super) type FlowBytes = [u8; size_of::<FlowEntry>()];
pub(super) type SocketBytes = [u8; size_of::<Socket>()];
pub(super) type ListenerBytes = [u8; size_of::<Listener>()];
pub(super) type HopBytes = [u8; size_of::<Hop>()];
pub(super) type SourceLimitBytes = [u8; size_of::<SourceLimit>()];
pub(super) type Mac1KeyBytes = [u8; size_of::<Mac1Key>()];
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

/// The family of an address.
pub(super) fn family(address: IpAddr) -> Family {
    if address.is_ipv4() { Family::V4 } else { Family::V6 }
}

/// A socket address as it stands in the maps.
pub(super) fn socket(from: SocketAddr) -> Socket {
    let ip = from.ip().to_canonical();
    Socket::new(address(ip), from.port().to_be_bytes(), family(ip))
}

/// A network as a key: bits that count, and the bytes behind.
pub(super) fn network(network: ipnet::IpNet) -> (u32, NetworkBytes) {
    let mut bytes = [0; size_of::<Prefix>() - 4];
    bytes[0] = family(network.addr()) as u8;
    bytes[1..17].copy_from_slice(&address(network.network()));
    (8 + u32::from(network.prefix_len()), bytes)
}

/// What the programs have counted in an entry.
pub(super) fn counted(entry: &FlowBytes) -> Counted {
    let mut numbers = entry.chunks_exact(8).map(|bytes| bytes.try_into().map_or(0, u64::from_ne_bytes));
    let mut number = || numbers.next().unwrap_or_default();
    Counted { last_seen: number(), packets: number(), bytes: number() }
}

/// An entry as it is stored, if it is one that was stored whole.
pub(super) fn read_flow(key: &FlowKeyBytes, entry: &FlowBytes) -> Option<(FlowKey, Flow)> {
    let (source, rest) = key.split_first_chunk()?;
    let key = FlowKey { source: read_socket(source), destination: read_socket(rest.first_chunk()?) };
    let rest = entry.get(size_of::<Counted>()..)?;
    let (source, rest) = rest.split_first_chunk()?;
    let (destination, rest) = rest.split_first_chunk()?;
    let (hop, rest) = rest.split_first_chunk()?;
    let (interface, rest) = rest.split_first_chunk()?;
    let ([kind, cid_len], rest) = rest.split_first_chunk()?;
    let (cid, rest) = rest.split_first_chunk()?;
    let (mark, seal) = rest.split_first_chunk()?;
    let flow = Flow {
        source: read_socket(source),
        destination: read_socket(destination),
        hop: u32::from_ne_bytes(*hop),
        interface: u32::from_ne_bytes(*interface),
        kind: *kind,
        cid_len: *cid_len,
        cid: *cid,
        mark: *mark,
        seal: u64::from_ne_bytes(*seal.first_chunk()?),
    };
    flow.is_whole(&key).then_some((key, flow))
}

fn read_socket(bytes: &SocketBytes) -> Socket {
    let [address @ .., a, b, c, d] = *bytes;
    Socket { address, end: u32::from_ne_bytes([a, b, c, d]) }
}

/// A socket address of the maps; `None` for one of no family.
pub(super) fn address_of(socket: &Socket) -> Option<SocketAddr> {
    let ip = match (socket.family(), socket.address) {
        (4, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        (6, address) => IpAddr::from(address),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(socket.port())))
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

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
            kind: 6,
            cid_len: 7,
            cid: [8; 20],
            mark: [9; 2],
            seal: 0,
        };
        let key = FlowKey { source: socket(near), destination: socket(far) };
        let entry = |counted| FlowEntry { counted, flow: flow.sealed(&key) };
        let (again, read) = read_flow(&key.to_bytes(), &entry(Counted::default()).to_bytes()).unwrap();
        assert_eq!((again, read), (key, flow.sealed(&key)));
        let mut torn = entry(Counted::default()).to_bytes();
        torn[offset_of!(FlowEntry, flow)] ^= 1;
        assert_eq!(read_flow(&key.to_bytes(), &torn), None);
        assert_eq!([near, far].map(|address| address_of(&socket(address))), [Some(near), Some(far)]);
        assert_eq!(address_of(&Socket::default()), None);
        let before = Counted { last_seen: 1, packets: 2, bytes: 3 };
        assert_eq!(counted(&entry(before).to_bytes()), before);
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
