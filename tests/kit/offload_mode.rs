//! Offload modes of the daemon, and tests that run in each of them with the same assertions.
//!
//! [`offload_modes!`](crate::offload_modes) makes three tests of one function. While one runs, its mode is known to the
//! rest of the kit: [`Topology`](crate::topology::Topology) prepares the interfaces, [`Daemon`](crate::daemon::Daemon)
//! adds `[ebpf]` to the configuration and, at its end, the steered datagrams to those of the test.
//!
//! The mode belongs to the thread of the test. Networks and daemons are made on that thread.

use std::cell::Cell;

use crate::{binary, privilege};

/// Offload of established sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OffloadMode {
    /// None: the daemon forwards everything.
    Off,
    /// By the program on the TC hook.
    Tc,
    /// By the program on the XDP hook of the driver.
    Xdp,
    /// Of TCP: connections are handed to the kernel at the client's first bytes.
    Spliced,
}

impl OffloadMode {
    /// Returns the mode of the running test; `None` for one that is not made by [`offload_modes!`](crate::offload_modes).
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// Returns the keys at the top of the file that it takes.
    pub fn top(self) -> &'static str {
        match self {
            Self::Off | Self::Tc | Self::Xdp => "",
            Self::Spliced => "tcp_splice = \"first\"\n",
        }
    }

    /// Returns what counts as steered in `counters` and `tcp_counters` of the kernel plane.
    pub(crate) fn counted(self) -> [&'static str; 2] {
        match self {
            Self::Off | Self::Tc | Self::Xdp => ["counters", "steered"],
            Self::Spliced => ["tcp_counters", "forwarded"],
        }
    }

    /// Returns the table `[ebpf]` that asks for it.
    pub fn table(self) -> Option<&'static str> {
        match self {
            Self::Off => None,
            Self::Tc => Some("[ebpf]\nmode = \"tc\"\n"),
            Self::Xdp => Some("[ebpf]\nmode = \"xdp\"\n"),
            Self::Spliced => Some("[ebpf]\nmode = \"tc\"\ntcp = \"auto\"\n"),
        }
    }
}

/// Expectation of a test with offload on. With offload off nothing is ever steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Some datagrams are steered.
    Steered,
    /// None is steered: no session lasts longer than the answer that installs it, or all have a reason to stay.
    NotSteered,
    /// It depends on who is faster, or on whether a client gets the port of an earlier one.
    Unknown,
}

thread_local! {
    static CURRENT: Cell<Option<OffloadMode>> = const { Cell::new(None) };
    static STEERED: Cell<u64> = const { Cell::new(0) };
}

/// Adds datagrams that a daemon has steered to those of the running test.
pub(crate) fn count(steered: u64) {
    STEERED.set(STEERED.get() + steered);
}

/// Runs `test` in `mode`.
///
/// # Panics
///
/// When the test fails, or what was steered is not what it expects.
pub fn run(mode: OffloadMode, expected: Expected, test: fn()) {
    if mode != OffloadMode::Off
        && let Some(missing) = binary::missing_object()
    {
        return privilege::skip(&missing);
    }
    let _ends = Ends;
    CURRENT.set(Some(mode));
    STEERED.set(0);
    test();
    let steered = STEERED.get();
    if privilege::missing().is_some() {
        return;
    }
    match expected {
        _ if mode == OffloadMode::Off => assert_eq!(steered, 0, "datagrams steered without a program"),
        Expected::Steered => assert_ne!(steered, 0, "no datagram was steered"),
        Expected::NotSteered => assert_eq!(steered, 0, "datagrams were steered"),
        Expected::Unknown => {}
    }
}

/// Ends the mode of a thread, on which another test may run next.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Makes the tests `userspace`, `tc` and `xdp` of each function, in a module of the function's name.
///
/// Functions stand under their [`Expected`](crate::offload_mode::Expected):
///
/// ```ignore
/// rpxy_l4_tests::offload_modes! {
///     Steered { answers_come_back, bursts_keep_their_order }
///     NotSteered { junk_is_dropped }
/// }
/// ```
///
/// One that is forgotten is unused code, which the compiler reports.
#[macro_export]
macro_rules! offload_modes {
    ($($expected:ident { $($test:ident),+ $(,)? })+) => { $($(
        mod $test {
            use $crate::offload_mode::{Expected, OffloadMode, run};

            #[test]
            fn userspace() {
                run(OffloadMode::Off, Expected::$expected, super::$test);
            }

            #[test]
            fn tc() {
                run(OffloadMode::Tc, Expected::$expected, super::$test);
            }

            #[test]
            fn xdp() {
                run(OffloadMode::Xdp, Expected::$expected, super::$test);
            }
        }
    )+)+ };
}

/// Makes the tests `userspace` and `spliced` of each function, in a module of the function's name: TCP that the daemon relays,
/// and TCP that the kernel forwards as soon as it can. As with [`offload_modes!`], functions stand under what they expect.
#[macro_export]
macro_rules! splice_modes {
    ($($expected:ident { $($test:ident),+ $(,)? })+) => { $($(
        mod $test {
            use $crate::offload_mode::{Expected, OffloadMode, run};

            #[test]
            fn userspace() {
                run(OffloadMode::Off, Expected::$expected, super::$test);
            }

            #[test]
            fn spliced() {
                run(OffloadMode::Spliced, Expected::$expected, super::$test);
            }
        }
    )+)+ };
}
