//! Which connections are handed over, and when.
//!
//! A hand-over costs as much as a few exchanges, and saves a part of each one that follows. So it waits for a sign that
//! there will be some, or is made at the first bytes of a protocol that is known for it. Errs towards the relay.

use std::{io, net::SocketAddr, os::fd::AsFd as _, sync::Arc, time::Duration};

use bytes::Bytes;
use tokio::{net::TcpStream, sync::oneshot};

use super::{
    spliced::Spliced,
    splicer::{Job, Live, Splicer},
};
use crate::{
    config::model::{SplicePolicy, Tcp},
    net::repair::{self, Info},
    offload::{NotSpliced, Pair, Reservation, Silence, SynShape},
    route::{Protocol, Route},
    tcp::{
        ports::{self, From},
        record::Traffic,
    },
};

/// Exchanges after which a connection is likely to have as many more.
const EXCHANGES: u32 = 3;
/// Hand-overs of one connection that are tried.
const MOST: u8 = 6;
/// Round-trip time of a client that is as good as on the backend's network: what a backend has learnt of the daemon's is no
/// worse a guess for the client's.
const NEAR: Duration = Duration::from_micros(250);
/// Idle limit where none is configured (RFC 5382 section 5, REQ-5).
const IDLE: Duration = Duration::from_secs(2 * 60 * 60 + 4 * 60);

/// When a hand-over is tried for the first time.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum When {
    Never,
    /// At the client's first bytes.
    First,
    /// When there is a sign that the connection lasts.
    Later,
}

fn when(policy: SplicePolicy, protocol: Protocol) -> When {
    match policy {
        SplicePolicy::Off => When::Never,
        SplicePolicy::First => When::First,
        SplicePolicy::Auto if protocol == Protocol::Ssh => When::First,
        SplicePolicy::Auto => When::Later,
    }
}

/// What becomes of a connection with this policy where the kernel splices TCP.
pub(in crate::tcp) fn foretell(policy: SplicePolicy, protocol: Protocol) -> &'static str {
    match when(policy, protocol) {
        When::Never => "splice is \"off\"",
        When::First => "until the client's first bytes; then by the kernel, if nothing speaks against it",
        When::Later => {
            "until it has lasted for some exchanges or is idle; then by the kernel, if nothing speaks against it"
        }
    }
}

/// The hand-overs of one connection that may be tried.
#[derive(Debug)]
pub(in crate::tcp) struct Attempts {
    splicer: Arc<Splicer>,
    /// The client's end and ours.
    client: [SocketAddr; 2],
    leg: Info,
    mark: u16,
    silence: Silence,
    first: bool,
    /// Bytes that client and backend had sent when the relay began to count.
    before: [u64; 2],
    /// Payload that the relay had passed on by then, not as it came.
    changed: [u64; 2],
    /// Made before there was a connection to the backend, which was made to be like the client's.
    reserved: Option<Reserved>,
    /// Exchanges until the next one.
    wait: u32,
    /// Exchanges between the next one and the one after it.
    pause: u32,
    left: u8,
}

/// A place for the first hand-over.
#[derive(Debug)]
struct Reserved {
    reservation: Reservation,
    /// The addresses towards the backend that it is for.
    upstream: (SocketAddr, SocketAddr),
    /// The backend has taken no round-trip time from its handshake.
    doubled: bool,
}

impl Attempts {
    /// Those of a connection of `route`; `None` for one that stays relayed.
    pub(in crate::tcp) fn of(
        splicer: Option<&Arc<Splicer>>,
        route: &Route,
        protocol: Protocol,
        client: &TcpStream,
        settings: &Tcp,
    ) -> Option<Box<Self>> {
        let splicer = splicer?;
        let first = match when(route.splice, protocol) {
            When::Never => {
                splicer.metrics().tcp_not_spliced(NotSpliced::Rule);
                return None;
            }
            When::First => true,
            When::Later => false,
        };
        Some(Box::new(Self {
            splicer: Arc::clone(splicer),
            client: [client.peer_addr().ok()?, client.local_addr().ok()?],
            leg: Info::of(client).ok()?,
            before: [0; 2],
            changed: [0; 2],
            reserved: None,
            mark: route.mark(),
            silence: Silence {
                idle: settings.idle_timeout.unwrap_or(IDLE),
                client_ended: settings.half_closed_timeout.unwrap_or(Duration::MAX),
                backend_ended: settings.backend_closed_timeout.unwrap_or(Duration::MAX),
            },
            first,
            wait: if first { 1 } else { EXCHANGES },
            pause: 1,
            left: MOST,
        }))
    }

