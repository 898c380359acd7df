//! rustls as a second opinion: its clients' hellos are found, and its server reads the same names out of them.

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, RootCertStore,
    crypto::ring,
    server::Acceptor,
    version::{TLS12, TLS13},
};

use super::*;
use crate::{properties, testing::records};

fn client_hello(name: &str, alpn: &[&str], versions: &[&'static rustls::SupportedProtocolVersion]) -> Vec<u8> {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(versions)
        .unwrap()
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    let mut client = ClientConnection::new(Arc::new(config), name.to_owned().try_into().unwrap()).unwrap();
    let mut stream = Vec::new();
    client.write_tls(&mut stream).unwrap();
    stream
}

/// Server name and protocols as the rustls server reads them; `None` if it wants more or refuses.
fn accepted(stream: &[u8]) -> Option<(Option<String>, Vec<Vec<u8>>)> {
    let mut acceptor = Acceptor::default();
    let mut unread = stream;
    while !unread.is_empty() {
        acceptor.read_tls(&mut unread).ok()?;
        if let Some(accepted) = acceptor.accept().ok()? {
            let hello = accepted.client_hello();
            let alpn = hello.alpn().map(|names| names.map(<[u8]>::to_vec).collect()).unwrap_or_default();
            return Some((hello.server_name().map(str::to_owned), alpn));
        }
    }
    None
}

fn probed(stream: &[u8]) -> (Option<String>, Vec<Vec<u8>>) {
    let hello = hello(properties::client_hello(stream));
    (hello.server_name().map(str::to_owned), hello.alpn().map(<[u8]>::to_vec).collect())
}

#[test]
fn hellos_of_rustls_are_read_as_rustls_reads_them() {
    let rows: [(&str, &str, &[&str], &[&'static rustls::SupportedProtocolVersion]); 5] = [
        ("TLS 1.3 and 1.2", "a.example", &["h2", "http/1.1"], &[&TLS13, &TLS12]),
        ("TLS 1.3", "long-label-in-a-name.sub.a.example", &["h2"], &[&TLS13]),
        ("TLS 1.2", "a.example", &["http/1.1"], &[&TLS12]),
        ("no ALPN", "a.example", &[], &[&TLS13]),
        ("an address, so no server name", "192.0.2.1", &["h2"], &[&TLS13]),
    ];
    for (row, name, alpn, versions) in rows {
        let stream = client_hello(name, alpn, versions);
        let found = probed(&stream);
        let expected_name = (name != "192.0.2.1").then(|| name.to_owned());
        assert_eq!(found, (expected_name, alpn.iter().map(|name| name.as_bytes().to_vec()).collect()), "{row}");
        assert_eq!(Some(found), accepted(&stream), "{row}");
    }
}

#[test]
fn records_of_every_size_are_read_as_rustls_reads_them() {
    let stream = client_hello("a.example", &["h2", "http/1.1"], &[&TLS13, &TLS12]);
    let message = hello(probe(&stream)).message().to_vec();
    for size in 1..=message.len() {
        let stream = records(&message, size);
        assert_eq!(Some(probed(&stream)), accepted(&stream), "records of {size} bytes");
    }
}

#[test]
fn every_truncation_of_a_real_hello_needs_more() {
    let stream = client_hello("a.example", &["h2"], &[&TLS13]);
    for len in 0..stream.len() {
        assert_eq!(probe(&stream[..len]), Probe::NeedMore, "{len} bytes");
    }
}

/// A message that has arrived whole is never waited for, wherever it ends.
#[test]
fn every_truncation_with_lengths_to_match_is_decided_at_once() {
    let stream = client_hello("a.example", &["h2"], &[&TLS13, &TLS12]);
    let message = hello(probe(&stream)).message().to_vec();
    for len in 4..message.len() {
        let mut cut = message[..len].to_vec();
        let [_, _, high, low] = u32::try_from(len - 4).unwrap().to_be_bytes();
        cut[1..4].copy_from_slice(&[0, high, low]);
        for size in [cut.len(), 7] {
            assert_ne!(probe(&records(&cut, size)), Probe::NeedMore, "{len} bytes in records of {size}");
        }
    }
}

#[test]
fn what_rustls_accepts_with_one_byte_changed_has_the_same_names_here() {
    let stream = client_hello("a.example", &["h2"], &[&TLS13]);
    let mut agreed = 0;
    for at in 0..stream.len() {
        for change in [0x01, 0x80, 0xff] {
            let mut changed = stream.clone();
            changed[at] ^= change;
            let answer = probe(&changed);
            if let Some(theirs) = accepted(&changed) {
                assert_ne!(answer, Probe::NotThis, "byte {at} xor {change:#x}");
                let Probe::Match(hello) = answer else { continue };
                let ours =
                    (hello.server_name().map(str::to_owned), hello.alpn().map(<[u8]>::to_vec).collect::<Vec<_>>());
                // rustls leaves out names that are no DNS names, which are only compared here, and takes one from a list
                // with something else in it, which is not.
                assert_eq!(ours.1, theirs.1, "byte {at} xor {change:#x}");
                if let (Some(ours), Some(theirs)) = (ours.0, theirs.0) {
                    assert_eq!(ours.to_ascii_lowercase(), theirs, "byte {at} xor {change:#x}");
                }
                agreed += 1;
            }
        }
    }
    assert!(agreed > stream.len(), "most changes are in random bytes, so that both accept");
}
