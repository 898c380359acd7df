//! Properties of every rewriting of a client's Initial packets.

use super::datagrams::flow;
use crate::{
    Probe,
    quic::{
        ConnectionId, Frame, InitialKeys, InitialRewriter, LongPacket, LongType, Opened, Rewritten, frames, packets,
    },
    testing::Hello,
    tls::ClientHello,
};

/// The outer hello of the property, as a message of some 400 bytes.
pub(super) fn outer() -> ClientHello {
    hello("public.example", 291)
}

fn hello(name: &str, padding: usize) -> ClientHello {
    let mut built = Hello::for_name(name, &["h3"]);
    built.extensions.get_or_insert_default().push((21, vec![0x33; padding]));
    match ClientHello::parse(built.message()) {
        Probe::Match(hello) => hello,
        other @ (Probe::NeedMore | Probe::Unreadable | Probe::NotThis) => panic!("{other:?}"),
    }
}

/// Every CRYPTO frame of a packet that the flow's keys open gets the bytes of the inner hellos that belong to its place,
/// or PING where there are none; all else of a datagram stays, and so does all of one that has to wait. The last answer.
///
/// The input is a flow as that of [`quic_initial`](super::quic_initial). Its first hello is taken to be [`outer`],
/// whatever the frames hold; a second one is what they say.
pub fn initial_rewrite(data: &[u8]) -> Option<Rewritten> {
    let (_, dcid, datagrams) = flow(data);
    let mut flow = Flow { dcid, largest: None, outer: vec![outer()], inner: vec![hello("private.example", 100)] };
    let mut rewriter = InitialRewriter::new(dcid, &outer(), &hello("private.example", 100))?;
    let mut last = None;
    for datagram in datagrams {
        let mut rewritten = datagram.clone();
        let answer = rewriter.rewrite(&mut rewritten, || true);
        flow.check(&datagram, &rewritten, answer == Rewritten::Done);
        if let Rewritten::Second(second) = &answer {
            let inner = hello("p.example", 0);
            if rewriter.second(second, &inner).is_none() {
                assert!(second.message().len() < inner.message().len(), "refused for its length alone");
                return Some(answer);
            }
            flow.outer.push(ClientHello::clone(second));
            flow.inner.push(inner);
            let mut rewritten = datagram.clone();
            assert_eq!(rewriter.rewrite(&mut rewritten, || true), Rewritten::Done, "when all is known");
            flow.check(&datagram, &rewritten, true);
        }
        last = Some(answer);
    }
    last
}

/// State of a flow.
struct Flow {
    dcid: ConnectionId,
    /// The largest packet number that was opened.
    largest: Option<u64>,
    outer: Vec<ClientHello>,
    inner: Vec<ClientHello>,
}

impl Flow {
    fn check(&mut self, before: &[u8], after: &[u8], done: bool) {
        assert_eq!(before.len(), after.len());
        let (mut end, mut opened) = (0, Vec::new());
        for (old, new) in packets(before).zip(packets(after)) {
            assert_eq!((old.range(), old.typ, old.version), (new.range(), new.typ, new.version));
            assert_eq!(before.get(end..old.range().start), after.get(end..old.range().start), "passed over");
            end = old.range().end;
            let plain = self.open(&old);
            self.largest = self.largest.max(plain.as_ref().map(|plain| plain.packet_number));
            opened.push((old, new, plain));
        }
        assert_eq!(before.get(end..), after.get(end..), "behind all packets");
        for (old, new, plain) in opened {
            match plain.filter(|_| done) {
                None => assert_eq!(old.bytes(), new.bytes(), "not to be changed"),
                Some(old) => {
                    let keys = InitialKeys::client(new.version, &self.dcid);
                    let new = keys.open(&new, old.packet_number.checked_sub(1)).map(|new| (new.first, new.payload));
                    assert_eq!(new, Some((old.first, self.expected(&old.payload))));
                }
            }
        }
    }

    fn open(&self, packet: &LongPacket<'_>) -> Option<Opened> {
        let keys = InitialKeys::client(packet.version, &self.dcid);
        if packet.typ == LongType::Initial { keys.open(packet, self.largest) } else { None }
    }

    /// The payload byte for byte, made in another way than the rewriter's.
    fn expected(&self, payload: &[u8]) -> Vec<u8> {
        let mut expected = payload.to_vec();
        let mut found = frames(payload);
        let mut start = found.position();
        while let Some(frame) = found.next() {
            let end = found.position();
            if let (Ok(Frame::Crypto { offset, data }), Some(place)) = (frame, expected.get_mut(start..end)) {
                let offset = usize::try_from(offset).unwrap_or(usize::MAX);
                let inner: Vec<u8> = (0..data.len()).filter_map(|at| self.byte(offset.saturating_add(at))).collect();
                let header = place.len().saturating_sub(data.len());
                if inner.is_empty() && !data.is_empty() {
                    place.fill(0);
                    place.iter_mut().take(1).for_each(|byte| *byte = 1);
                } else {
                    let (integers, rest) = place.split_at_mut(header);
                    write_integers(integers, self.place(offset), inner.len());
                    rest.fill(0);
                    rest.iter_mut().zip(&inner).for_each(|(byte, inner)| *byte = *inner);
                }
            }
            start = end;
        }
        expected
    }

    /// The byte of the inner stream that stands for the one at `offset` of the outer one.
    fn byte(&self, mut offset: usize) -> Option<u8> {
        for (outer, inner) in self.outer.iter().zip(&self.inner) {
            if offset < outer.message().len() {
                return inner.message().get(offset).copied();
            }
            offset = offset.saturating_sub(outer.message().len());
        }
        None
    }

    /// Number of bytes of the inner stream that stand for those before `offset`.
    fn place(&self, offset: usize) -> usize {
        let all: usize = self.outer.iter().map(|outer| outer.message().len()).sum();
        (0..offset.min(all)).filter(|at| self.byte(*at).is_some()).count()
    }
}

/// Writes offset and length into the places of those that stand there, with as many bytes for each.
fn write_integers(frame: &mut [u8], offset: usize, len: usize) {
    let mut at = 1;
    for value in [offset, len] {
        let width = frame.get(at).map_or(1, |first| 1_usize << (first >> 6));
        let prefix = frame.get(at).map_or(0, |first| first & 0xc0);
        let bytes = u64::try_from(value).unwrap_or(u64::MAX).to_be_bytes();
        let place = frame.iter_mut().skip(at).take(width);
        place.zip(bytes.iter().skip(8_usize.saturating_sub(width))).for_each(|(byte, new)| *byte = *new);
        if let Some(first) = frame.get_mut(at) {
            *first = *first & 0x3f | prefix;
        }
        at = at.saturating_add(width);
    }
}
