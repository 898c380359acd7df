//! The interface of spliced TCP to the rest of the daemon.
//!
//! `docs/design/tcp-splice.md` has the states and who may see what in each.

use std::{fmt::Debug, net::SocketAddr, os::fd::OwnedFd, sync::Arc, time::Duration};

use rpxy_l4_common::tcp::flow::{self, TcpFlow, may};

/// One side of a connection. As an index, the order of all pairs of legs here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Side {
    /// The client's.
    Client = 0,
    /// The backend's.
    Backend = 1,
}

impl Side {
    /// Both, in the order of their indices.
    pub(crate) const BOTH: [Self; 2] = [Self::Client, Self::Backend];

    /// The other one.
    #[must_use]
    pub(crate) fn other(self) -> Self {
        match self {
            Self::Client => Self::Backend,
            Self::Backend => Self::Client,
        }
    }
}

/// The addresses of both legs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Pair {
    /// Client.
    pub(crate) client: SocketAddr,
    /// Local end towards the client. Not a wildcard.
    pub(crate) local: SocketAddr,
    /// Local end towards the backend. Not a wildcard, and bound.
    pub(crate) upstream: SocketAddr,
    /// Backend address.
    pub(crate) backend: SocketAddr,
    /// Mark of its rule, by which a later daemon finds the rule again. Not 0.
    pub(crate) mark: u16,
    /// Longest times without a sign of life, before both ends are reset.
    pub(crate) silence: Silence,
}

/// Longest times without a sign of life; [`Duration::MAX`] is no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Silence {
    /// Of any connection.
    pub(crate) idle: Duration,
    /// After the client has ended its side.
    pub(crate) client_ended: Duration,
    /// After the backend has ended its side, and the client has not.
    pub(crate) backend_ended: Duration,
}

impl Silence {
    /// The limit of a connection of which these sides have `ended`, and what its end is called.
    pub(in crate::offload) fn limit(&self, ended: [bool; 2]) -> (Duration, Ending) {
        let half_closed = match ended {
            [true, _] => self.client_ended,
            [false, true] => self.backend_ended,
            [false, false] => Duration::MAX,
        };
        if half_closed < self.idle { (half_closed, Ending::HalfClosed) } else { (self.idle, Ending::Idle) }
    }

    /// The interval of looks at whether a side has ended, of which nobody tells.
    pub(in crate::offload) fn look_again(&self) -> Duration {
        self.client_ended.min(self.backend_ended).max(SHORTEST_LOOK) / 2
    }
}

/// Connections are not looked at more than twice in this time.
const SHORTEST_LOOK: Duration = Duration::from_millis(200);

/// What the daemon's SYN to the backend is made to look like, so that both legs are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct SynShape {
    /// The client's leg has timestamps; otherwise the backend is offered none.
    pub(crate) timestamps: bool,
    /// The client's leg has SACK; otherwise the backend is offered none.
    pub(crate) sack: bool,
    /// The backend takes no round-trip time from its handshake: the SYN is sent twice, and it sees a TSecr of 0 until the
    /// connection is live.
    pub(crate) doubled: bool,
}

/// A place of a connection in the kernel: its slot in the notes. Small, for every spliced connection has one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct Place {
    /// Where it is.
    pub(in crate::offload) slot: u32,
    /// Tells it from earlier ones there.
    pub(in crate::offload) generation: u32,
}

/// What a probe of the daemon's told about the timestamps of a leg.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Probe {
    /// TSval: the daemon's clock, as the peer knows it.
    pub(crate) clock: u32,
    /// TSecr: the newest TSval of the peer.
    pub(crate) echo: u32,
}

