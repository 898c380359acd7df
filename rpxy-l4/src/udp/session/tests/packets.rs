//! Datagrams as clients and servers send them.

use rpxy_l4_proto::quic::{ConnectionId, InitialKeys, Opened, Version};

pub(super) fn id(bytes: &[u8]) -> ConnectionId {
    ConnectionId::new(bytes).unwrap()
}

fn vec8(bytes: &[u8]) -> Vec<u8> {
    [&[u8::try_from(bytes.len()).unwrap()], bytes].concat()
}

fn vec16(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes()[..], bytes].concat()
}

/// A ClientHello with this server name and ALPN, padded to about `size` bytes.
pub(super) fn hello(name: &str, alpn: &str, size: usize) -> Vec<u8> {
    let extension = |typ: u16, body: &[u8]| [&typ.to_be_bytes()[..], &vec16(body)].concat();
    let server_name = extension(0, &vec16(&[&[0], &vec16(name.as_bytes())[..]].concat()));
    let alpn = extension(16, &vec16(&vec8(alpn.as_bytes())));
    let padding = extension(21, &vec![0; size.saturating_sub(150)]);
    let extensions = [server_name, alpn, padding].concat();
    let body = [&[3, 3][..], &[7; 32], &[0], &vec16(&[0x13, 1]), &[1, 0], &vec16(&extensions)].concat();
    let len = u32::try_from(body.len()).unwrap().to_be_bytes();
    [&[1], &len[1..], &body].concat()
}

/// A client's Initial packets of version 1: `stream` cut into datagrams of at most `piece` bytes of it.
pub(super) fn initials(client: &[u8], server: &[u8], stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let keys = InitialKeys::client(Version::V1, &id(server));
    let piece_of = |(number, bytes): (usize, &[u8])| {
        let offset = u32::try_from(number * piece).unwrap() | 0x8000_0000;
        let len = u16::try_from(bytes.len()).unwrap() | 0x4000;
        let frame = [&[6][..], &offset.to_be_bytes(), &len.to_be_bytes(), bytes].concat();
        initial(&keys, client, server, number as u64, frame)
    };
    stream.chunks(piece).enumerate().map(piece_of).collect()
}

fn initial(keys: &InitialKeys, client: &[u8], server: &[u8], number: u64, payload: Vec<u8>) -> Vec<u8> {
    initial_with(&[], keys, client, server, number, payload)
}

fn initial_with(
    token: &[u8],
    keys: &InitialKeys,
    client: &[u8],
    server: &[u8],
    number: u64,
    mut payload: Vec<u8>,
) -> Vec<u8> {
    payload.resize(payload.len().max(1180), 0);
    let length = u16::try_from(4 + payload.len() + 16).unwrap() | 0x4000;
    let header = [&[0xc3, 0, 0, 0, 1][..], &vec8(server), &vec8(client), &vec8(token), &length.to_be_bytes()].concat();
    let opened = Opened { packet_number: number, packet_number_len: 4, first: 0xc3, payload };
    let mut packet = header.clone();
    packet.resize(header.len() + 4 + opened.payload.len() + 16, 0);
    keys.seal(&mut packet, &opened).unwrap();
    packet
}

/// A client's later Initial, with an acknowledgement: to the ID that the server chose, under the keys of the first one.
pub(super) fn later_initial(client: &[u8], server: &[u8], first: &[u8]) -> Vec<u8> {
    initial(&InitialKeys::client(Version::V1, &id(first)), client, server, 7, vec![2, 0, 0, 0, 0])
}

/// One datagram with a whole hello.
pub(super) fn first(client: &[u8], server: &[u8], name: &str) -> Vec<u8> {
    initials(client, server, &hello(name, "h3", 300), 2000).remove(0)
}

/// One datagram with a whole hello, after a Retry: the server has chosen `server` and `token`.
pub(super) fn with_token(client: &[u8], server: &[u8], name: &str, token: &[u8]) -> Vec<u8> {
    let stream = hello(name, "h3", 300);
    let len = u16::try_from(stream.len()).unwrap() | 0x4000;
    let frame = [&[6, 0][..], &len.to_be_bytes(), &stream].concat();
    initial_with(token, &InitialKeys::client(Version::V1, &id(server)), client, server, 3, frame)
}

/// A long header packet whose inside nobody can read: a server's, or later ones of a client.
pub(super) fn long(typ: u8, destination: &[u8], source: &[u8]) -> Vec<u8> {
    let (token, body): (&[u8], &[u8]) = if typ == 0 { (&[0], &[0x40, 100]) } else { (&[], &[0x40, 100]) };
    [&[0xc0 | typ << 4, 0, 0, 0, 1][..], &vec8(destination), &vec8(source), token, body, &[9; 100]].concat()
}

pub(super) const HANDSHAKE: u8 = 2;
pub(super) const RETRY: u8 = 3;
pub(super) const SERVER_INITIAL: u8 = 0;
pub(super) const ZERO_RTT: u8 = 1;

/// A short header packet.
pub(super) fn short(destination: &[u8]) -> Vec<u8> {
    [&[0x41], destination, &[8; 40]].concat()
}

/// A WireGuard message of `len` bytes; `a` and `b` are the first two indices.
pub(super) fn wireguard(typ: u8, a: u32, b: u32, len: usize) -> Vec<u8> {
    let mut message = [&[typ, 0, 0, 0][..], &a.to_le_bytes(), &b.to_le_bytes()].concat();
    message.resize(len, 0);
    message
}

/// A short header packet whose fixed bit is clear, as half of them are where both ends have agreed to it (RFC 9287).
pub(super) fn greased(destination: &[u8]) -> Vec<u8> {
    let mut packet = short(destination);
    packet[0] &= !0x40;
    packet
}
