//! QUIC Initial packets as raw bytes (RFC 9000 section 17.2.2, RFC 9001 section 5), for what no real client would
//! send: hellos that never end, reordered pieces, versions that nobody knows.

use rustls::{
    crypto::ring::cipher_suite::TLS13_AES_128_GCM_SHA256,
    quic::{Keys, Version},
};

use crate::{OrFail as _, hello::Hello};

/// Size of the datagrams: the least that a client may send (RFC 9000 section 14.1).
pub const DATAGRAM: usize = 1200;

/// A client that has chosen its connection IDs and can make Initial packets.
#[derive(Debug, Clone)]
pub struct Initial {
    version: Version,
    dcid: Vec<u8>,
    scid: Vec<u8>,
}

impl Initial {
    /// QUIC version 1. The destination connection ID must have at least 8 bytes, and neither more than 20.
    pub fn v1(dcid: &[u8], scid: &[u8]) -> Self {
        Self { version: Version::V1, dcid: dcid.to_vec(), scid: scid.to_vec() }
    }

    /// QUIC version 2 (RFC 9369).
    pub fn v2(dcid: &[u8], scid: &[u8]) -> Self {
        Self { version: Version::V2, ..Self::v1(dcid, scid) }
    }

    /// The whole of `hello` in as few datagrams as it takes.
    pub fn datagrams(&self, hello: &Hello) -> Vec<Vec<u8>> {
        const PIECE: usize = 1000;
        let message = hello.message();
        let pieces = message.chunks(PIECE).zip((0..).step_by(PIECE)).zip(0..);
        pieces.map(|((piece, offset), number)| self.datagram(number, &[(offset, piece)])).collect()
    }

    /// One datagram with one packet of number `number`, whose CRYPTO frames have these offsets and data.
    ///
    /// # Panics
    ///
    /// When the frames do not fit.
    pub fn datagram(&self, number: u32, crypto: &[(usize, &[u8])]) -> Vec<u8> {
        const NUMBER: usize = 4;
        const TAG: usize = 16;
        // RFC 9369 section 3: version 2 also numbers the packet types anew.
        let (version, kind): (u32, u8) =
            if matches!(self.version, Version::V2) { (0x6b33_43cf, 0b01) } else { (1, 0b00) };
        let mut header = vec![0b1100_0000 | kind << 4 | 0b11];
        header.extend(version.to_be_bytes());
        header.extend(with_length(&self.dcid));
        header.extend(with_length(&self.scid));
        header.push(0); // no token
        let start = header.len() + 2 + NUMBER;
        let payload_length = DATAGRAM - start - TAG;
        header.extend(two_bytes(NUMBER + payload_length + TAG));
        header.extend(number.to_be_bytes());

        let mut payload = Vec::new();
        for (offset, data) in crypto {
            payload.push(0x06);
            payload.extend(two_bytes(*offset));
            payload.extend(two_bytes(data.len()));
            payload.extend(*data);
        }
        assert!(payload.len() <= payload_length, "{} bytes of frames in {payload_length}", payload.len());
        payload.resize(payload_length, 0); // PADDING

        let suite = TLS13_AES_128_GCM_SHA256.tls13().or_fail("a suite of TLS 1.3");
        let quic = suite.quic.or_fail("QUIC in the provider");
        let keys = Keys::initial(self.version, suite, quic, &self.dcid, rustls::Side::Client).local;
        let tag = keys.packet.encrypt_in_place(u64::from(number), &header, &mut payload).or_fail("seal");
        let mut packet = [header.as_slice(), &payload, tag.as_ref()].concat();
        // RFC 9001 section 5.4.2: the sample is taken as if the packet number had four bytes.
        let sample = packet.get(start..start + keys.header.sample_len()).or_fail("sample").to_vec();
        let (first, rest) = packet.split_first_mut().or_fail("a first byte");
        let number = rest.get_mut(start - NUMBER - 1..start - 1).or_fail("packet number");
        keys.header.encrypt_in_place(&sample, first, number).or_fail("header protection");
        assert_eq!(packet.len(), DATAGRAM);
        packet
    }
}

/// A datagram with a long header of `version`, whose contents nobody can read.
pub fn unknown_version(version: u32, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    let ids = [with_length(dcid), with_length(scid)].concat();
    let mut datagram = [vec![0xc3], version.to_be_bytes().to_vec(), ids].concat();
    datagram.resize(DATAGRAM, 0x5a);
    datagram
}

/// A datagram as a server sends it in the handshake, with the connection ID `scid` of its choice (RFC 9000 section
/// 17.2.4). Its contents are nothing.
pub fn from_server(dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    long_header(0xe3, dcid, scid)
}

/// A datagram with one 0-RTT packet of version 1 (RFC 9000 section 17.2.3), which may overtake the hello that it
/// belongs to.
pub fn zero_rtt(dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    long_header(0xd3, dcid, scid)
}

/// A datagram with a short header, for a connection ID that nobody has chosen.
pub fn short_header(dcid: &[u8]) -> Vec<u8> {
    [vec![0x41], dcid.to_vec(), vec![0xa5; 60]].concat()
}

/// A packet of version 1 that has neither token nor readable contents.
fn long_header(first: u8, dcid: &[u8], scid: &[u8]) -> Vec<u8> {
    let ids = [with_length(dcid), with_length(scid)].concat();
    let mut datagram = [vec![first, 0, 0, 0, 1], ids].concat();
    datagram.extend(two_bytes(DATAGRAM - datagram.len() - 2));
    datagram.resize(DATAGRAM, 0x5a);
    datagram
}

fn with_length(id: &[u8]) -> Vec<u8> {
    let length = u8::try_from(id.len()).or_fail("length of a connection ID");
    [vec![length], id.to_vec()].concat()
}

/// A varint of two bytes (RFC 9000 section 16).
fn two_bytes(value: usize) -> [u8; 2] {
    assert!(value < 1 << 14, "{value} needs more than two bytes");
    let value = u16::try_from(value).or_fail("length");
    (0x4000 | value).to_be_bytes()
}

#[cfg(test)]
mod tests {
    use rustls::quic::Keys;

    use super::*;

    #[test]
    fn a_server_can_open_what_is_built() {
        for initial in [Initial::v1(&[1; 8], &[]), Initial::v2(&[2; 20], &[3; 5])] {
            let hello = Hello::to("one.test").padding(2000);
            let mut message: Vec<u8> = Vec::new();
            for (mut packet, number) in initial.datagrams(&hello).into_iter().zip(0..) {
                let suite = TLS13_AES_128_GCM_SHA256.tls13().unwrap();
                let keys =
                    Keys::initial(initial.version, suite, suite.quic.unwrap(), &initial.dcid, rustls::Side::Server);
                let start = 5 + 1 + initial.dcid.len() + 1 + initial.scid.len() + 1 + 2;
                let sample = packet[start + 4..start + 20].to_vec();
                let (first, rest) = packet.split_first_mut().unwrap();
                let field = &mut rest[start - 1..start + 3];
                keys.remote.header.decrypt_in_place(&sample, first, field).unwrap();
                assert_eq!(field, u32::to_be_bytes(number), "packet number");
                let (header, payload) = packet.split_at_mut(start + 4);
                let plain = keys.remote.packet.decrypt_in_place(u64::from(number), header, payload).unwrap();
                let length = usize::from(u16::from_be_bytes([plain[3] & 0x3f, plain[4]]));
                message.extend(&plain[5..5 + length]);
            }
            assert_eq!(message, hello.message());
        }
    }
}
