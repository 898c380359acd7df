//! Privileges of this process, and what becomes of a test that cannot run without them.
//!
//! Errs towards skipping for a user and towards failing for CI, so that neither is misled by a green run.

use std::fs;
use std::io::Write as _;

/// Set by CI: a test that cannot run is then a failure.
pub const REQUIRED_VARIABLE: &str = "RPXY_L4_TESTS_REQUIRED";

/// Returns true when a test that cannot run must fail.
pub fn required() -> bool {
    std::env::var_os(REQUIRED_VARIABLE).is_some_and(|value| value == "1")
}

/// Returns what this process lacks to load eBPF programs; `None` when nothing.
pub fn missing_for_programs() -> Option<&'static str> {
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    const CAP_PERFMON: u64 = 1 << 38;
    const CAP_BPF: u64 = 1 << 39;
    match capabilities() {
        held if held & CAP_NET_ADMIN == 0 => Some("CAP_NET_ADMIN is missing"),
        held if held & (CAP_BPF | CAP_SYS_ADMIN) == 0 => Some("CAP_BPF is missing"),
        held if held & (CAP_PERFMON | CAP_SYS_ADMIN) == 0 => Some("CAP_PERFMON is missing"),
        _ => None,
    }
}

/// Returns what this process lacks to make network namespaces; `None` when nothing.
pub fn missing() -> Option<&'static str> {
    // Bits of capabilities(7) in the effective set.
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let effective = capabilities();
    if effective & CAP_NET_ADMIN == 0 {
        Some("CAP_NET_ADMIN is missing")
    } else if effective & CAP_SYS_ADMIN == 0 {
        Some("CAP_SYS_ADMIN is missing")
    } else {
        None
    }
}

/// The effective set, as bits of capabilities(7).
fn capabilities() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0)
}

/// Says that the calling test is skipped, and why.
///
/// # Panics
///
/// When no test may be skipped.
pub fn skip(why: &str) {
    let current = std::thread::current();
    let test = current.name().unwrap_or("test");
    assert!(!required(), "{test}: {why}, and {REQUIRED_VARIABLE} is set");
    // Written past libtest's capture: a skipped test must be seen in a green run. A closed stderr does not matter.
    let _ignored = writeln!(std::io::stderr().lock(), "SKIPPED {test}: {why}");
}
