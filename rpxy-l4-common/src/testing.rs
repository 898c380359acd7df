//! Builds packets for the tests, byte by byte from the RFCs and without the code under test.

use std::{net::SocketAddr, vec, vec::Vec};

use crate::map::{Family, Flow, FlowKey, Socket};

/// A socket address as the maps have it.
pub(crate) fn socket(address: &str) -> Socket {
    let address: SocketAddr = address.parse().unwrap();
    let (octets, family) = match address {
        SocketAddr::V4(v4) => {
            let mut octets = [0; 16];
            octets[..4].copy_from_slice(&v4.ip().octets());
            (octets, Family::V4)
        }
        SocketAddr::V6(v6) => (v6.ip().octets(), Family::V6),
    };
    Socket::new(octets, address.port().to_be_bytes(), family)
}

/// A flow from one pair of addresses to another.
pub(crate) fn flow(source: &str, destination: &str) -> Flow {
    Flow { source: socket(source), destination: socket(destination), ..Flow::default() }
}

/// The station that frames are sent to.
pub(crate) const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];

/// A UDP datagram in an Ethernet frame.
#[derive(Debug, Clone)]
pub(crate) struct Frame {
    pub(crate) vlan: Vec<u16>,
    pub(crate) source: Socket,
    pub(crate) destination: Socket,
    pub(crate) ttl: u8,
    pub(crate) traffic_class: u8,
    pub(crate) checksum: bool,
    pub(crate) payload: Vec<u8>,
}

impl Frame {
    pub(crate) fn new(source: &str, destination: &str, payload: &[u8]) -> Self {
        let (source, destination) = (socket(source), socket(destination));
        Self {
            vlan: vec![],
            source,
            destination,
            ttl: 64,
            traffic_class: 0xb9,
            checksum: true,
            payload: payload.into(),
        }
    }

    pub(crate) fn v4(payload: &[u8]) -> Self {
        Self::new("192.0.2.1:40000", "198.51.100.7:443", payload)
    }

    pub(crate) fn v6(payload: &[u8]) -> Self {
        Self::new("[2001:db8::1]:40000", "[2001:db8:1::7]:443", payload)
    }

    pub(crate) fn key(&self) -> FlowKey {
        FlowKey { source: self.source, destination: self.destination }
    }

    /// Offset of the IP header.
    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.vlan.len()
    }

    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = [STATION, [2, 0, 0, 0, 0, 2]].concat();
        for ethertype in &self.vlan {
            frame.extend(ethertype.to_be_bytes());
            frame.extend([0x20, 7]);
        }
        frame.extend(if self.source.family() == 4 { [0x08, 0x00] } else { [0x86, 0xdd] });
        frame.extend(self.ip());
        frame
    }

    /// The IP packet alone.
    pub(crate) fn ip(&self) -> Vec<u8> {
        let len = u16::try_from(8 + self.payload.len()).unwrap();
        let mut udp = [self.source.port(), self.destination.port(), len.to_be_bytes(), [0, 0]].concat();
        udp.extend(&self.payload);
        let (header, pseudo) = if self.source.family() == 4 { self.ipv4(len) } else { self.ipv6(len) };
        if self.checksum {
            let sum = match internet_checksum(&[&pseudo[..], &udp].concat()) {
                0 => 0xffff,
                sum => sum,
            };
            udp[6..8].copy_from_slice(&sum.to_be_bytes());
        }
        [header, udp].concat()
    }

    fn ipv4(&self, udp_len: u16) -> (Vec<u8>, Vec<u8>) {
        let addresses = [&self.source.address[..4], &self.destination.address[..4]].concat();
        let mut header = vec![0x45, self.traffic_class];
        header.extend((20 + udp_len).to_be_bytes());
        header.extend([0x12, 0x34, 0x40, 0, self.ttl, 17, 0, 0]);
        header.extend(&addresses);
        let sum = internet_checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        let [high, low] = udp_len.to_be_bytes();
        (header, [&addresses[..], &[0, 17, high, low]].concat())
    }

    fn ipv6(&self, udp_len: u16) -> (Vec<u8>, Vec<u8>) {
        let addresses = [self.source.address, self.destination.address].concat();
        let [high, low] = udp_len.to_be_bytes();
        let mut header = vec![0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0xab, 0xcd];
        header.extend([high, low, 17, self.ttl]);
        header.extend(&addresses);
        (header, [&addresses[..], &[0, 0, high, low, 0, 0, 0, 17]].concat())
    }
}

/// The checksum of RFC 1071, the slow way.
pub(crate) fn internet_checksum(bytes: &[u8]) -> u16 {
    let mut sum: u32 =
        bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | u32::from(*pair.get(1).unwrap_or(&0))).sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap()
}
