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
    let accepted = Instant::now();
    loop {
        let may_be_absent = match introduction(settings, peer, received) {
            Introduced::By { origin, tlvs, len } => {
                received.advance(len);
                return Ok((origin, tlvs));
            }
            Introduced::Refused(outcome) => return Err(outcome),
            Introduced::NeedMore { may_be_absent } => may_be_absent,
        };
        let wait = if may_be_absent { DEADLINE.min(patience) } else { DEADLINE };
        match timer.limit(accepted + wait, scratch::read_into(client, received, READ)).await {
            Some(Ok(1..)) => {}
            Some(Ok(0)) | None => return no_more(may_be_absent, peer),
            Some(Err(_reset)) => return Err(Outcome::ClientGone),
        }
    }
}

/// What the first bytes of a connection say of who it is from.
#[derive(Debug)]
pub(super) enum Introduced {
    /// A client, by the first `len` bytes; none where the peer speaks for itself.
    By { origin: Origin, tlvs: Tlvs, len: usize },
    /// Nobody who may say anything.
    Refused(Outcome),
    /// Not known yet. Without more it is the peer's own connection, or an error.
    NeedMore { may_be_absent: bool },
}

/// Reads what has been `received` so far from `peer`.
pub(super) fn introduction(settings: &ReceiveProxy, peer: SocketAddr, received: &[u8]) -> Introduced {
    let address = peer.ip().to_canonical();
    // Who may connect to a unix socket is a matter of its permissions.
    if !is_unnamed(peer) && !settings.trusted.iter().any(|network| network.contains(&address)) {
        tracing::trace!("{peer}: not in tcp_trusted_proxies");
        return Introduced::Refused(Outcome::ProxyUntrusted);
    }
    match decode(received) {
        Decoded::Complete { header, len } => {
            Introduced::By { origin: origin(header.addresses, peer), tlvs: header.tlvs, len }
        }
        Decoded::Invalid(DecodeError::NoSignature) if settings.optional => {
            let (origin, tlvs) = own(peer);
            Introduced::By { origin, tlvs, len: 0 }
        }
        Decoded::Invalid(error) => {
            tracing::trace!("{peer}: PROXY header: {error}");
            Introduced::Refused(Outcome::ProxyInvalid)
        }
        Decoded::NeedMore => Introduced::NeedMore { may_be_absent: settings.optional && !has_signature(received) },
    }
}

/// The answer when the peer says no more, or not in time.
pub(super) fn no_more(may_be_absent: bool, peer: SocketAddr) -> Result<(Origin, Tlvs), Outcome> {
    if may_be_absent { Ok(own(peer)) } else { Err(Outcome::ProxyIncomplete) }
}

fn own(peer: SocketAddr) -> (Origin, Tlvs) {
    (Origin { source: peer, destination: None }, Tlvs::default())
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
