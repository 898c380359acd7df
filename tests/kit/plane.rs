//! The planes on which the daemon forwards datagrams, and tests that run on each of them with the same assertions.
//!
//! [`planes!`](crate::planes) makes three tests of one function. While one runs, its plane is known to the rest of the
//! kit: [`Topology`](crate::topology::Topology) prepares the interfaces, [`Daemon`](crate::daemon::Daemon) adds
//! `[ebpf]` to the configuration and, at its end, the datagrams that were steered to those of the test.
//!
//! The plane belongs to the thread of the test. Networks and daemons are made on that thread.

use std::cell::Cell;

use crate::{daemon, privilege};

/// Who forwards the datagrams of established sessions.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Plane {
    /// The daemon alone.
    Userspace,
    /// The program on the TC hook.
    Tc,
    /// The program on the XDP hook of the driver.
    Xdp,
}

impl Plane {
    /// The plane of the running test; `None` for one that has none.
    pub fn current() -> Option<Self> {
        CURRENT.get()
    }

    /// The table `[ebpf]` that asks for it.
    pub fn table(self) -> Option<&'static str> {
        match self {
            Self::Userspace => None,
            Self::Tc => Some("[ebpf]\nmode = \"tc\"\n"),
            Self::Xdp => Some("[ebpf]\nmode = \"xdp\"\n"),
        }
    }
}

/// What a test expects of a kernel plane. In userspace nothing is ever steered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Expected {
    /// Some datagrams are steered.
    Steered,
    /// None is: no session lasts longer than the answer that installs it, or all have a reason to stay.
    NotSteered,
    /// It depends on who is faster, or on whether a client gets the port of an earlier one.
    Unknown,
}

thread_local! {
    static CURRENT: Cell<Option<Plane>> = const { Cell::new(None) };
    static STEERED: Cell<u64> = const { Cell::new(0) };
}

/// Adds datagrams that a daemon has steered to those of the running test.
pub(crate) fn count(steered: u64) {
    STEERED.set(STEERED.get() + steered);
}

/// Runs `test` on `plane`.
///
/// # Panics
///
/// When the test fails, or what was steered is not what it expects.
pub fn run(plane: Plane, expected: Expected, test: fn()) {
    if plane != Plane::Userspace
        && let Some(missing) = daemon::missing_object()
    {
        return privilege::skip(&missing);
    }
    let _ends = Ends;
    CURRENT.set(Some(plane));
    STEERED.set(0);
    test();
    let steered = STEERED.get();
    if privilege::missing().is_some() {
        return;
    }
    match expected {
        _ if plane == Plane::Userspace => assert_eq!(steered, 0, "datagrams steered without a program"),
        Expected::Steered => assert_ne!(steered, 0, "no datagram was steered"),
        Expected::NotSteered => assert_eq!(steered, 0, "datagrams were steered"),
        Expected::Unknown => {}
    }
}

/// Ends the plane of a thread, on which another test may run next.
struct Ends;

impl Drop for Ends {
    fn drop(&mut self) {
        CURRENT.set(None);
    }
}

/// Makes the tests `userspace`, `tc` and `xdp` of each function, in a module of the function's name.
///
/// Functions stand under what they expect of the kernel planes, see [`Expected`](crate::plane::Expected):
///
/// ```ignore
/// rpxy_l4_tests::planes! {
///     Steered { answers_come_back, bursts_keep_their_order }
///     NotSteered { junk_is_dropped }
/// }
/// ```
///
/// One that is forgotten is unused code, which the compiler reports.
#[macro_export]
macro_rules! planes {
    ($($expected:ident { $($test:ident),+ $(,)? })+) => { $($(
        mod $test {
            use $crate::plane::{Expected, Plane, run};

            #[test]
            fn userspace() {
                run(Plane::Userspace, Expected::$expected, super::$test);
            }

            #[test]
            fn tc() {
                run(Plane::Tc, Expected::$expected, super::$test);
            }

            #[test]
            fn xdp() {
                run(Plane::Xdp, Expected::$expected, super::$test);
            }
        }
    )+)+ };
}
