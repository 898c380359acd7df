//! The work of all programs on a packet: decide, carry out, count.

use aya_ebpf::bindings::__sk_buff;
use rpxy_l4_common::bytes::Bytes;
use rpxy_l4_common::decide::{Arrival, Steer, Verdict, decide};
use rpxy_l4_common::map::{FlowKey, Hop};
use rpxy_l4_common::verdict::Counter;
use rpxy_l4_ebpf::write::Failed;

use crate::lookup::{Entry, Kernel, has_lapsed};
use crate::maps::count;

/// A packet at one of the hooks.
pub(crate) trait Hook: Bytes {
    /// The number of the program: [`maps::XDP`](crate::maps::XDP) or [`maps::TC`](crate::maps::TC).
    const PROGRAM: u32;
    /// It can survive a daemon that was killed.
    const LEASED: bool;
    /// The action that leaves the packet to the kernel.
    const PASS: i32;
    /// The action that drops it.
    const DROP: i32;

    /// Returns the buffer that it is in, if several datagrams in it are looked at.
    fn buffer(&self) -> Option<*mut __sk_buff>;

    /// Describes its arrival.
    fn arrival(&self) -> Arrival;

    /// Rewrites it and sends it on. Returns the action.
    fn send(&self, steer: &Steer<'_, Entry<'_>, &Hop>) -> Result<i32, Failed>;
}

/// Decides about a packet and carries the decision out. Returns the action.
#[inline(always)]
pub(crate) fn run<H: Hook>(hook: &H) -> i32 {
    log!(begin(H::PROGRAM));
    if H::LEASED && has_lapsed() {
        return done(H::PASS, Counter::Lapsed);
    }
    // Always there.
    let Some(kernel) = Kernel::of(H::PROGRAM, hook.buffer()) else { return H::PASS };
    let mut key = FlowKey::default();
    match decide(&&kernel, hook, hook.arrival(), &mut key) {
        Verdict::Pass(reason) => done(H::PASS, reason),
        Verdict::Drop(reason) => done(H::DROP, reason),
        Verdict::Steer(steer) => match hook.send(&steer) {
            Ok(action) => done(action, Counter::Steered),
            Err(Failed::Untouched) => done(H::PASS, Counter::Refused),
            Err(Failed::Halfway) => done(H::DROP, Counter::Broken),
        },
    }
}

#[inline(always)]
fn done(action: i32, outcome: Counter) -> i32 {
    count(outcome);
    log!(tell(outcome));
    action
}
