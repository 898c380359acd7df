//! Messages of the core in the system log, and refusals in the access log, at a bounded rate.

use std::{net::SocketAddr, time::Instant};

use super::relay::Relay;
use crate::{
    log::{Kind, Refused},
    metrics::DatagramDrop,
    udp::core::{Notice, RefusedFlow},
};

impl Relay {
    /// The access log's line about a flow that was turned away.
    pub(super) fn log_refused(&self, refused: &RefusedFlow) {
        let RefusedFlow { flow, carries, reason, server_name } = refused;
        let Some(listener) = self.address_of(flow.listener) else { return };
        let kind = if *reason == DatagramDrop::Banned { Kind::Banned } else { Kind::Udp };
        self.shared.access.refused(self.lines, (kind, flow.client.ip()), || Refused {
            proto: carries.name(),
            source: flow.client.into(),
            listener: flow.local.map_or(listener, |local| SocketAddr::new(local.address, listener.port())).into(),
            reason: reason.name(),
            server_name: server_name.as_deref(),
        });
    }

    pub(super) fn log(&self, notice: Notice) {
        let now = Instant::now();
        match notice {
            Notice::TooMany { max, of, active } => {
                if let Some(withheld) = active.said().speak(now) {
                    let of = of.map(|name| format!(" of listener {name}")).unwrap_or_default();
                    tracing::warn!(
                        "udp_max_connections ({max}){of} reached: new sessions take the place of unanswered ones, or none \
                         ({withheld} more not shown)"
                    );
                }
            }
            Notice::RuleFull { rule, max } => {
                if let Some(withheld) = self.shared.said_rule.speak(now) {
                    tracing::warn!(
                        "{rule} has {max} sessions, its max_connections: new ones take the place of unanswered ones, or \
                         none ({withheld} more not shown)"
                    );
                }
            }
            Notice::NoPort { what } => {
                if let Some(withheld) = self.shared.said_no_port.speak(now) {
                    tracing::warn!(
                        "no local port or address to reach {what}; widen net.ipv4.ip_local_port_range or add targets \
                         ({withheld} more not shown)"
                    );
                }
            }
            Notice::Shortage(error) => {
                if let Some(withheld) = self.shared.said_shortage.speak(now) {
                    tracing::warn!(
                        "no new UDP sessions: {error}; raise the limit on open files (LimitNOFILE=, ulimit -n) or lower \
                         udp_max_connections ({withheld} more not shown)"
                    );
                }
            }
            Notice::Down(text) => tracing::warn!("{text}"),
            Notice::Up(target) => tracing::info!("{target} can be reached again"),
        }
    }
}
