//! The types of the maps as the bytes that the kernel stores, and back.
//!
//! The layouts are those of `repr(C)` without padding, as `rpxy_l4_common::map` asserts; a round trip of every field is
//! tested. Byte arrays are plain data for aya, so that no promise in `unsafe` is needed.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_common::{
    mac1::Mac1Key,
    map::{Counted, Flow, FlowEntry, FlowKey, Hop, HopKey, Listener, Prefix, Socket, SourceLimit},
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

pub(super) fn socket_bytes(socket: &Socket) -> SocketBytes {
    concat(&[&socket.address, &socket.port, &[socket.family, socket.zero]])
}

pub(super) fn key_bytes(key: &FlowKey) -> FlowKeyBytes {
    concat(&[&socket_bytes(&key.source), &socket_bytes(&key.destination)])
}

pub(super) fn listener_bytes(listener: Listener) -> ListenerBytes {
    listener.drop.to_ne_bytes()
}

pub(super) fn source_limit_bytes(limit: &SourceLimit) -> SourceLimitBytes {
    let SourceLimit { interval, zero, window, mask_v4, mask_v6 } = limit;
    concat(&[&interval.to_ne_bytes(), &zero.to_ne_bytes(), &window.to_ne_bytes(), mask_v4, mask_v6])
}

pub(super) fn mac1_key_bytes(key: &Mac1Key) -> Mac1KeyBytes {
    concat(&[
        &concat::<32>(&key.state.each_ref().map(|word| word.to_ne_bytes()).each_ref().map(|b| &b[..])),
        &key.used.to_ne_bytes(),
    ])
}

/// A next hop as it is stored under `key`.
pub(super) fn hop_bytes(key: HopKey, hop: &Hop) -> HopBytes {
    let seal = hop.seal_for(key).to_ne_bytes();
    let (interface, mtu) = (hop.interface.to_ne_bytes(), hop.mtu.to_ne_bytes());
    concat(&[&interface, &mtu, &hop.destination, &hop.source, &seal])
}

/// A flow as it is stored under `key`, with what it has counted before.
pub(super) fn flow_bytes(key: &FlowKey, flow: &Flow, counted: Counted) -> FlowBytes {
    concat(&[
        &counted.last_seen.to_ne_bytes(),
        &counted.packets.to_ne_bytes(),
        &counted.bytes.to_ne_bytes(),
        &socket_bytes(&flow.source),
        &socket_bytes(&flow.destination),
        &flow.hop.to_ne_bytes(),
        &flow.interface.to_ne_bytes(),
        &[flow.kind, flow.cid_len],
        &flow.cid,
        &flow.mark,
        &flow.seal_for(key).to_ne_bytes(),
    ])
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
    let [address @ .., p, q, family, zero] = *bytes;
    Socket { address, port: [p, q], family, zero }
}

/// A socket address of the maps; `None` for one of no family.
pub(super) fn address_of(socket: &Socket) -> Option<SocketAddr> {
    let ip = match (socket.family, socket.address) {
        (4, [a, b, c, d, ..]) => IpAddr::from([a, b, c, d]),
        (6, address) => IpAddr::from(address),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes(socket.port)))
}

/// The parts one after another. They add up to `N`: every type above is made of its fields.
fn concat<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    let flat = parts.iter().flat_map(|part| part.iter());
    debug_assert_eq!(flat.clone().count(), N);
    bytes.iter_mut().zip(flat).for_each(|(byte, from)| *byte = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use std::mem::offset_of;

    use super::*;

    /// The fields stand where the programs look for them.
    #[test]
    fn layouts() {
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
        let (again, read) = read_flow(&key_bytes(&key), &flow_bytes(&key, &flow, Counted::default())).unwrap();
        assert_eq!((again, read), (key, flow.sealed(&key)));
        let mut torn = flow_bytes(&key, &flow, Counted::default());
        torn[offset_of!(FlowEntry, flow)] ^= 1;
        assert_eq!(read_flow(&key_bytes(&key), &torn), None);
        assert_eq!([near, far].map(|address| address_of(&socket(address))), [Some(near), Some(far)]);
        assert_eq!(address_of(&Socket::default()), None);
        let before = Counted { last_seen: 1, packets: 2, bytes: 3 };
        let bytes = flow_bytes(&key, &flow, before);
        assert_eq!(counted(&bytes), before);
        let at = |offset: usize, expected: &[u8]| assert_eq!(&bytes[offset..][..expected.len()], expected);
        at(offset_of!(Counted, last_seen), &1_u64.to_ne_bytes());
        at(offset_of!(Counted, packets), &2_u64.to_ne_bytes());
        at(offset_of!(Counted, bytes), &3_u64.to_ne_bytes());
        let bytes = &bytes[offset_of!(FlowEntry, flow)..];
        let at = |offset: usize, expected: &[u8]| assert_eq!(&bytes[offset..][..expected.len()], expected);
        at(offset_of!(Flow, source), &[192, 0, 2, 1, 0]);
        at(offset_of!(Flow, source) + offset_of!(Socket, port), &[1, 187, 4, 0]);
        at(offset_of!(Flow, destination), &[0x20, 1, 0x0d, 0xb8]);
        at(offset_of!(Flow, destination) + offset_of!(Socket, port), &[0xca, 0x6c, 6, 0]);
        at(offset_of!(Flow, hop), &4_u32.to_ne_bytes());
        at(offset_of!(Flow, interface), &5_u32.to_ne_bytes());
        at(offset_of!(Flow, kind), &[6]);
        at(offset_of!(Flow, cid_len), &[7]);
        at(offset_of!(Flow, cid), &[8; 20]);
        at(offset_of!(Flow, seal), &flow.seal_for(&key).to_ne_bytes());

        let key = key_bytes(&key);
        assert_eq!(&key[offset_of!(FlowKey, destination)..][..2], [0x20, 1]);
        let value = Hop { interface: 1, mtu: 1500, destination: [2; 6], source: [3; 6], ..Hop::default() };
        let hop = hop_bytes(7, &value);
        assert_eq!(&hop[offset_of!(Hop, mtu)..][..4], 1500_u32.to_ne_bytes());
        assert_eq!(&hop[offset_of!(Hop, destination)..][..6], [2; 6]);
        assert_eq!(&hop[offset_of!(Hop, source)..][..6], [3; 6]);
        assert_eq!(&hop[offset_of!(Hop, seal)..], value.seal_for(7).to_ne_bytes());
        let limit = SourceLimit { interval: 1, zero: 0, window: 2, mask_v4: [3; 16], mask_v6: [4; 16] };
        let limit = source_limit_bytes(&limit);
        assert_eq!(limit[..4], 1_u32.to_ne_bytes());
        assert_eq!(limit[offset_of!(SourceLimit, window)..][..8], 2_u64.to_ne_bytes());
        assert_eq!(limit[offset_of!(SourceLimit, mask_v4)..][..16], [3; 16]);
        assert_eq!(limit[offset_of!(SourceLimit, mask_v6)..], [4; 16]);
        let key = mac1_key_bytes(&Mac1Key { state: [1, 2, 3, 4, 5, 6, 7, 8], used: 9 });
        assert_eq!((&key[..4], &key[28..32]), (&1_u32.to_ne_bytes()[..], &8_u32.to_ne_bytes()[..]));
        assert_eq!(key[offset_of!(Mac1Key, used)..], 9_u32.to_ne_bytes());
        assert_eq!(listener_bytes(Listener { drop: 9 }), 9_u32.to_ne_bytes());
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
