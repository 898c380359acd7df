//! Changes of the maps.

use rpxy_l4_common::map::{Flow, FlowKey, Hop, HopKey};

/// A change of one entry. Updates are applied in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Update {
    /// Writes a next hop.
    Hop(HopKey, Hop),
    /// Clears a next hop.
    NoHop(HopKey),
    /// Writes a flow and keeps its counters.
    Flow(FlowKey, Flow),
    /// Removes a flow and its counters.
    NoFlow(FlowKey),
    /// Removes a flow until its route is known again, and keeps its counters meanwhile.
    Park(FlowKey),
}
