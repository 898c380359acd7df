//! Segments of spliced TCP connections: reading, translating and following them.
//!
//! `docs/design/tcp-splice.md` has the design. A spliced connection is two legs with numbers of their own. What one side
//! sends is translated by constant differences, so that both sides believe to speak with this machine while it only
//! forwards.

pub mod counter;
pub mod decide;
pub mod flow;
pub mod follow;
pub mod options;
pub mod segment;
pub mod sequence;
pub mod shape;
#[cfg(test)]
mod tests;
pub mod too_big;
pub mod translate;

/// Names of the maps in the object.
pub mod name {
    /// Hash: [`crate::map::FlowKey`] to [`super::flow::TcpFlow`].
    pub const TCP_FLOWS: &str = "TCP_FLOWS";
    /// Array: [`super::flow::Notes`], by [`super::flow::TcpFlow::slot`].
    pub const TCP_NOTES: &str = "TCP_NOTES";
    /// Queue: slots of connections that have ended.
    pub const TCP_ENDED: &str = "TCP_ENDED";
    /// Per-CPU array, indexed by [`super::counter::TcpCounter`].
    pub const TCP_COUNTERS: &str = "TCP_COUNTERS";
}
