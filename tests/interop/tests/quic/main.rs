//! QUIC clients of other libraries than quinn through the daemon: several connections on one socket, IDs that servers gave
//! encrypted, ports and addresses that change.
//!
//! `cargo xtask setup` installs what they need.
#![cfg(test)]

use std::collections::BTreeSet;

use rpxy_l4_interop::quic::{Answer, Client, Ngtcp2Server, ROUNDS, Step};
use rpxy_l4_tests::{
    daemon::Daemon,
    offload_mode::{self, Expected, OffloadMode},
    peers::{
        programs::Certificate,
        quic::{QuicServer, telling},
    },
    topology::{GATEWAY_V4, Topology, at},
    wait,
};

rpxy_l4_tests::offload_modes! {
    Steered {
        a_client_of_ngtcp2_that_changes_its_address_goes_on_where_there_is_one_target,
    }
    Unknown {
        aioquic_keeps_its_connections,
        quiche_keeps_its_connections,
    }
}

const PORT: u16 = 443;
const NAMES: [&str; 2] = ["one.test", "two.test"];

fn front() -> std::net::SocketAddr {
    (GATEWAY_V4, PORT).into()
}

fn rule(name: &str, port: u16) -> String {
    format!("[protocols.{name}]\nprotocol = \"quic\"\nserver_names = [\"{name}.test\"]\ntarget = [\"{}\"]\n", at(port))
}

fn aioquic_keeps_its_connections() {
    connections_are_kept(Client::Aioquic);
}

fn quiche_keeps_its_connections() {
    connections_are_kept(Client::Quiche);
}

/// `cargo xtask test` includes it where it can.
#[test]
#[ignore = "needs the packages golang-go and golang-github-lucas-clemente-quic-go-dev of Debian 12"]
fn quic_go_keeps_its_connections() {
    for mode in [OffloadMode::Off, OffloadMode::Tc, OffloadMode::Xdp] {
        offload_mode::run(mode, Expected::Unknown, || connections_are_kept(Client::QuicGo));
    }
}

/// Each question of each connection reaches the server that the connection began with, over a session that changes with
/// the client's port, and no connection is made anew.
fn connections_are_kept(library: Client) {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    // One random ID of 8 bytes in 2,500 is not followed, since it could be another protocol's bytes. These never are.
    let server = |port, tag, id| {
        QuicServer::start_with(
            &net.backend,
            at(port),
            tag,
            &certificate,
            &["h3"],
            telling([id, 0x5e, 0x01, 0xc4, 0x9a, 0x33, 0x70, 0xee]),
        )
    };
    let (default, one, two) = (server(7000, "default", 0xf0), server(7001, "one", 0xf1), server(7002, "two", 0xf2));
    // Where nothing but an ID tells whom a datagram is for: with a default, and with a second rule alone.
    for (case, keys) in [("no default", String::new()), ("a default", format!("udp_target = [\"{}\"]\n", at(7000)))] {
        let config = format!("listen_port = {PORT}\n{keys}{}{}", rule("one", 7001), rule("two", 7002));
        for names in [&NAMES[..1], &NAMES, &["one.test", "two.test", "one.test"]] {
            let before = [&one, &two].map(QuicServer::accepted);
            let daemon = Daemon::start(&net.gateway, &config);
            let answers = library.run(&net.client, front(), names);
            daemon.stop();

            let questions = ROUNDS * (3 * names.len() + (1..names.len()).sum::<usize>());
            assert_eq!(answers.len(), questions, "{case}, {names:?}");
            for Answer { step, name, tag, .. } in &answers {
                assert_eq!(format!("{tag}.test"), *name, "{case}, {names:?}, {step:?}");
            }
            let seen_by = |step, tag: &str| -> BTreeSet<_> {
                answers
                    .iter()
                    .filter(|answer| answer.step == step && answer.tag == tag)
                    .map(|answer| answer.client)
                    .collect()
            };
            for tag in names.iter().map(|name| name.trim_end_matches(".test")) {
                let (before, after) = (seen_by(Step::NewIds, tag), seen_by(Step::Moved, tag));
                assert!(before.is_disjoint(&after), "{case}, {names:?}: {tag} has seen {before:?}, then {after:?}");
            }
            let wanted = |tag: &str| names.iter().filter(|name| name.trim_end_matches(".test") == tag).count();
            let expected = [before[0] + wanted("one"), before[1] + wanted("two")];
            assert_eq!([one.accepted(), two.accepted()], expected, "{case}, {names:?}: none was made anew");
        }
    }
    assert_eq!(default.accepted(), 0);
}

fn a_client_of_ngtcp2_that_changes_its_address_goes_on_where_there_is_one_target() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let server = Ngtcp2Server::start(&net.backend, at(7001), &certificate);
    let daemon = Daemon::start(
        &net.gateway,
        &format!("listen_port = {PORT}\n[protocols.any]\nprotocol = \"quic\"\ntarget = [\"{}\"]\n", at(7001)),
    );
    // ngtcp2 leaves the fixed bit to chance, once for each connection (RFC 9287).
    for attempt in 1..=10 {
        server.fetch(&net.client, front());
        wait::until(&format!("attempt {attempt}: a session for the new address"), || {
            (daemon.lines_with("[start] udp:quic").len() == 2 * attempt).then_some(())
        });
    }
}
