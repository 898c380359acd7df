//! QUIC clients whose address changes under way: by a NAT that forgets, by moving.

use std::{net::Ipv4Addr, time::Duration};

use rpxy_l4_tests::{
    daemon::Daemon,
    flow::Flow,
    hello::Hello,
    initial::{self, Initial},
    nat::Nat,
    peers::{
        programs::Certificate,
        quic::{QuicClient, QuicServer},
        udp::{UdpClient, UdpServer},
    },
    topology::{BACKENDS_V4, CLIENT_V4, Topology, client_pool},
    wait,
};

use crate::support::{PORT, at, front, rule, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        a_transfer_survives_a_nat_that_changes_the_port_all_the_time,
        a_connection_id_outlives_its_session,
        a_client_that_moves_with_a_new_connection_id_goes_on_where_strays_have_a_place,
        a_client_that_moves_where_strays_are_dropped_can_connect_again,
        a_stolen_connection_id_reaches_the_server_but_takes_nothing_from_its_owner,
        several_connections_of_one_socket_move_together,
    }
}

const NAMES: [&str; 2] = ["one.test", "two.test"];

fn one() -> String {
    rule("one", "quic", at(7001), "server_names = [\"one.test\"]")
}

fn a_transfer_survives_a_nat_that_changes_the_port_all_the_time() {
    const BYTES: u64 = 50_000_000;
    /// Of some 80,000 for both transfers and their acknowledgements.
    const DATAGRAMS: usize = 10_000;
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let server = QuicServer::start(&net.backend, at(7001), "one", &certificate, &["h3"]);
    let other = QuicServer::start(&net.backend, at(7000), "other", &certificate, &["h3"]);
    let _daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), "") + &one()));
    let nat = Nat::restless(&net.client, front(), DATAGRAMS);
    // Behind a NAT that forgets, only the client can make itself heard again.
    let client = QuicClient::new(&net.client, (Ipv4Addr::LOCALHOST, 0), &certificate);
    let client = client.keep_alive(Duration::from_millis(50));
    let connection = client.connect(nat.inside(), "one.test", &["h3"]);
    let first = connection.ask().client;
    let mut seed = 0;
    while seed == 0 || nat.rebinds() < 4 {
        connection.download(Flow { seed, length: BYTES }).unwrap();
        connection.upload(Flow { seed: seed + 1, length: BYTES }).unwrap();
        seed += 2;
    }
    assert_ne!(connection.ask().client, first, "the server has not seen another port");
    assert_eq!((server.accepted(), other.accepted()), (1, 0), "one connection all the time");
}

fn a_connection_id_outlives_its_session() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    // Only one of the three knows the connection: any other would answer with a reset.
    let servers =
        BACKENDS_V4.map(|ip| QuicServer::start(&net.backend, (ip, 7000), &ip.to_string(), &certificate, &["h3"]));
    let config = format!(
        "listen_port = {PORT}\n\n[protocols.any]\nprotocol = \"quic\"\nload_balance = \"random\"\n\
         idle_lifetime = 1\ntarget = [\"{}:7000\", \"{}:7000\", \"{}:7000\"]\n",
        BACKENDS_V4[0], BACKENDS_V4[1], BACKENDS_V4[2]
    );
    let daemon = Daemon::start(&net.gateway, &config);
    for round in 0..3 {
        let nat = Nat::start(&net.client, front());
        let client = QuicClient::new(&net.client, (Ipv4Addr::LOCALHOST, 0), &certificate);
        let connection = client.connect(nat.inside(), "one.test", &["h3"]);
        let before = connection.ask();
        // Two sessions in each round, of which the second ends in the next one at the latest.
        wait::until("its session has ended", || (daemon.lines_with("[finish]").len() > 2 * round).then_some(()));
        nat.rebind();
        let after = connection.ask();
        assert_eq!(after.tag, before.tag, "round {round}");
        assert_ne!(after.client, before.client, "round {round}: over a new session");
    }
    assert_eq!(servers.iter().map(QuicServer::accepted).sum::<usize>(), 3, "no connection was made anew");
}

