//! Transfers in the kernel, which keeps many datagrams of a sender in one buffer.

use rpxy_l4_tests::{
    flow::Flow,
    peers::{
        programs::Certificate,
        quic::{QuicClient, QuicServer},
    },
    topology::CLIENT_V4,
};

use crate::support::steering::Steering;
use crate::support::steering::with_object;
use crate::support::{PORT, at, front, rule};

/// Outcomes of packets that the daemon has to forward, or that are lost.
const DAEMON: [&str; 11] = [
    "quic_long",
    "connection_id",
    "segments",
    "mtu",
    "short",
    "no_hop",
    "entry_changed",
    "truncated",
    "no_flow",
    "refused",
    "broken",
];

#[test]
fn quic_transfers_stay_in_the_kernel() {
    let Some(net) = with_object() else { return };
    let certificate = Certificate::new(&["one.test"]);
    let _quic = QuicServer::start(&net.backend, at(443), "tag", &certificate, &["h3"]);
    let rules = rule("q", "quic", at(443), "server_names = [\"one.test\"]");
    // Generic XDP sees such a buffer as one datagram that is too large.
    let steering = Steering::start_with(&net, &format!("listen_port = {PORT}\n[ebpf]\nmode = \"tc\"\n{rules}"));
    let client = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    let connection = client.connect(front(), "one.test", &["h3"]);
    connection.download(Flow { seed: 1, length: 100_000 }).unwrap();
    steering.wait_steered(client.address());
    steering.wait_forwarded(1, || connection.download(Flow { seed: 1, length: 1000 }).unwrap());

    let packets = || (steering.counted("steered"), DAEMON.map(|outcome| (outcome, steering.counted(outcome))));
    let (steered, passed) = packets();
    connection.download(Flow { seed: 2, length: 10_000_000 }).unwrap();
    connection.upload(Flow { seed: 3, length: 10_000_000 }).unwrap();
    let (steered_after, passed_after) = packets();
    let steered = steered_after - steered;
    assert_eq!(passed_after, passed, "{steered} steered");
    let datagrams = 20_000_000 / 1452;
    assert!(steered > datagrams / 128, "{steered} packets are too few for all that was sent");
    assert!(steered * 2 < datagrams, "{steered} packets: the senders gather too little to show anything");
}
