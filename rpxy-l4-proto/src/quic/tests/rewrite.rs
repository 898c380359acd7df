//! Another hello in the place of the client's.

use proptest::{collection::vec, prelude::*, sample::Index};
use sha2::{Digest as _, Sha256};

use crate::{
    Probe,
    quic::{
        ConnectionId, CryptoStream, Frame, InitialKeys, InitialProbe, InitialRewriter, LongType, Rewritten, Version,
        frames, packets,
    },
    testing::{
        Hello, hex,
        quic::{CHROMIUM, Initial, crypto, crypto_of},
    },
    tls::ClientHello,
};

fn parsed(message: Vec<u8>) -> ClientHello {
    let Probe::Match(hello) = ClientHello::parse(message) else { panic!("not a hello") };
    hello
}

/// A hello of this many bytes behind its name.
fn hello(name: &str, padding: usize) -> ClientHello {
    let mut built = Hello::for_name(name, &["h3"]);
    built.extensions.get_or_insert_default().push((21, (0..padding).map(|n| u8::try_from(n % 251).unwrap()).collect()));
    parsed(built.message())
}

fn outer() -> ClientHello {
    hello("public.example", 600)
}

fn inner() -> ClientHello {
    hello("private.example", 300)
}

fn dcid() -> ConnectionId {
    Initial::default().dcid
}

fn rewriter() -> InitialRewriter {
    InitialRewriter::new(dcid(), &outer(), &inner()).unwrap()
}

/// The payload of the first packet, under the client's keys.
fn opened(datagram: &[u8]) -> Vec<u8> {
    let packet = packets(datagram).next().unwrap();
    InitialKeys::client(packet.version, &dcid()).open(&packet, Some(4)).unwrap().payload
}

fn rewritten(rewriter: &mut InitialRewriter, payload: &[u8]) -> Vec<u8> {
    let mut datagram = Initial::default().packet(payload);
    assert_eq!(rewriter.rewrite(&mut datagram, || true), Rewritten::Done);
    opened(&datagram)
}

#[test]
fn frame_by_frame() {
    let (outer, inner) = (outer(), inner());
    let (from, to) = (outer.message(), inner.message());
    let end = to.len();
    let padded = |mut payload: Vec<u8>, len: usize| {
        payload.resize(len, 0);
        payload
    };
    let piece = |start, end| crypto_of(from, &[(start, end)]);
    let ack = hex("02 05 00 00 05");
    let wide = |data: &[u8]| [hex("06 80000010"), hex("c000000000000020"), data.to_vec()].concat();
    type Row<'a> = (&'a str, Vec<u8>, Vec<u8>);
    let rows: [Row<'_>; 10] = [
        ("within the inner hello", piece(0, 100), crypto(0, &to[..100])),
        ("over its end", piece(end - 10, end + 200), [hex("06 419a 400a"), to[end - 10..].to_vec()].concat()),
        ("behind its end", piece(end, end + 70), vec![1]),
        ("far behind its end", piece(end + 100, from.len()), vec![1]),
        ("integers longer than needed", wide(&from[16..48]), wide(&to[16..48])),
        ("without bytes", crypto(7, &[]), crypto(7, &[])),
        ("acknowledgement", ack.clone(), ack.clone()),
        ("PING and PADDING", vec![1, 0, 0, 1], vec![1, 0, 0, 1]),
        ("close", hex("1c 0a 06 02 6e6f"), hex("1c 0a 06 02 6e6f")),
        (
            "malformed behind a good one",
            [piece(0, 40), hex("1e ff")].concat(),
            [crypto(0, &to[..40]), hex("1e ff")].concat(),
        ),
    ];
    assert_eq!(end, 0x19a + 10, "the offset written out above");
    for (name, payload, expected) in rows {
        let len = payload.len();
        assert_eq!(rewritten(&mut rewriter(), &payload), padded(expected, len), "{name}");
    }
    let several = [ack, piece(end - 5, end + 60), vec![1], piece(0, 50)].concat();
    let result = rewritten(&mut rewriter(), &several);
    assert_eq!(result.len(), several.len());
    assert_eq!(crypto_frames(&result), [(end - 5, to[end - 5..].to_vec()), (0, to[..50].to_vec())]);
}

fn crypto_frames(payload: &[u8]) -> Vec<(usize, Vec<u8>)> {
    let crypto = frames(payload).filter_map(|frame| match frame {
        Ok(Frame::Crypto { offset, data }) => Some((usize::try_from(offset).unwrap(), data.to_vec())),
        _ => None,
    });
    crypto.collect()
}