/// All numbers of one leg at its hand-over, as the daemon's socket has them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct LegNumbers {
    /// The number behind the last one sent to the peer, bytes held by the daemon not included (`TCP_QUEUE_SEQ` of the
    /// send queue).
    pub(crate) sent: u32,
    /// The number behind the last one that the peer has acknowledged (SND.UNA).
    pub(crate) acknowledged: u32,
    /// The number behind the last one received from the peer (`TCP_QUEUE_SEQ` of the receive queue).
    pub(crate) received: u32,
    /// Bytes received from the peer that were not written to the other leg yet.
    pub(crate) held: u32,
    /// The largest window that the peer has offered, in bytes (`max_window` of `TCP_REPAIR_WINDOW`).
    pub(crate) window: u32,
    /// The window that the daemon has offered the peer last, in bytes (`rcv_wnd`).
    pub(crate) offered: u32,
    /// The scale of the peer's windows (`tcpi_snd_wscale`).
    pub(crate) peer_scale: u8,
    /// The scale of the daemon's windows on this leg (`tcpi_rcv_wscale`).
    pub(crate) own_scale: u8,
    /// Its clocks; `None` without timestamps.
    pub(crate) probe: Option<Probe>,
}

/// Returns the differences by which each sender's segments are translated, its window's shift, and what the daemon may
/// still send towards it; everything else is left out.
#[must_use]
pub(crate) fn differences(legs: &[LegNumbers; 2]) -> [TcpFlow; 2] {
    Side::BOTH.map(|side| {
        let [from, to] = [side, side.other()].map(|side| &legs[side as usize]);
        let clocks = from.probe.zip(to.probe);
        let scale = |scale: u8| i8::try_from(scale.min(MOST_SCALE)).unwrap_or_default();
        TcpFlow {
            sequence: to.sent.wrapping_add(from.held).wrapping_sub(from.received),
            acknowledgement: to.received.wrapping_sub(from.sent.wrapping_add(to.held)),
            timestamp: clocks.map_or(0, |(from, to)| to.clock.wrapping_sub(from.echo)),
            echo: clocks.map_or(0, |(from, to)| to.echo.wrapping_sub(from.clock)),
            window_shift: scale(from.peer_scale) - scale(to.own_scale),
            promised: from.received,
            // Bytes of the other side's go towards this one.
            may: if to.held > 0 { may::SEND_HELD } else { 0 },
            side: side as u8,
            ..TcpFlow::default()
        }
    })
}

/// Largest scale of windows (RFC 7323 section 2.3).
const MOST_SCALE: u8 = 14;

/// Returns what is known of each side at the hand-over.
#[must_use]
pub(crate) fn sides(legs: &[LegNumbers; 2]) -> [flow::Side; 2] {
    Side::BOTH.map(|side| {
        let [leg, other] = [side, side.other()].map(|side| &legs[side as usize]);
        flow::Side {
            next: leg.received,
            acknowledged: leg.acknowledged,
            // The other side still sends as much as the daemon has offered it.
            largest_window: leg.window.max(other.offered),
            scale: leg.peer_scale.min(MOST_SCALE),
            ..flow::Side::default()
        }
    })
}

/// What the kernel has forwarded of a connection since its hand-over.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct SplicedUsage {
    /// Packets, both directions. A buffer of several segments (GRO) is one.
    pub(crate) packets: u64,
    /// Payload bytes from the client to the backend, retransmissions included.
    pub(crate) bytes_up: u64,
    /// Payload bytes from the backend to the client, likewise.
    pub(crate) bytes_down: u64,
    /// Time since the last sign of life, or since the hand-over.
    pub(crate) idle: Duration,
    /// Both ends have ended it.
    pub(crate) ended: bool,
}

/// How a spliced connection ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Ending {
    /// Both ends have finished, and acknowledged it.
    Finished,
    /// This side has reset it.
    Reset(Side),
    /// It was idle for too long. Both ends were reset.
    Idle,
    /// One side had ended, and it was idle for too long after that. Both ends were reset.
    HalfClosed,
    /// [`Splice::close`] was called. Both ends were reset.
    Closed,
}

/// What the rest of the daemon is told of spliced connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Event {
    /// A connection has ended. Its addresses are still in use.
    Ended {
        /// The connection.
        place: Place,
        /// How.
        why: Ending,
        /// All that was forwarded.
        usage: SplicedUsage,
    },
    /// Nothing of it is left in the kernel, and its addresses may be used again.
    Free(Place),
}

