//! Servers of several kinds behind listeners of their own, as operators run them.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    os::unix::net::UnixStream,
    time::Duration,
};

use rpxy_l4_tests::{
    daemon::Daemon,
    owned,
    peers::{
        dnsmasq::{Dnsmasq, question},
        postgres::Postgres,
        programs::{SshServer, text},
        server::Server,
        udp::UdpClient,
    },
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_V4, Topology, client_pool},
    wait,
};

use crate::support::{PORT, at, reached_by, rule};

fn port(port: u16) -> SocketAddr {
    (GATEWAY_V4, port).into()
}

#[test]
fn a_database_ssh_and_dns_have_listeners_of_their_own() {
    let Some(net) = Topology::or_skip() else { return };
    let _postgres = Postgres::start(&net.backend, at(5432));
    let sshd = SshServer::start(&net.backend, at(7022));
    let _web = Server::tagged(&net.backend, at(7000), "web");
    let [address, ..] = BACKENDS_V4;
    let records =
        "host-record=db.test,192.0.2.77\nsrv-host=_dns._udp.test,ns.test,53\nhost-record=ns.test,198.51.100.10";
    let _dns = Dnsmasq::start(&net.backend, address, records);
    fs::write(net.gateway.etc().join("resolv.conf"), format!("nameserver {address}\n")).unwrap();
    let only_one = format!("listeners = [\"ssh\"]\nfrom = [\"{CLIENT_V4}/32\"]");
    let config = [
        format!("listen_port = {PORT}\ntcp_target = \"{}\"\n", at(7000)),
        format!("[listeners.db]\nlisten_port = 5432\ntcp_target = \"{}\"\n", at(5432)),
        "[listeners.ssh]\nlisten_port = 2222\n".to_owned(),
        "[listeners.dns]\nlisten_port = 53\ntransport = \"udp\"\nudp_target = \"srv:_dns._udp.test\"\n".to_owned(),
        rule("ssh", "ssh", at(7022), &only_one),
    ];
    let daemon = Daemon::start(&net.gateway, &config.concat());

    // Its client speaks first, and asks whether there is TLS before anything else.
    assert_eq!(text(&mut Postgres::client(&net.client, port(5432), "SELECT 6 * 7")), "42");
    let rows =
        text(&mut Postgres::client(&net.client, port(5432), "SELECT sum(n) FROM generate_series(1, 100000) AS n"));
    assert_eq!(rows, "5000050000");

    assert_eq!(text(&mut sshd.client(&net.client, port(2222), "echo in")), "in");
    let other = sshd.client_from(&net.client, client_pool(0), port(2222), "echo in").output().unwrap();
    assert!(!other.status.success() && other.stdout.is_empty(), "{other:?}");

    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    for id in 1..=3 {
        let answer = client.ask(port(53), &question(id, "db.test"));
        assert!(answer.ends_with(&[192, 0, 2, 77]), "{answer:?}");
    }
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("web"));
    for (rule, count) in [("[start] tcp: ", 3), ("[start] tcp:ssh: ", 1), ("[start] udp: ", 1)] {
        wait::until(rule, || (daemon.lines_with(rule).len() >= count).then_some(()));
    }
}

#[test]
fn a_flood_over_a_unix_socket_costs_other_listeners_nothing() {
    const MOST: usize = 5;
    let Some(net) = Topology::or_skip() else { return };
    let (local, web) = (Server::tagged(&net.backend, at(7001), "local"), Server::tagged(&net.backend, at(7000), "web"));
    let directory = owned::directory();
    let path = directory.path().join("in.sock");
    let config = format!(
        "listen_port = {PORT}\ntcp_target = \"{}\"\n\
         [listeners.local]\nlisten_unix = \"{}\"\ntcp_target = \"{}\"\ntcp_max_connections = {MOST}\n",
        at(7000),
        path.display(),
        at(7001)
    );
    let daemon = Daemon::builder(&config).allow("tcp_max_connections (5) of listener local").start(&net.gateway);
    let connect = || {
        let stream = UnixStream::connect(&path).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut line = String::new();
        BufReader::new(&stream).read_line(&mut line).is_ok_and(|_| line == "local\n").then_some(stream)
    };
    let held: Vec<_> = (0..MOST).map(|_| connect()).collect();
    assert!(held.iter().all(Option::is_some), "{held:?}");
    for _ in 0..500 {
        let mut stream = UnixStream::connect(&path).unwrap();
        let _refused = stream.write_all(b"x");
        assert_eq!(std::io::Read::read(&mut stream, &mut [0; 16]).unwrap_or(0), 0);
    }
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("web"));
    let shown = path.display();
    let line = daemon.wait_for(0, "[refused]");
    assert!(line.ends_with(&format!("[refused] tcp: unix:{shown} -> unix:{shown}: too_many")), "{line}");
    assert!(daemon.lines_with("too_many").len() < 50, "one source has few lines");
    assert_eq!(daemon.lines_with("tcp_max_connections").len(), 1);
    assert_eq!((local.accepted(), web.accepted()), (MOST, 1));
    drop(held);
    wait::until("there is room again", connect);
}
