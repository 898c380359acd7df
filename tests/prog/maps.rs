//! Entries of the maps as the bytes that the kernel stores.

use std::net::{IpAddr, SocketAddr};

use rpxy_l4_common::mac1::Mac1Key;
use rpxy_l4_common::map::{Counted, Family, Flow, FlowEntry, FlowKey, Hop, HopKey, Socket, SourceLimit};

use crate::packet::octets;

/// What the maps hold before a packet comes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Maps {
    pub(crate) flows: Vec<(FlowKey, Flow)>,
    pub(crate) hops: Vec<(HopKey, Hop)>,
    /// Sockets of the daemon, with the bits of what they drop.
    pub(crate) listeners: Vec<(Socket, u32)>,
    /// Addresses of this machine.
    pub(crate) local: Vec<IpAddr>,
    /// Banned networks: address and length of the prefix.
    pub(crate) banned: Vec<(IpAddr, u32)>,
    /// Networks in access lists: number of the list, address and length of the prefix, value.
    pub(crate) listed: Vec<(u16, IpAddr, u32, u8)>,
    /// WireGuard servers.
    pub(crate) mac1_keys: Vec<Mac1Key>,
    /// How many handshakes each network may begin.
    pub(crate) source_limit: Option<SourceLimit>,
}

/// A socket address.
pub(crate) fn socket(address: SocketAddr) -> Socket {
    let family = if address.is_ipv4() { Family::V4 } else { Family::V6 };
    Socket::new(field(address.ip()), address.port().to_be_bytes(), family)
}

/// The flow of a packet.
pub(crate) fn key(source: SocketAddr, destination: SocketAddr) -> FlowKey {
    FlowKey { source: socket(source), destination: socket(destination) }
}

/// An address in its field of 16 bytes.
pub(crate) fn field(address: IpAddr) -> [u8; 16] {
    let mut field = [0; 16];
    let octets = octets(address);
    field[..octets.len()].copy_from_slice(&octets);
    field
}

/// A flow that has counted nothing yet.
pub(crate) fn entry(flow: Flow) -> FlowEntry {
    FlowEntry { counted: Counted::default(), flow }
}

/// A banned network: its bits, and the bytes behind their number.
pub(crate) fn banned_bytes(network: IpAddr, len: u32) -> (u32, [u8; 20]) {
    let family = if network.is_ipv4() { 4 } else { 6 };
    (8 + len, [&[family][..], &field(network), &[0; 3]].concat().try_into().unwrap())
}

/// A network in an access list: its bits, and the bytes behind their number.
pub(crate) fn listed_bytes(list: u16, network: IpAddr, len: u32) -> (u32, [u8; 20]) {
    let family = if network.is_ipv4() { 4 } else { 6 };
    (32 + len, [&list.to_ne_bytes()[..], &[family, 0], &field(network)].concat().try_into().unwrap())
}

/// What the programs have written into a flow: last seen, packets, bytes, packets that came another way.
pub(crate) fn account(flow: &[u8; 120]) -> [u64; 4] {
    [0, 8, 16, 24].map(|at| u64::from_ne_bytes(*flow[at..].first_chunk().unwrap()))
}
