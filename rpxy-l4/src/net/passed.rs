//! Sockets that the service manager has opened and passed on (sd_listen_fds(3)).
#![expect(unsafe_code, reason = "a number in the environment becomes a descriptor that we own")]

use std::{
    env, io,
    os::fd::{BorrowedFd, FromRawFd as _, OwnedFd, RawFd},
    sync::atomic::{AtomicBool, Ordering},
};

use rustix::{
    fs::fcntl_getfl,
    io::{FdFlags, fcntl_setfd},
};

/// Number of the first one (`SD_LISTEN_FDS_START`).
const FIRST: RawFd = 3;
/// Sockets taken at most; systemd itself takes 4096 lines of a unit at most.
const MOST: RawFd = 4096;

/// A socket that was passed on.
#[derive(Debug)]
pub(crate) struct PassedSocket {
    /// Its name (`FileDescriptorName=`); without one, that of its unit, or nothing.
    pub(crate) name: String,
    /// The socket, which programs that this one starts do not inherit.
    pub(crate) socket: OwnedFd,
}

/// Takes the sockets that `LISTEN_FDS` tells of, if they are for this process (`LISTEN_PID`). Only the first call returns
/// any. Has to come before anything else opens descriptors.
///
/// # Errors
///
/// What the variables say cannot be.
pub(crate) fn take_passed() -> io::Result<Vec<PassedSocket>> {
    static TAKEN: AtomicBool = AtomicBool::new(false);
    let variable = |name: &str| env::var(name).ok();
    let count = count(variable("LISTEN_FDS"), variable("LISTEN_PID"), std::process::id())?;
    if count == 0 || TAKEN.swap(true, Ordering::Relaxed) {
        return Ok(Vec::new());
    }
    let names = variable("LISTEN_FDNAMES").unwrap_or_default();
    let mut names = names.split(':');
    let take = |number: RawFd| {
        let name = names.next().unwrap_or_default().to_owned();
        // SAFETY: borrowed for these two calls alone, which do no harm to whatever the number may stand for.
        let there = unsafe { BorrowedFd::borrow_raw(number) };
        let opened = fcntl_getfl(there).and_then(|_| fcntl_setfd(there, FdFlags::CLOEXEC));
        opened.map_err(|error| {
            io::Error::new(error.kind(), format!("LISTEN_FDS = {count}: descriptor {number} is not open"))
        })?;
        // SAFETY: it is open, as was just seen, and by sd_listen_fds(3) it is ours: the variables name this process.
        // Nothing in it has opened a descriptor yet, and this is done once.
        let socket = unsafe { OwnedFd::from_raw_fd(number) };
        Ok(PassedSocket { name, socket })
    };
    (FIRST..FIRST + count).map(take).collect()
}

/// The number of sockets for the process `pid`.
fn count(fds: Option<String>, of: Option<String>, pid: u32) -> io::Result<RawFd> {
    let (Some(fds), Some(of)) = (fds, of) else { return Ok(0) };
    if of.parse() != Ok(pid) {
        // They were for a process that has started this one.
        return Ok(0);
    }
    let count = fds.parse().ok().filter(|count| (0..=MOST).contains(count));
    count.ok_or_else(|| {
        io::Error::new(io::ErrorKind::InvalidInput, format!("LISTEN_FDS = {fds:?}: expected 0 to {MOST}"))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_are_taken_only_by_the_process_that_they_are_for() {
        let some = |text: &str| Some(text.to_owned());
        for (row, fds, of, expected) in [
            ("none", None, None, Ok(0)),
            ("of nobody", some("2"), None, Ok(0)),
            ("of this process", some("2"), some("7"), Ok(2)),
            ("of another one", some("2"), some("8"), Ok(0)),
            ("none of this process", some("0"), some("7"), Ok(0)),
            ("the most", some("4096"), some("7"), Ok(4096)),
            ("too many", some("4097"), some("7"), Err(())),
            ("fewer than none", some("-1"), some("7"), Err(())),
            ("no number", some("two"), some("7"), Err(())),
        ] {
            assert_eq!(count(fds, of, 7).map_err(drop), expected, "{row}");
        }
    }
}
