//! What a listener lets one source network have.

use std::{
    net::{IpAddr, SocketAddr},
    time::Instant,
};

use super::{Listener, Shared, is_unnamed};
use crate::{
    config::model::TOP,
    limit::{AccessDenied, SourcePermit},
    metrics::Outcome,
};

/// Whether a load balancer has said who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Introduction {
    /// Not, or not yet.
    None,
    /// By a PROXY header.
    #[cfg(feature = "proxy-protocol")]
    Header,
}

impl Listener {
    /// Why the access lists refuse a client at `source`, if they do. They are about clients, not about load balancers that
    /// introduce them.
    pub(super) fn refuses(&self, source: SocketAddr, introduction: Introduction) -> Option<AccessDenied> {
        if self.knows_client(introduction) && !is_unnamed(source) { self.access.why(source.ip()) } else { None }
    }

    /// Returns whether an address is the client's own, and not that of a load balancer that has yet to say whose connection
    /// it is.
    pub(super) fn knows_client(&self, introduction: Introduction) -> bool {
        match introduction {
            #[cfg(feature = "proxy-protocol")]
            Introduction::None => self.settings.receive_proxy.is_none(),
            #[cfg(not(feature = "proxy-protocol"))]
            Introduction::None => true,
            #[cfg(feature = "proxy-protocol")]
            Introduction::Header => true,
        }
    }
}

impl Shared {
    /// The place of a connection from `source` among those of its network, where there is a limit. Connections of load
    /// balancers count for the clients that they introduce, once they have.
    pub(super) fn place(
        &self,
        listener: &Listener,
        source: SocketAddr,
        introduction: Introduction,
    ) -> Result<Option<SourcePermit>, Outcome> {
        let settings = &listener.settings;
        if !listener.knows_client(introduction) || is_unnamed(source) {
            return Ok(None);
        }
        let source = source.ip();
        if let Some(rates) = &listener.rates
            && !rates.allow(source, self.uptime(tokio::time::Instant::now()))
        {
            say_refused(listener, source, Outcome::SourceRate, "tcp_new_connections_per_source");
            return Err(Outcome::SourceRate);
        }
        let Some(max) = settings.max_connections_per_source else { return Ok(None) };
        let place = listener.per_source.acquire(source, settings.source_prefix, max);
        if place.is_none() {
            say_refused(listener, source, Outcome::SourceConnections, "tcp_max_connections_per_source");
            return Err(Outcome::SourceConnections);
        }
        Ok(place)
    }

    /// The refusal that [`Shared::place`] would answer with, without taking a place.
    pub(super) fn would_place(
        &self,
        listener: &Listener,
        source: SocketAddr,
        introduction: Introduction,
    ) -> Option<Outcome> {
        let settings = &listener.settings;
        if !listener.knows_client(introduction) || is_unnamed(source) {
            return None;
        }
        let source = source.ip();
        let now = self.uptime(tokio::time::Instant::now());
        if listener.rates.as_ref().is_some_and(|rates| !rates.would_allow(source, now)) {
            return Some(Outcome::SourceRate);
        }
        let max = settings.max_connections_per_source?;
        let is_full = listener.per_source.count(source, settings.source_prefix) >= max.get();
        is_full.then_some(Outcome::SourceConnections)
    }
}

fn say_refused(listener: &Listener, source: IpAddr, outcome: Outcome, key: &str) {
    if let Some(withheld) = listener.per_source.said().speak(Instant::now()) {
        let (name, of) = (outcome.name(), &listener.name);
        let of = if **of == *TOP { String::new() } else { format!(" of listener {of}") };
        tracing::warn!(
            "{source}: over {key}{of}: closing new connections of its network ({name}; {withheld} of such networks closed \
             since the last such line)"
        );
    }
}
