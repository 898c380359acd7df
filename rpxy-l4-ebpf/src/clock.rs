//! The kernel's clocks, in nanoseconds.
#![expect(unsafe_code, reason = "helpers of the kernel")]

use aya_ebpf::helpers::{bpf_ktime_get_coarse_ns, bpf_ktime_get_ns};

/// CLOCK_MONOTONIC_COARSE, a few milliseconds behind, which costs no read of the hardware's clock.
#[inline(always)]
pub(crate) fn coarse() -> u64 {
    // SAFETY: a helper that reads a clock.
    unsafe { bpf_ktime_get_coarse_ns() }
}

/// CLOCK_MONOTONIC.
#[inline(always)]
pub(crate) fn precise() -> u64 {
    // SAFETY: a helper that reads a clock.
    unsafe { bpf_ktime_get_ns() }
}
