//! TLS over TCP: BoringSSL, rustls and NSS as clients, BoringSSL as private backend and as server of the public name.

use rpxy_l4_interop::ech::{
    Answer,
    keys::Keys,
    nss,
    tls::{self, Dribble, EarlyData, Offer, RETRY_GROUP, Rustls, Serve},
};
use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    peers::{programs::Certificate, server::Server},
    socket,
    topology::Topology,
};

use crate::kit::{NAMES, OTHER_PORT, PORT, PRIVATE, PRIVATE_PORT, PUBLIC, PUBLIC_PORT, at, config, front, hellos};

/// The three servers.
struct Servers {
    public: Server,
    private: Server,
    other: Server,
}

/// Private backends that differ from ordinary ones as told.
fn servers(net: &Topology, certificate: &Certificate, public: Serve<'_>, private: Serve<'_>) -> Servers {
    let start = |port, tag, serve| tls::server(&net.backend, at(port), tag, certificate, serve);
    Servers {
        public: start(PUBLIC_PORT, "public", public),
        private: start(PRIVATE_PORT, "private", private),
        other: start(OTHER_PORT, "other", private),
    }
}

/// Both client libraries by one name.
type Client = fn(&Topology, &Certificate, &str, &[&str], &Offer) -> Result<Answer, rpxy_l4_interop::ech::Refused>;

const CLIENTS: [(&str, Client); 2] = [
    ("BoringSSL", |net, certificate, name, alpns, offer| {
        tls::boring(&net.client, front(), certificate, name, alpns, offer)
    }),
    ("rustls", |net, certificate, name, alpns, offer| {
        tls::rustls(&net.client, front(), certificate, name, alpns, offer)
    }),
];

#[test]
fn each_hello_reaches_the_backend_it_is_for() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    let with_alpn = Answer::private("private", PRIVATE).over("h2");
    let with_alpn = ("encrypted, with ALPN", PRIVATE, Offer::Encrypted(keys.list()), with_alpn);
    for (client, connect) in CLIENTS {
        for (case, name, offer, expected) in hellos(&keys).iter().chain([&with_alpn]) {
            let alpns: &[&str] = if expected.alpn.is_empty() { &[] } else { &["h2", "http/1.1"] };
            assert_eq!(connect(&net, &certificate, name, alpns, offer).as_ref(), Ok(expected), "{client}: {case}");
        }
    }
    for (case, name) in [("private name in the clear", PRIVATE), ("unknown name", "nobody.example")] {
        let refused = tls::boring(&net.client, front(), &certificate, name, &[], &Offer::Nothing);
        assert!(refused.is_err(), "{case}: {refused:?}");
    }
    assert_eq!(servers.public.accepted() + servers.private.accepted() + servers.other.accepted(), 12);
    let line = daemon.wait_for(0, "\"ech\":\"accepted\"");
    assert!(line.contains("\"server_name\":\"public.example\",\"inner_server_name\":\"private.example\""), "{line}");
    daemon.stop();
}

#[test]
fn an_encrypted_hello_for_an_unknown_name_is_closed() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    let offer = Offer::Encrypted(keys.list());
    let refused = tls::boring(&net.client, front(), &certificate, "nobody.example", &[], &offer);
    assert!(refused.is_err(), "{refused:?}");
    assert_eq!(servers.public.accepted(), 0);
    daemon.stop();
}

#[test]
fn hello_retry_request_goes_through_the_same_context() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let retry = Serve { groups: Some(RETRY_GROUP), ..Serve::default() };
    let _servers = servers(&net, &certificate, retry, retry);
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    for (client, connect) in CLIENTS {
        for (name, offer, expected) in [
            (PRIVATE, Offer::Encrypted(keys.list()), Answer::private("private", PRIVATE)),
            (PUBLIC, Offer::Grease, Answer::plain("public", PUBLIC)),
            (PUBLIC, Offer::Nothing, Answer::plain("public", PUBLIC)),
        ] {
            assert_eq!(connect(&net, &certificate, name, &[], &offer).as_ref(), Ok(&expected), "{client}: {name}");
        }
    }
    daemon.stop();
}

