//! Signals other than SIGHUP and SIGTERM.

use std::{fs, os::unix::fs::MetadataExt as _};

use rpxy_l4_tests::{daemon::Daemon, owned, peers::server::Server, socket, topology::Topology, wait};
use rustix::process::Signal;

use crate::support::{PORT, at, front, reached_by};

fn config(top: &str) -> String {
    format!("listen_port = {PORT}\n{top}\ntcp_target = [\"{}\"]\n", at(7000))
}

#[test]
fn usr1_reopens_the_logs_and_usr2_is_ignored() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let directory = owned::directory();
    let builder = Daemon::builder(&config("")).args(["--log-dir", &directory.path().display().to_string()]);
    let mut daemon = builder.launch(&net.gateway);
    let (log, old) = (directory.path().join("rpxy-l4.log"), directory.path().join("rpxy-l4.log.1"));
    let has = |file: &std::path::Path, text: &str| fs::read_to_string(file).is_ok_and(|log| log.contains(text));
    wait::until("it is ready", || has(&log, "ready").then_some(()));

    daemon.process().signal(Signal::USR2).unwrap();
    wait::until("SIGUSR2 is said to be ignored", || has(&log, "SIGUSR2 ignored").then_some(()));

    // Only a signal makes it write to the new file at once, without a look of its own in between: that is tested in the
    // sink. Here, that the signal is taken, and does not reload.
    fs::rename(&log, &old).unwrap();
    daemon.process().signal(Signal::USR1).unwrap();
    wait::until("the log is a new file", || {
        // Nothing is written until there is something to say.
        daemon.process().signal(Signal::USR2).unwrap();
        has(&log, "SIGUSR2 ignored").then_some(())
    });
    assert_ne!(fs::metadata(&log).unwrap().ino(), fs::metadata(&old).unwrap().ino());
    assert!(!has(&log, "configuration") && !has(&old, "configuration unchanged"), "SIGUSR1 reloads");
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("served"));
    daemon.process().signal(Signal::TERM).unwrap();
    assert!(daemon.wait().success());
}

#[test]
fn quit_stops_in_good_order() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::echo(&net.backend, at(7000));
    let mut daemon = Daemon::start(&net.gateway, &config("drain_timeout = \"1h\""));
    let stream = socket::dial(&net.client, front());
    socket::send(&stream, b"x");
    assert_eq!(socket::read_exactly(&stream, 1), b"x");
    daemon.process().signal(Signal::QUIT).unwrap();
    daemon.wait_for(0, "draining");
    socket::send(&stream, b"y");
    assert_eq!(socket::read_exactly(&stream, 1), b"y");
    drop(stream);
    assert_eq!(daemon.wait().code(), Some(0));
    daemon.wait_for(0, "stopped");
}
