//! Builds packets, by code that shares nothing with what it tests: checksums are summed up anew each time.

use std::net::{IpAddr, SocketAddr};

/// Ethernet addresses of the packets before and after.
pub(crate) const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
pub(crate) const ROUTER: [u8; 6] = [2, 0, 0, 0, 0, 2];

/// A UDP datagram on an Ethernet.
#[derive(Debug, Clone)]
pub(crate) struct Udp {
    /// Receiver and sender on the link.
    pub(crate) link: ([u8; 6], [u8; 6]),
    /// VLAN tags, outermost first: EtherType, and priority with number.
    pub(crate) vlan: Vec<(u16, u16)>,
    pub(crate) source: SocketAddr,
    pub(crate) destination: SocketAddr,
    /// DSCP and ECN.
    pub(crate) traffic_class: u8,
    pub(crate) ttl: u8,
    pub(crate) payload: Vec<u8>,
    /// Whether there is a UDP checksum.
    pub(crate) checksum: bool,
}

impl Udp {
    /// A plain one. Addresses are of one family.
    pub(crate) fn new(source: SocketAddr, destination: SocketAddr, payload: &[u8]) -> Self {
        Self {
            link: (STATION, ROUTER),
            vlan: Vec::new(),
            source,
            destination,
            traffic_class: 0xb9,
            ttl: 64,
            payload: payload.to_vec(),
            checksum: true,
        }
    }

    /// The frame.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let mut frame = [self.link.0, self.link.1].concat();
        for (ethertype, tag) in &self.vlan {
            frame.extend([ethertype.to_be_bytes(), tag.to_be_bytes()].concat());
        }
        let datagram = self.datagram();
        let len = u16::try_from(datagram.len()).unwrap();
        match (self.source.ip(), self.destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => {
                frame.extend([0x08, 0x00]);
                let mut header = vec![0x45, self.traffic_class];
                header.extend((20 + len).to_be_bytes());
                header.extend([0x12, 0x34, 0x40, 0, self.ttl, 17, 0, 0]);
                header.extend(source.octets());
                header.extend(destination.octets());
                let checksum = !sum(&header);
                header[10..12].copy_from_slice(&checksum.to_be_bytes());
                frame.extend(header);
            }
            (IpAddr::V6(source), IpAddr::V6(destination)) => {
                frame.extend([0x86, 0xdd]);
                frame.extend([0x60 | self.traffic_class >> 4, self.traffic_class << 4, 0xab, 0xcd]);
                frame.extend(len.to_be_bytes());
                frame.extend([17, self.ttl]);
                frame.extend(source.octets());
                frame.extend(destination.octets());
            }
            mixed => panic!("addresses of two families: {mixed:?}"),
        }
        frame.extend(datagram);
        frame
    }

    /// The frame with some bytes replaced, at offsets from the IP header.
    pub(crate) fn with(&self, changes: &[(usize, &[u8])]) -> Vec<u8> {
        let mut frame = self.bytes();
        for (at, new) in changes {
            frame[self.l3() + at..][..new.len()].copy_from_slice(new);
        }
        frame
    }

    /// Where the IP header begins.
    pub(crate) fn l3(&self) -> usize {
        14 + 4 * self.vlan.len()
    }

    /// Where the UDP header begins, from the IP header on.
    pub(crate) fn header_len(&self) -> usize {
        if self.source.is_ipv4() { 20 } else { 40 }
    }

    /// The same, with a first word of the payload that makes the sum 0, which is sent as its complement.
    pub(crate) fn summing_up_to_nothing(&self) -> Self {
        let mut udp = Self { payload: [&[0, 0], &self.payload[2..]].concat(), ..self.clone() };
        let datagram = udp.datagram();
        udp.payload[..2].copy_from_slice(&datagram[6..8]);
        assert_eq!(udp.datagram()[6..8], [0xff, 0xff]);
        udp
    }

    fn datagram(&self) -> Vec<u8> {
        let len = u16::try_from(8 + self.payload.len()).unwrap();
        let mut datagram = [self.source.port(), self.destination.port(), len, 0].map(u16::to_be_bytes).concat();
        datagram.extend(&self.payload);
        if self.checksum {
            let mut summed = [octets(self.source.ip()), octets(self.destination.ip())].concat();
            summed.extend([0, 17]);
            summed.extend(len.to_be_bytes());
            summed.extend(&datagram);
            let checksum = match !sum(&summed) {
                0 => 0xffff,
                checksum => checksum,
            };
            datagram[6..8].copy_from_slice(&checksum.to_be_bytes());
        }
        datagram
    }
}

/// The bytes of an address.
pub(crate) fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}

/// The sum of RFC 1071.
fn sum(bytes: &[u8]) -> u16 {
    let words = bytes.chunks(2).map(|pair| u32::from(pair[0]) << 8 | pair.get(1).map_or(0, |byte| u32::from(*byte)));
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    u16::try_from(sum).unwrap()
}
