//! First bytes as clients send them. The daemon recognises them as it would any others.

use anyhow::{Context, Result, bail};
use rpxy_l4_common::mac1::Mac1Key;
use rpxy_l4_proto::{
    quic::{ConnectionId, Version, first_datagrams},
    tls::{Offer, client_hello, handshake_records},
    wireguard::INITIATION_LEN,
};

use crate::{
    cli::{ExplainArgs, PublicKey, Spoken},
    config::model::Transport,
    route::Random,
};

/// The same bytes each time.
const SEED: u64 = 1;

/// The first bytes, of UDP each a datagram, of the client that `args` describe; nothing if they say nothing of it.
pub(super) fn of(args: &ExplainArgs, transport: Transport) -> Result<Vec<Vec<u8>>> {
    let alpns: Vec<&[u8]> = args.alpn.iter().map(String::as_bytes).collect();
    let (name, has_hello) = (args.sni.as_deref(), args.sni.is_some() || !args.alpn.is_empty());
    let told = match (args.protocol, transport) {
        (Some(protocol), _) => Some(protocol),
        (None, Transport::Tcp) if has_hello => Some(Spoken::Tls),
        (None, Transport::Udp) if has_hello => Some(Spoken::Quic),
        (None, _) if args.host.is_some() => Some(Spoken::Http),
        (None, _) if args.public_key.is_some() => Some(Spoken::WireGuard),
        (None, _) => None,
    };
    let Some(protocol) = told else { return Ok(Vec::new()) };
    check(args, protocol, transport)?;
    Ok(match protocol {
        Spoken::Tls => vec![tls(name, &alpns).context("--sni or --alpn is too long for a ClientHello")?],
        Spoken::Quic => quic(name, &alpns).context("--sni or --alpn is too long for a ClientHello")?,
        Spoken::Http => vec![http(args.host.as_deref())],
        Spoken::Ssh => vec![b"SSH-2.0-rpxy_l4_explain\r\n".to_vec()],
        // One method: no authentication (RFC 1928 section 3).
        Spoken::Socks5 => vec![vec![5, 1, 0]],
        Spoken::WireGuard => vec![wireguard(args.public_key).to_vec()],
    })
}

/// What was said has to go together.
fn check(args: &ExplainArgs, protocol: Spoken, transport: Transport) -> Result<()> {
    let (name, own, fields) = match protocol {
        Spoken::Tls => ("tls", Transport::Tcp, ["--sni", "--alpn"].as_slice()),
        Spoken::Quic => ("quic", Transport::Udp, ["--sni", "--alpn"].as_slice()),
        Spoken::Http => ("http", Transport::Tcp, ["--host"].as_slice()),
        Spoken::Ssh => ("ssh", Transport::Tcp, [].as_slice()),
        Spoken::Socks5 => ("socks5", Transport::Tcp, [].as_slice()),
        Spoken::WireGuard => ("wireguard", Transport::Udp, ["--public-key"].as_slice()),
    };
    if own != transport {
        bail!("{name} is a protocol of {own}: leave out --{}", transport.name());
    }
    for (field, given) in [
        ("--sni", args.sni.is_some()),
        ("--alpn", !args.alpn.is_empty()),
        ("--host", args.host.is_some()),
        ("--public-key", args.public_key.is_some()),
    ] {
        if given && !fields.contains(&field) {
            bail!("{field} is not for {name}");
        }
    }
    Ok(())
}

fn tls(name: Option<&str>, alpn: &[&[u8]]) -> Option<Vec<u8>> {
    /// In front of the first hello some servers want TLS 1.0 (RFC 8446 section 5.1).
    const RECORD_VERSION: u8 = 1;
    let random = Random::new(SEED);
    let (session_id, parameters) = (bytes::<32>(&random), None);
    let hello = hello(name, alpn, &random, &session_id, parameters)?;
    Some(handshake_records(&hello, RECORD_VERSION))
}

fn quic(name: Option<&str>, alpn: &[&[u8]]) -> Option<Vec<Vec<u8>>> {
    /// `initial_source_connection_id` (RFC 9000 section 18.2).
    const INITIAL_SOURCE: u8 = 15;
    const ID: usize = 8;
    let random = Random::new(SEED);
    let (to, own) = (bytes::<ID>(&random), bytes::<ID>(&random));
    let parameters = [&[INITIAL_SOURCE, u8::try_from(ID).ok()?][..], &own].concat();
    let hello = hello(name, alpn, &random, &[], Some(&parameters))?;
    first_datagrams(Version::V1, ConnectionId::new(&to)?, ConnectionId::new(&own)?, &hello)
}

fn hello(
    server_name: Option<&str>,
    alpn: &[&[u8]],
    random: &Random,
    session_id: &[u8],
    transport_parameters: Option<&[u8]>,
) -> Option<Vec<u8>> {
    let (random, key_share) = (bytes(random), bytes(random));
    client_hello(&Offer { server_name, alpn, random, session_id, key_share, transport_parameters })
}

fn http(host: Option<&str>) -> Vec<u8> {
    match host {
        Some(host) => format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n").into_bytes(),
        None => b"GET / HTTP/1.0\r\n\r\n".to_vec(),
    }
}

/// A handshake initiation (WireGuard whitepaper section 5.4.2). Without a key, mac1 fits none.
fn wireguard(key: Option<PublicKey>) -> [u8; INITIATION_LEN] {
    const INITIATION: [u8; 4] = [1, 0, 0, 0];
    /// mac2, which is zero without a cookie.
    const MAC2: usize = 16;
    let random = Random::new(SEED);
    let mut datagram: [u8; INITIATION_LEN] = bytes(&random);
    datagram.iter_mut().zip(INITIATION).for_each(|(to, byte)| *to = byte);
    datagram.iter_mut().rev().take(MAC2).for_each(|byte| *byte = 0);
    if let Some(PublicKey(key)) = key {
        Mac1Key::new(&key).sign(&mut datagram);
    }
    datagram
}

fn bytes<const N: usize>(random: &Random) -> [u8; N] {
    let mut bytes = [0; N];
    for part in bytes.chunks_mut(8) {
        part.iter_mut().zip(random.next().to_be_bytes()).for_each(|(to, byte)| *to = byte);
    }
    bytes
}
