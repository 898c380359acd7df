//! `rpxy-l4 healthcheck`: what a container runtime learns from it.

use rpxy_l4_tests::{
    daemon::{self, Daemon, Edit},
    topology::Topology,
};

use crate::support::{
    PORT,
    admin::{Scratch, say},
    at,
};

#[test]
fn a_daemon_is_healthy_while_it_serves_also_while_it_is_drained() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let file = |keys: &str| {
        format!("listen_port = {PORT}\nmetrics_listen = \"127.0.0.1:9901\"\n{keys}\ntcp_target = [\"{}\"]\n", at(7000))
    };
    let socket = scratch.socket().display().to_string();
    let builder = Daemon::builder(&file("")).args(["--admin-socket", &socket]);
    let mut daemon = builder.start(&net.gateway);
    let config = daemon.config_path().display().to_string();
    let check = |arguments: &[&str]| {
        let (status, lines) = daemon::run_to_end(&net.gateway, &[&["healthcheck"], arguments].concat());
        (status.code().unwrap(), lines.join("\n"))
    };
    let healthy = |said: &str| (0, format!("healthy: {said}"));
    let rows: [&[&str]; 4] = [
        &["--socket", &socket],
        &["--config", &config],
        &["--url", "http://127.0.0.1:9901/healthz"],
        &["--url", "http://127.0.0.1:9901/readyz"],
    ];
    for (arguments, said) in rows.into_iter().zip(["listening", "alive", "alive", "ready"]) {
        assert_eq!(check(arguments), healthy(said), "{arguments:?}");
    }

    assert_eq!(say(&net, &scratch, &["drain", "--listeners"]).0, Some(0));
    for (arguments, expected) in [
        (&["--socket", &socket] as &[&str], healthy("drained by command")),
        (&["--socket", &socket, "--ready"], (1, "error: not ready: the listeners are drained by command".to_owned())),
        (&["--config", &config], healthy("alive")),
        (
            &["--config", &config, "--ready"],
            (1, "error: http://127.0.0.1:9901/readyz: status 503: not ready: draining".to_owned()),
        ),
    ] {
        assert_eq!(check(arguments), expected, "{arguments:?}");
    }
    assert_eq!(say(&net, &scratch, &["up", "--listeners"]).0, Some(0));

    // The socket of the command line stays, unless the file names another.
    daemon.reload(Edit::Rename, &file("tcp_max_connections = 7"));
    assert_eq!(check(&["--socket", &socket]), healthy("listening"));
    let other = scratch.named("other.sock").display().to_string();
    daemon.reload(Edit::Rename, &file(&format!("admin_socket = \"{other}\"")));
    assert_eq!(check(&["--socket", &other]), healthy("listening"));
    assert_eq!(check(&["--config", &config]), healthy("listening"));
    let (code, said) = check(&["--socket", &socket]);
    assert!(code == 1 && said.contains("no daemon runs with this admin_socket"), "{code}: {said}");
}

#[test]
fn where_no_daemon_is_nothing_is_healthy() {
    let Some(net) = Topology::or_skip() else { return };
    let (code, lines) = say(&net, &Scratch::new(), &["healthcheck"]);
    assert_eq!(code, Some(1), "{lines:?}");
    assert!(lines.join("\n").contains("no daemon runs with this admin_socket"), "{lines:?}");
}
