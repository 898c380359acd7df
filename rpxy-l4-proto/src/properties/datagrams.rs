//! Properties of every datagram, and of every flow of them.

use crate::{
    Probe,
    quic::{
        ConnectionId, CryptoStream, Frame, InitialKeys, InitialProbe, LongHeader, LongType, MAX_CRYPTO_PIECES,
        MIN_FIRST_DCID, MIN_INITIAL_DATAGRAM, Malformed, Version, frames, packets,
    },
    testing::quic::Initial,
    tls::ClientHello,
    wireguard::{self, Message, Reserved},
};

/// The packets of a datagram are in it, in order, to one connection ID, and each alone is the same packet. As a payload,
/// the input is the frames up to the first malformed one and nothing else. Types of the packets, number of the frames.
pub fn quic_packet(data: &[u8]) -> (Vec<LongType>, Result<usize, Malformed>) {
    let mut end = 0;
    let mut types = Vec::new();
    for packet in packets(data) {
        let range = packet.range();
        assert!(range.start >= end && !range.is_empty(), "{range:?} after {end}");
        assert_eq!(data.get(range.clone()), Some(packet.bytes()));
        let header = LongHeader::parse(packet.bytes());
        let expected = (packet.version.wire(), packet.dcid.as_bytes(), packet.scid.as_bytes());
        assert_eq!(header.map(|header| (header.version, header.dcid, header.scid)), Some(expected));
        assert_eq!(LongHeader::parse(data).map(|header| header.dcid), Some(packet.dcid.as_bytes()), "of the first one");
        let alone = packets(packet.bytes()).collect::<Vec<_>>();
        assert_eq!(alone.len(), 1);
        for alone in alone {
            assert_eq!((alone.typ, alone.token, alone.bytes()), (packet.typ, packet.token, packet.bytes()));
        }
        let keys = InitialKeys::client(packet.version, &packet.dcid);
        if let Some(opened) = keys.open(&packet, None) {
            let mut again = packet.bytes().to_vec();
            assert_eq!(keys.seal(&mut again, &opened), Some(()));
            assert_eq!(again, packet.bytes(), "sealed after it was opened");
        }
        types.push(packet.typ);
        end = range.end;
    }
    (types, frame_count(data))
}

fn frame_count(payload: &[u8]) -> Result<usize, Malformed> {
    let mut found = frames(payload);
    let mut count = 0_usize;
    loop {
        let start = found.position();
        match found.next() {
            Some(Ok(frame)) => {
                assert!(found.position() > start, "every frame takes a byte");
                let alone = frames(payload.get(start..found.position()).unwrap_or_default());
                assert_eq!(alone.collect::<Vec<_>>(), [Ok(frame)]);
                count = count.saturating_add(1);
            }
            Some(Err(malformed)) => {
                assert_eq!(found.next(), None);
                return Err(malformed);
            }
            None => {
                assert_eq!(start, payload.len());
                return Ok(count);
            }
        }
    }
}

/// The answer to the datagrams of a flow never changes, and repeating them does not matter. Where all of them open and
/// agree, no order does, and a match is what their CRYPTO bytes say.
///
/// The input is told apart by [`flow`], which can seal a payload: no mutation of a packet ever opens.
pub fn quic_initial(data: &[u8]) -> Probe<ClientHello> {
    let (version, dcid, datagrams) = flow(data);
    let answer = in_order(version, dcid, datagrams.iter());
    let twice = datagrams.iter().flat_map(|datagram| [datagram, datagram]);
    assert_eq!(in_order(version, dcid, twice), answer, "every datagram twice");
    if let Probe::Match(hello) = &answer {
        assert_eq!(ClientHello::parse(hello.message().to_vec()), answer, "the message alone is the same hello");
    }
    if let Some(stream) = whole_stream(version, dcid, &datagrams) {
        assert_eq!(in_order(version, dcid, datagrams.iter().rev()), answer, "the other way round");
        let middle = datagrams.len() / 2;
        let rotated = datagrams.iter().skip(middle).chain(datagrams.iter().take(middle));
        assert_eq!(in_order(version, dcid, rotated), answer, "the later half first");
        match ClientHello::parse(stream.prefix().to_vec()) {
            // It may be too long ever to be complete.
            Probe::NeedMore => assert!(!answer.is_match()),
            Probe::Unreadable | Probe::NotThis => assert_eq!(answer, Probe::Unreadable),
            decided @ Probe::Match(_) => assert_eq!(answer, decided),
        }
    }
    answer
}

