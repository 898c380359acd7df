//! The limits of one source network.

use std::{net::IpAddr, time::Instant};

use super::{Shared, Snapshot};
use crate::{limit::SourcePermit, metrics::Outcome};

/// Whether a load balancer has said who the client is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Introduction {
    /// Not, or not yet.
    None,
    /// By a PROXY header.
    #[cfg(feature = "proxy-protocol")]
    Header,
}

impl Shared {
    /// The place of a connection from `source` among those of its network, where there is a limit. Connections of load
    /// balancers count for the clients that they introduce, once they have.
    pub(super) fn place(
        &self,
        snapshot: &Snapshot,
        source: IpAddr,
        introduction: Introduction,
    ) -> Result<Option<SourcePermit>, Outcome> {
        let settings = &snapshot.settings;
        #[cfg(feature = "proxy-protocol")]
        if settings.receive_proxy.is_some() && introduction == Introduction::None {
            return Ok(None);
        }
        #[cfg(not(feature = "proxy-protocol"))]
        let Introduction::None = introduction;
        if let Some(rates) = &snapshot.rates
            && !rates.allow(source, self.uptime(tokio::time::Instant::now()))
        {
            self.say_refused(source, Outcome::SourceRate, "tcp_new_connections_per_source");
            return Err(Outcome::SourceRate);
        }
        let Some(max) = settings.max_connections_per_source else { return Ok(None) };
        let place = self.per_source.acquire(source, settings.source_prefix, max);
        if place.is_none() {
            self.say_refused(source, Outcome::SourceConnections, "tcp_max_connections_per_source");
            return Err(Outcome::SourceConnections);
        }
        Ok(place)
    }

    fn say_refused(&self, source: IpAddr, outcome: Outcome, key: &str) {
        if let Some(withheld) = self.said_source.speak(Instant::now()) {
            let name = outcome.name();
            tracing::warn!(
                "{source}: over {key}: closing new connections of its network ({name}; {withheld} of such networks closed \
                 since the last such line)"
            );
        }
    }
}
