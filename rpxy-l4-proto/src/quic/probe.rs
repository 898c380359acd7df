//! Looks for the ClientHello in the first datagrams of a flow. It errs towards "not QUIC" with the first datagram that
//! should open and does not. Once a packet has opened it is QUIC for certain, and errs towards "unreadable" with everything
//! over which a server would close the connection.

use super::{
    ConnectionId, CryptoStream, Frame, InitialKeys, LongType, MAX_CRYPTO_STREAM, MIN_FIRST_DCID, MIN_INITIAL_DATAGRAM,
    Opened, Version, frames, packets,
};
use crate::{Probe, tls::ClientHello};

/// The bits of the unprotected first byte that must be zero (RFC 9000 section 17.2).
const RESERVED: u8 = 0x0c;

/// State of a flow whose route is undecided: the keys, and the CRYPTO stream as far as it has arrived.
///
/// Memory is bounded by [`MAX_CRYPTO_STREAM`] and by the pieces of
/// [`MAX_CRYPTO_PIECES`](super::MAX_CRYPTO_PIECES). How many datagrams come, and for how long, is for the caller to
/// bound.
#[derive(Debug)]
pub struct InitialProbe {
    state: State,
}

#[derive(Debug)]
enum State {
    Undecided(Box<Undecided>),
    Match(Box<ClientHello>),
    Unreadable,
    NotThis,
}

#[derive(Debug)]
struct Undecided {
    keys: InitialKeys,
    /// The connection ID is too short for a client to have made it up.
    short_dcid: bool,
    /// The largest packet number of the packets that have opened; `None` before the first one.
    largest: Option<u64>,
    stream: CryptoStream,
}

/// No server would read a hello from this.
struct Refused;

impl InitialProbe {
    /// For a flow whose first datagram is of this version and to this connection ID.
    ///
    /// The keys stay those of this ID when the client goes on to use the one that the server chose (RFC 9001 section
    /// 5.2). After a Retry a new probe is needed, for the ID that the server chose with it.
    #[must_use]
    pub fn new(version: Version, dcid: ConnectionId) -> Self {
        let keys = InitialKeys::client(version, &dcid);
        let short_dcid = dcid.len() < MIN_FIRST_DCID;
        let undecided = Undecided { keys, short_dcid, largest: None, stream: CryptoStream::default() };
        Self { state: State::Undecided(Box::new(undecided)) }
    }

    /// Looks at one more datagram of the client, in whatever order they come.
    ///
    /// - [`Probe::Match`] comes with the datagram that completes the ClientHello. Nothing behind it is looked at.
    /// - [`Probe::NotThis`]: an Initial packet did not open and none of the flow ever has.
    /// - [`Probe::Unreadable`]: one that opened is to an ID that no client makes up, or has a malformed or no frame, a
    ///   reserved bit, CRYPTO bytes that conflict, are no ClientHello or reach behind [`MAX_CRYPTO_STREAM`].
    /// - Ignored, so [`Probe::NeedMore`]: datagrams under [`MIN_INITIAL_DATAGRAM`]; packets other than Initial; and
    ///   whatever does not open once something has.
    ///
    /// After anything but [`Probe::NeedMore`] the answer stays, whatever comes.
    pub fn advance(&mut self, datagram: &[u8]) -> Probe<ClientHello> {
        if let State::Undecided(undecided) = &mut self.state {
            match undecided.advance(datagram) {
                Probe::Match(hello) => self.state = State::Match(Box::new(hello)),
                Probe::Unreadable => self.state = State::Unreadable,
                Probe::NotThis => self.state = State::NotThis,
                Probe::NeedMore => {}
            }
        }
        match &self.state {
            State::Undecided(_) => Probe::NeedMore,
            State::Match(hello) => Probe::Match(ClientHello::clone(hello)),
            State::Unreadable => Probe::Unreadable,
            State::NotThis => Probe::NotThis,
        }
    }
}

impl Undecided {
    fn advance(&mut self, datagram: &[u8]) -> Probe<ClientHello> {
        // RFC 9000 section 14.1: a server discards Initial packets in smaller datagrams, and whoever scans the port
        // may not pad.
        if datagram.len() < MIN_INITIAL_DATAGRAM {
            return Probe::NeedMore;
        }
        let known = self.stream.prefix().len();
        let (mut any, mut unopened) = (false, false);
        for packet in packets(datagram) {
            any = true;
            if packet.typ != LongType::Initial {
                continue;
            }
            // RFC 9000 section 7.2: eight bytes at least, unless a Retry has chosen the ID, which leaves a token.
            let possible = !self.short_dcid || !packet.token.is_empty();
            match self.keys.open(&packet, self.largest) {
                Some(opened) => {
                    self.largest = self.largest.max(Some(opened.packet_number));
                    if !possible || self.take(&opened).is_err() {
                        return Probe::Unreadable;
                    }
                }
                None => unopened = true,
            }
        }
        if self.largest.is_none() {
            // Only 0-RTT packets, whose Initial is still on its way, leave the question open.
            return if unopened || !any { Probe::NotThis } else { Probe::NeedMore };
        }
        if self.stream.prefix().len() == known { Probe::NeedMore } else { self.hello() }
    }

    /// Takes the CRYPTO bytes of a packet.
    fn take(&mut self, opened: &Opened) -> Result<(), Refused> {
        // RFC 9000 sections 17.2 and 12.4: reserved bits, and a packet without frames, are protocol violations.
        if opened.first & RESERVED != 0 || opened.payload.is_empty() {
            return Err(Refused);
        }
        for frame in frames(&opened.payload) {
            match frame {
                Ok(Frame::Crypto { offset, data }) => self.stream.insert(offset, data).or(Err(Refused))?,
                Ok(Frame::Padding | Frame::Ping | Frame::Ack | Frame::ConnectionClose) => {}
                Err(_) => return Err(Refused),
            }
        }
        Ok(())
    }

    fn hello(&self) -> Probe<ClientHello> {
        let prefix = self.stream.prefix();
        // A length that the stream cannot reach: no use to wait for it.
        if let [_, high, middle, low, ..] = prefix {
            let body = u32::from_be_bytes([0, *high, *middle, *low]);
            if usize::try_from(body).is_ok_and(|body| body.saturating_add(4) > MAX_CRYPTO_STREAM) {
                return Probe::Unreadable;
            }
        }
        match ClientHello::parse(prefix.to_vec()) {
            // What has opened is QUIC, whatever is in it.
            Probe::NotThis | Probe::Unreadable => Probe::Unreadable,
            answer @ (Probe::Match(_) | Probe::NeedMore) => answer,
        }
    }
}
