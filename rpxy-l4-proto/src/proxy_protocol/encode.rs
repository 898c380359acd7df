//! Writes headers. Two addresses of different families are both written as IPv6, the IPv4 one in its mapped form
//! (RFC 4291 section 2.5.5.2), because the format has room for one family only.

use std::{
    fmt,
    io::Write as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use super::{Addresses, Tlvs, tlv, v2};

/// Appends a version 1 header for a TCP connection from `source` to `destination`. Flow labels and zones are not told.
pub fn encode_v1(source: SocketAddr, destination: SocketAddr, out: &mut Vec<u8>) {
    let ports = (source.port(), destination.port());
    let (family, source, destination) = match Pair::of(source, destination) {
        Pair::V4(source, destination) => ("TCP4", V1Address(source.into()), V1Address(destination.into())),
        Pair::V6(source, destination) => ("TCP6", V1Address(source.into()), V1Address(destination.into())),
    };
    // Writing to a vector cannot fail.
    let _written = write!(out, "PROXY {family} {source} {destination} {} {}\r\n", ports.0, ports.1);
}

/// Appends a version 1 header for a connection whose addresses cannot be told.
pub fn encode_v1_unknown(out: &mut Vec<u8>) {
    out.extend_from_slice(b"PROXY UNKNOWN\r\n");
}

/// Appends a version 2 header. `tlvs` are left out with [`Addresses::Local`], where receivers discard them.
pub fn encode_v2(addresses: &Addresses, tlvs: &Tlvs, out: &mut Vec<u8>) {
    let start = out.len();
    let mut block = Vec::with_capacity(36);
    let (command, family) = match *addresses {
        Addresses::Local => (v2::V2_LOCAL, v2::AF_UNSPEC << 4),
        Addresses::Unknown => (v2::V2_PROXY, v2::AF_UNSPEC << 4),
        Addresses::Stream { source, destination } => {
            (v2::V2_PROXY, address_block(source, destination, &mut block) << 4 | v2::STREAM)
        }
        Addresses::Datagram { source, destination } => {
            (v2::V2_PROXY, address_block(source, destination, &mut block) << 4 | v2::DGRAM)
        }
    };
    let tlvs = if matches!(addresses, Addresses::Local) { &Tlvs::default() } else { tlvs };
    // At most 36 and MAX_TLVS bytes.
    let length = u16::try_from(block.len().saturating_add(tlvs.encoded_len())).unwrap_or(u16::MAX);

    out.extend_from_slice(&v2::SIGNATURE);
    out.extend_from_slice(&[command, family]);
    out.extend_from_slice(&length.to_be_bytes());
    out.extend_from_slice(&block);
    if let Some(at) = tlvs.encode(out) {
        let header = out.get(start..).unwrap_or_default();
        let checksum = tlv::checksum(header, at.saturating_sub(start)).to_be_bytes();
        if let Some(field) = out.get_mut(at..at.saturating_add(checksum.len())) {
            field.copy_from_slice(&checksum);
        }
    }
}

/// Two addresses of one family.
enum Pair {
    V4(Ipv4Addr, Ipv4Addr),
    V6(Ipv6Addr, Ipv6Addr),
}

impl Pair {
    fn of(source: SocketAddr, destination: SocketAddr) -> Self {
        match (source.ip(), destination.ip()) {
            (IpAddr::V4(source), IpAddr::V4(destination)) => Self::V4(source, destination),
            (source, destination) => Self::V6(as_ipv6(source), as_ipv6(destination)),
        }
    }
}

fn as_ipv6(ip: IpAddr) -> Ipv6Addr {
    match ip {
        IpAddr::V4(ip) => ip.to_ipv6_mapped(),
        IpAddr::V6(ip) => ip,
    }
}

/// Appends addresses and ports as version 2 has them, and returns the address family.
fn address_block(source: SocketAddr, destination: SocketAddr, block: &mut Vec<u8>) -> u8 {
    let family = match Pair::of(source, destination) {
        Pair::V4(source, destination) => {
            block.extend_from_slice(&source.octets());
            block.extend_from_slice(&destination.octets());
            v2::AF_INET
        }
        Pair::V6(source, destination) => {
            block.extend_from_slice(&source.octets());
            block.extend_from_slice(&destination.octets());
            v2::AF_INET6
        }
    };
    block.extend_from_slice(&source.port().to_be_bytes());
    block.extend_from_slice(&destination.port().to_be_bytes());
    family
}

/// An address as version 1 has it: for IPv6 groups of hexadecimal digits only, so mapped ones lose their dotted quad.
struct V1Address(IpAddr);

impl fmt::Display for V1Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0 {
            IpAddr::V6(ip) => match ip.segments() {
                [0, 0, 0, 0, 0, 0xffff, high, low] => write!(f, "::ffff:{high:x}:{low:x}"),
                _ => write!(f, "{ip}"),
            },
            IpAddr::V4(ip) => write!(f, "{ip}"),
        }
    }
}