    /// Whether the first bytes are a moment for a hand-over.
    pub(in crate::tcp) fn at_first(&self) -> bool {
        self.first
    }

    /// The relay counts from here on: something that was read before was no payload, or was `changed`.
    pub(in crate::tcp) fn count_from_here(&mut self, (client, backend): (&TcpStream, &TcpStream), changed: [u64; 2]) {
        self.changed = changed;
        // Asked in this order, since the other one would hide an urgent byte; what arrives in between makes it too little,
        // and the connection stays relayed.
        let read = |socket| {
            let received = Info::of(socket).ok()?.bytes_received;
            received.checked_sub(repair::unread(socket).ok()?.into())
        };
        // What cannot be told fits nothing that is counted.
        self.before = [client, backend].map(|socket| read(socket).unwrap_or(u64::MAX / 2));
    }

    /// The backend has answered. Returns whether the client's next bytes are a moment for a hand-over.
    pub(in crate::tcp) fn answered(&mut self) -> bool {
        self.wait = self.wait.saturating_sub(1);
        self.wait == 0
    }

    /// A hand-over has failed, or its moment was none. Returns whether there may be another one.
    pub(in crate::tcp) fn missed(&mut self, reason: NotSpliced) -> bool {
        self.splicer.metrics().tcp_not_spliced(reason);
        self.left = self.left.saturating_sub(1);
        self.wait = self.pause;
        self.pause = self.pause.saturating_mul(2);
        self.left > 0 && is_temporary(reason)
    }

    /// The largest segment that the client takes, which the backend is not to exceed.
    pub(in crate::tcp) fn segment(&self) -> u32 {
        self.leg.whole_segment()
    }

    /// Begins a connection to a backend that is made to be like the client's, for a hand-over at the first bytes; `None` where it
    /// needs not, or cannot, be made so.
    pub(in crate::tcp) fn connect(
        &mut self,
        to: SocketAddr,
        from: From<'_>,
    ) -> Option<io::Result<std::net::TcpStream>> {
        self.reserved = None;
        let [client, _] = self.client;
        let shape = SynShape {
            timestamps: self.leg.timestamps,
            sack: self.leg.sack,
            doubled: !is_near(&self.leg, Duration::ZERO),
        };
        let as_it_is = shape.timestamps && shape.sack && !shape.doubled;
        if as_it_is || !self.first || client.is_ipv4() != to.is_ipv4() {
            return None;
        }
        ports::known(to, from).find_map(|(dial, local)| {
            let pair = self.pair((local, to));
            let reservation = Reservation::new(Arc::clone(self.splicer.splice()), &pair, Some(shape)).ok()?;
            let begun = dial.connect();
            if begun.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable) {
                // Another connection to this backend has the port.
                return None;
            }
            self.reserved = Some(Reserved { reservation, upstream: (local, to), doubled: shape.doubled });
            Some(begun)
        })
    }

    fn pair(&self, (upstream, backend): (SocketAddr, SocketAddr)) -> Pair {
        let Self { client: [client, local], mark, silence, .. } = *self;
        Pair { client, local, upstream, backend, mark, silence }
    }

    /// Hands the connection over; its sockets are of no more use then, and nothing else may use them meanwhile. `held` are
    /// bytes of the client's that the backend has not got yet, and are counted in the payload that was `passed_on`.
    ///
    /// # Errors
    ///
    /// The reason why it has to be relayed on, as before.
    pub(in crate::tcp) async fn hand_over(
        &mut self,
        (client, backend): (&TcpStream, &TcpStream),
        held: Bytes,
        passed_on: [u64; 2],
    ) -> Result<Handed, NotSpliced> {
        let gone = |_error| NotSpliced::NotEstablished;
        let upstream = (backend.local_addr().map_err(gone)?, backend.peer_addr().map_err(gone)?);
        let reserved = self.reserved.take().filter(|reserved| reserved.upstream == upstream);
        let verbatim = [0, 1].map(|side: usize| passed_on[side].saturating_sub(self.changed[side]));
        let [_, from_backend] = verbatim;
        let knows_nothing = from_backend == 0 && reserved.as_ref().is_some_and(|reserved| reserved.doubled);
        let (one, other) = (Info::of(client).map_err(gone)?, Info::of(backend).map_err(gone)?);
        if !one.established || !other.established {
            return Err(NotSpliced::NotEstablished);
        }
        if !knows_nothing && !is_near(&one, known(&other)) {
            return Err(NotSpliced::Far);
        }
        let reservation = match reserved {
            Some(Reserved { reservation, .. }) => reservation,
            None => Reservation::new(Arc::clone(self.splicer.splice()), &self.pair(upstream), None)?,
        };
        let copy = |socket: &TcpStream| socket.as_fd().try_clone_to_owned();
        let sockets = copy(client).and_then(|client| Ok([client, copy(backend)?]));
        let sockets = sockets.map_err(|_exhausted| NotSpliced::Failed)?;
        let held_len = held.len() as u64;
        let (answer, answered) = oneshot::channel();
        let before = self.before;
        self.splicer.ask(Job { sockets, upstream, held, verbatim, before, reservation, answer });
        let live = answered.await.unwrap_or(Err(NotSpliced::Off))?;
        Ok(Handed { splicer: Arc::clone(&self.splicer), live, held: held_len })
    }
}

