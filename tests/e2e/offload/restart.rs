//! A QUIC transfer and a WireGuard tunnel under way while their daemon is killed and another one takes over.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::Ipv4Addr,
    sync::atomic::{AtomicUsize, Ordering},
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use rpxy_l4_tests::{
    background::alongside,
    flow::Flow,
    peers::{
        programs::Certificate,
        quic::{QuicClient, QuicServer},
        udp::{Datagram, UdpClient, UdpServer},
        wireguard::{Implementation, KeyPair, Peer, Tunnel},
    },
    topology::CLIENT_V4,
    wait,
};

use crate::support::{
    PORT, at,
    bpf_fs::{BpfFs, kill},
    front, rule,
    steering::{Steering, with_object},
};

/// The datagrams of a client may reach another worker than the one that inherits its session.
#[test]
fn clients_that_speak_while_the_daemon_starts_keep_their_sessions() {
    const CLIENTS: usize = 200;
    let Some(net) = with_object() else { return };
    let fs = BpfFs::mount();
    let server = UdpServer::echo(&net.backend, at(7000), "");
    let keys = format!("{}\n", fs.keys("tc"));
    let config = format!("listen_port = {PORT}\nworkers = 2\nudp_target = [\"{}\"]\n[ebpf]\n{keys}", at(7000));
    let mut steering = Steering::start_with(&net, &config);
    let clients: Vec<_> = (0..CLIENTS).map(|_| UdpClient::bind(&net.client, (CLIENT_V4, 0))).collect();
    let name = |client: &UdpClient| client.address().port().to_be_bytes();
    for client in &clients {
        assert_eq!(client.ask(front(), &name(client)), name(client));
    }
    let port_of = |datagram: &Datagram| (datagram.bytes[..2].to_vec(), datagram.source);
    let before: BTreeMap<_, _> = server.take().iter().map(port_of).collect();
    assert_eq!(steering.kernel_plane()["flows"], CLIENTS);
    kill(&mut steering);

    // Larger than a packet: the program leaves fragments to the daemon.
    let speak = || clients.iter().for_each(|client| client.send(front(), &[&name(client)[..], &[0; 2000]].concat()));
    let _steering = alongside(vec![Box::new(speak)], |progress| {
        let steering = Steering::start_with(&net, &config);
        steering.daemon.wait_for(0, &format!("{CLIENTS} of {CLIENTS} sessions of an earlier daemon go on"));
        progress[0].wait_for(2, "all have spoken");
        steering
    });
    let after: BTreeSet<_> = wait::until("all are heard", || {
        let heard: BTreeSet<_> = server.received().iter().map(port_of).collect();
        (heard.iter().map(|(client, _)| client).collect::<BTreeSet<_>>().len() == CLIENTS).then_some(heard)
    });
    let moved: Vec<_> = after.iter().filter(|(client, source)| before[client] != *source).collect();
    assert!(moved.is_empty(), "{} sessions more than clients: {moved:?}", moved.len());
}

#[test]
fn transfers_and_tunnels_go_on_through_a_kill_and_a_restart() {
    let Some(net) = with_object() else { return };
    let fs = BpfFs::mount();
    let certificate = Certificate::new(&["one.test"]);
    let _quic = QuicServer::start(&net.backend, at(443), "tag", &certificate, &["h3"]);
    let (server_keys, client_keys) = (KeyPair::new(), KeyPair::new());
    let (inside, outside) = (Ipv4Addr::new(10, 9, 1, 1), Ipv4Addr::new(10, 9, 1, 2));
    let caller = Peer { public: &client_keys.public, inside: outside, endpoint: None };
    let server = Tunnel::start(Implementation::Go, &net.backend, 51820, &server_keys, inside, &[caller]);
    let callee = Peer { public: &server_keys.public, inside, endpoint: Some(front()) };
    let tunnel = Tunnel::start(Implementation::Go, &net.client, 5001, &client_keys, outside, &[callee]);

    let rules = rule("q", "quic", at(443), "server_names = [\"one.test\"]") + &rule("w", "wireguard", at(51820), "");
    let config = format!("listen_port = {PORT}\nworkers = 2\n[ebpf]\n{}\n{rules}", fs.keys("tc"));
    let mut steering = Steering::start_with(&net, &config);
    let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    let connection = client.connect(front(), "one.test", &["h3"]);
    connection.download(Flow { seed: 1, length: 100_000 }).unwrap();
    tunnel.wait_for_ping(inside);
    steering.wait_steered(client.address());
    steering.wait_steered((CLIENT_V4, 5001).into());
    steering.wait_forwarded(1, || connection.download(Flow { seed: 1, length: 1000 }).unwrap());
    let seen_before = (connection.ask().client, server.endpoint(&client_keys.public));

    let lost = AtomicUsize::new(0);
    let flow = Flow { seed: 7, length: 300_000 };
    let transfer = || connection.download(flow).and_then(|()| connection.upload(flow)).unwrap();
    let ping = || {
        // A busy machine takes its time.
        if !tunnel.pings(inside, 10) {
            lost.fetch_add(1, Ordering::Relaxed);
        }
    };
    let (pinged, _steering) = alongside(vec![Box::new(transfer), Box::new(ping)], |progress| {
        let [transfers, pings] = progress else { panic!("two actions") };
        let go_on = |when: &str| {
            transfers.wait_for(3, &format!("transfers go on {when}"));
            pings.wait_for(3, &format!("pings go on {when}"));
        };
        go_on("before");
        kill(&mut steering);
        go_on("without a daemon");
        let steering = Steering::start_with(&net, &config);
        steering.daemon.wait_for(0, "2 of 2 sessions of an earlier daemon go on");
        go_on("under the next daemon");
        steering.wait_steered(client.address());
        steering.wait_steered((CLIENT_V4, 5001).into());
        assert!(steering.counted("steered") > 100);
        assert_eq!((connection.ask().client, server.endpoint(&client_keys.public)), seen_before, "one path throughout");

        // A handshake needs the daemon, and finds the session. It is told in whole seconds, and the tunnel may just have
        // made one of its own accord.
        let handshake = wait::until("the latest handshake is of an earlier second", || {
            let latest = server.latest_handshake(&client_keys.public);
            (SystemTime::now() >= UNIX_EPOCH + Duration::from_secs(latest + 1)).then_some(latest)
        });
        tunnel.set(&["peer", &server_keys.public, "remove"]);
        let allowed = format!("{inside}/32");
        let endpoint = front().to_string();
        tunnel.set(&["peer", &server_keys.public, "endpoint", &endpoint, "allowed-ips", &allowed]);
        wait::until("a new handshake", || (server.latest_handshake(&client_keys.public) > handshake).then_some(()));
        assert_eq!(server.endpoint(&client_keys.public), seen_before.1, "the same port");
        pings.wait_for(3, "pings go on after the handshake");
        // Kept until the actions have ended.
        (pings.done(), steering)
    });
    // The peer was removed for a moment, and a packet may be on its way when its daemon dies.
    assert!(lost.load(Ordering::Relaxed) <= 2, "{lost:?} of {pinged} pings were lost");
}
