//! The places of a rule among those of all connections: no rule takes all of them, whatever its clients or backends do.

use std::time::Instant;

use super::{Listener, Shared};
use crate::{limit::ConnPermit, metrics::Outcome, route::Route};

/// Places are short when fewer than one of so many are free.
pub(super) const SHORT: u32 = 4;
/// Of fewer places than this, one rule may have all.
const FEW_PLACES: u32 = 64;

impl Shared {
    /// The place of a connection among those of its rule: within the rule's own limit, or else within its share once
    /// places are short.
    pub(super) fn place_of_rule(&self, listener: &Listener, route: &Route) -> Result<ConnPermit, Outcome> {
        let most = self.most_of_rule(listener, route);
        route.connections.acquire(most).ok_or_else(|| {
            if let Some(withheld) = self.said_rule.speak(Instant::now()) {
                let rule = route.rule.as_deref().unwrap_or("tcp_target");
                let why = match route.max_connections {
                    Some(_) => "its max_connections",
                    None => "its share of tcp_max_connections, of which few are left",
                };
                tracing::warn!("{rule} has {most} connections, {why}: closing new ones ({withheld} more not shown)");
            }
            Outcome::RuleConnections
        })
    }

    /// Connections that a rule may have now.
    pub(super) fn most_of_rule(&self, listener: &Listener, route: &Route) -> u32 {
        let places = listener.settings.max_connections.get().min(self.descriptors.room());
        match route.max_connections {
            Some(most) => most.get(),
            None => share(places, listener.connections.count(), listener.sharers),
        }
    }
}

/// Connections that one of so many `rules` may have when so many of all `places` are taken.
fn share(places: u32, taken: u32, rules: u32) -> u32 {
    let is_short = taken > places - places / SHORT;
    if rules < 2 || places < FEW_PLACES || !is_short { u32::MAX } else { (places / rules).max(1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_hold_once_places_are_short() {
        for (row, places, taken, rules, expected) in [
            ("three quarters are taken", 1024, 768, 2, u32::MAX),
            ("one more", 1024, 769, 2, 512),
            ("of many rules", 1024, 769, 1000, 1),
            ("of more rules than places", 1024, 1024, 30_000, 1),
            ("of the only rule", 1024, 1024, 1, u32::MAX),
            ("of no rule", 1024, 1024, 0, u32::MAX),
            ("of few places", 63, 63, 2, u32::MAX),
            ("of just enough", 64, 49, 2, 32),
        ] {
            assert_eq!(share(places, taken, rules), expected, "{row}");
        }
    }
}