/// The last answer, after checking that none changes.
fn in_order(
    version: Version,
    dcid: ConnectionId,
    datagrams: impl Iterator<Item = impl AsRef<[u8]>>,
) -> Probe<ClientHello> {
    let mut probe = InitialProbe::new(version, dcid);
    let mut answer = Probe::NeedMore;
    for datagram in datagrams {
        let next = probe.advance(datagram.as_ref());
        assert!(answer == Probe::NeedMore || answer == next, "an answer changed");
        answer = next;
    }
    answer
}

/// The CRYPTO stream of all datagrams, if every order of them must give it: each is ignored for its size, or holds
/// nothing but packets that open and are right, and they agree.
fn whole_stream(version: Version, dcid: ConnectionId, datagrams: &[Vec<u8>]) -> Option<CryptoStream> {
    let keys = InitialKeys::client(version, &dcid);
    let (mut stream, mut count) = (CryptoStream::default(), 0_usize);
    for datagram in datagrams.iter().filter(|datagram| datagram.len() >= MIN_INITIAL_DATAGRAM) {
        let mut end = 0;
        for packet in packets(datagram) {
            // RFC 9000 section 7.2: only a Retry, which leaves a token, makes a shorter one.
            let possible = dcid.len() >= MIN_FIRST_DCID || !packet.token.is_empty();
            let opened = keys.open(&packet, None).filter(|opened| possible && opened.first & 0x0c == 0)?;
            for frame in frames(&opened.payload) {
                if let Frame::Crypto { offset, data } = frame.ok()? {
                    stream.insert(offset, data).ok()?;
                    count = count.saturating_add(1);
                }
            }
            (!opened.payload.is_empty()).then_some(())?;
            end = packet.range().end;
        }
        (end > 0).then_some(())?;
    }
    (count <= MAX_CRYPTO_PIECES).then_some(stream)
}

/// Version, connection ID and datagrams of a flow. The first byte tells the version. Then come chunks: a byte that says
/// what to do, a length of two bytes, and as much. By its two lowest bits, a chunk is
///
/// - 0: a payload, sealed and padded to a datagram;
/// - 1: a datagram. If it is the first one and shows a long header, the flow takes version and connection ID from it;
/// - 2: a payload, sealed as a datagram without padding;
/// - 3: a payload, sealed and put in front of the next datagram.
///
/// Of the other bits, 0x10 clears the fixed bit of a sealed packet, 0x20 takes other keys, 0x40 adds a token and 0x80
/// sets a reserved bit. Chunks past the 16th are ignored.
pub(super) fn flow(data: &[u8]) -> (Version, ConnectionId, Vec<Vec<u8>>) {
    let (&start, mut rest) = data.split_first().unwrap_or((&0, &[]));
    let mut version = if start & 1 == 0 { Version::V1 } else { Version::V2 };
    let Initial { mut dcid, .. } = Initial::default();
    let (mut datagrams, mut pending) = (Vec::new(), Vec::new());
    for number in 0..16 {
        let Some((&[control, high, low], behind)) = rest.split_first_chunk() else { break };
        let len = usize::from(u16::from_be_bytes([high, low])).min(behind.len()).min(2000);
        let Some((chunk, behind)) = behind.split_at_checked(len) else { break };
        rest = behind;
        if control & 3 == 1 && number == 0 {
            let first = LongHeader::parse(chunk);
            let known = first.and_then(|first| Version::from_wire(first.version).zip(ConnectionId::new(first.dcid)));
            (version, dcid) = known.unwrap_or((version, dcid));
        }
        let initial = Initial {
            version,
            dcid,
            key_dcid: if control & 0x20 == 0 { dcid } else { ConnectionId::default() },
            token: if control & 0x40 == 0 { Vec::new() } else { vec![7; 9] },
            flip: (control & 0x10) << 2 | (control & 0x80) >> 5,
            ..Initial::number(number)
        };
        let datagram = match control & 3 {
            0 => initial.datagram(chunk),
            1 => chunk.to_vec(),
            2 => initial.packet(chunk),
            _ => {
                pending.extend(initial.packet(chunk));
                continue;
            }
        };
        datagrams.push([std::mem::take(&mut pending), datagram].concat());
    }
    (version, dcid, datagrams)
}

/// A message with reserved bytes of zero is the same with any. Returns the message with any reserved bytes.
pub fn wireguard(data: &[u8]) -> Option<Message> {
    let any = wireguard::parse(data, Reserved::Any);
    let mut zeroed = data.to_vec();
    zeroed.iter_mut().skip(1).take(3).for_each(|byte| *byte = 0);
    assert_eq!(wireguard::parse(&zeroed, Reserved::Zero), any);
    let zero = if zeroed == data { any } else { None };
    assert_eq!(wireguard::parse(data, Reserved::Zero), zero);
    any
}
