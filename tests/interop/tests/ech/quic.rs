//! QUIC: quiche as client, as private backend and as server of the public name.

use std::net::SocketAddr;

use rpxy_l4_interop::ech::{
    Answer, Refused,
    keys::Keys,
    quic::{self, EARLY, Loss, Serve, Server},
    tls::{Offer, RETRY_GROUP},
};
use rpxy_l4_tests::{
    daemon::Daemon,
    peers::programs::Certificate,
    topology::{CLIENT_V4, Topology},
};

use crate::kit::{NAMES, OTHER_PORT, PRIVATE, PRIVATE_PORT, PUBLIC, PUBLIC_PORT, at, config, front, hellos};

fn servers(net: &Topology, certificate: &Certificate, public: Serve<'_>, private: Serve<'_>) -> [Server; 3] {
    [(PUBLIC_PORT, "public", public), (PRIVATE_PORT, "private", private), (OTHER_PORT, "other", private)]
        .map(|(port, tag, serve)| Server::start(&net.backend, at(port), tag, certificate, serve))
}

fn connect(
    net: &Topology,
    certificate: &Certificate,
    name: &str,
    offer: &Offer,
    loss: Loss,
) -> Result<Answer, Refused> {
    quic::client(&net.client, SocketAddr::from((CLIENT_V4, 0)), front(), certificate, name, offer, loss)
}

#[test]
fn each_hello_reaches_the_backend_it_is_for() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("quic", &[&keys], ""));
    for (case, name, offer, expected) in hellos(&keys) {
        let answer = connect(&net, &certificate, name, &offer, Loss::NONE);
        assert_eq!(answer, Ok(expected.over("h3")), "{case}");
    }
    assert_eq!(servers.iter().map(Server::accepted).sum::<usize>(), 5);
    daemon.stop();
}

#[test]
fn handshakes_with_a_detour() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let rows = [
        ("HelloRetryRequest", Serve { groups: Some(RETRY_GROUP), ..Serve::default() }),
        ("Retry", Serve { retry: true, ..Serve::default() }),
        ("Retry and HelloRetryRequest", Serve { retry: true, groups: Some(RETRY_GROUP), ..Serve::default() }),
    ];
    let daemon = Daemon::start(&net.gateway, &config("quic", &[&keys], ""));
    for (case, serve) in rows {
        let _servers = servers(&net, &certificate, serve, serve);
        for (name, offer, expected) in [
            (PRIVATE, Offer::Encrypted(keys.list()), Answer::private("private", PRIVATE)),
            (PUBLIC, Offer::Grease, Answer::plain("public", PUBLIC)),
        ] {
            let answer = connect(&net, &certificate, name, &offer, Loss::NONE);
            assert_eq!(answer, Ok(expected.over("h3")), "{case}: {name}");
        }
    }
    daemon.stop();
}

#[test]
fn early_data() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let _servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("quic", &[&keys], ""));
    let path = (SocketAddr::from((CLIENT_V4, 0)), front());
    let offer = Offer::Encrypted(keys.list());
    let mut session = None;
    let mut ask = || quic::resume(&net.client, path, &certificate, PRIVATE, &offer, Loss::NONE, &mut session);
    assert_eq!(ask(), Ok(Answer::private("private", PRIVATE).over("h3")), "first");
    assert_eq!(ask(), Ok(Answer::private(&format!("private{EARLY}"), PRIVATE).over("h3")), "resumed");
    daemon.stop();
}

#[test]
fn a_quarter_of_all_datagrams_lost() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let retry = Serve { groups: Some(RETRY_GROUP), ..Serve::default() };
    let daemon = Daemon::start(&net.gateway, &config("quic", &[&keys], ""));
    for (case, serve) in [("one hello", Serve::default()), ("two hellos", retry)] {
        let _servers = servers(&net, &certificate, Serve::default(), serve);
        for seed in 1..=12 {
            let loss = Loss::new(25, seed);
            let answer = connect(&net, &certificate, PRIVATE, &Offer::Encrypted(keys.list()), loss);
            assert_eq!(answer, Ok(Answer::private("private", PRIVATE).over("h3")), "{case}, seed {seed}");
        }
    }
    daemon.stop();
}

#[test]
fn a_stale_key_is_answered_with_the_present_ones() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &["--config-id", "7"]);
    let public = Serve { retry_configs: Some(&keys), ..Serve::default() };
    let _servers = servers(&net, &certificate, public, Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("quic", &[&keys], ""));
    for (case, id) in [("another number", "8"), ("the same number", "7")] {
        let stale = Keys::generate(PUBLIC, &["--config-id", id]);
        let refused = connect(&net, &certificate, PRIVATE, &Offer::Encrypted(stale.list()), Loss::NONE);
        let fresh = refused.expect_err(case).retry_configs.expect(case);
        assert_eq!(fresh, keys.list(), "{case}");
        let answer = connect(&net, &certificate, PRIVATE, &Offer::Encrypted(fresh), Loss::NONE);
        assert_eq!(answer, Ok(Answer::private("private", PRIVATE).over("h3")), "{case}, second try");
    }
    daemon.stop();
}
