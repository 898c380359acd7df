//! Encrypted Client Hello: Chromium's datagrams, and where they go.

use sha2::{Digest as _, Sha256};

use super::{
    packets::{HANDSHAKE, RETRY, SERVER_INITIAL, first, long, short},
    *,
};
use crate::metrics::EchState;

/// The client's first two datagrams, which carry a hello to private.example behind public.example, and two that repeat
/// it with other borders.
const CHROMIUM: [&[u8]; 4] = [
    include_bytes!("../../../../../rpxy-l4-proto/src/quic/testdata/chromium_d0.bin"),
    include_bytes!("../../../../../rpxy-l4-proto/src/quic/testdata/chromium_d1.bin"),
    include_bytes!("../../../../../rpxy-l4-proto/src/quic/testdata/chromium_d2.bin"),
    include_bytes!("../../../../../rpxy-l4-proto/src/quic/testdata/chromium_d3.bin"),
];

/// What the backend has to get in their place.
const REWRITTEN: [&str; 4] = [
    "95eb68e28035add2e51e7caddc3cef14e7eccd36cc4e5c35e60bbb59f14748eb",
    "3ae7d469eeffa9ae1630099a15b8a90ebd8c94dd9fd506f5f57be84cba554832",
    "1db597bee78919e140f0c6f58447089f02d5fcfc057ca530c2be2c4b9b47c848",
    "e1ed5f11e4323ff56d4a468e5861e336d7622dbbadaab1b8d8b65e5331eaee01",
];

const DCID: &[u8] = &[0xd5, 0x42, 0x1d, 0x2f, 0x7b, 0x25, 0x09, 0x9a];
const SERVER: &[u8] = b"server-a";

/// public.example at 1; of private names, private.example at 2 (with ALPN h3) and others as told.
fn config(names: &str, keys: &str) -> String {
    format!(
        "{TOP}{}[protocols.\"a\".ech]\n\
         ech_config_list = \"AEH+DQA9QQAgACBA33gCXp5kB6qZDDobZiUWmF3pM58j/PDRen/3YLbEWwAEAAEAAQAOcHVibGljLmV4YW1wbGUAAA==\"\n\
         private_keys = [\"iCqDaWFEAeGlFe0ajA6KD/5SKj9w7lT9bmx2tu1Od0c=\"]\n{keys}\n\
         [[protocols.\"a\".ech.private]]\nserver_names = [{names}]\nalpns = [\"h3\"]\ntarget = [\"198.51.100.1:2\"]\n",
        rule("a", "quic", 1, "server_names = [\"public.example\"]")
    )
}

fn private() -> String {
    config("\"private.example\"", "")
}

/// What backends got: ports, and which of the four datagrams it was, rewritten or as it came.
fn got(bench: &mut Bench) -> Vec<(u16, &'static str, usize)> {
    let name = |datagram: &[u8]| {
        let digest: String = Sha256::digest(datagram).iter().map(|byte| format!("{byte:02x}")).collect();
        let rewritten = REWRITTEN.iter().position(|known| *known == digest).map(|at| ("rewritten", at));
        rewritten.or_else(|| CHROMIUM.iter().position(|known| *known == datagram).map(|at| ("as it came", at)))
    };
    let sent = bench.sent.drain(..);
    sent.map(|(_, address, datagram)| {
        let (how, which) = name(&datagram).unwrap_or(("something else", datagram.len()));
        (address.port(), how, which)
    })
    .collect()
}

#[test]
fn a_decrypted_hello_goes_to_its_private_backend() {
    for order in [[0, 1, 2, 3], [1, 0, 3, 2], [0, 1, 0, 1]] {
        let mut bench = Bench::new(&private());
        for which in order {
            bench.client(flow(1), CHROMIUM[which]);
        }
        assert_eq!(got(&mut bench), order.map(|which| (2, "rewritten", which)), "{order:?}");
        assert_eq!(bench.hellos, [EchState::Accepted], "{order:?}");
        assert_eq!((bench.sockets.len(), bench.sessions.held_bytes()), (1, 0), "{order:?}");
    }
    // The first and two that repeat it: together they hold every byte.
    let mut bench = Bench::new(&private());
    for which in [0, 2, 3] {
        bench.client(flow(1), CHROMIUM[which]);
    }
    assert_eq!(got(&mut bench), [(2, "rewritten", 0), (2, "rewritten", 2), (2, "rewritten", 3)]);
}

#[test]
fn what_is_not_decrypted_goes_as_it_came() {
    let ours = private();
    let rows = [
        ("policy", config("\"private.example\"", "policy = \"rejected\""), EchState::SwitchedOff),
        ("another number", ours.replace("AEH+DQA9QQ", "AEH+DQA9Qg"), EchState::UnknownConfig),
        ("another suite", ours.replace("AAEAAQAO", "AAEAAwAO"), EchState::UnknownSuite),
        // The name in the configuration is part of what is authenticated.
        ("another configuration of the number", ours.replace("cHVibGlj", "cHVibGlk"), EchState::Undecryptable),
    ];
    for (row, config, state) in rows {
        let mut bench = Bench::new(&config);
        for datagram in [CHROMIUM[0], CHROMIUM[1], CHROMIUM[2]] {
            bench.client(flow(1), datagram);
        }
        assert_eq!(got(&mut bench), [0, 1, 2].map(|which| (1, "as it came", which)), "{row}");
        assert_eq!(bench.hellos, [state], "{row}");
    }
}

