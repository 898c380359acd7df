//! Handing established flows to the kernel.
//!
//! The worker carries out what the session core asks for: install a flow, revoke it, tell when it was last used. This
//! build has one implementation, which does nothing: all datagrams pass through the daemon.

mod object;

pub use object::object;

use std::time::Duration;

use crate::udp::session::SessionId;

/// Steers established sessions past the daemon.
pub trait Offload: std::fmt::Debug {
    /// From now on the session's datagrams may bypass the daemon.
    fn install(&mut self, session: SessionId);
    /// From now on they must not.
    fn revoke(&mut self, session: SessionId);
    /// When the kernel last forwarded one; `None` when it steers nothing for this session.
    fn last_seen(&self, session: SessionId) -> Option<Duration>;
}

/// No offload.
#[derive(Debug, Clone, Copy, Default)]
pub struct Off;

impl Offload for Off {
    fn install(&mut self, _session: SessionId) {}

    fn revoke(&mut self, _session: SessionId) {}

    fn last_seen(&self, _session: SessionId) -> Option<Duration> {
        None
    }
}
