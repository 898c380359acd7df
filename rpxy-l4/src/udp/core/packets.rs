//! Datagrams as clients and servers send them.
#![allow(clippy::unwrap_used, reason = "for tests and fuzzing only")]

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

/// A client that sends Initial packets of version 1.
#[derive(Clone)]
pub(super) struct Sender<'a> {
    /// Its own connection ID.
    pub(super) client: &'a [u8],
    /// Where its packets go.
    pub(super) to: &'a [u8],
    /// The connection ID that the keys come from.
    pub(super) keys_of: &'a [u8],
    pub(super) token: &'a [u8],
    /// Of the next packet.
    pub(super) number: u64,
}

impl<'a> Sender<'a> {
    /// With its first packets.
    pub(super) fn new(client: &'a [u8], server: &'a [u8]) -> Self {
        Self { client, to: server, keys_of: server, token: &[], number: 0 }
    }

    /// A datagram with CRYPTO frames of these parts of `stream`.
    pub(super) fn crypto(&mut self, stream: &[u8], parts: &[(usize, usize)]) -> Vec<u8> {
        let frame = |&(start, end): &(usize, usize)| {
            let offset = u32::try_from(start).unwrap() | 0x8000_0000;
            let len = u16::try_from(end - start).unwrap() | 0x4000;
            [&[6][..], &offset.to_be_bytes(), &len.to_be_bytes(), &stream[start..end]].concat()
        };
        self.initial(parts.iter().flat_map(frame).collect())
    }

    /// A datagram with this payload, padded.
    pub(super) fn initial(&mut self, mut payload: Vec<u8>) -> Vec<u8> {
        payload.resize(payload.len().max(1180), 0);
        self.unpadded(payload)
    }

    /// The same without padding.
    pub(super) fn unpadded(&mut self, payload: Vec<u8>) -> Vec<u8> {
        let length = u16::try_from(4 + payload.len() + 16).unwrap() | 0x4000;
        let ids = [vec8(self.to), vec8(self.client), vec8(self.token)].concat();
        let mut packet = [&[0xc3, 0, 0, 0, 1][..], &ids, &length.to_be_bytes()].concat();
        let opened = Opened { packet_number: self.number, packet_number_len: 4, first: 0xc3, payload };
        self.number += 1;
        packet.resize(packet.len() + 4 + opened.payload.len() + 16, 0);
        InitialKeys::client(Version::V1, &id(self.keys_of)).seal(&mut packet, &opened).unwrap();
        packet
    }
}

/// A client's Initial packets of version 1: `stream` cut into datagrams of at most `piece` bytes of it.
pub(super) fn initials(client: &[u8], server: &[u8], stream: &[u8], piece: usize) -> Vec<Vec<u8>> {
    let mut sender = Sender::new(client, server);
    let starts = (0..stream.len()).step_by(piece);
    starts.map(|start| sender.crypto(stream, &[(start, (start + piece).min(stream.len()))])).collect()
}

/// One datagram with a whole hello.
pub(super) fn first(client: &[u8], server: &[u8], name: &str) -> Vec<u8> {
    initials(client, server, &hello(name, "h3", 300), 2000).remove(0)
}

/// A long header packet whose inside nobody can read: a server's, or later ones of a client.
pub(super) fn long(typ: u8, destination: &[u8], source: &[u8]) -> Vec<u8> {
    let (token, body): (&[u8], &[u8]) = if typ == 0 { (&[0], &[0x40, 100]) } else { (&[], &[0x40, 100]) };
    [&[0xc0 | typ << 4, 0, 0, 0, 1][..], &vec8(destination), &vec8(source), token, body, &[9; 100]].concat()
}

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