/// Receives events, on the thread `network`. It must not block.
pub(crate) type Tell = Box<dyn Fn(Event) + Send + Sync>;

macro_rules! reasons {
    ($($(#[$doc:meta])+ $variant:ident = $name:literal,)+) => {
        /// Reason why a connection is not spliced, and goes on relayed.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
        pub(crate) enum NotSpliced {
            $($(#[$doc])+ $variant,)+
        }

        impl NotSpliced {
            /// All of them, in the order of their discriminants.
            pub(crate) const ALL: &[Self] = &[$(Self::$variant),+];

            /// Returns the name in metrics and in `rpxy-l4 flows`.
            #[must_use]
            pub(crate) const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }
        }
    };
}

reasons! {
    /// There is no kernel plane, or it does not splice.
    Off = "off",
    /// Client and backend are of different families.
    Family = "family",
    /// One leg has timestamps, the other has none.
    Timestamps = "timestamps",
    /// One leg has SACK, the other has none.
    Sack = "sack",
    /// The legs differ in ECN, or use AccECN.
    Ecn = "ecn",
    /// The legs cannot be given one segment size.
    Mss = "mss",
    /// A leg began with data (TCP Fast Open).
    FastOpen = "fast_open",
    /// A leg has seen a FIN or an error.
    NotEstablished = "not_established",
    /// A leg ends on this machine, or at an address that is ambiguous.
    Local = "local",
    /// A leg has no route, or leaves by an interface without the programs.
    NoRoute = "no_route",
    /// The rule, or the listener for its default target, says no.
    Rule = "rule",
    /// An end has sent what the daemon did not pass on as it came: an urgent byte.
    Stream = "stream",
    /// The client is far, and the connection would be slower than relayed.
    Far = "far",
    /// It did not meet the condition of a hand-over in time.
    Busy = "busy",
    /// No probe showed the clocks of a leg.
    NoProbe = "no_probe",
    /// There is no place for it. Temporary.
    Full = "full",
    /// The kernel refused a step.
    Failed = "failed",
}

/// Forwards established TCP connections past the daemon. Calls are made for a connection, never for a packet: they take
/// system calls. None of them waits, and none needs a capability on a kernel from 5.19 on.
pub(crate) trait Splice: Send + Sync + Debug {
    /// Finds a place for a connection. With `syn`, the backend's leg is about to connect, and its SYN is given that shape;
    /// what arrives goes to the daemon still. Both ends have to be bound.
    ///
    /// # Errors
    ///
    /// The reason why it stays relayed; nothing of it is left in the kernel.
    fn reserve(&self, pair: &Pair, syn: Option<SynShape>) -> Result<Place, NotSpliced>;

    /// Silences the daemon on both legs: what it sends is dropped, and probes are noted.
    ///
    /// # Errors
    ///
    /// The kernel has refused it. Nothing is silenced.
    fn block(&self, place: Place) -> Result<(), NotSpliced>;

    /// Returns the probes that were noted since [`Splice::block`].
    fn probes(&self, place: Place) -> [Option<Probe>; 2];

    /// Forwards the connection from now on. Where one leg has held bytes, they pass towards the other one.
    ///
    /// # Errors
    ///
    /// The kernel has refused it, and both legs are blocked still.
    fn live(&self, place: Place, legs: &[LegNumbers; 2]) -> Result<(), NotSpliced>;

    /// The held bytes were sent: nothing more of the daemon's passes.
    fn held_sent(&self, place: Place);

    /// Returns whether a connection with these addresses towards its backend has a place.
    fn uses(&self, upstream: SocketAddr, backend: SocketAddr) -> bool;

    /// Takes the backend's socket, in repair mode: it keeps its port from others while the connection is spliced.
    fn park(&self, place: Place, socket: OwnedFd);

    /// Gives up a place that is not live: the legs belong to the daemon again. Nothing for one that is live or gone.
    fn release(&self, place: Place);

    /// Returns what was forwarded so far; `None` if the connection is not live, or was told to have ended.
    fn usage(&self, place: Place) -> Option<SplicedUsage>;

    /// Resets both ends, soon. Nothing for a place that is not live.
    fn close(&self, place: Place);

    /// Has all events told to `tell`. Called once.
    fn tell(&self, tell: Tell);
}

/// A place that is given up when this is dropped.
#[derive(Debug)]
pub(crate) struct Reservation {
    splice: Arc<dyn Splice>,
    place: Option<Place>,
}

impl Reservation {
    /// Reserves a place; see [`Splice::reserve`].
    ///
    /// # Errors
    ///
    /// Those of [`Splice::reserve`].
    pub(crate) fn new(splice: Arc<dyn Splice>, pair: &Pair, syn: Option<SynShape>) -> Result<Self, NotSpliced> {
        let place = splice.reserve(pair, syn)?;
        Ok(Self { splice, place: Some(place) })
    }

    /// The place; `None` after [`Reservation::keep`] only, which takes it.
    pub(crate) fn place(&self) -> Option<Place> {
        self.place
    }

    /// The connection is live, and keeps its place.
    pub(crate) fn keep(mut self) -> Option<Place> {
        self.place.take()
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        if let Some(place) = self.place {
            self.splice.release(place);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reasons_are_listed_in_the_order_of_their_discriminants() {
        for (index, reason) in NotSpliced::ALL.iter().enumerate() {
            assert_eq!(*reason as usize, index, "{}", reason.name());
        }
    }

    #[test]
    fn what_one_side_sends_is_what_the_other_expects() {
        let client = LegNumbers {
            sent: 1_000,
            acknowledged: 990,
            received: u32::MAX - 4,
            held: 7,
            window: 64_000,
            offered: 40_000,
            peer_scale: 7,
            own_scale: 9,
            probe: Some(Probe { clock: 100, echo: 500 }),
        };
        let backend = LegNumbers {
            sent: 50_000,
            acknowledged: 50_000,
            received: 70_000,
            held: 0,
            window: 29_200,
            offered: 20_000,
            peer_scale: 2,
            own_scale: 10,
            probe: Some(Probe { clock: 9_000, echo: 3 }),
        };
        let legs = [client, backend];
        let [of_client, of_backend] = differences(&legs);
        // The client's next byte comes behind the held ones, at the backend.
        assert_eq!(client.received.wrapping_add(of_client.sequence), 50_007);
        assert_eq!(client.sent.wrapping_add(of_client.acknowledgement), 70_000, "the client has all of the backend's");
        assert_eq!(500_u32.wrapping_add(of_client.timestamp), 9_000);
        assert_eq!(100_u32.wrapping_add(of_client.echo), 3);
        assert_eq!(of_client.window_shift, 7 - 10);
        assert_eq!((of_client.promised, of_client.may), (client.received, 0));
        assert_eq!(backend.received.wrapping_add(of_backend.sequence), 1_000);
        assert_eq!(50_007_u32.wrapping_add(of_backend.acknowledgement), client.received, "with the held ones");
        assert_eq!(3_u32.wrapping_add(of_backend.timestamp), 100);
        assert_eq!(9_000_u32.wrapping_add(of_backend.echo), 500);
        assert_eq!(of_backend.window_shift, 2 - 9);
        assert_eq!((of_backend.promised, of_backend.may), (70_000, may::SEND_HELD));
        let [client_side, backend_side] = sides(&legs);
        assert_eq!(client_side.largest_window, 64_000, "what the client has offered is more than what the daemon has");
        assert_eq!(backend_side.largest_window, 40_000, "the client may send what the daemon has offered it");
        assert_eq!((client_side.next, client_side.acknowledged), (client.received, 990));
        let without = legs.map(|leg| LegNumbers { probe: None, ..leg });
        assert!(differences(&without).iter().all(|flow| flow.timestamp == 0 && flow.echo == 0));
    }
}
