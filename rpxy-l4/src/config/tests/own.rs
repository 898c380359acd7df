//! Places of the daemon itself: taken twice, or by a target.

use super::{BASE, accepted, errors, refuses};

#[test]
fn places_that_the_daemon_takes_twice_are_refused() {
    let both = "listen_ipv6 = true\n";
    let unix = "listen_unix = '/run/x/in.sock'\n";
    refuses(&[
        ("metrics at a listener", "metrics_listen = '0.0.0.0:8448'", "3: metrics_listen"),
        ("at one of its addresses", "metrics_listen = '127.0.0.1:8448'", "3: metrics_listen"),
        ("over IPv6", &format!("{both}metrics_listen = '[::1]:8448'"), "4: metrics_listen"),
        (
            "everywhere, and the listener at one address",
            "listen_address_v4 = '192.0.2.7'\nmetrics_listen = '0.0.0.0:8448'",
            "4: metrics_listen",
        ),
        (
            "at another listener",
            "metrics_listen = '0.0.0.0:1'\n[listeners.b]\nlisten_port = 1\ntcp_target = 'a:1'",
            "3: metrics_listen",
        ),
        ("the status page", "status_listen = '127.0.0.1:8448'", "3: status_listen"),
        ("the admin socket", &format!("{unix}admin_socket = '/run/x/in.sock'"), "4: admin_socket"),
        ("the same, spelt otherwise", &format!("{unix}admin_socket = '/run/x//in.sock'"), "4: admin_socket"),
        (
            "the status page at a unix socket",
            &format!("{unix}status_listen = 'unix:/run/x/in.sock'"),
            "4: status_listen",
        ),
    ]);
    for (row, text) in [
        ("another port", "metrics_listen = '127.0.0.1:8449'"),
        ("the other family", "metrics_listen = '[::1]:8448'"),
        ("another address", "listen_address_v4 = '192.0.2.7'\nmetrics_listen = '127.0.0.1:8448'"),
        ("UDP alone", "metrics_listen = '127.0.0.1:1'\n[listeners.b]\nlisten_port = 1\nudp_target = 'a:2'"),
        ("another path", "listen_unix = '/run/x/in.sock'\nadmin_socket = '/run/x/admin.sock'"),
    ] {
        assert!(crate::config::parse(&format!("{BASE}{text}")).is_ok(), "{row}");
    }
}

#[test]
fn a_target_that_is_the_own_unix_socket_is_found_by_any_path() {
    let directory = tempfile::tempdir().unwrap();
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::create_dir(at("real")).unwrap();
    std::os::unix::fs::symlink("real", at("linked")).unwrap();
    // The socket is not there yet.
    std::os::unix::fs::symlink("real/in.sock", at("in.sock")).unwrap();
    let listen = at("real/in.sock");
    for (row, path, own) in [
        ("itself", "real/in.sock", true),
        ("by a linked directory", "linked/in.sock", true),
        ("by a link to it", "in.sock", true),
        ("by ..", "linked/../real/in.sock", true),
        ("another socket", "real/out.sock", false),
        ("one in a directory that is not there", "none/in.sock", false),
    ] {
        let text = format!("listen_unix = '{listen}'\ntcp_target = 'unix:{}'", at(path));
        if own {
            assert_eq!(errors(&text), ["2: tcp_target"], "{row}");
        } else {
            let _config = accepted(&text);
        }
    }
}