/// A connection that was handed over.
#[derive(Debug)]
pub(in crate::tcp) struct Handed {
    splicer: Arc<Splicer>,
    live: Live,
    /// Bytes of the client's that the daemon has sent meanwhile.
    held: u64,
}

impl Handed {
    /// Goes on to count it as `traffic`.
    pub(in crate::tcp) fn counted(self, traffic: &mut Traffic) -> Spliced<'_> {
        traffic.up += self.held;
        self.splicer.metrics().tcp_spliced();
        Spliced::new(self.splicer, self.live, traffic)
    }
}

/// Has acknowledgements of both sides wait, so that what is about to be held is not promised to have arrived.
pub(in crate::tcp) fn hold_acknowledgements(client: &TcpStream, backend: &TcpStream) {
    for socket in [client, backend] {
        // Without it a hand-over fails more often, and nothing else.
        drop(repair::hold_acknowledgements(socket, true));
    }
}

/// Undoes what a listening socket has had its connection inherit.
pub(in crate::tcp) fn acknowledge_at_once(client: &TcpStream) {
    drop(repair::hold_acknowledgements(client, false));
}

/// Whether a backend that has learnt `round_trip` may go on with it.
fn is_near(client: &Info, round_trip: Duration) -> bool {
    known(client) <= NEAR.max(round_trip * 2)
}

fn known(leg: &Info) -> Duration {
    leg.least_round_trip.unwrap_or(leg.round_trip).min(leg.round_trip)
}

/// Whether it may be different the next time.
fn is_temporary(reason: NotSpliced) -> bool {
    matches!(reason, NotSpliced::Busy | NotSpliced::NoProbe | NotSpliced::Full | NotSpliced::NoRoute)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn near_is_who_is_not_much_farther_than_the_backend() {
        // Round trips in microseconds: the client's smoothed and least, the backend's.
        for (row, client, backend, expected) in [
            ("on one network", (60, 40), (50, 50), true),
            ("at the limit", (250, 250), (20, 20), true),
            ("above it", (251, 251), (20, 20), false),
            ("as far as a far backend", (30_000, 30_000), (20_000, 20_000), true),
            ("farther than that", (50_000, 50_000), (20_000, 20_000), false),
            ("far on average only", (900, 100), (20, 20), true),
        ] {
            let info = |(round_trip, least): (u64, u64)| Info {
                round_trip: Duration::from_micros(round_trip),
                least_round_trip: Some(Duration::from_micros(least)),
                ..Info::default()
            };
            assert_eq!(is_near(&info(client), known(&info(backend))), expected, "{row}");
        }
    }
}