#[test]
fn a_stale_key_is_answered_with_the_present_ones() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &["--config-id", "7"]);
    let servers = servers(&net, &certificate, Serve { retry: Some(&keys), ..Serve::default() }, Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    for (case, id) in [("another number", "8"), ("the same number", "7")] {
        let stale = Keys::generate(PUBLIC, &["--config-id", id]);
        let before = servers.private.accepted();
        let refused = tls::boring(&net.client, front(), &certificate, PRIVATE, &[], &Offer::Encrypted(stale.list()));
        let fresh = refused.expect_err(case).retry_configs.expect(case);
        assert_eq!(fresh, keys.list(), "{case}");
        assert_eq!(servers.private.accepted(), before, "{case}");
        let answer = tls::boring(&net.client, front(), &certificate, PRIVATE, &[], &Offer::Encrypted(fresh));
        assert_eq!(answer, Ok(Answer::private("private", PRIVATE)), "{case}, second try");
    }
    daemon.stop();
}

#[test]
fn suites_and_key_encapsulations() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    // rustls has P-256 and all of these; BoringSSL has X25519 with HKDF-SHA256 only.
    let rows = [
        ("x25519", "hkdf-sha256/aes-128-gcm", true),
        ("x25519", "hkdf-sha256/aes-256-gcm", true),
        ("x25519", "hkdf-sha256/chacha20-poly1305", true),
        ("p256", "hkdf-sha256/aes-128-gcm", false),
        ("p256", "hkdf-sha256/aes-256-gcm", false),
        ("p256", "hkdf-sha256/chacha20-poly1305", false),
    ];
    let keys = rows.map(|(kem, suite, _)| Keys::generate(PUBLIC, &["--kem", kem, "--suites", suite]));
    let _servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let files: Vec<&Keys> = keys.iter().collect();
    let daemon = Daemon::start(&net.gateway, &config("tls", &files, ""));
    for ((kem, suite, by_boring), keys) in rows.iter().zip(&keys) {
        for (client, connect) in CLIENTS.iter().filter(|(client, _)| *by_boring || *client == "rustls") {
            let answer = connect(&net, &certificate, PRIVATE, &[], &Offer::Encrypted(keys.list()));
            assert_eq!(answer, Ok(Answer::private("private", PRIVATE)), "{client}: {kem}, {suite}");
        }
    }
    daemon.stop();
}

#[test]
fn a_configuration_with_an_extension() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let plain = keys.list();
    keys.extend();
    assert_ne!(keys.list(), plain);
    let _servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    for (client, connect) in CLIENTS {
        let answer = connect(&net, &certificate, PRIVATE, &[], &Offer::Encrypted(keys.list()));
        assert_eq!(answer, Ok(Answer::private("private", PRIVATE)), "{client}");
        // The extension is part of what the key is bound to.
        let answer = connect(&net, &certificate, PRIVATE, &[], &Offer::Encrypted(plain.clone()));
        assert!(answer.is_err(), "{client}: {answer:?}");
    }
    daemon.wait_for(0, "\"ech\":\"undecryptable\"");
    daemon.stop();
}

#[test]
fn nss() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    for (case, serve) in
        [("one hello", Serve::default()), ("two", Serve { groups: Some(RETRY_GROUP), ..Serve::default() })]
    {
        let _servers = servers(&net, &certificate, serve, serve);
        let answer = nss::tstclnt(&net.client, front(), PRIVATE, &keys.list());
        assert_eq!(answer, Some(Answer::private("private", PRIVATE)), "{case}");
    }
    daemon.stop();
}

