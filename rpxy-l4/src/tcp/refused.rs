//! Connections that are turned away: their line in the access log.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use super::{Listener, Shared, UNNAMED, probe::Recognised};
use crate::{
    log::{Kind, Refused},
    metrics::Outcome,
    net::Address,
    route::Protocol,
};

/// What is known of a connection before it has a backend.
#[derive(Debug)]
pub(super) struct Seen {
    /// The client, as told by an inbound PROXY header where there is one.
    pub(super) source: SocketAddr,
    pub(super) recognised: Option<Recognised>,
    /// It ended its side before it sent anything.
    pub(super) silent: bool,
}

impl Seen {
    /// A connection of `peer`, of which nothing else is known.
    pub(super) fn new(peer: SocketAddr) -> Self {
        Self { source: peer, recognised: None, silent: false }
    }

    /// The protocol as far as it was recognised.
    pub(super) fn protocol(&self) -> Protocol {
        self.recognised.as_ref().map_or(Protocol::Any, Recognised::protocol)
    }

    fn server_name(&self) -> Option<&str> {
        match self.recognised.as_ref()? {
            Recognised::Tls { hello, .. } => hello.server_name(),
            Recognised::Http(request) => request.host.as_deref(),
            Recognised::Http2Waiting
            | Recognised::HttpUnreadable
            | Recognised::TlsUnreadable
            | Recognised::Ssh
            | Recognised::Socks5 => None,
        }
    }
}

impl Shared {
    /// Logs that a connection ends without a backend, if it was turned away. Costs little where there is no line.
    pub(super) fn refused(&self, listener: &Listener, client: &TcpStream, seen: &Seen, outcome: Outcome) {
        if !outcome.is_refusal() {
            return;
        }
        let kind = if outcome == Outcome::Banned { Kind::Banned } else { Kind::Tcp };
        self.access.refused(listener.access_lines, (kind, seen.source.ip()), || Refused {
            proto: seen.protocol().name(),
            source: listener.source(seen.source),
            // A socket that was accepted has an address, or a path.
            listener: client.local_addr().map_or_else(|_| listener.source(UNNAMED), Address::from),
            reason: outcome.name(),
            server_name: seen.server_name(),
        });
    }
}
