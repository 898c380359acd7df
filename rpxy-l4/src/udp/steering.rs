//! What the kernel does for one session, as far as the worker has asked for it.

use std::time::Duration;

use rpxy_l4_proto::quic::ConnectionId;

use crate::offload::{NotSteered, Offload, Steered, Usage};

/// One session's place in the kernel.
#[derive(Debug)]
pub(super) enum Steering {
    /// Its backend has not answered yet, or its client has several sessions on one socket.
    Unasked,
    /// It stays in the daemon.
    Not(NotSteered),
    /// The kernel has its entries.
    Installed(Box<Steered>),
}

impl Steering {
    /// Asks the kernel to steer `flow`.
    pub(super) fn install(&mut self, offload: &dyn Offload, flow: Steered) {
        *self = match offload.install(&flow) {
            Ok(()) => Self::Installed(Box::new(flow)),
            Err(reason) => Self::Not(reason),
        };
    }

    /// The client goes on with another connection ID or index.
    pub(super) fn update(&mut self, offload: &dyn Offload, cid: ConnectionId) {
        if let Self::Installed(flow) = self {
            flow.cid = Some(cid);
            offload.update_cid(flow);
        }
    }

    /// Takes the session back; what the kernel has done for it.
    pub(super) fn revoke(&mut self, offload: &dyn Offload) -> Option<Usage> {
        let Self::Installed(flow) = std::mem::replace(self, Self::Unasked) else { return None };
        // What arrives in between is counted by nobody.
        let usage = offload.usage(&flow);
        offload.revoke(&flow);
        usage
    }

    /// What the kernel has done so far.
    pub(super) fn usage(&self, offload: &dyn Offload) -> Option<Usage> {
        match self {
            Self::Installed(flow) => offload.usage(flow),
            Self::Unasked | Self::Not(_) => None,
        }
    }

    /// How long ago the kernel forwarded something.
    pub(super) fn idle(&self, offload: &dyn Offload) -> Option<Duration> {
        self.usage(offload)?.idle
    }
}
