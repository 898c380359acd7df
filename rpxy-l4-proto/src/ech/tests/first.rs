//! The first hello: which are opened, which go on as they are, which are refused.

use super::{FirstHello, answer, keys, open_first, outer, parsed, words};
use crate::{
    ech::{CipherSuite, Kem},
    testing::{
        Hello,
        ech::{Client, SUITE, encoded, inner_extensions, key},
        hex, vec16,
    },
};

const OTHER_SUITE: CipherSuite = CipherSuite { kdf_id: 1, aead_id: 3 };

/// An outer hello whose extension has this body.
fn offering(body: &[u8]) -> Vec<u8> {
    let mut hello = outer();
    hello.extensions.get_or_insert_default().push((0xfe0d, body.to_vec()));
    hello.message()
}

fn grease(config_id: u8) -> Vec<u8> {
    offering(&[hex("00 0001 0001"), vec![config_id], vec16(&[5; 32]), vec16(&[6; 144])].concat())
}

#[test]
fn what_is_opened_and_what_is_not() {
    let ours = || key(Kem::X25519, 7, &[SUITE]);
    // C5: the same number, another key. It comes first, so that one try is not enough.
    let namesake = || {
        let parameters = crate::ech::Parameters {
            public_name: "public.example".to_owned(),
            kem: Kem::X25519,
            cipher_suites: vec![SUITE],
            config_id: 7,
            maximum_name_length: 0,
        };
        crate::ech::generate(&parameters, &[0xee; 32]).unwrap()
    };
    let other = || key(Kem::P256, 8, &[SUITE, OTHER_SUITE]);
    let all = keys([namesake(), ours(), other()]);
    let sealed = |key, suite| Client::new(&key, suite).hello(&outer(), &encoded(inner_extensions("private.example")));
    let mut short = Client::new(&ours(), SUITE);
    short.enc.pop();
    let mut zero = Client::new(&ours(), SUITE);
    zero.enc = vec![0; 32];
    let rows: [(&str, Vec<u8>, &str); 15] = [
        ("without the extension", outer().message(), "not offered"),
        ("C4: opened", sealed(ours(), SUITE), "private.example"),
        ("C5: a number that two keys have", sealed(namesake(), SUITE), "private.example"),
        ("P-256", sealed(other(), SUITE), "private.example"),
        ("another suite of the configuration", sealed(other(), OTHER_SUITE), "private.example"),
        ("C5: a suite that the configuration does not offer", sealed(ours(), OTHER_SUITE), "UnknownSuite"),
        ("C22: an unknown number", sealed(key(Kem::X25519, 9, &[SUITE]), SUITE), "UnknownConfig"),
        ("C22: grease", grease(200), "UnknownConfig"),
        ("C22: grease with a known number", grease(7), "Undecryptable"),
        (
            "C22: encapsulated key of a wrong length",
            short.hello(&outer(), &encoded(inner_extensions("private.example"))),
            "Undecryptable",
        ),
        (
            "C22: encapsulated key that is no point (all zeros)",
            zero.hello(&outer(), &encoded(inner_extensions("private.example"))),
            "Undecryptable",
        ),
        ("C1: unknown type", offering(&[2]), "illegal_parameter"),
        ("C1: no type", offering(&[]), "illegal_parameter"),
        ("C2: inner hello from outside", offering(&[1]), "illegal_parameter"),
        ("cut", offering(&hex("00 0001 0001 07 0002 05")), "decode_error"),
    ];
    for (name, message, expected) in rows {
        assert_eq!(words(&answer(&all, &message)), expected, "{name}");
    }
    assert_eq!(words(&answer(&keys([]), &sealed(ours(), SUITE))), "UnknownConfig", "without any key");
}

#[test]
fn c1_malformed_extensions() {
    let all = keys([key(Kem::X25519, 7, &[SUITE])]);
    let well = [hex("00 0001 0001 07"), vec16(&[5; 32]), vec16(&[6; 144])].concat();
    for length in 1..well.len() {
        assert_eq!(words(&answer(&all, &offering(&well[..length]))), "decode_error", "{length} bytes");
    }
    let rows = [
        ("bytes behind", [well.clone(), vec![0]].concat()),
        ("empty payload", [hex("00 0001 0001 07"), vec16(&[5; 32]), vec16(&[])].concat()),
    ];
    for (name, body) in rows {
        assert_eq!(words(&answer(&all, &offering(&body))), "decode_error", "{name}");
    }
}

#[test]
fn c3_outer_extensions_do_not_belong_in_an_outer_hello() {
    let ours = key(Kem::X25519, 7, &[SUITE]);
    let mut hello = outer();
    hello.extensions.get_or_insert_default().push((0xfd00, hex("02 002b")));
    let message = Client::new(&ours, SUITE).hello(&hello, &encoded(inner_extensions("private.example")));
    assert_eq!(words(&answer(&keys([ours]), &message)), "illegal_parameter");
}

#[test]
fn every_byte_of_the_outer_hello_is_authenticated() {
    let ours = keys([key(Kem::X25519, 7, &[SUITE])]);
    let key = ours.iter().next().unwrap();
    let sealed = Client::new(key, SUITE).hello(&outer(), &encoded(inner_extensions("private.example")));
    assert_eq!(words(&answer(&ours, &sealed)), "private.example");
    for index in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[index] ^= 1;
        let crate::Probe::Match(hello) = crate::tls::ClientHello::parse(changed) else { continue };
        if hello.message().len() == sealed.len() {
            assert!(!matches!(open_first(&ours, &hello, || true), FirstHello::Accepted { .. }), "byte {index}");
        }
    }
}

#[test]
fn all_suites_open() {
    for kem in [Kem::X25519, Kem::P256] {
        for suite in (1..=3).flat_map(|kdf_id| (1..=3).map(move |aead_id| CipherSuite { kdf_id, aead_id })) {
            let ours = key(kem, 1, &[suite]);
            let message = Client::new(&ours, suite).hello(&outer(), &encoded(inner_extensions("private.example")));
            assert_eq!(words(&answer(&keys([ours]), &message)), "private.example", "{kem:?}, {suite:?}");
        }
    }
    let unknown = CipherSuite { kdf_id: 1, aead_id: 0xffff };
    let ours = key(Kem::X25519, 1, &[unknown]);
    let message = Client::new(&ours, unknown).hello(&outer(), &encoded(inner_extensions("private.example")));
    assert_eq!(words(&answer(&keys([ours]), &message)), "UnknownSuite", "export-only");
}

#[test]
fn c26_the_caller_is_asked_only_before_a_try() {
    let ours = keys([key(Kem::X25519, 7, &[SUITE])]);
    let sealed =
        Client::new(ours.iter().next().unwrap(), SUITE).hello(&outer(), &encoded(inner_extensions("private.example")));
    for (name, message, asked) in [
        ("ours", sealed, true),
        ("grease with our number", grease(7), true),
        ("grease", grease(8), false),
        ("nothing", Hello::default().message(), false),
    ] {
        let mut was_asked = false;
        let answer = open_first(&ours, &parsed(&message), || {
            was_asked = true;
            false
        });
        assert_eq!(was_asked, asked, "{name}");
        assert_eq!(words(&answer) == "Limited", asked, "{name}");
    }
}