#[test]
fn early_data() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    let client = Rustls::new(&certificate, &[], &Offer::Encrypted(keys.list())).unwrap();
    let ask = |case: &str, expected| {
        let answer = client.ask(&net.client, front(), PRIVATE);
        assert_eq!(answer, Ok((Answer::private("private", PRIVATE), expected)), "{case}");
    };
    let serve = Serve { early_data: true, ..Serve::default() };
    let present = servers(&net, &certificate, serve, serve);
    ask("a first connection", EarlyData::NotSent);
    ask("resumed", EarlyData::Accepted);
    drop(present);
    // Those that come now know nothing of the session, and ask for a second hello behind the early data.
    let serve = Serve { groups: Some(RETRY_GROUP), ..serve };
    let _present = servers(&net, &certificate, serve, serve);
    ask("between two hellos", EarlyData::Rejected);
    daemon.stop();
}

#[test]
fn a_hello_in_pieces_of_any_size() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let _servers =
        servers(&net, &certificate, Serve::default(), Serve { groups: Some(RETRY_GROUP), ..Serve::default() });
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    for size in [1, 2, 3, 7, 64, 500] {
        let stream = Dribble::new(socket::dial(&net.client, front()), size);
        let answer = tls::boring_over(stream, &certificate, PRIVATE, &[], &Offer::Encrypted(keys.list()));
        assert_eq!(answer, Ok(Answer::private("private", PRIVATE)), "pieces of {size}");
    }
    daemon.stop();
}

#[test]
fn rotated_keys_are_taken_over_without_a_restart() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let _servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], ""));
    let old = keys.list();
    keys.rotate();
    daemon.wait_for(0, "configuration reloaded");
    let new = keys.list();
    assert_ne!(old, new);
    for (case, list) in [("new", new), ("old", old)] {
        let answer = tls::boring(&net.client, front(), &certificate, PRIVATE, &[], &Offer::Encrypted(list));
        assert_eq!(answer, Ok(Answer::private("private", PRIVATE)), "{case} key");
    }
    daemon.stop();
}

#[test]
fn policies() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let _servers = servers(&net, &certificate, Serve { retry: Some(&keys), ..Serve::default() }, Serve::default());
    let mut daemon = Daemon::start(&net.gateway, &config("tls", &[&keys], "policy = \"required\""));
    let connect = |name: &str, offer: &Offer| tls::boring(&net.client, front(), &certificate, name, &[], offer);
    let encrypted = Offer::Encrypted(keys.list());
    assert_eq!(connect(PRIVATE, &encrypted), Ok(Answer::private("private", PRIVATE)), "required: encrypted");
    assert_eq!(connect(PUBLIC, &Offer::Grease), Ok(Answer::plain("public", PUBLIC)), "required: grease");
    assert!(connect(PUBLIC, &Offer::Nothing).is_err(), "required: nothing");
    daemon.reload(Edit::Rename, &config("tls", &[&keys], "policy = \"rejected\""));
    // Untouched, so that the server of the public name, which has the key as well, opens it.
    assert_eq!(connect(PRIVATE, &encrypted), Ok(Answer::private("public", PRIVATE)), "rejected: encrypted");
    assert_eq!(connect(PUBLIC, &Offer::Nothing), Ok(Answer::plain("public", PUBLIC)), "rejected: nothing");
    daemon.stop();
}

#[test]
fn the_port_is_shared_with_other_protocols() {
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&NAMES);
    let keys = Keys::generate(PUBLIC, &[]);
    let _servers = servers(&net, &certificate, Serve::default(), Serve::default());
    let _ssh = Server::tagged(&net.backend, at(7022), "SSH-2.0-here");
    let ssh = format!("[protocols.\"ssh\"]\nprotocol = \"ssh\"\ntarget = [\"{}\"]\n", at(7022));
    let daemon = Daemon::start(&net.gateway, &(config("tls", &[&keys], "") + &ssh));
    let stream = socket::dial(&net.client, (rpxy_l4_tests::topology::GATEWAY_V4, PORT));
    socket::send(&stream, b"SSH-2.0-client\r\n");
    assert_eq!(socket::read_line(&stream).as_deref(), Some("SSH-2.0-here"));
    let answer = tls::boring(&net.client, front(), &certificate, PRIVATE, &[], &Offer::Encrypted(keys.list()));
    assert_eq!(answer, Ok(Answer::private("private", PRIVATE)));
    daemon.stop();
}
