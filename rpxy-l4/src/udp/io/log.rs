//! Messages of the core in the system log, at a bounded rate.

use std::time::Instant;

use super::relay::Relay;
use crate::udp::core::Notice;

impl Relay {
    pub(super) fn log(&self, notice: Notice) {
        let now = Instant::now();
        match notice {
            Notice::TooMany { max } => {
                if let Some(withheld) = self.shared.said_too_many.speak(now) {
                    tracing::warn!(
                        "udp_max_connections ({max}) reached: new sessions take the place of unanswered ones, or none \
                         ({withheld} more not shown)"
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
