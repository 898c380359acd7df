//! Initial packets and datagrams of them, with every field replaceable.

use crate::quic::{ConnectionId, InitialKeys, MIN_INITIAL_DATAGRAM, Opened, Version};

/// Four client datagrams of Chromium 156, each one Initial packet of version 1 (packet numbers 1, 2, 4, 6). The first
/// two carry a hello of 1879 bytes, the others repeat parts of it with other borders.
pub(crate) const CHROMIUM: [&[u8]; 4] = [
    include_bytes!("../quic/testdata/chromium_d0.bin"),
    include_bytes!("../quic/testdata/chromium_d1.bin"),
    include_bytes!("../quic/testdata/chromium_d2.bin"),
    include_bytes!("../quic/testdata/chromium_d3.bin"),
];

/// A variable-length integer in its shortest form.
pub(crate) fn varint(value: u64) -> Vec<u8> {
    let bytes = value.to_be_bytes();
    match value {
        0..0x40 => bytes[7..].to_vec(),
        0x40..0x4000 => [&[bytes[6] | 0x40], &bytes[7..]].concat(),
        0x4000..0x4000_0000 => [&[bytes[4] | 0x80], &bytes[5..]].concat(),
        _ => [&[bytes[0] | 0xc0], &bytes[1..]].concat(),
    }
}

/// A CRYPTO frame.
pub(crate) fn crypto(offset: usize, data: &[u8]) -> Vec<u8> {
    let varint = |value: usize| varint(u64::try_from(value).unwrap());
    [vec![6], varint(offset), varint(data.len()), data.to_vec()].concat()
}

/// CRYPTO frames with these ranges of a stream.
pub(crate) fn crypto_of(stream: &[u8], ranges: &[(usize, usize)]) -> Vec<u8> {
    ranges.iter().flat_map(|&(start, end)| crypto(start, &stream[start..end])).collect()
}

/// An Initial packet of a client.
#[derive(Clone)]
pub(crate) struct Initial {
    pub(crate) version: Version,
    pub(crate) dcid: ConnectionId,
    /// The connection ID that the keys come from.
    pub(crate) key_dcid: ConnectionId,
    pub(crate) scid: ConnectionId,
    pub(crate) token: Vec<u8>,
    pub(crate) packet_number: u64,
    pub(crate) packet_number_len: u8,
    /// Bits of the first byte to invert before it is protected.
    pub(crate) flip: u8,
}

impl Default for Initial {
    fn default() -> Self {
        let dcid = ConnectionId::new(&[0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08]).unwrap();
        Self {
            version: Version::V1,
            dcid,
            key_dcid: dcid,
            scid: ConnectionId::default(),
            token: Vec::new(),
            packet_number: 0,
            packet_number_len: 4,
            flip: 0,
        }
    }
}

impl Initial {
    pub(crate) fn number(packet_number: u64) -> Self {
        Self { packet_number, ..Self::default() }
    }

    /// The header up to the packet number.
    fn header(&self, payload: usize) -> Vec<u8> {
        let typ = match self.version {
            Version::V1 => 0,
            Version::V2 => 0x10,
        };
        let vec8 = |id: &ConnectionId| super::vec8(id.as_bytes());
        let token = [varint(u64::try_from(self.token.len()).unwrap()), self.token.clone()].concat();
        let length = u16::try_from(usize::from(self.packet_number_len) + payload + 16).unwrap() | 0x4000;
        let first = [(0xc0 | typ | (self.packet_number_len - 1)) ^ self.flip];
        let version = self.version.wire().to_be_bytes();
        [&first[..], &version, &vec8(&self.dcid), &vec8(&self.scid), &token, &length.to_be_bytes()].concat()
    }

    /// The packet, protected.
    pub(crate) fn packet(&self, payload: &[u8]) -> Vec<u8> {
        self.packet_under(&InitialKeys::client(self.version, &self.key_dcid), payload)
    }

    pub(crate) fn packet_under(&self, keys: &InitialKeys, payload: &[u8]) -> Vec<u8> {
        let mut packet = self.header(payload.len());
        let opened = Opened {
            packet_number: self.packet_number,
            packet_number_len: usize::from(self.packet_number_len),
            first: packet[0],
            payload: payload.to_vec(),
        };
        packet.resize(packet.len() + opened.packet_number_len + payload.len() + 16, 0);
        keys.seal(&mut packet, &opened).unwrap();
        packet
    }

    /// A datagram with this packet, which PADDING makes as long as it has to be.
    pub(crate) fn datagram(&self, payload: &[u8]) -> Vec<u8> {
        let around = self.header(0).len() + usize::from(self.packet_number_len) + 16;
        let mut payload = payload.to_vec();
        payload.resize(payload.len().max(MIN_INITIAL_DATAGRAM.saturating_sub(around)), 0);
        self.packet(&payload)
    }
}
