//! Whether this process may make network namespaces, and whether a test that cannot run may be skipped.
//!
//! Errs towards skipping for a user and towards failing for CI, so that neither is misled by a green run.

use std::fs;

/// Set by CI: a test that cannot run is then a failure.
pub const REQUIRED_VARIABLE: &str = "RPXY_L4_TESTS_REQUIRED";

/// Whether a test that cannot run must fail.
pub fn required() -> bool {
    std::env::var_os(REQUIRED_VARIABLE).is_some_and(|value| value == "1")
}

/// What this process lacks to make network namespaces; `None` when nothing.
pub fn missing() -> Option<&'static str> {
    // Bits of capabilities(7) in the effective set.
    const CAP_NET_ADMIN: u64 = 1 << 12;
    const CAP_SYS_ADMIN: u64 = 1 << 21;
    let status = fs::read_to_string("/proc/self/status").unwrap_or_default();
    let effective = status
        .lines()
        .find_map(|line| line.strip_prefix("CapEff:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .unwrap_or(0);
    if effective & CAP_NET_ADMIN == 0 {
        Some("CAP_NET_ADMIN is missing")
    } else if effective & CAP_SYS_ADMIN == 0 {
        Some("CAP_SYS_ADMIN is missing")
    } else {
        None
    }
}
