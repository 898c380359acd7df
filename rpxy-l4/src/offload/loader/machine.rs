//! The eBPF features and privileges of this process, read from /proc and /sys.
//!
//! They explain refusals and decide none but those that are certain: what cannot be read counts as allowed.

use std::{fs, path::Path};

use crate::offload::api::Unavailable;

/// Bits of a capability set (`linux/capability.h`).
const CAP_NET_ADMIN: u32 = 12;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Machine {
    /// Release, as `uname -r` prints it.
    pub(crate) release: String,
    /// Effective capabilities; `None` if they cannot be read.
    pub(crate) capabilities: Option<u64>,
    /// `none`, `integrity` or `confidentiality`.
    pub(crate) lockdown: Option<String>,
    /// The JIT compiler is on; `None` if that cannot be read.
    pub(crate) jit: Option<bool>,
    /// The kernel has BTF (CONFIG_DEBUG_INFO_BTF), by which it checks the arguments of functions in programs.
    pub(crate) btf: bool,
    /// A seccomp filter is active.
    pub(crate) seccomp: bool,
    /// The process is in a user namespace other than the initial one, where eBPF is not available.
    pub(crate) user_namespace: bool,
}

impl Machine {
    pub(crate) fn read() -> Self {
        let read = |path: &str| fs::read_to_string(Path::new(path)).ok();
        let status = read("/proc/self/status").unwrap_or_default();
        Self {
            release: read("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned(),
            capabilities: field(&status, "CapEff").and_then(|set| u64::from_str_radix(set, 16).ok()),
            lockdown: read("/sys/kernel/security/lockdown").and_then(|text| selected(&text)),
            jit: read("/proc/sys/net/core/bpf_jit_enable").map(|text| text.trim() != "0"),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists() || !Path::new("/sys/kernel").exists(),
            seccomp: field(&status, "Seccomp").is_some_and(|mode| mode != "0"),
            user_namespace: read("/proc/self/uid_map").is_some_and(|map| !is_initial(&map)),
        }
    }

    /// Returns the major and minor version.
    pub(crate) fn version(&self) -> Option<(u32, u32)> {
        let mut numbers = self.release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
        Some((numbers.next()?.ok()?, numbers.next()?.ok()?))
    }

    pub(crate) fn is_older_than(&self, version: (u32, u32)) -> bool {
        self.version().is_some_and(|ours| ours < version)
    }

    /// Returns the names of the missing capabilities.
    pub(crate) fn missing(&self) -> Vec<&'static str> {
        let Some(set) = self.capabilities else { return Vec::new() };
        let has = |bit: u32| set >> bit & 1 == 1;
        let mut missing = Vec::new();
        if !has(CAP_SYS_ADMIN) {
            // Linux 5.8 split both off CAP_SYS_ADMIN.
            if self.is_older_than((5, 8)) {
                missing.push("CAP_SYS_ADMIN");
            } else {
                // CAP_PERFMON permits pointer arithmetic that the verifier otherwise refuses.
                let split = [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")];
                missing.extend(split.iter().filter(|(bit, _)| !has(*bit)).map(|(_, name)| *name));
            }
        }
        if !has(CAP_NET_ADMIN) {
            missing.push("CAP_NET_ADMIN");
        }
        missing
    }

    /// Returns the likeliest reason why the kernel returns EPERM, with its remedy.
    pub(crate) fn refusal(&self) -> Unavailable {
        let (what, remedy) = if self.user_namespace {
            (
                "this is an unprivileged container (a user namespace)".to_owned(),
                "eBPF needs capabilities in the initial user namespace: run on the host, or in a container with \
                 --network host --cap-add BPF --cap-add PERFMON --cap-add NET_ADMIN"
                    .to_owned(),
            )
        } else if !self.missing().is_empty() {
            let missing = self.missing();
            let add: Vec<&str> = missing.iter().map(|name| name.trim_start_matches("CAP_")).collect();
            (
                format!("missing {}", missing.join(" and ")),
                format!(
                    "start as root, or with AmbientCapabilities={} (systemd), or --cap-add {} (containers)",
                    missing.join(" "),
                    add.join(" --cap-add ")
                ),
            )
        } else if self.lockdown.as_deref() == Some("confidentiality") {
            (
                "the kernel is locked down (confidentiality)".to_owned(),
                "boot with lockdown=integrity, or without Secure Boot".to_owned(),
            )
        } else if self.is_older_than((5, 11)) {
            (
                "the limit of locked memory is too low for the maps".to_owned(),
                "raise the limit (LimitMEMLOCK=infinity, ulimit -l unlimited)".to_owned(),
            )
        } else if self.seccomp {
            (
                "a seccomp filter is active and seems to refuse bpf(2)".to_owned(),
                "allow it by SystemCallFilter=bpf (systemd), or by a container profile that permits bpf".to_owned(),
            )
        } else {
            (
                "the kernel refuses although no capability is missing".to_owned(),
                "look for a denial by a security module (AppArmor, SELinux) in the kernel log".to_owned(),
            )
        };
        Unavailable { what, remedy }
    }
}

/// Returns whether this machine's kernel is older than `version`.
pub(crate) fn is_older_than(version: (u32, u32)) -> bool {
    Machine::read().is_older_than(version)
}

/// Returns a field of /proc/self/status.
fn field<'t>(status: &'t str, name: &str) -> Option<&'t str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'))?;
    Some(line.trim())
}

