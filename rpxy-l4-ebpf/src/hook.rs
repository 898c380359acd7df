//! What both programs do with a packet: decide, carry out, count.

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
    /// Whether it can be left behind by a daemon that was killed.
    const LEASED: bool;
    /// The action that leaves the packet to the kernel.
    const PASS: i32;
    /// The action that ends it.
    const DROP: i32;

    /// The buffer that it is in, where that can hold several datagrams.
    fn buffer(&self) -> Option<*mut __sk_buff>;

    /// How it came.
    fn arrival(&self) -> Arrival;

    /// Rewrites it and sends it on; the action to return.
    fn send(&self, steer: &Steer<'_, Entry<'_>, &Hop>) -> Result<i32, Failed>;
}

/// Decides about a packet and carries that out; the action to return.
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
