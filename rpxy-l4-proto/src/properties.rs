//! Properties of every parser for every input, as functions that panic where they do not hold. The fuzz targets call
//! them with new inputs, the tests with the committed corpora. Each answer comes back, so that a test can tell what an
//! input exercises.

use std::fmt::Debug;

pub use self::{
    datagrams::{quic_initial, quic_packet, wireguard},
    ech::{ech_inner, ech_pem},
    rewrite::initial_rewrite,
    tls::second_hello,
};

use crate::{
    Probe,
    ech::{EchConfigList, EchConfigListError, parse_config_list},
    http::{HttpProbe, HttpRequest},
    proxy_protocol::{self, Addresses, Decoded, Header, Version},
    socks5, ssh,
    tls::{ClientHello, HelloProbe},
};

/// A hello is found alike however it is segmented, is the same when its message is parsed alone, and is found again
/// when its message is put into other records.
pub fn client_hello(data: &[u8]) -> Probe<ClientHello> {
    let outcome = streamed(data, HelloProbe::default, HelloProbe::advance);
    if let Probe::Match(hello) = &outcome {
        let message = hello.message();
        assert_eq!(ClientHello::parse(message.to_vec()), outcome, "the message alone is the same hello");
        for size in [1, 7, 1 << 14] {
            let records = records(message, size);
            assert_eq!(HelloProbe::default().advance(&records), outcome, "in records of {size} bytes");
        }
        for extension in hello.extensions() {
            assert_eq!(hello.extension(extension.typ), message.get(extension.range.clone()));
        }
        if let Some(name) = hello.server_name() {
            assert!((1..=255).contains(&name.len()) && name.bytes().all(|byte| byte.is_ascii_graphic()), "{name:?}");
        }
        assert!(hello.alpn().all(|protocol| !protocol.is_empty()));
    }
    let mut probe = HelloProbe::default();
    if probe.advance(data) == Probe::NeedMore && probe.is_certain() {
        let more = [data, &[0; 3]].concat();
        assert_ne!(HelloProbe::default().advance(&more), Probe::NotThis, "what is certain stays");
    }
    // The input as a bare message: records in front of each byte change nothing, but that any message in them is TLS.
    let parsed = match ClientHello::parse(data.to_vec()) {
        Probe::NotThis => Probe::Unreadable,
        parsed @ (Probe::Match(_) | Probe::Unreadable | Probe::NeedMore) => parsed,
    };
    assert_eq!(HelloProbe::default().advance(&records(data, 1000)), parsed, "a bare message, and in records");
    outcome
}

/// Both ways of asking agree on what the stream is, and a host comes in its normal form.
pub fn http(data: &[u8]) -> (Probe<HttpRequest>, Probe<HttpRequest>) {
    let without = streamed(data, || HttpProbe::new(false), HttpProbe::advance);
    let with = streamed(data, || HttpProbe::new(true), HttpProbe::advance);
    match (&without, &with) {
        (Probe::Match(request), Probe::Match(with_host)) => {
            assert_eq!(request.version, with_host.version);
            assert_eq!(request.host, None);
            if let Some(host) = &with_host.host {
                let normal = host.bytes().all(|byte| byte.is_ascii_graphic() && !byte.is_ascii_uppercase());
                assert!(normal && (1..=255).contains(&host.len()) && !host.contains(['[', ']', '@', '/']), "{host:?}");
            }
        }
        // The head is too long, or still arriving.
        (Probe::Match(_), Probe::Unreadable | Probe::NeedMore) => {}
        (other, with) => assert_eq!(other, with),
    }
    (without, with)
}

/// A header is read alike however it arrives, and what is read can be written and read again.
pub fn proxy_protocol(data: &[u8]) -> Decoded {
    let outcome = streamed(
        data,
        || (),
        |(), stream| {
            // `Invalid` is an answer here, not an absence of one.
            match proxy_protocol::decode(stream) {
                Decoded::NeedMore => Probe::NeedMore,
                decided @ (Decoded::Complete { .. } | Decoded::Invalid(_)) => Probe::Match(decided),
            }
        },
    );
    let Probe::Match(decoded) = outcome else { return Decoded::NeedMore };
    if let Decoded::Complete { header, len } = &decoded {
        assert!(*len <= data.len());
        if let Addresses::Stream { source, destination } | Addresses::Datagram { source, destination } =
            header.addresses
        {
            assert_eq!(source.is_ipv4(), destination.is_ipv4());
        }
        let bytes = encode(header);
        let again = Decoded::Complete { header: header.clone(), len: bytes.len() };
        assert_eq!(proxy_protocol::decode(&bytes), again, "decode after encode");
    }
    decoded
}