/// Returns the word in brackets.
fn selected(text: &str) -> Option<String> {
    let (_, rest) = text.split_once('[')?;
    Some(rest.split_once(']')?.0.to_owned())
}

/// Returns true if a map of user IDs is that of the initial namespace.
fn is_initial(map: &str) -> bool {
    let mut words = map.split_whitespace();
    (words.next(), words.next(), words.next()) == (Some("0"), Some("0"), Some("4294967295"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn machine() -> Machine {
        Machine {
            release: "6.1.0-13-amd64".to_owned(),
            capabilities: Some(u64::MAX),
            lockdown: None,
            jit: Some(true),
            btf: true,
            seccomp: false,
            user_namespace: false,
        }
    }

    #[test]
    fn versions() {
        let of = |release: &str| Machine { release: release.to_owned(), ..machine() }.version();
        assert_eq!(of("6.1.0-13-amd64"), Some((6, 1)));
        assert_eq!(of("5.15"), Some((5, 15)));
        assert_eq!(of("6.18-rc1"), Some((6, 18)));
        assert_eq!(of(""), None);
    }

    #[test]
    fn capabilities() {
        let with = |bits: &[u32], release: &str| {
            let capabilities = Some(bits.iter().fold(0, |set, bit| set | 1 << bit));
            Machine { capabilities, release: release.to_owned(), ..machine() }.missing()
        };
        assert_eq!(with(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN], "6.1"), [""; 0]);
        assert_eq!(with(&[CAP_BPF, CAP_NET_ADMIN], "6.1"), ["CAP_PERFMON"]);
        assert_eq!(with(&[CAP_PERFMON, CAP_NET_ADMIN], "6.1"), ["CAP_BPF"]);
        assert_eq!(with(&[CAP_BPF, CAP_PERFMON, CAP_NET_ADMIN], "5.7"), ["CAP_SYS_ADMIN"]);
        assert_eq!(with(&[CAP_SYS_ADMIN, CAP_NET_ADMIN], "6.1"), [""; 0]);
        assert_eq!(with(&[CAP_SYS_ADMIN], "6.1"), ["CAP_NET_ADMIN"]);
        assert_eq!(with(&[], "6.1"), ["CAP_BPF", "CAP_PERFMON", "CAP_NET_ADMIN"]);
        assert_eq!(with(&[CAP_NET_ADMIN], "5.4"), ["CAP_SYS_ADMIN"]);
    }

    #[test]
    fn the_likeliest_reason_comes_first() {
        let rows: &[(&str, Machine)] = &[
            ("unprivileged container", Machine { user_namespace: true, capabilities: Some(0), ..machine() }),
            ("CAP_NET_ADMIN", Machine { capabilities: Some(1 << CAP_BPF | 1 << CAP_PERFMON), ..machine() }),
            ("CAP_PERFMON", Machine { capabilities: Some(1 << CAP_BPF | 1 << CAP_NET_ADMIN), ..machine() }),
            ("locked down", Machine { lockdown: Some("confidentiality".to_owned()), ..machine() }),
            ("locked memory", Machine { release: "5.10.0".to_owned(), ..machine() }),
            ("seccomp", Machine { seccomp: true, ..machine() }),
            ("although no capability", machine()),
        ];
        for (word, machine) in rows {
            let Unavailable { what, remedy } = machine.refusal();
            assert!(what.contains(word), "{word}: {what}");
            assert!(!remedy.is_empty() && !remedy.contains('\n'), "{word}");
        }
    }

    #[test]
    fn files_of_the_kernel() {
        assert_eq!(field("Name:\tx\nCapEff:\t00000000a80425fb\n", "CapEff"), Some("00000000a80425fb"));
        assert_eq!(selected("none [integrity] confidentiality\n").as_deref(), Some("integrity"));
        assert_eq!(selected(""), None);
        assert!(is_initial("         0          0 4294967295\n"));
        assert!(!is_initial("         0     100000      65536\n"));
        assert!(!Machine::read().release.is_empty());
    }
}
