//! The PROXY header that a trusted load balancer puts in front of each connection.
//!
//! There is no "maybe": with `tcp_recv_proxy_protocol` every peer must be trusted and every connection must start with
//! a valid header, otherwise anybody could claim any address.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BytesMut};
use rpxy_l4_proto::proxy_protocol::{Addresses, Decoded, Tlvs, decode};
use tokio::{net::TcpStream, time::Instant};

use super::{Origin, scratch, timer::Timer};
use crate::{config::model::ReceiveProxy, metrics::Outcome};

/// Time for the whole header, from accept.
const DEADLINE: Duration = Duration::from_secs(5);
/// More than the longest header that `decode` takes; it decides long before.
const MAX_HEADER: usize = 8 << 10;

/// Reads the header off `client`. What was read behind it stays in `received`.
pub(super) async fn read_header(
    settings: &ReceiveProxy,
    client: &mut TcpStream,
    peer: SocketAddr,
    timer: &mut Timer,
    received: &mut BytesMut,
) -> Result<(Origin, Tlvs), Outcome> {
    let address = peer.ip().to_canonical();
    if !settings.trusted.iter().any(|network| network.contains(&address)) {
        tracing::trace!("{peer}: not in tcp_trusted_proxies");
        return Err(Outcome::ProxyUntrusted);
    }
    let deadline = Instant::now() + DEADLINE;
    loop {
        match decode(received) {
            Decoded::Complete { header, len } => {
                received.advance(len);
                return Ok((origin(header.addresses, peer), header.tlvs));
            }
            Decoded::Invalid(error) => {
                tracing::trace!("{peer}: PROXY header: {error}");
                return Err(Outcome::ProxyInvalid);
            }
            Decoded::NeedMore => {}
        }
        match timer.limit(deadline, scratch::read_into(client, received, MAX_HEADER)).await {
            Some(Ok(1..)) => {}
            Some(Ok(0)) | None => return Err(Outcome::ProxyIncomplete),
            Some(Err(_reset)) => return Err(Outcome::ClientGone),
        }
    }
}

/// LOCAL and UNKNOWN say nothing of a client (health checks): the socket's own addresses hold.
fn origin(addresses: Addresses, peer: SocketAddr) -> Origin {
    match addresses {
        Addresses::Stream { source, destination } | Addresses::Datagram { source, destination } => {
            Origin { source, destination: Some(destination) }
        }
        Addresses::Local | Addresses::Unknown => Origin { source: peer, destination: None },
    }
}
