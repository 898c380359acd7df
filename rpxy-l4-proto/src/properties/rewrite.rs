//! What holds for the payload of any Initial packet in which one hello is put in the place of another.

use crate::{
    Outcome,
    quic::{Frame, InitialKeys, InitialRewriter, Rewritten, frames, packets},
    testing::{Hello, quic::Initial},
    tls::ClientHello,
};

fn hello(name: &str, padding: usize) -> ClientHello {
    let mut built = Hello::for_name(name, &["h3"]);
    built.extensions.get_or_insert_default().push((21, vec![7; padding]));
    let Outcome::Match(hello) = ClientHello::parse(built.message()) else { panic!("a hello") };
    hello
}

/// A payload as a client may send it, or anybody else: the packet keeps its length, its number and everything that is no
/// CRYPTO frame; CRYPTO frames carry bytes of the inner stream at their place; and what asked for an acknowledgement
/// still does. `data` that is too short or too long for a packet is passed over.
pub fn quic_rewrite(data: &[u8]) -> Option<Rewritten> {
    let (outer, inner) = (hello("public.example", 300), hello("private.example", 100));
    let initial = Initial::number(5);
    if !(4..=1300).contains(&data.len()) {
        return None;
    }
    let original = initial.packet(data);
    let (mut datagram, mut rewriter) = (original.clone(), InitialRewriter::new(initial.dcid, &outer, &inner)?);
    let answer = rewriter.rewrite(&mut datagram);
    assert_eq!(datagram.len(), original.len());
    if answer != Rewritten::Done {
        assert_eq!(datagram, original, "not changed before it can be");
        return Some(answer);
    }
    let mut again = datagram.clone();
    assert_eq!(InitialRewriter::new(initial.dcid, &inner, &inner)?.rewrite(&mut again), Rewritten::Done);
    assert_eq!(again, datagram, "rewriting the inner hello to itself changes nothing");

    let packet = packets(&datagram).next()?;
    let opened = InitialKeys::client(initial.version, &initial.dcid).open(&packet, Some(4));
    let Some(opened) = opened else { panic!("it opens under the same keys") };
    assert_eq!((opened.packet_number, opened.payload.len()), (5, data.len()));
    let asks = |payload: &[u8]| frames(payload).any(|frame| matches!(frame, Ok(Frame::Crypto { .. } | Frame::Ping)));
    assert_eq!(asks(&opened.payload), asks(data), "what asks for an acknowledgement");
    let other = |payload: &[u8]| {
        let kept = frames(payload).filter(|frame| matches!(frame, Ok(Frame::Ack | Frame::ConnectionClose)));
        kept.count()
    };
    assert_eq!(other(&opened.payload), other(data), "frames of other kinds");
    for frame in frames(&opened.payload) {
        let Ok(Frame::Crypto { offset, data }) = frame else { continue };
        let start = usize::try_from(offset).unwrap_or(usize::MAX);
        let expected = inner.message().get(start..start.saturating_add(data.len()));
        assert!(data.is_empty() || expected == Some(data), "inner bytes at {start}");
    }
    Some(answer)
}
