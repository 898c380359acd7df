//! Requirements of a load that a candidate is set up for.

use super::rig::Service;

/// Requirements that a candidate is set up for.
#[derive(Debug, Clone, Copy)]
pub struct Setup {
    /// Service of the backend behind it.
    pub service: Service,
    /// Connections or flows that it has to have room for.
    pub room: usize,
    /// Processes among which they are divided, where one may not have enough descriptors.
    pub processes: usize,
    /// True when datagrams belong to nobody, so that nothing is answered.
    pub unanswered: bool,
}
