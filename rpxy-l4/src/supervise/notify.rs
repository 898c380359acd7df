//! What the service manager is told (sd_notify(3)): datagrams to the socket that it has named in `NOTIFY_SOCKET`, by hand,
//! since that is all there is to it. Without a service manager nothing is sent.
//!
//! A message that cannot be sent is passed over: nothing of the daemon depends on it, and whoever wanted it has a time-out.

use std::{
    ffi::OsString,
    fmt::Display,
    io,
    os::{
        linux::net::SocketAddrExt as _,
        unix::{
            ffi::OsStrExt as _,
            net::{SocketAddr, UnixDatagram},
        },
    },
    path::PathBuf,
    time::Duration,
};

use rustix::time::{ClockId, clock_gettime};

use crate::escape;

/// The longest status, in characters.
const LONGEST_STATUS: usize = 500;

/// The way to the service manager.
#[derive(Debug)]
pub(super) struct Notify {
    socket: Option<(UnixDatagram, SocketAddr)>,
    /// As the environment names it.
    path: Option<OsString>,
    /// The status that was told last.
    status: String,
    watchdog: Option<Duration>,
}

impl Notify {
    /// The service manager that the environment names.
    pub(super) fn from_environment() -> Self {
        let variable = |name: &str| std::env::var(name).ok();
        let watchdog = watchdog(variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"), std::process::id());
        Self::at(std::env::var_os("NOTIFY_SOCKET"), watchdog)
    }

    /// The service manager at this socket.
    fn at(path: Option<OsString>, watchdog: Option<Duration>) -> Self {
        let socket = path.as_ref().and_then(|path| match open(path) {
            Ok(socket) => Some(socket),
            Err(error) => {
                tracing::warn!("NOTIFY_SOCKET: the service manager is not told anything: {error}");
                None
            }
        });
        Self { socket, path, status: String::new(), watchdog }
    }

    /// The service manager that a predecessor has told of, in place of another one.
    pub(super) fn take_over(&mut self, path: Option<PathBuf>, watchdog: Option<Duration>) {
        if let Some(path) = path {
            *self = Self::at(Some(path.into()), watchdog);
        }
    }

    /// What a successor has to know.
    pub(super) fn to_hand_over(&self) -> (Option<PathBuf>, Option<Duration>) {
        (self.path.clone().map(PathBuf::from), self.watchdog)
    }

    /// From now on the process `pid` is the service, and tells the rest.
    pub(super) fn hand_over(&mut self, pid: u32) {
        self.send(&format!("MAINPID={pid}"));
        self.socket = None;
    }

    /// Interval within which the service manager wants a sign of life; `None` if it wants none.
    pub(super) fn watchdog(&self) -> Option<Duration> {
        self.watchdog.filter(|_| self.socket.is_some())
    }

    /// The daemon serves. `status` is one line for people.
    pub(super) fn ready(&mut self, status: &str) {
        self.send(&format!("READY=1\nSTATUS={}", one_line(status)));
        status.clone_into(&mut self.status);
    }

    /// It reads its configuration again; [`Notify::ready`] follows, whatever comes of it.
    pub(super) fn reloading(&self) {
        let now = clock_gettime(ClockId::Monotonic);
        let micros = i128::from(now.tv_sec) * 1_000_000 + i128::from(now.tv_nsec) / 1000;
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={micros}"));
    }

    /// One line for people, if it is another one than before.
    pub(super) fn status(&mut self, status: &str) {
        if self.status != status {
            self.send(&format!("STATUS={}", one_line(status)));
            status.clone_into(&mut self.status);
        }
    }

    /// The end has begun.
    pub(super) fn stopping(&self, status: &dyn Display) {
        self.send(&format!("STOPPING=1\nSTATUS={}", one_line(&status.to_string())));
    }

    /// A sign of life.
    pub(super) fn alive(&self) {
        self.send("WATCHDOG=1");
    }

    fn send(&self, message: &str) {
        let Some((socket, address)) = &self.socket else { return };
        if let Err(error) = socket.send_to_addr(message.as_bytes(), address) {
            tracing::debug!("the service manager was not told: {error}");
        }
    }
}

/// A socket, and the address of the service manager: a path, or a name without a file.
fn open(path: &OsString) -> io::Result<(UnixDatagram, SocketAddr)> {
    let address = match path.as_bytes() {
        [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
        _ => SocketAddr::from_pathname(path)?,
    };
    let socket = UnixDatagram::unbound()?;
    // A service manager that does not read must not hold up the daemon.
    socket.set_nonblocking(true)?;
    Ok((socket, address))
}

/// The interval that `usec` tells to the process `pid` (sd_watchdog_enabled(3)).
fn watchdog(usec: Option<String>, of: Option<String>, pid: u32) -> Option<Duration> {
    if of.is_some_and(|of| of.parse() != Ok(pid)) {
        return None;
    }
    usec?.parse().ok().filter(|usec| *usec > 0).map(Duration::from_micros)
}

/// A message is lines of assignments, and 4 KiB long at most.
fn one_line(text: &str) -> String {
    escape::bounded(text, LONGEST_STATUS).replace(char::is_control, " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn told(socket: &UnixDatagram) -> Vec<String> {
        let mut buffer = [0; 1024];
        std::iter::from_fn(|| socket.recv(&mut buffer).ok().map(|len| String::from_utf8_lossy(&buffer[..len]).into()))
            .collect()
    }

    fn pair(name: &OsString, at: &SocketAddr) -> (Notify, UnixDatagram) {
        let manager = UnixDatagram::bind_addr(at).unwrap();
        manager.set_nonblocking(true).unwrap();
        (Notify::at(Some(name.clone()), None), manager)
    }

    #[test]
    fn the_service_manager_is_told_at_a_path_or_a_name() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let name = format!("rpxy-l4-test-{}", std::process::id());
        for (socket, address) in [
            (OsString::from(&path), SocketAddr::from_pathname(&path).unwrap()),
            (OsString::from(format!("@{name}")), SocketAddr::from_abstract_name(&name).unwrap()),
        ] {
            let (mut notify, manager) = pair(&socket, &address);
            notify.ready("serves\nWATCHDOG=trigger");
            notify.status("serves\nWATCHDOG=trigger");
            notify.status("two connections");
            notify.alive();
            notify.stopping(&"draining");
            let expected = [
                "READY=1\nSTATUS=serves WATCHDOG=trigger",
                "STATUS=two connections",
                "WATCHDOG=1",
                "STOPPING=1\nSTATUS=draining",
            ];
            assert_eq!(told(&manager), expected, "{socket:?}");
            notify.reloading();
            let reloading = told(&manager).remove(0);
            let micros = reloading.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").unwrap();
            assert!(micros.parse::<u64>().unwrap() > 0, "{reloading}");
        }
    }

    #[test]
    fn a_service_manager_that_does_not_read_holds_up_nothing() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notify");
        let (notify, _manager) = pair(&OsString::from(&path), &SocketAddr::from_pathname(&path).unwrap());
        // Many more than the queue of a socket takes (`net.unix.max_dgram_qlen`).
        for _ in 0..10_000 {
            notify.alive();
        }
    }

    #[test]
    fn the_watchdog_is_the_one_of_this_process() {
        let some = |text: &str| Some(text.to_owned());
        for (row, usec, of, expected) in [
            ("none", None, None, None),
            ("without a process", some("3000000"), None, Some(3)),
            ("of this process", some("3000000"), some("7"), Some(3)),
            ("of another one", some("3000000"), some("8"), None),
            ("of none", some("3000000"), some("x"), None),
            ("off", some("0"), None, None),
            ("no number", some("soon"), None, None),
        ] {
            assert_eq!(watchdog(usec, of, 7), expected.map(Duration::from_secs), "{row}");
        }
    }
}