fn a_client_that_moves_with_a_new_connection_id_goes_on_where_strays_have_a_place() {
    let rows = [("no rule for QUIC", String::new()), ("strays go to the default", one())];
    for (name, rules) in rows {
        let Some(net) = Topology::or_skip() else { return };
        let certificate = Certificate::new(&NAMES);
        let server = QuicServer::start(&net.backend, at(7001), "one", &certificate, &["h3"]);
        let _daemon = Daemon::start(&net.gateway, &(udp_to(at(7001), "orphan = \"default\"") + &rules));
        let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
        let connection = client.connect(front(), "one.test", &["h3"]);
        let before = connection.ask();
        for n in 0..3 {
            client.rebind((client_pool(n), 0));
            assert_eq!(connection.ask().tag, "one", "{name}");
        }
        connection.upload(Flow { seed: 1, length: 1_000_000 }).unwrap();
        assert_ne!(connection.ask().client, before.client, "{name}");
        assert_eq!(server.accepted(), 1, "{name}");
    }
}

fn a_client_that_moves_where_strays_are_dropped_can_connect_again() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let _server = QuicServer::start(&net.backend, at(7001), "one", &certificate, &["h3"]);
    let other = QuicServer::start(&net.backend, at(7000), "other", &certificate, &["h3"]);
    let _daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), "orphan = \"drop\"") + &one()));
    let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    let connection = client.connect(front(), "one.test", &["h3"]);
    assert_eq!(connection.ask().tag, "one");
    client.rebind((client_pool(0), 0));
    // It may break, but it must not reach anybody else.
    if let Ok(identity) = connection.try_ask(Duration::from_secs(1)) {
        assert_eq!(identity.tag, "one");
    }
    assert_eq!(client.connect(front(), "one.test", &["h3"]).ask().tag, "one");
    assert_eq!(other.accepted(), 0);
}

fn a_stolen_connection_id_reaches_the_server_but_takes_nothing_from_its_owner() {
    const ID: [u8; 8] = *b"\xfestolen!";
    let Some(net) = Topology::or_skip() else { return };
    // Answers a hello with its connection ID, and anything else with a datagram that says to whom it went.
    let server = UdpServer::start(&net.backend, at(7001), |datagram| {
        let is_hello = datagram.bytes[0] & 0x80 != 0;
        vec![if is_hello { initial::from_server(&[7; 4], &ID) } else { datagram.source.to_string().into_bytes() }]
    });
    let default = UdpServer::recorder(&net.backend, at(7000));
    let _daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), "") + &one()));
    let [owner, thief] = [CLIENT_V4, client_pool(0)].map(|source| UdpClient::bind(&net.client, (source, 0)));
    let hello = Initial::v1(&[1; 8], &[7; 4]).datagrams(&Hello::to("one.test")).remove(0);
    assert_eq!(owner.ask(front(), &hello), initial::from_server(&[7; 4], &ID));
    let short = initial::short_header(&ID);
    let to_owner = owner.ask(front(), &short);
    let to_thief = thief.ask(front(), &short);
    assert_ne!(to_owner, to_thief, "they share a socket");
    for _ in 0..5 {
        assert_eq!(thief.ask(front(), &short), to_thief);
        assert_eq!(owner.ask(front(), &short), to_owner);
    }
    // What the server sends unasked goes where it did before.
    let owner_source = server.received()[0].source;
    server.send(owner_source, b"secret");
    assert_eq!(owner.receive().bytes, b"secret");
    assert_eq!(thief.ask(front(), &short), to_thief, "the next that the thief gets is its own");
    assert!(default.received().is_empty());
}

fn several_connections_of_one_socket_move_together() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let _one = QuicServer::start(&net.backend, at(7001), "one", &certificate, &["h3"]);
    let _two = QuicServer::start(&net.backend, at(7002), "two", &certificate, &["h3"]);
    let two = rule("two", "quic", at(7002), "server_names = [\"two.test\"]");
    let _daemon = Daemon::start(&net.gateway, &(format!("listen_port = {PORT}\n") + &one() + &two));
    let nat = Nat::start(&net.client, front());
    let client = QuicClient::new(&net.client, (Ipv4Addr::LOCALHOST, 0), &certificate);
    let connections = ["one", "two"].map(|tag| (client.connect(nat.inside(), &format!("{tag}.test"), &["h3"]), tag));
    for round in 0..3 {
        for (connection, tag) in &connections {
            assert_eq!(connection.ask().tag, *tag, "round {round}");
            connection.download(Flow { seed: round, length: 200_000 }).unwrap();
        }
        nat.rebind();
    }
}
