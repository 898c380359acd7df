//! Keeping threads, and what they start, to one processor.

use anyhow::Context as _;
use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The first processor that the calling thread may use, alone.
///
/// # Errors
///
/// When the kernel does not tell.
pub fn first() -> anyhow::Result<CpuSet> {
    let all = sched_getaffinity(None)?;
    let first = (0..CpuSet::MAX_CPU).find(|number| all.is_set(*number)).context("no processor")?;
    let mut one = CpuSet::new();
    one.set(first);
    Ok(one)
}

/// Keeps the calling thread, and all that it starts from now on, to one processor. For tests of order: a veth queues by
/// processor, so that what is sent from two may overtake each other, whoever sends it.
///
/// # Panics
///
/// When the kernel refuses.
#[track_caller]
pub fn keep_to_one() {
    use crate::OrFail as _;
    let one = first().or_fail("sched_getaffinity");
    sched_setaffinity(None, &one).or_fail("sched_setaffinity");
}