#[test]
fn what_is_not_an_initial_packet_of_the_connection_stays() {
    let stranger = Initial { key_dcid: ConnectionId::new(&[9; 8]).unwrap(), ..Initial::default() };
    let payload = crypto_of(outer().message(), &[(0, 200)]);
    let good = Initial::default().packet(&payload);
    let handshake = {
        let mut packet = good.clone();
        // Type 2 of version 1; the protected bits do not matter.
        packet[0] = packet[0] & !0x30 | 0x20;
        packet
    };
    let rows = [
        ("other keys", stranger.packet(&payload)),
        ("one bit off", {
            let mut packet = good.clone();
            *packet.last_mut().unwrap() ^= 1;
            packet
        }),
        ("short header", vec![0x40; 60]),
        ("empty", Vec::new()),
    ];
    for (name, datagram) in rows {
        let mut after = datagram.clone();
        assert_eq!(rewriter().rewrite(&mut after, || true), Rewritten::Done, "{name}");
        assert_eq!(after, datagram, "{name}");
    }
    // Coalesced behind an Initial packet, and before one of another connection.
    let behind = [handshake.as_slice(), &[0x40; 30]].concat();
    let mut datagram = [good.as_slice(), &behind].concat();
    assert_eq!(rewriter().rewrite(&mut datagram, || true), Rewritten::Done);
    assert_eq!(datagram[good.len()..], behind);
    assert_ne!(datagram[..good.len()], good);
    assert_eq!(crypto_frames(&opened(&datagram)), [(0, inner().message()[..200].to_vec())]);
}

#[test]
fn both_versions_of_one_connection() {
    let mut rewriter = rewriter();
    for version in [Version::V1, Version::V2, Version::V1] {
        let initial = Initial { version, ..Initial::default() };
        let mut datagram = initial.packet(&crypto_of(outer().message(), &[(3, 90)]));
        assert!(rewriter.opens(&datagram), "{version:?}");
        assert_eq!(rewriter.rewrite(&mut datagram, || true), Rewritten::Done, "{version:?}");
        assert_eq!(crypto_frames(&opened(&datagram)), [(3, inner().message()[3..90].to_vec())], "{version:?}");
    }
    let stranger = Initial { key_dcid: ConnectionId::new(&[9; 8]).unwrap(), ..Initial::default() };
    assert!(!rewriter.opens(&stranger.packet(&[1; 40])));
}

/// RFC 9000 appendix A.3: a number may be cut to what tells it apart from the largest one.
#[test]
fn packet_numbers_are_read_against_the_largest_one() {
    let (first, inner) = (outer(), inner());
    let behind = first.message().len();
    for (case, before) in [("rewritten", crypto_of(first.message(), &[(0, 9)])), ("waiting", crypto(behind, &[1]))] {
        let mut rewriter = rewriter();
        let _answer = rewriter.rewrite(&mut Initial::number(0x1f0).packet(&before), || true);
        let initial = Initial { packet_number_len: 1, ..Initial::number(0x201) };
        let mut datagram = initial.packet(&crypto_of(first.message(), &[(3, 90)]));
        assert_eq!(rewriter.rewrite(&mut datagram, || true), Rewritten::Done, "{case}");
        let packet = packets(&datagram).next().unwrap();
        let opened = InitialKeys::client(Version::V1, &dcid()).open(&packet, Some(0x1f0)).unwrap();
        assert_eq!(opened.packet_number, 0x201, "{case}");
        assert_eq!(crypto_frames(&opened.payload), [(3, inner.message()[3..90].to_vec())], "{case}");
    }
}

#[test]
fn an_inner_hello_is_never_longer() {
    assert!(InitialRewriter::new(dcid(), &inner(), &outer()).is_none());
    assert!(rewriter().second(&inner(), &outer()).is_none());
}

#[test]
fn a_second_hello_goes_behind_the_first() {
    let (first, second_outer, second_inner) = (outer(), hello("public.example", 500), hello("private.example", 350));
    let at = first.message().len();
    let stream = [first.message(), second_outer.message()].concat();
    let inner_stream = [inner().message(), second_inner.message()].concat();
    let cut = at + 300;
    let datagram = |ranges: &[(usize, usize)]| Initial::default().packet(&crypto_of(&stream, ranges));
    let mut rewriter = rewriter();
    let mut early = datagram(&[(cut, stream.len())]);
    let before = early.clone();
    assert_eq!(rewriter.rewrite(&mut early, || true), Rewritten::Wait);
    assert_eq!(early, before, "what waits is not changed");
    let mut late = datagram(&[(at, cut)]);
    let Rewritten::Second(found) = rewriter.rewrite(&mut late, || true) else { panic!("not complete") };
    assert_eq!(*found, second_outer);
    let again = late.clone();
    assert_eq!(rewriter.rewrite(&mut late, || false), Rewritten::Refused);
    assert_eq!(late, again, "what is refused is not changed");
    // The first hello can be repeated all the while.
    assert_eq!(rewriter.rewrite(&mut datagram(&[(0, 100)]), || true), Rewritten::Done);

    rewriter.second(&second_outer, &second_inner).unwrap();
    let mut received = CryptoStream::default();
    let over_the_border = datagram(&[(at - 400, at + 20)]);
    for mut datagram in [early, datagram(&[(0, at - 100)]), late, over_the_border] {
        assert_eq!(rewriter.rewrite(&mut datagram, || true), Rewritten::Done);
        for (offset, data) in crypto_frames(&opened(&datagram)) {
            received.insert(u64::try_from(offset).unwrap(), &data).unwrap();
        }
    }
    assert_eq!(received.prefix(), inner_stream);
}

