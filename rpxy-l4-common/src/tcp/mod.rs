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
#[cfg(test)]
mod tests;
pub mod translate;
