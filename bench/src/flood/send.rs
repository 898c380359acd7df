//! The sender of a flood: a raw socket and made-up sources.

use std::{
    net::{Ipv4Addr, SocketAddrV4},
    time::{Duration, Instant},
};

use anyhow::Context as _;
use rpxy_l4_tests::wait::pause;
use socket2::{Domain, Protocol, Socket, Type};

use super::{Kind, Rate};

/// Number of sources.
pub const SOURCES: u32 = 50_000;
/// The network of the sources, of which the first [`SOURCES`] addresses are used (RFC 2544).
pub const NETWORK: (Ipv4Addr, u8) = (Ipv4Addr::new(198, 18, 0, 0), 15);

/// Sources that send one after the other before the first of them sends again.
const BLOCK: u32 = 500;
/// Bursts of a steady rate in a second, at most.
const BURSTS: u32 = 1000;
/// Bytes of the headers.
const IP: usize = 20;
const UDP: usize = 8;

/// Sends to `target` from the host of the calling thread for `window`, or each source once when there is none. Returns the
/// number of datagrams, and the time that they took.
///
/// # Errors
///
/// When the kernel refuses the socket or a datagram.
pub fn run(kind: Kind, target: SocketAddrV4, rate: Rate, window: Option<Duration>) -> anyhow::Result<(u64, Duration)> {
    // Headers included (IP_HDRINCL), so that the source is ours to choose.
    let socket = Socket::new(Domain::IPV4, Type::RAW, Some(Protocol::from(255))).context("raw socket")?;
    let mut packets = packets(kind, target);
    let each = kind.each() * SOURCES;
    let (begin, mut sent) = (Instant::now(), 0_u64);
    // Datagrams of a burst, and the time until the next.
    let (burst, period) = match rate {
        Rate::Steady(rate) => {
            let burst = rate.div_ceil(BURSTS);
            (burst, Duration::from_secs(1) * burst / rate)
        }
        Rate::None | Rate::Most => (BLOCK, Duration::ZERO),
    };
    let mut due = begin;
    while window.map_or(sent < u64::from(each), |window| begin.elapsed() < window) {
        for _ in 0..burst {
            socket.send_to(packets.next(), &target.into()).context("send")?;
            sent += 1;
        }
        due += period;
        pause(due.saturating_duration_since(Instant::now()));
    }
    Ok((sent, begin.elapsed()))
}

impl Kind {
    /// Datagrams of each source in a round.
    fn each(self) -> u32 {
        match self {
            Self::Strays => 2,
            Self::Junk => 1,
        }
    }

    fn payload(self) -> Vec<u8> {
        match self {
            // Behind the first byte, the ID.
            Self::Strays => [&[0x41; 1][..], &[0; 8], &[0xa5; 50]].concat(),
            Self::Junk => vec![0x15; 100],
        }
    }
}

/// Packets without end, each built in place of the one before.
struct Packets {
    kind: Kind,
    packet: Vec<u8>,
    number: u32,
}

fn packets(kind: Kind, target: SocketAddrV4) -> Packets {
    let payload = kind.payload();
    // Lengths are far below 2^16; the kernel fills in length, identification and checksum of the IP header (raw(7)).
    let length = u16::try_from(UDP + payload.len()).unwrap_or(u16::MAX);
    let mut packet = vec![0x45, 0, 0, 0, 0, 0, 0, 0, 64, 17, 0, 0, 0, 0, 0, 0];
    packet.extend(target.ip().octets());
    packet.extend([0, 0]);
    packet.extend(target.port().to_be_bytes());
    packet.extend(length.to_be_bytes());
    packet.extend([0, 0]);
    packet.extend(payload);
    Packets { kind, packet, number: 0 }
}

impl Packets {
    fn next(&mut self) -> &[u8] {
        let each = self.kind.each();
        // A block of sources, then the same once more where each sends twice.
        let (block, place) = (self.number / (BLOCK * each), self.number % BLOCK);
        let source = (block * BLOCK + place) % SOURCES;
        self.number = self.number.wrapping_add(1);
        let address = u32::from(NETWORK.0) + source;
        self.put(12, &address.to_be_bytes());
        let port = 1024 + u16::try_from(source % 60_000).unwrap_or(0);
        self.put(IP, &port.to_be_bytes());
        if self.kind == Kind::Strays {
            // The finaliser of splitmix64: the same ID for the same source.
            let mut word = u64::from(source + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
            word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
            self.put(IP + UDP + 1, &word.to_be_bytes());
        }
        self.put(IP + 6, &[0, 0]);
        let sum = checksum(&self.packet);
        self.put(IP + 6, &sum.to_be_bytes());
        &self.packet
    }

    fn put(&mut self, position: usize, bytes: &[u8]) {
        for (place, byte) in self.packet.iter_mut().skip(position).zip(bytes) {
            *place = *byte;
        }
    }
}

/// The UDP checksum (RFC 768) of a packet in whose place there is zero.
fn checksum(packet: &[u8]) -> u16 {
    let (header, datagram) = packet.split_at_checked(IP).unwrap_or_default();
    let addresses = header.get(12..).unwrap_or_default();
    let word = |pair: &[u8]| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    };
    let sum: u32 = addresses.chunks(2).chain(datagram.chunks(2)).map(word).sum();
    let mut sum = sum + 17 + u32::try_from(datagram.len()).unwrap_or(0);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    // Zero stands for no checksum.
    match !u16::try_from(sum).unwrap_or(0) {
        0 => 0xffff,
        sum => sum,
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn each_source_sends_as_often_as_its_kind_says_with_a_sum_of_its_own() {
        for kind in [Kind::Strays, Kind::Junk] {
            let mut packets = packets(kind, "192.0.2.1:443".parse().unwrap());
            let mut sources: BTreeMap<Vec<u8>, Vec<u8>> = BTreeMap::new();
            for _ in 0..kind.each() * SOURCES {
                let mut packet = packets.next().to_vec();
                let sum = u16::from_be_bytes([packet[IP + 6], packet[IP + 7]]);
                packet[IP + 6..IP + 8].fill(0);
                assert_eq!(checksum(&packet), sum);
                let before = sources.insert(packet[12..16].to_vec(), packet.clone());
                assert!(before.is_none_or(|before| before == packet), "a source sends the same again");
            }
            assert_eq!(sources.len(), SOURCES as usize, "{kind:?}");
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_768() {
        // An empty datagram from 192.0.2.10 port 1 to 192.0.2.1 port 2.
        let packet = [vec![0; 12], vec![192, 0, 2, 10, 192, 0, 2, 1], vec![0, 1, 0, 2, 0, 8, 0, 0]].concat();
        // c000 + 020a + c000 + 0201 + 11 + 8 + 1 + 2 + 8 = 1 842f, folded 8430
        assert_eq!(checksum(&packet), !0x8430);
    }
}
