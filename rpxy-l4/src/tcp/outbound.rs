//! The PROXY header in front of what a backend receives.

use std::net::SocketAddr;

use bytes::BytesMut;
use rpxy_l4_proto::proxy_protocol::{Addresses, Tlvs, encode_v1, encode_v2};
use tokio::net::TcpStream;

use super::{Origin, relay::Preamble};
use crate::{config::model::ProxyVersion, metrics::Outcome};

/// The preamble of the connection from `origin`: a header, if its rule sends one, and the bytes `received` so far. TLVs
/// of the inbound header go on in v2; v1 has no room for them.
pub(super) fn preamble(
    version: Option<ProxyVersion>,
    origin: &Origin,
    client: &TcpStream,
    tlvs: &Tlvs,
    received: BytesMut,
) -> Result<Preamble, Outcome> {
    let Some(version) = version else { return Ok(Preamble { bytes: received.freeze(), ..Preamble::default() }) };
    let destination: SocketAddr = match origin.destination {
        Some(told) => told,
        None => client.local_addr().map_err(|_gone| Outcome::ClientGone)?,
    };
    let mut bytes = Vec::with_capacity(108 + received.len());
    match version {
        ProxyVersion::V1 => encode_v1(origin.source, destination, &mut bytes),
        ProxyVersion::V2 => encode_v2(&Addresses::Stream { source: origin.source, destination }, tlvs, &mut bytes),
    }
    let header = bytes.len();
    bytes.extend_from_slice(&received);
    Ok(Preamble { bytes: bytes.into(), header, sent: 0 })
}
