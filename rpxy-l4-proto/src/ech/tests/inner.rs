//! Requirements on the plaintext, `EncodedClientHelloInner`.

use super::{FirstHello, answer, keys, outer, words};
use crate::{
    ech::Kem,
    testing::{
        Hello,
        ech::{Client, SUITE, encoded, inner_extensions, key},
        hex, server_name,
    },
};

/// The answer to a hello with this plaintext.
fn of(plaintext: &[u8]) -> FirstHello {
    let ours = key(Kem::X25519, 7, &[SUITE]);
    let message = Client::new(&ours, SUITE).hello(&outer(), plaintext);
    answer(&keys([ours]), &message)
}

/// Extensions of an inner hello with one of them replaced, or left out.
fn with(typ: u16, body: Option<&[u8]>) -> Vec<u8> {
    let mut extensions = inner_extensions("private.example");
    extensions.retain(|(other, _)| *other != typ);
    extensions.extend(body.map(|body| (typ, body.to_vec())));
    encoded(extensions)
}

/// With a reference to extensions of the outer hello.
fn referring(list: &str) -> Vec<u8> {
    with(0xfd00, Some(&hex(list)))
}

#[test]
fn plaintexts() {
    let plain = encoded(inner_extensions("private.example"));
    let padded = |padding: &[u8]| [plain.as_slice(), padding].concat();
    let twice = {
        let mut extensions = inner_extensions("private.example");
        extensions.extend([(0xfd00, hex("02 0033")), (0xfd00, hex("02 0033"))]);
        encoded(extensions)
    };
    let with_session_id = Hello::with(inner_extensions("private.example")).message()[4..].to_vec();
    let rows: [(&str, Vec<u8>, &str); 29] = [
        ("C12", plain.clone(), "private.example"),
        ("C7: padded", padded(&[0; 40]), "private.example"),
        ("C7: padding that is not zero", padded(&[0, 0, 1, 0]), "illegal_parameter"),
        ("C8: session ID of its own", with_session_id, "illegal_parameter"),
        ("C9: one outer extension", referring("02 0033"), "private.example"),
        (
            "C9: two, in order",
            {
                let mut extensions = vec![(0xfe0d, vec![1]), (0xfd00, hex("04 002b 0033"))];
                extensions.push((0, server_name("private.example")));
                // supported_versions of the outer hello has TLS 1.2, which is what fails here.
                encoded(extensions)
            },
            "illegal_parameter",
        ),
        ("C9: missing in the outer hello", referring("02 0010"), "illegal_parameter"),
        ("C9: referenced twice", referring("04 0033 0033"), "illegal_parameter"),
        (
            "C9: out of order",
            {
                let mut extensions = inner_extensions("private.example");
                extensions.retain(|(typ, _)| *typ != 0);
                extensions.push((0xfd00, hex("04 0033 0000")));
                encoded(extensions)
            },
            "illegal_parameter",
        ),
        ("C9: the extension itself", referring("02 fe0d"), "illegal_parameter"),
        ("C9: itself", referring("02 fd00"), "illegal_parameter"),
        ("C9: two lists", twice, "illegal_parameter"),
        ("C9: an extension that the inner hello has as well", referring("02 0000"), "illegal_parameter"),
        ("C9: empty list", referring("00"), "decode_error"),
        ("C9: odd list", referring("03 0033 00"), "decode_error"),
        ("C9: bytes behind the list", referring("02 0033 00"), "decode_error"),
        ("C9: list cut", referring("04 0033"), "decode_error"),
        ("C10: not marked", with(0xfe0d, None), "illegal_parameter"),
        ("C10: marked as outer", with(0xfe0d, Some(&[0])), "illegal_parameter"),
        ("C10: more than the mark", with(0xfe0d, Some(&[1, 0])), "illegal_parameter"),
        ("C11: no versions", with(43, None), "illegal_parameter"),
        ("C11: TLS 1.2 as well", with(43, Some(&hex("04 0304 0303"))), "illegal_parameter"),
        ("C11: TLS 1.3 and grease", with(43, Some(&hex("04 2a2a 0304"))), "private.example"),
        ("C11: half a version", with(43, Some(&hex("03 0304 03"))), "illegal_parameter"),
        ("C11: empty", with(43, Some(&hex("00"))), "illegal_parameter"),
        ("C11: bytes behind", with(43, Some(&hex("02 0304 00"))), "illegal_parameter"),
        (
            "an extension twice",
            {
                let mut extensions = inner_extensions("private.example");
                extensions.push((43, hex("02 0304")));
                encoded(extensions)
            },
            "illegal_parameter",
        ),
        ("a malformed name", with(0, Some(&[0, 1])), "no name"),
        ("no cipher suites", [&plain[..35], &[0, 0], &plain[43..]].concat(), "illegal_parameter"),
    ];
    for (name, plaintext, expected) in rows {
        assert_eq!(words(&of(&plaintext)), expected, "{name}");
    }
    for length in 0..plain.len() {
        assert!(matches!(of(&plain[..length]), FirstHello::Invalid(_)), "cut to {length} bytes");
    }
}

#[test]
fn c8_and_c9_the_inner_hello_takes_session_id_and_extensions_from_the_outer_one() {
    let mut extensions = inner_extensions("private.example");
    extensions.insert(1, (0xfd00, hex("02 0033")));
    let FirstHello::Accepted { inner, .. } = of(&[encoded(extensions), vec![0; 9]].concat()) else { panic!("refused") };
    let mut expected = inner_extensions("private.example");
    expected.insert(1, (51, vec![9; 38]));
    assert_eq!(inner.message(), Hello::with(expected).message());
    assert_eq!(inner.session_id(), outer().session_id);
}