#[test]
fn what_goes_nowhere() {
    let rows = [
        ("a private name that is not listed", config("\"other.example\"", ""), DatagramDrop::Unmatched),
        ("another ALPN", private().replace("alpns = [\"h3\"]", "alpns = [\"doq\"]"), DatagramDrop::Unmatched),
    ];
    for (row, config, reason) in rows {
        let mut bench = Bench::new(&config);
        bench.client(flow(1), CHROMIUM[0]);
        bench.client(flow(1), CHROMIUM[1]);
        assert_eq!((got(&mut bench), bench.drops(reason)), (vec![], 2), "{row}");
    }
    let required = config("\"private.example\"", "policy = \"required\"");
    let mut bench = Bench::new(&required);
    bench.client(flow(1), &first(b"client-a", b"destin-a", "public.example"));
    assert_eq!((got(&mut bench), bench.hellos.as_slice()), (vec![], &[EchState::NotOffered][..]), "required");
    let mut bench = Bench::new(&private());
    bench.client(flow(1), &first(b"client-a", b"destin-a", "public.example"));
    assert_eq!((got(&mut bench).len(), bench.hellos.as_slice()), (1, &[EchState::NotOffered][..]), "allowed");
}

#[test]
fn failures_are_limited_by_network_and_not_for_others() {
    let other = private().replace("cHVibGlj", "cHVibGlk");
    let mut bench = Bench::new(&other);
    for number in 0..400_u16 {
        bench.client(Flow { client: SocketAddr::from(([192, 0, 2, 1], 2000 + number)), ..flow(1) }, CHROMIUM[0]);
        bench.client(Flow { client: SocketAddr::from(([192, 0, 2, 1], 2000 + number)), ..flow(1) }, CHROMIUM[1]);
    }
    let count = |bench: &Bench, state| bench.hellos.iter().filter(|known| **known == state).count();
    assert_eq!((count(&bench, EchState::Undecryptable), count(&bench, EchState::Limited)), (200, 200));
    bench.client(Flow { client: SocketAddr::from(([198, 51, 7, 1], 2000)), ..flow(1) }, CHROMIUM[0]);
    bench.client(Flow { client: SocketAddr::from(([198, 51, 7, 1], 2000)), ..flow(1) }, CHROMIUM[1]);
    assert_eq!(count(&bench, EchState::Undecryptable), 201, "another network");
}

#[test]
fn rewriting_ends_with_the_handshake() {
    let repeat = |bench: &mut Bench| {
        bench.client(flow(1), CHROMIUM[2]);
        got(bench)
    };
    let start = || {
        let mut bench = Bench::new(&private());
        bench.client(flow(1), CHROMIUM[0]);
        bench.client(flow(1), CHROMIUM[1]);
        got(&mut bench);
        let session = *bench.sockets.keys().next().unwrap();
        (bench, session)
    };
    let (mut bench, session) = start();
    bench.client(flow(1), &short(SERVER));
    assert_eq!(got(&mut bench).len(), 1);
    assert_eq!(repeat(&mut bench), [(2, "rewritten", 2)], "a short header before any answer proves nothing");
    bench.answer(session, &long(SERVER_INITIAL, b"", SERVER));
    bench.client(flow(1), &long(HANDSHAKE, SERVER, b""));
    assert_eq!(got(&mut bench), [(2, "something else", long(HANDSHAKE, SERVER, b"").len())]);
    assert_eq!(repeat(&mut bench), [(2, "rewritten", 2)], "during the handshake");
    bench.client(flow(1), &short(SERVER));
    got(&mut bench);
    assert_eq!(repeat(&mut bench), [(2, "as it came", 2)], "after it");

    let (mut bench, _) = start();
    bench.wait(seconds(11));
    assert_eq!(repeat(&mut bench), [(2, "as it came", 2)], "after ten seconds");
}

#[test]
fn a_reload_keeps_a_private_session_as_long_as_its_target_is_there() {
    for (row, reloaded, log) in [
        ("another private name as well", config("\"private.example\", \"b.example\"", ""), 1),
        ("another target", private().replace(":2\"", ":3\""), 2),
        ("no keys any more", format!("{TOP}{}", rule("a", "quic", 1, "")), 2),
    ] {
        let mut bench = Bench::new(&private());
        bench.client(flow(1), CHROMIUM[0]);
        bench.client(flow(1), CHROMIUM[1]);
        bench.reload(&reloaded);
        assert_eq!(bench.log.len(), log, "{row}: {:?}", bench.log);
    }
}

#[test]
fn a_retry_begins_again_under_new_keys() {
    let mut bench = Bench::new(&private());
    bench.client(flow(1), CHROMIUM[0]);
    bench.client(flow(1), CHROMIUM[1]);
    let session = *bench.sockets.keys().next().unwrap();
    got(&mut bench);
    bench.answer(session, &long(RETRY, b"", SERVER));
    // A hello that is not encrypted, and a token: none that an accepted client goes on with.
    let again = packets::with_token(b"", SERVER, "public.example", b"token");
    bench.client(flow(1), &again);
    assert_eq!(got(&mut bench), []);
    assert_eq!(bench.drops(DatagramDrop::EchInvalid), 1);
    assert!(bench.sockets.is_empty(), "{:?}", bench.log);
    assert_eq!(DCID, &CHROMIUM[0][6..14]);
}