#[test]
fn what_cannot_be_a_second_hello_ends_the_connection() {
    let at = outer().message().len();
    for (name, payload) in [
        ("no hello", crypto(at, &[2; 40])),
        ("conflicting bytes", [crypto(at + 4, &[3; 9]), crypto(at + 8, &[4; 9])].concat()),
        ("beyond all bounds", crypto(at + (1 << 20), &[3; 9])),
    ] {
        let mut datagram = Initial::default().packet(&payload);
        assert_eq!(rewriter().rewrite(&mut datagram, || true), Rewritten::Broken, "{name}");
    }
}

/// Chromium with Encrypted Client Hello: the datagrams after rewriting, byte for byte.
#[test]
fn chromium() {
    let keys = crate::ech::tests::vectors::vector_keys();
    let mut probe = InitialProbe::new(Version::V1, packets(CHROMIUM[0]).next().unwrap().dcid);
    assert!(!probe.advance(CHROMIUM[0]).is_match());
    let Probe::Match(outer) = probe.advance(CHROMIUM[1]) else { panic!("no hello") };
    let crate::ech::FirstHello::Accepted { inner, .. } = crate::ech::open_first(&keys, &outer, || true) else {
        panic!("not accepted")
    };
    assert_eq!((inner.message().len(), inner.server_name()), (1695, Some("private.example")));
    assert_eq!(
        Sha256::digest(inner.message()).to_vec(),
        hex("b4c62fb767d61991e173c0761a3cc5f90c6427e34023df677b5ae0b99d776ed3")
    );
    let mut rewriter = InitialRewriter::new(packets(CHROMIUM[0]).next().unwrap().dcid, &outer, &inner).unwrap();
    let expected = [
        "95eb68e28035add2e51e7caddc3cef14e7eccd36cc4e5c35e60bbb59f14748eb",
        "3ae7d469eeffa9ae1630099a15b8a90ebd8c94dd9fd506f5f57be84cba554832",
        "1db597bee78919e140f0c6f58447089f02d5fcfc057ca530c2be2c4b9b47c848",
        "e1ed5f11e4323ff56d4a468e5861e336d7622dbbadaab1b8d8b65e5331eaee01",
    ];
    for (original, expected) in CHROMIUM.iter().zip(expected) {
        let mut datagram = original.to_vec();
        assert_eq!(rewriter.rewrite(&mut datagram, || true), Rewritten::Done);
        assert_eq!(Sha256::digest(&datagram).to_vec(), hex(expected));
    }
}

proptest! {
    /// However a client cuts, orders and repeats its hellos, a server puts the inner ones together, and every packet
    /// that asked for an acknowledgement still does.
    #[test]
    fn a_server_receives_the_inner_stream(
        cuts in vec((any::<Index>(), any::<Index>()), 0..12),
        order in any::<u64>(),
        retry in any::<bool>(),
    ) {
        let (first, second_outer, second_inner) = (outer(), hello("public.example", 400), hello("private.example", 90));
        let (mut stream, mut inner_stream) = (first.message().to_vec(), inner().message().to_vec());
        let mut rewriter = rewriter();
        if retry {
            stream.extend(second_outer.message());
            inner_stream.extend(second_inner.message());
            rewriter.second(&second_outer, &second_inner).unwrap();
        }
        let mut ranges: Vec<(usize, usize)> =
            (0..stream.len()).step_by(97).map(|start| (start, (start + 97).min(stream.len()))).collect();
        for (one, other) in cuts {
            let (one, other) = (one.index(stream.len()), other.index(stream.len()));
            ranges.push((one.min(other), (one.max(other) + 1).min(stream.len())));
        }
        // A shuffle told by one number.
        ranges.sort_by_key(|(start, end)| (u64::try_from(start * 31 + end).unwrap() ^ order).wrapping_mul(0x9e37_79b9_7f4a_7c15));
        let mut received = CryptoStream::default();
        for (number, pair) in (0_u64..).zip(ranges.chunks(2)) {
            let original = Initial::number(number).packet(&crypto_of(&stream, pair));
            let mut datagram = original.clone();
            prop_assert_eq!(rewriter.rewrite(&mut datagram, || true), Rewritten::Done);
            prop_assert_eq!(datagram.len(), original.len());
            let packet = packets(&datagram).next().unwrap();
            prop_assert_eq!(packet.typ, LongType::Initial);
            let opened = InitialKeys::client(Version::V1, &dcid()).open(&packet, number.checked_sub(1)).unwrap();
            prop_assert_eq!(opened.packet_number, number);
            let mut asks = false;
            for frame in frames(&opened.payload) {
                match frame.unwrap() {
                    Frame::Crypto { offset, data } => {
                        asks = true;
                        received.insert(offset, data).unwrap();
                    }
                    Frame::Ping => asks = true,
                    Frame::Padding => {}
                    Frame::Ack | Frame::ConnectionClose => prop_assert!(false),
                }
            }
            prop_assert!(asks);
        }
        prop_assert_eq!(received.prefix(), inner_stream);
    }
}
