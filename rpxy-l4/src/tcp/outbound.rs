//! The PROXY header in front of what a backend receives.

use std::{io, net::SocketAddr};

use rpxy_l4_proto::proxy_protocol::{Addresses, Tlvs, encode_v1, encode_v2};
use tokio::net::TcpStream;

use super::Origin;
use crate::config::model::ProxyVersion;

/// The header for a connection from `origin`. TLVs that came in go on in v2; v1 has no place for them.
pub(super) fn header(version: ProxyVersion, origin: &Origin, client: &TcpStream, tlvs: &Tlvs) -> io::Result<Vec<u8>> {
    let destination: SocketAddr = match origin.destination {
        Some(told) => told,
        None => client.local_addr()?,
    };
    let mut header = Vec::with_capacity(108);
    match version {
        ProxyVersion::V1 => encode_v1(origin.source, destination, &mut header),
        ProxyVersion::V2 => encode_v2(&Addresses::Stream { source: origin.source, destination }, tlvs, &mut header),
    }
    Ok(header)
}
