//! The streams in which a router replaces hellos (RFC 9849): what holds whatever is in them.

use std::cmp::Ordering;

use crate::{
    Probe,
    tls::{ClientHello, Found, HelloProbe, SecondHello, ServerFlight, ServerFlightProbe, handshake_records},
};

/// The hello in a client's stream, the minor record version, and the end of the hello's records.
type Second = Probe<(ClientHello, u8, usize)>;

/// The answers do not depend on how a stream arrives, and no byte of it is lost or moved: what is passed on, held, in the
/// records of the hello and behind them make up the stream. The same bytes as a server's get one answer, too.
pub fn second_hello(data: &[u8]) -> (Second, Probe<ServerFlight>) {
    let whole = second(data, |_| data.len().max(1));
    assert_eq!(second(data, |_| 1), whole, "byte by byte");
    let uneven = |at: usize| data.get(at).map_or(1, |byte| usize::from(byte % 61).saturating_add(1));
    assert_eq!(second(data, uneven), whole, "in uneven segments");

    let flight = ServerFlightProbe::default().advance(data);
    let mut probe = ServerFlightProbe::default();
    let first = data.iter().map(|&byte| probe.advance(&[byte])).find(|answer| *answer != Probe::NeedMore);
    assert_eq!(first.unwrap_or(Probe::NeedMore), flight, "byte by byte");
    (whole, flight)
}

/// The answer to a stream in segments that are as long as `size` says for their start.
fn second(data: &[u8], size: impl Fn(usize) -> usize) -> Second {
    let (mut reader, mut forward, mut at) = (SecondHello::default(), Vec::new(), 0);
    reader.expect();
    while let Some(rest @ [_, ..]) = data.get(at..) {
        let segment = rest.get(..size(at)).unwrap_or(rest);
        at = at.saturating_add(segment.len());
        match reader.advance(segment, &mut forward) {
            Probe::NeedMore => {}
            Probe::Unreadable => panic!("an unreadable hello is passed on"),
            Probe::NotThis => {
                assert_eq!(data.get(..at), Some(forward.as_slice()), "all is passed on");
                return Probe::NotThis;
            }
            Probe::Match(Found { hello, version, rest }) => {
                let end = at.saturating_sub(rest.len());
                assert_eq!(data.get(end..at), Some(rest.as_slice()));
                let records = data.get(..end).and_then(|stream| stream.strip_prefix(forward.as_slice()));
                let again = HelloProbe::default().advance(records.unwrap_or_default());
                assert_eq!(again, Probe::Match(hello.clone()), "the rest is the hello");
                let written = handshake_records(hello.message(), version);
                assert_ne!(written.len().cmp(&records.unwrap_or_default().len()), Ordering::Greater);
                return Probe::Match((hello, version, end));
            }
        }
    }
    forward.extend(reader.into_held());
    assert_eq!(forward, data, "nothing is lost");
    Probe::NeedMore
}
