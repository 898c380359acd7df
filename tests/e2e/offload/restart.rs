//! A QUIC transfer and a WireGuard tunnel under way while their daemon is killed and another one takes over.

use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicBool, AtomicUsize, Ordering},
    thread,
};

use rpxy_l4_tests::{
    flow::Flow,
    peers::{
        programs::Certificate,
        quic::{QuicClient, QuicServer},
        wireguard::{Implementation, KeyPair, Peer, Tunnel},
    },
    topology::CLIENT_V4,
    wait,
};

use crate::support::bpf_fs::{BpfFs, kill};
use crate::support::steering::Steering;
use crate::support::steering::with_object;
use crate::support::{PORT, at, front, rule};

/// Counts what is done, and tells whether all of it succeeds.
#[derive(Default)]
struct Watch {
    done: AtomicUsize,
    stop: AtomicBool,
}

impl Watch {
    fn repeat(&self, mut action: impl FnMut()) {
        while !self.stop.load(Ordering::Relaxed) {
            action();
            self.done.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Waits for some more to be done.
    fn wait(&self, what: &str) {
        let enough = self.done.load(Ordering::Relaxed) + 3;
        wait::until(what, || (self.done.load(Ordering::Relaxed) >= enough).then_some(()));
    }
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

    let (transfers, pings, lost) = (Watch::default(), Watch::default(), AtomicUsize::new(0));
    thread::scope(|scope| {
        let downloads = || {
            let flow = Flow { seed: 7, length: 300_000 };
            transfers.repeat(|| connection.download(flow).and_then(|()| connection.upload(flow)).unwrap());
        };
        scope.spawn(downloads);
        let ping = || {
            if !tunnel.pings(inside) {
                lost.fetch_add(1, Ordering::Relaxed);
            }
        };
        let watched = &pings;
        scope.spawn(move || watched.repeat(ping));
        let go_on = |when: &str| {
            transfers.wait(&format!("transfers go on {when}"));
            pings.wait(&format!("pings go on {when}"));
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

        // A handshake needs the daemon, and finds the session.
        let handshake = server.latest_handshake(&client_keys.public);
        tunnel.set(&["peer", &server_keys.public, "remove"]);
        let allowed = format!("{inside}/32");
        let endpoint = front().to_string();
        tunnel.set(&["peer", &server_keys.public, "endpoint", &endpoint, "allowed-ips", &allowed]);
        wait::until("a new handshake", || (server.latest_handshake(&client_keys.public) > handshake).then_some(()));
        assert_eq!(server.endpoint(&client_keys.public), seen_before.1, "the same port");
        pings.stop.store(true, Ordering::Relaxed);
        transfers.stop.store(true, Ordering::Relaxed);
        // Kept until the threads have stopped.
        wait::until("the transfers have stopped", || {
            let before = transfers.done.load(Ordering::Relaxed);
            wait::pause(std::time::Duration::from_millis(500));
            (before == transfers.done.load(Ordering::Relaxed)).then_some(())
        });
        drop(steering);
    });
    // A busy machine may take longer than a ping waits.
    let (lost, done) = (lost.into_inner(), pings.done.into_inner());
    assert!(lost * 20 <= done, "{lost} of {done} pings were lost");
}
