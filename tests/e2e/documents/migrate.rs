//! The examples of docs/migrate: what they bring to which backend, theirs in their program and ours in the daemon.

use std::thread;

use rpxy_l4_tests::{
    OrFail as _,
    daemon::Daemon,
    hello::Hello,
    initial::Initial,
    owned,
    peers::{
        programs,
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    topology::{BACKENDS_V4, GATEWAY_V4, Topology},
};

use crate::support::{PORT, front, http_request, reached_by, strictly_valid};

const OLD: &str = include_str!("../../../docs/migrate/rpxy-l4-0.2.md");
const HAPROXY: &str = include_str!("../../../docs/migrate/haproxy.md");
const NGINX: &str = include_str!("../../../docs/migrate/nginx-stream.md");
const SSLH: &str = include_str!("../../../docs/migrate/sslh.md");
const CADDY: &str = include_str!("../../../docs/migrate/caddy-l4.md");

/// The backends of the examples, by what they are: index of the address, and port.
const BACKENDS: [(&str, usize, u16); 8] = [
    ("www", 0, 8443),
    ("other", 0, 8444),
    ("web", 0, 8080),
    ("web", 0, 8081),
    ("www", 1, 8443),
    ("mail", 1, 993),
    ("ssh", 2, 22),
    ("vpn", 2, 1194),
];

/// What a client sends first.
fn first_bytes(what: &str) -> Vec<u8> {
    match what {
        "nothing" => Vec::new(),
        "SSH" => b"SSH-2.0-test\r\n".to_vec(),
        // P_CONTROL_HARD_RESET_CLIENT_V2 behind its length.
        "OpenVPN" => [&[0, 14, 0x38][..], &[7; 13]].concat(),
        host if host.starts_with("http://") => http_request(host.trim_start_matches("http://")),
        name => Hello::to(name).bytes(),
    }
}

/// First bytes of a client, the backend of the foreign program, and ours. Nothing is a connection that is closed.
type Row = (&'static str, Option<&'static str>, Option<&'static str>);

/// Runs `theirs`, then the daemon with the example of `page`, and compares where they bring the `rows`.
#[track_caller]
fn compare(page: &str, rows: &[Row], theirs: impl Fn(&Topology) -> Option<programs::Program>) {
    let Some(net) = Topology::or_skip() else { return };
    let _backends = BACKENDS.map(|(tag, index, port)| Server::tagged(&net.backend, (BACKENDS_V4[index], port), tag));
    if let Some(program) = theirs(&net) {
        // One after the other: sslh-select has dropped connections that came together.
        for (what, expected, _) in rows {
            assert_eq!(reached_by(&net, &first_bytes(what)).as_deref(), *expected, "theirs: {what}");
        }
        drop(program);
    }
    let _daemon = Daemon::start(&net.gateway, &strictly_valid(&net, block(page, "toml", 0)));
    reach(&net, rows.iter().map(|row| (row.0, row.2)), "ours");
}

fn reach(net: &Topology, rows: impl Iterator<Item = (&'static str, Option<&'static str>)>, whose: &str) {
    // Silence takes its time.
    thread::scope(|scope| {
        for (what, expected) in rows {
            scope.spawn(move || {
                assert_eq!(reached_by(net, &first_bytes(what)).as_deref(), expected, "{whose}: {what}");
            });
        }
    });
}

/// The code block number `index` of those in `language`.
#[track_caller]
fn block(page: &str, language: &str, index: usize) -> String {
    let blocks = page.split("\n```").skip(1).step_by(2);
    let mut wanted = blocks.filter_map(|block| block.strip_prefix(language)?.strip_prefix('\n'));
    let block = wanted.nth(index).or_fail(format_args!("block {index} of {language}"));
    format!("{block}\n")
}

#[test]
fn haproxy() {
    let rows = [
        ("www.example.com", Some("www"), Some("www")),
        ("WWW.example.com", Some("www"), Some("www")),
        ("a.app.example.com", Some("www"), Some("www")),
        ("mail.example.com", Some("mail"), Some("mail")),
        ("other.example.net", Some("vpn"), Some("vpn")),
        ("SSH", Some("ssh"), Some("ssh")),
        ("http://www.example.com", Some("web"), Some("web")),
        ("OpenVPN", Some("vpn"), Some("vpn")),
        ("nothing", Some("vpn"), Some("vpn")),
    ];
    compare(HAPROXY, &rows, |net| {
        let config = &block(HAPROXY, "haproxy", 0);
        Some(programs::configured(&net.gateway, "haproxy", &["-db", "-f", "FILE"], config, &[PORT]))
    });
}

#[test]
fn nginx() {
    let rows = [
        ("www.example.com", Some("www"), Some("www")),
        ("a.app.example.com", Some("www"), Some("www")),
        ("mail.example.com", Some("mail"), Some("mail")),
        ("other.example.net", Some("other"), Some("other")),
        ("SSH", Some("ssh"), Some("ssh")),
        ("http://www.example.com", Some("ssh"), None),
        ("nothing", None, None),
    ];
    let dns = (GATEWAY_V4, 53);
    let asks = |net: &Topology| UdpClient::new(&net.client).ask_text(dns, "name");
    compare(NGINX, &rows, |net| {
        let config = &block(NGINX, "nginx", 0);
        let _server = UdpServer::echo(&net.backend, (BACKENDS_V4[2], 53), "dns ");
        let settings = "daemon off; user root; worker_processes 1; pid DIR/pid; error_log stderr;";
        let program = programs::configured(
            &net.gateway,
            "nginx",
            &["-e", "stderr", "-c", "FILE", "-g", settings],
            config,
            &[PORT],
        );
        assert_eq!(asks(net), "dns name");
        Some(program)
    });
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, (BACKENDS_V4[2], 53), "dns ");
    let _daemon = Daemon::start(&net.gateway, &block(NGINX, "toml", 0));
    assert_eq!(asks(&net), "dns name");
}

#[test]
fn sslh() {
    let rows = [
        ("mail.example.com", Some("mail"), Some("mail")),
        ("other.example.net", Some("www"), Some("www")),
        ("SSH", Some("ssh"), Some("ssh")),
        ("http://www.example.com", Some("web"), Some("web")),
        ("OpenVPN", Some("vpn"), Some("vpn")),
        ("nothing", Some("ssh"), Some("vpn")),
    ];
    compare(SSLH, &rows, |net| {
        let config = &block(SSLH, "sslh", 0);
        Some(programs::configured(&net.gateway, "sslh-select", &["-FFILE"], config, &[PORT]))
    });
}

/// Debian has Caddy without this app: theirs is read as JSON, and no more.
#[test]
fn caddy() {
    let theirs: serde_json::Value = serde_json::from_str(&block(CADDY, "json", 0)).unwrap();
    assert!(theirs["apps"]["layer4"]["servers"]["udp"]["routes"].is_array());
    let rows = [
        ("www.example.com", None, Some("www")),
        ("a.app.example.com", None, Some("www")),
        ("other.example.net", None, None),
        ("SSH", None, Some("ssh")),
        ("http://www.example.com", None, Some("web")),
        ("http://other.example.net", None, None),
    ];
    compare(CADDY, &rows, |_| None);

    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::recorder(&net.backend, (BACKENDS_V4[0], 8443));
    let _daemon = Daemon::builder(&block(CADDY, "toml", 0)).allow("down, check").start(&net.gateway);
    let client = UdpClient::new(&net.client);
    for (name, connection) in [("other.example.net", [1; 8]), ("www.example.com", [2; 8])] {
        for datagram in Initial::v1(&connection, &connection).datagrams(&Hello::to(name)) {
            client.send(front(), &datagram);
        }
    }
    let received = server.wait_for(1);
    assert_eq!(received[0].bytes[6..14], [2; 8], "the connection for www.example.com, and not the one before");
}

/// A file of 0.2.x is taken as it is, and with what is new.
#[test]
fn rpxy_l4_0_2() {
    let rows = [
        ("www.example.com", None, Some("www")),
        ("other.example.net", None, None),
        ("SSH", None, Some("ssh")),
        ("OpenVPN", None, Some("vpn")),
    ];
    compare(OLD, &rows, |_| None);
    let Some(net) = Topology::or_skip() else { return };
    let _backends = BACKENDS.map(|(tag, index, port)| Server::tagged(&net.backend, (BACKENDS_V4[index], port), tag));
    let config = strictly_valid(&net, block(OLD, "toml", 1));
    // Where only this test is.
    let runtime = owned::directory();
    let config = config.replace("/run/rpxy-l4", &runtime.path().display().to_string());
    let _daemon = Daemon::start(&net.gateway, &config);
    reach(&net, rows.iter().map(|row| (row.0, row.2)), "with what is new");
    let mail = reached_by(&net, &first_bytes("a.mail.example.com"));
    assert_eq!(mail.as_deref(), Some("mail"), "with what is new");
}
