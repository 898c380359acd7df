//! The PROXY header that a trusted load balancer puts in front of each connection.
//!
//! Every peer must be trusted, otherwise anybody could claim any address. Every connection must start with a valid
//! header, unless headers are optional: then one that starts with something else is the load balancer's own.

use std::{net::SocketAddr, time::Duration};

use bytes::{Buf, BytesMut};
use rpxy_l4_proto::proxy_protocol::{Addresses, DecodeError, Decoded, Tlvs, decode, has_signature};
use tokio::{net::TcpStream, time::Instant};

use super::{Origin, is_unnamed, scratch, timer::Timer};
use crate::{config::model::ReceiveProxy, metrics::Outcome};

/// Time for the whole header, from accept.
const DEADLINE: Duration = Duration::from_secs(5);
/// Bytes read at a time; the length of a header is known with its first 16.
const READ: usize = 8 << 10;

/// Reads the header off `client`. What was read behind it stays in `received`. Where a header is optional, one that has
/// not begun within `patience` does not come.
pub(super) async fn read_header(
    settings: &ReceiveProxy,
    patience: Duration,
    client: &mut TcpStream,
    peer: SocketAddr,
    (timer, received): (&mut Timer, &mut BytesMut),
) -> Result<(Origin, Tlvs), Outcome> {
    let address = peer.ip().to_canonical();
    // Who may connect to a unix socket is a matter of its permissions.
    if !is_unnamed(peer) && !settings.trusted.iter().any(|network| network.contains(&address)) {
        tracing::trace!("{peer}: not in tcp_trusted_proxies");
        return Err(Outcome::ProxyUntrusted);
    }
    let own = || (Origin { source: peer, destination: None }, Tlvs::default());
    let accepted = Instant::now();
    loop {
        match decode(received) {
            Decoded::Complete { header, len } => {
                received.advance(len);
                return Ok((origin(header.addresses, peer), header.tlvs));
            }
            Decoded::Invalid(DecodeError::NoSignature) if settings.optional => return Ok(own()),
            Decoded::Invalid(error) => {
                tracing::trace!("{peer}: PROXY header: {error}");
                return Err(Outcome::ProxyInvalid);
            }
            Decoded::NeedMore => {}
        }
        let may_be_absent = settings.optional && !has_signature(received);
        let wait = if may_be_absent { DEADLINE.min(patience) } else { DEADLINE };
        match timer.limit(accepted + wait, scratch::read_into(client, received, READ)).await {
            Some(Ok(1..)) => {}
            Some(Ok(0)) | None if may_be_absent => return Ok(own()),
            Some(Ok(0)) | None => return Err(Outcome::ProxyIncomplete),
            Some(Err(_reset)) => return Err(Outcome::ClientGone),
        }
    }
}

/// LOCAL and UNKNOWN say nothing of a client (health checks): the socket's own addresses hold. IPv4 addresses in their
/// IPv6 form are IPv4 addresses, for rules, logs and the next header alike.
fn origin(addresses: Addresses, peer: SocketAddr) -> Origin {
    let canonical = |told: SocketAddr| SocketAddr::new(told.ip().to_canonical(), told.port());
    match addresses {
        Addresses::Stream { source, destination } | Addresses::Datagram { source, destination } => {
            Origin { source: canonical(source), destination: Some(canonical(destination)) }
        }
        Addresses::Local | Addresses::Unknown => Origin { source: peer, destination: None },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mapped_addresses_are_ipv4_addresses() {
        let peer = "192.0.2.1:1".parse().unwrap();
        let rows = [
            ("PROXY TCP6 ::ffff:203.0.113.7 ::ffff:192.0.2.9 5 443\r\n", "203.0.113.7:5", "192.0.2.9:443"),
            ("PROXY TCP6 ::ffff:203.0.113.7 2001:db8::9 5 443\r\n", "203.0.113.7:5", "[2001:db8::9]:443"),
            ("PROXY TCP6 2001:db8::7 2001:db8::9 5 443\r\n", "[2001:db8::7]:5", "[2001:db8::9]:443"),
        ];
        for (line, source, destination) in rows {
            let Decoded::Complete { header, .. } = decode(line.as_bytes()) else { panic!("{line}") };
            let origin = origin(header.addresses, peer);
            assert_eq!(origin.source, source.parse().unwrap(), "{line}");
            assert_eq!(origin.destination, Some(destination.parse().unwrap()), "{line}");
        }
    }
}
