//! Segments that are read, translated and followed, against segments built byte by byte.

mod decide;
mod follow;
mod options;
mod segment;
mod shape;
mod too_big;
mod translate;

use std::{vec, vec::Vec};

use super::flow::TcpFlow;
use super::segment::{Segment, flag, parse};
use crate::map::{FlowKey, Socket};
use crate::packet::Link;
use crate::testing::{STATION, internet_checksum, socket};

/// A TCP segment in an Ethernet frame.
#[derive(Debug, Clone)]
struct Frame {
    source: Socket,
    destination: Socket,
    ttl: u8,
    sequence: u32,
    acknowledgement: u32,
    flags: u8,
    window: u16,
    urgent: u16,
    /// A multiple of four bytes.
    options: Vec<u8>,
    payload: Vec<u8>,
}

impl Frame {
    fn new(source: &str, destination: &str) -> Self {
        Self {
            source: socket(source),
            destination: socket(destination),
            ttl: 64,
            sequence: 1_000,
            acknowledgement: 2_000,
            flags: flag::ACK,
            window: 500,
            urgent: 0,
            options: vec![],
            payload: vec![],
        }
    }

    fn v4() -> Self {
        Self::new("192.0.2.1:40000", "198.51.100.7:443")
    }

    fn v6() -> Self {
        Self::new("[2001:db8::1]:40000", "[2001:db8:1::7]:443")
    }

    /// Length of the IP header.
    fn ip_header_len(&self) -> usize {
        if self.source.family() == 4 { 20 } else { 40 }
    }

    /// Offset of the TCP header.
    fn l4(&self) -> usize {
        14 + self.ip_header_len()
    }

    fn addresses(&self) -> Vec<u8> {
        let len = if self.source.family() == 4 { 4 } else { 16 };
        [&self.source.address[..len], &self.destination.address[..len]].concat()
    }

    /// The sum of the pseudo-header: what the kernel leaves in the checksum of packets that it has not finished.
    fn pseudo_sum(&self) -> u16 {
        !internet_checksum(&self.pseudo())
    }

    fn tcp_len(&self) -> u16 {
        u16::try_from(20 + self.options.len() + self.payload.len()).unwrap()
    }

    fn pseudo(&self) -> Vec<u8> {
        let [high, low] = self.tcp_len().to_be_bytes();
        [&self.addresses()[..], &[0, 6, high, low]].concat()
    }

    fn bytes(&self) -> Vec<u8> {
        let mut tcp = [self.source.port(), self.destination.port()].concat();
        tcp.extend(self.sequence.to_be_bytes());
        tcp.extend(self.acknowledgement.to_be_bytes());
        let words = u8::try_from(5 + self.options.len() / 4).unwrap();
        tcp.extend([words << 4, self.flags]);
        tcp.extend(self.window.to_be_bytes());
        tcp.extend([0, 0]);
        tcp.extend(self.urgent.to_be_bytes());
        tcp.extend(&self.options);
        tcp.extend(&self.payload);
        let sum = internet_checksum(&[&self.pseudo()[..], &tcp].concat());
        tcp[16..18].copy_from_slice(&sum.to_be_bytes());

        let mut frame = [STATION, [2, 0, 0, 0, 0, 2]].concat();
        if self.source.family() == 4 {
            frame.extend([0x08, 0x00]);
            let mut header = vec![0x45, 0xb9];
            header.extend((20 + self.tcp_len()).to_be_bytes());
            header.extend([0x12, 0x34, 0x40, 0, self.ttl, 6, 0, 0]);
            header.extend(self.addresses());
            let sum = internet_checksum(&header);
            header[10..12].copy_from_slice(&sum.to_be_bytes());
            frame.extend(header);
        } else {
            frame.extend([0x86, 0xdd, 0x6b, 0x90, 0xab, 0xcd]);
            frame.extend(self.tcp_len().to_be_bytes());
            frame.extend([6, self.ttl]);
            frame.extend(self.addresses());
        }
        frame.extend(tcp);
        frame
    }
}

/// Reads a frame that is good, and hands the segment on.
fn with_segment<T>(bytes: &[u8], look: impl FnOnce(&Segment<'_>) -> T) -> T {
    let key = &mut FlowKey::default();
    look(&parse(&bytes, Link::Ethernet, key).unwrap())
}

/// A direction that changes every field, into the addresses of the same family.
fn flow_for(frame: &Frame) -> TcpFlow {
    let (source, destination) = match frame.source.family() {
        4 => ("203.0.113.9:50001", "10.0.0.5:8443"),
        _ => ("[2001:db8:9::9]:50001", "[fd00::5]:8443"),
    };
    TcpFlow {
        source: socket(source),
        destination: socket(destination),
        window_shift: 2,
        sequence: 0x8765_4321,
        acknowledgement: 0xfedc_ba98,
        timestamp: 0x1234_5678,
        echo: 0x9abc_def0,
        ..TcpFlow::default()
    }
    .stored(&FlowKey { source: frame.source, destination: frame.destination })
}

/// The options NOP NOP timestamps, as Linux writes them.
fn timestamps(value: u32, echo: u32) -> Vec<u8> {
    [&[1, 1, 8, 10][..], &value.to_be_bytes(), &echo.to_be_bytes()].concat()
}

/// The options NOP NOP SACK.
fn sack(edges: &[u32]) -> Vec<u8> {
    let len = u8::try_from(2 + 4 * edges.len()).unwrap();
    [&[1, 1, 5, len][..], &edges.iter().flat_map(|edge| edge.to_be_bytes()).collect::<Vec<_>>()].concat()
}