/// The two stateless probes: first SOCKS, then SSH. Both never match, and what has begun never was another protocol.
pub fn socks5_ssh(data: &[u8]) -> (Probe<()>, Probe<()>) {
    let socks5 = streamed(data, || (), |(), stream| socks5::probe(stream));
    let ssh = streamed(data, || (), |(), stream| ssh::probe(stream));
    assert!(!(socks5.is_match() && ssh.is_match()));
    assert!(!socks5::has_begun(data) || socks5 != Probe::NotThis);
    (socks5, ssh)
}

/// The raw bytes of the configurations make up the list, but for those skipped, and no prefix of a list is one.
pub fn ech_config(data: &[u8]) -> Result<EchConfigList, EchConfigListError> {
    let list = parse_config_list(data)?;
    let raw = list.configs.iter().flat_map(|config| config.raw.iter().copied()).collect::<Vec<_>>();
    if let Ok(length @ 1..) = u16::try_from(raw.len()) {
        let again = [&length.to_be_bytes(), raw.as_slice()].concat();
        let expected = EchConfigList { configs: list.configs.clone(), skipped: 0 };
        assert_eq!(parse_config_list(&again).as_ref(), Ok(&expected));
        if list.skipped == 0 {
            assert_eq!(again, data, "nothing but configurations is in the list");
        }
    }
    for len in 0..data.len() {
        assert!(data.get(..len).is_some_and(|part| parse_config_list(part).is_err()), "{len} bytes");
    }
    Ok(list)
}

/// The answer to all of `data` at once, after checking that it does not depend on how the bytes arrive: byte by byte
/// and in uneven segments the same answer comes, nothing but [`Probe::NeedMore`] comes before it, and it stays.
fn streamed<P, T: Clone + PartialEq + Debug>(
    data: &[u8],
    new: impl Fn() -> P,
    advance: impl Fn(&mut P, &[u8]) -> Probe<T>,
) -> Probe<T> {
    let prefix = |len: usize| data.get(..len).unwrap_or(data);
    let whole = advance(&mut new(), data);

    let mut probe = new();
    let first = (0..=data.len()).find_map(|len| match advance(&mut probe, prefix(len)) {
        Probe::NeedMore => None,
        decided @ (Probe::Match(_) | Probe::Unreadable | Probe::NotThis) => Some((len, decided)),
    });
    match first {
        None => assert_eq!(whole, Probe::NeedMore, "all at once, and byte by byte"),
        Some((len, decided)) => {
            assert_eq!(whole, decided, "all at once, and byte by byte");
            assert_eq!(advance(&mut probe, data), decided, "asked again");
            assert_eq!(advance(&mut new(), prefix(len)), decided, "no more bytes than needed");
            let before = len.checked_sub(1).map(|len| advance(&mut new(), prefix(len)));
            assert!(matches!(before, None | Some(Probe::NeedMore)), "one byte before the decision");
        }
    }

    // Uneven segments, told by the data so that a finding can be reproduced from its input alone.
    let mut probe = new();
    let mut len = 0;
    let mut outcome = Probe::NeedMore;
    while len < data.len() && outcome == Probe::NeedMore {
        let step = data.get(len).map_or(1, |byte| usize::from(byte % 61).saturating_add(1));
        len = len.saturating_add(step).min(data.len());
        outcome = advance(&mut probe, prefix(len));
    }
    if !data.is_empty() {
        assert_eq!(outcome, whole, "in uneven segments");
    }
    whole
}

/// A message in handshake records of at most `size` bytes, which is at most 2^14.
fn records(message: &[u8], size: usize) -> Vec<u8> {
    let mut stream = Vec::new();
    for fragment in message.chunks(size) {
        stream.extend_from_slice(&[22, 3, 3]);
        stream.extend_from_slice(&u16::try_from(fragment.len()).unwrap_or(u16::MAX).to_be_bytes());
        stream.extend_from_slice(fragment);
    }
    stream
}

fn encode(header: &Header) -> Vec<u8> {
    let mut bytes = Vec::new();
    match (header.version, header.addresses) {
        (Version::V1, Addresses::Stream { source, destination }) => {
            proxy_protocol::encode_v1(source, destination, &mut bytes);
        }
        (Version::V1, Addresses::Unknown) => proxy_protocol::encode_v1_unknown(&mut bytes),
        (Version::V1, addresses @ (Addresses::Local | Addresses::Datagram { .. })) => {
            panic!("version 1 cannot tell {addresses:?}");
        }
        (Version::V2, addresses) => proxy_protocol::encode_v2(&addresses, &header.tlvs, &mut bytes),
    }
    bytes
}

#[cfg(test)]
mod corpus;
mod datagrams;
mod ech;
mod rewrite;
#[expect(
    clippy::indexing_slicing,
    clippy::unwrap_used,
    reason = "made of constants: a seed that cannot be built must stop the test or the example that asks for it"
)]
pub mod seeds;
mod tls;
