//! Key files.

use base64::{Engine as _, engine::general_purpose::STANDARD};

use crate::{
    ech::{Kem, PemErrorKind, read_pem, write_pem},
    testing::ech::{SUITE, key},
};

/// Private keys as OpenSSL writes them.
const OPENSSL_X25519: &str = include_str!("../testdata/openssl_ech.pem");
const OPENSSL_P256: &str = include_str!("../testdata/openssl_p256.pem");

fn file(kem: Kem, config_id: u8) -> String {
    write_pem(&key(kem, config_id, &[SUITE])).unwrap().to_string()
}

#[test]
fn what_is_written_is_read() {
    for kem in [Kem::X25519, Kem::P256] {
        let text = file(kem, 7);
        assert!(text.lines().all(|line| line.len() <= 64), "{text}");
        assert_eq!(read_pem(&text), Ok(vec![key(kem, 7, &[SUITE])]), "{kem:?}");
    }
}

#[test]
fn files_that_are_read() {
    let (x25519, p256) = (file(Kem::X25519, 7), file(Kem::P256, 8));
    let rows: [(&str, String, &[u8]); 6] = [
        ("two keys", format!("{x25519}{p256}"), &[7, 8]),
        ("comments around the blocks", format!("a key\n{x25519}\n\nanother\n{p256}the end"), &[7, 8]),
        ("line ends of Windows", x25519.replace('\n', "\r\n"), &[7]),
        ("OpenSSL, X25519", OPENSSL_X25519.to_owned(), &[0x41]),
        ("OpenSSL, P-256", OPENSSL_P256.to_owned(), &[0x42]),
        ("no line break at the end", x25519.trim_end().to_owned(), &[7]),
    ];
    for (name, text, expected) in rows {
        let keys = read_pem(&text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert_eq!(keys.iter().map(|key| key.config().config_id).collect::<Vec<_>>(), expected, "{name}");
    }
}

#[test]
fn files_that_are_refused() {
    let (text, other) = (file(Kem::X25519, 7), file(Kem::X25519, 8));
    let at = text.find("-----BEGIN ECHCONFIG").unwrap();
    let (private, config) = text.split_at(at);
    let other_config = &other[other.find("-----BEGIN ECHCONFIG").unwrap()..];
    let block = |label: &str, content: &[u8]| {
        format!("-----BEGIN {label}-----\n{}\n-----END {label}-----\n", STANDARD.encode(content))
    };
    let rows: [(&str, String, usize, PemErrorKind); 14] = [
        ("empty", String::new(), 1, PemErrorKind::Empty),
        ("no block", "hello\n".to_owned(), 1, PemErrorKind::Empty),
        ("too long", "\n".repeat((1 << 20) + 1), 1, PemErrorKind::TooLong),
        ("key alone", private.to_owned(), 1, PemErrorKind::KeyWithoutConfig),
        ("two keys before a configuration", format!("{private}{text}"), 1, PemErrorKind::KeyWithoutConfig),
        ("configuration alone", config.to_owned(), 1, PemErrorKind::ConfigWithoutKey),
        ("configuration of another key", format!("{private}{other_config}"), 4, PemErrorKind::OtherKey),
        ("no end", text.trim_end().trim_end_matches('-').to_owned(), 4, PemErrorKind::Unfinished),
        ("another end", text.replace("END ECHCONFIG", "END CERTIFICATE"), 4, PemErrorKind::Unfinished),
        ("damaged begin", text.replacen("-BEGIN PRIVATE", "-BEGIN_PRIVATE", 1), 3, PemErrorKind::Unopened),
        ("damaged begin of the last", format!("{text}\n-----END ECHCONFIG-----"), 9, PemErrorKind::Unopened),
        ("not base64", text.replacen('\n', "\n?", 1), 1, PemErrorKind::NotBase64),
        ("another label", block("CERTIFICATE", &[1]), 1, PemErrorKind::UnknownLabel),
        ("not PKCS#8", block("PRIVATE KEY", &[0x30, 0]) + config, 1, PemErrorKind::UnknownKey),
    ];
    for (name, text, line, kind) in rows {
        let error = read_pem(&text).unwrap_err();
        assert_eq!((error.line, &error.kind), (line, &kind), "{name}");
        assert!(error.to_string().starts_with(&format!("line {line}: ")), "{name}: {error}");
    }
    let error = read_pem(&(private.to_owned() + &block("ECHCONFIG", &[0, 0]))).unwrap_err();
    assert!(matches!(error.kind, PemErrorKind::Config(_)), "{error}");
}

#[test]
fn no_cut_of_a_file_is_taken_for_a_whole_one() {
    let text = file(Kem::P256, 7);
    for length in 0..text.trim_end().len() {
        assert!(read_pem(&text[..length]).is_err(), "{length} bytes");
    }
}
