//! What sessions have moved, told to the accounts of their rules and targets: of some sessions at each tick, so that
//! forwarding costs nothing for it, in neither plane.

use super::{relay::Relay, sockets::Upstream};
use crate::{
    offload::{Offload, Usage},
    udp::core::SessionId,
};

/// Slots of sessions that are looked at in one tick. One that the kernel steers costs two system calls.
const AT_ONCE: usize = 256;

impl Relay {
    /// Tells the accounts of the next sessions in turn.
    pub(super) fn tell_accounts(&mut self) {
        let Self { upstreams, sessions, shared, told_up_to, .. } = self;
        let from = if *told_up_to < upstreams.len() { *told_up_to } else { 0 };
        *told_up_to = from + AT_ONCE;
        for (slot, held) in upstreams.iter_mut().enumerate().skip(from).take(AT_ONCE) {
            let (Some(upstream), Ok(index)) = (held, u32::try_from(slot)) else { continue };
            if let Some((up, down)) = sessions.bytes(SessionId { index, generation: upstream.generation }) {
                upstream.tell_accounts(&*shared.offload, up, down);
            }
        }
    }
}

impl Upstream {
    /// Tells the accounts of a session's rule and target; `up` and `down` have passed through the daemon.
    pub(super) fn tell_accounts(&mut self, offload: &dyn Offload, up: u64, down: u64) {
        let Some(carried) = &mut self.carried else { return };
        let now = self.kernel.usage(offload).unwrap_or_default();
        let earlier = self.steered.as_deref().copied().unwrap_or_default();
        let steered = |of: fn(&Usage) -> u64| of(&earlier).saturating_add(of(&now));
        carried.tell(up + steered(|usage| usage.bytes_up), down + steered(|usage| usage.bytes_down));
    }
}
