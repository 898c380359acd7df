//! What the service manager is told, and how its journal gets the log.

use std::{os::unix::net::UnixDatagram, path::Path};

use rpxy_l4_tests::{
    daemon::{Builder, Daemon, Edit, message},
    owned,
    peers::server::Server,
    process::PATIENCE,
    socket,
    topology::Topology,
};
use rustix::process::Signal;

use crate::support::{PORT, at, front, reached_by};

/// A service manager that reads what it is told.
struct Manager(UnixDatagram);

impl Manager {
    fn at(path: &Path) -> Self {
        let socket = UnixDatagram::bind(path).unwrap();
        socket.set_read_timeout(Some(PATIENCE)).unwrap();
        Self(socket)
    }

    /// The next message that is no sign of life and no bare status.
    #[track_caller]
    fn told(&self) -> Vec<String> {
        loop {
            let mut buffer = [0; 4096];
            let len = self.0.recv(&mut buffer).expect("the service manager is told something");
            let lines: Vec<String> = String::from_utf8_lossy(&buffer[..len]).lines().map(str::to_owned).collect();
            if lines.iter().any(|line| !line.starts_with("WATCHDOG=") && !line.starts_with("STATUS=")) {
                return lines;
            }
        }
    }

    /// Waits for so many signs of life.
    #[track_caller]
    fn sees_life(&self, mut times: usize) {
        while times > 0 {
            let mut buffer = [0; 4096];
            let len = self.0.recv(&mut buffer).expect("a sign of life");
            times -= usize::from(buffer[..len] == *b"WATCHDOG=1");
        }
    }
}

fn config(keys: &str) -> String {
    format!("listen_port = {PORT}\n{keys}\ntcp_target = [\"{}\"]\n", at(7000))
}

#[test]
fn the_service_manager_is_told_of_start_reload_load_and_end() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::echo(&net.backend, at(7000));
    let directory = owned::directory();
    let path = directory.path().join("notify");
    let manager = Manager::at(&path);
    let builder = Daemon::builder(&config("drain_timeout = \"1h\"")).env("NOTIFY_SOCKET", &path.display().to_string());
    let mut daemon = builder.env("WATCHDOG_USEC", "200000").start(&net.gateway);
    assert_eq!(manager.told(), ["READY=1", "STATUS=0 TCP connections, 0 UDP sessions"]);
    manager.sees_life(3);

    let stream = socket::dial(&net.client, front());
    socket::send(&stream, b"x\n");
    assert_eq!(socket::read_line(&stream).as_deref(), Some("x"));
    daemon.reload(Edit::Rename, &config("drain_timeout = \"2h\""));
    let reloading = manager.told();
    assert_eq!(reloading[0], "RELOADING=1");
    let micros = reloading[1].strip_prefix("MONOTONIC_USEC=").unwrap();
    assert!(micros.parse::<u64>().unwrap() > 0, "{reloading:?}");
    assert_eq!(manager.told(), ["READY=1", "STATUS=1 TCP connections, 0 UDP sessions"]);

    daemon.allow("not reloaded");
    daemon.edit(Edit::Rename, &config("").replace("443", "0"));
    daemon.wait_for(0, "not reloaded");
    assert_eq!(manager.told()[0], "RELOADING=1");
    let ready = manager.told();
    assert!(ready[0] == "READY=1" && ready[1].contains("the file is not what runs: "), "{ready:?}");
    assert!(ready[1].contains("listen_port"), "{ready:?}");

    daemon.process().signal(Signal::TERM).unwrap();
    assert_eq!(manager.told(), ["STOPPING=1", "STATUS=draining: 1 connections, for 7200s at most"]);
    manager.sees_life(3);
    drop(stream);
    assert!(daemon.wait().success());
}

#[test]
fn a_watchdog_of_another_process_and_a_socket_that_is_gone_change_nothing() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let directory = owned::directory();
    let path = directory.path().join("notify");
    let manager = Manager::at(&path);
    let start = |builder: Builder| builder.env("NOTIFY_SOCKET", &path.display().to_string()).start(&net.gateway);
    let other = start(Daemon::builder(&config("")).env("WATCHDOG_USEC", "1000").env("WATCHDOG_PID", "1"));
    assert_eq!(manager.told()[0], "READY=1");
    drop(other);
    assert_eq!(manager.told()[0], "STOPPING=1", "no sign of life in between would have been passed over");
    drop(manager);
    let _alone = start(Daemon::builder(&config("")));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
}

#[test]
fn the_journal_gets_priorities_instead_of_times() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    // What systemd does before it executes a service.
    let journal = "JOURNAL_STREAM=$(stat -L -c %d:%i /proc/$$/fd/1) exec \"$@\"";
    for (row, arguments, prefix) in [("text", &[] as &[&str], "<6>INFO "), ("JSON", &["--json"], "<6>{\"time\":")] {
        let builder = Daemon::builder(&config("")).through(["sh", "-c", journal, "sh"]);
        let mut daemon = builder.args(arguments).launch(&net.gateway);
        daemon.wait_for(0, "ready: ");
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"), "{row}");
        daemon.wait_for(0, "finish");
        daemon.process().signal(Signal::TERM).unwrap();
        assert!(daemon.wait().success(), "{row}");
        let lines = daemon.process().lines();
        assert!(lines.len() > 3 && lines.iter().all(|line| line.starts_with(prefix)), "{row}: {lines:#?}");
    }
    // The output is another one than the journal: as ever.
    let daemon = Daemon::builder(&config("")).env("JOURNAL_STREAM", "1:1").start(&net.gateway);
    let ready = daemon.lines_with("ready: ").remove(0);
    assert!(ready.starts_with("20") && message(&ready).starts_with("ready: "), "{ready}");
}
