//! Local addresses and ports of connections to backends, and how one is found without holding up a worker.
//!
//! connect(2) looks for a port that is free towards the backend. Where nearly all are taken it looks at each of them, for
//! milliseconds in which the worker serves nobody. So a backend address that took long is crowded for a while, and a few
//! ports drawn at random are looked at instead of all: while one in a hundred is free, that finds one. Errs towards failing
//! a connection to that backend over delaying the connections to others.

use std::{
    cell::RefCell,
    io,
    net::{IpAddr, SocketAddr, TcpStream},
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use crate::{
    net::{self, Dial},
    offload::Splice,
};

/// A search that takes longer has looked at thousands of ports.
const LONG: Duration = Duration::from_micros(300);
/// Time for which a backend address stays crowded: that of TIME_WAIT.
const CROWDED: Duration = Duration::from_secs(60);
/// Ranges that are drawn, and ports of each.
const DRAWS: usize = 4;
const PORTS: u16 = 128;
/// After a look that found no port, times of its length for which there is no further one; the same after a search where
/// the kernel cannot limit it. So looks take a tenth of a worker's time at most.
const REST: u32 = 9;
/// Addresses that are searched in a row.
const SOURCES: usize = 4;
/// Crowded backend addresses that a worker remembers.
const REMEMBERED: usize = 64;

thread_local! {
    static KNOWN: RefCell<Crowded> = const { RefCell::new(Crowded(Vec::new())) };
}

/// Connections in a row that get a port of a spliced one, after which there is none. The kernel knows of such a port but for
/// the moment in which the socket of the hand-over gives way to the one that keeps it.
const IN_USE: usize = 4;

/// Where a connection to a backend comes from, and what it is like.
#[derive(Debug, Clone, Copy)]
pub(super) struct From<'a> {
    /// Of the addresses of the machine; those of the backend's family count.
    pub(super) sources: &'a [IpAddr],
    pub(super) random: u64,
    /// Largest segment in bytes, if it is to be no larger than the client's.
    pub(super) segment: Option<u32>,
    /// What knows the addresses of spliced connections, if there are any.
    pub(super) spliced: Option<&'a dyn Splice>,
}

impl From<'_> {
    /// Returns whether a connection to `to` has the addresses of a spliced one: the programs drop all that it says.
    fn is_spliced(&self, stream: &TcpStream, to: SocketAddr) -> bool {
        self.spliced.is_some_and(|spliced| stream.local_addr().is_ok_and(|local| spliced.uses(local, to)))
    }
}

/// Begins to connect to `to`, from addresses that no spliced connection has.
pub(super) fn connect(to: SocketAddr, from: From<'_>) -> io::Result<TcpStream> {
    first_unused(|| begin(to, from), |stream| from.is_spliced(stream, to))
}

/// The first of a few things that is not in use.
fn first_unused<T>(mut next: impl FnMut() -> io::Result<T>, is_used: impl Fn(&T) -> bool) -> io::Result<T> {
    // Kept, so that their ports are not found again.
    let mut used = Vec::new();
    while used.len() < IN_USE {
        let found = next()?;
        if !is_used(&found) {
            return Ok(found);
        }
        used.push(found);
    }
    Err(no_port())
}

fn begin(to: SocketAddr, from: From<'_>) -> io::Result<TcpStream> {
    let begun = Instant::now();
    let way = KNOWN.with_borrow_mut(|known| known.way(to, begun));
    let drawn = match way {
        Way::Search => None,
        Way::Draw | Way::OnlyDraw => draw(to, from),
        Way::Refuse => Some(Err(no_port())),
    };
    let was_drawn = drawn.is_some();
    let result = match drawn {
        Some(result) => result,
        None if way == Way::OnlyDraw => Err(no_port()),
        None => search(to, from),
    };
    if way == Way::Refuse {
        return result;
    }
    let now = Instant::now();
    let none = is_no_port(&result);
    if none || !was_drawn && now.saturating_duration_since(begun) > LONG {
        KNOWN.with_borrow_mut(|known| known.note(to, none, (begun, now)));
    }
    result
}

/// Connections that `connect` might begin to one of the addresses, each from a port that is known before, and maybe taken. None
/// where one has to be looked for as others do.
pub(super) fn known(to: SocketAddr, from: From<'_>) -> impl Iterator<Item = (Dial, SocketAddr)> {
    let source = in_turn(to, from.sources, from.random).next();
    let draw = move |shift: u32| u16::try_from(from.random >> shift & 0xffff).unwrap_or_default();
    let mut draws = (0..64).step_by(16).map(move |shift| drawn(net::ephemeral_ports(), draw(shift)));
    let mut bound = false;
    std::iter::from_fn(move || {
        let (source, port) = (source?, draws.next()?);
        let dial = dial(to, None, from).ok().filter(|_| !bound)?;
        let local = dial.choose(source, port).or_else(|_too_old| {
            // A port that is bound is nobody else's, whatever backend they connect to.
            bound = true;
            dial.bind(source)
        });
        Some((dial, local.ok()?))
    })
}

/// One of `all` ports.
fn drawn(all: &RangeInclusive<u16>, bits: u16) -> u16 {
    let count = u32::from(all.end().saturating_sub(*all.start())) + 1;
    all.start().saturating_add(u16::try_from(u32::from(bits) % count).unwrap_or_default())
}

/// Has the kernel look at all ports.
fn search(to: SocketAddr, from: From<'_>) -> io::Result<TcpStream> {
    let mut result = Err(no_port());
    for source in in_turn(to, from.sources, from.random).take(SOURCES) {
        result = dial(to, source, from).and_then(Dial::connect);
        if !is_no_port(&result) {
            break;
        }
    }
    result
}

/// Has the kernel look at a few ports; `None` where it cannot.
fn draw(to: SocketAddr, from: From<'_>) -> Option<io::Result<TcpStream>> {
    let mut result = Err(no_port());
    let ranges = from.random.to_ne_bytes();
    let ranges = ranges.chunks_exact(2).map(|bits| range(net::ephemeral_ports(), bits)).take(DRAWS);
    for (source, ports) in in_turn(to, from.sources, from.random).cycle().zip(ranges) {
        result = match dial(to, source, from) {
            Ok(dial) => {
                dial.set_ports(&ports).ok()?;
                dial.connect()
            }
            Err(error) => Err(error),
        };
        if !is_no_port(&result) {
            break;
        }
    }
    Some(result)
}

fn dial(to: SocketAddr, source: Option<IpAddr>, from: From<'_>) -> io::Result<Dial> {
    let dial = Dial::new(to)?;
    if let Some(bytes) = from.segment {
        dial.set_segment(bytes);
    }
    if let Some(source) = source {
        dial.set_source(source)?;
    }
    Ok(dial)
}

/// The sources for a connection to `to`, from a random one on; the kernel's choice where there is none of its family.
fn in_turn(to: SocketAddr, sources: &[IpAddr], random: u64) -> impl Iterator<Item = Option<IpAddr>> + Clone {
    let fitting = || sources.iter().filter(move |source| source.is_ipv4() == to.is_ipv4()).copied().map(Some);
    let count = fitting().count();
    let first = usize::try_from(random).unwrap_or(0).checked_rem(count).unwrap_or(0);
    fitting().chain((count == 0).then_some(None)).cycle().skip(first).take(count.max(1))
}

/// A part of `all` that `bits` tell.
fn range(all: &RangeInclusive<u16>, bits: &[u8]) -> RangeInclusive<u16> {
    let (low, high) = (*all.start(), *all.end());
    let Some(last) = high.checked_sub(PORTS - 1).filter(|last| *last >= low) else { return all.clone() };
    let bits = bits.iter().fold(0_u16, |bits, byte| bits << 8 | u16::from(*byte));
    let first = low + bits.checked_rem((last - low).saturating_add(1)).unwrap_or(0);
    first..=first + (PORTS - 1)
}

fn no_port() -> io::Error {
    io::ErrorKind::AddrNotAvailable.into()
}

fn is_no_port<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

/// How a port is found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Way {
    /// Among all.
    Search,
    /// Among a few, or among all where the kernel cannot do that.
    Draw,
    /// Among a few, or not at all.
    OnlyDraw,
    /// Not at all.
    Refuse,
}

/// Backend addresses towards which hardly a port is free.
#[derive(Debug)]
struct Crowded(Vec<Looked>);

/// The last look for a port that took long, or found none.
#[derive(Debug)]
struct Looked {
    to: SocketAddr,
    ended: Instant,
    took: Duration,
    found: bool,
}

impl Crowded {
    fn way(&mut self, to: SocketAddr, now: Instant) -> Way {
        if self.0.is_empty() {
            return Way::Search;
        }
        self.0.retain(|looked| now.saturating_duration_since(looked.ended) < CROWDED);
        let Some(last) = self.0.iter().find(|looked| looked.to == to) else { return Way::Search };
        let rests = now.saturating_duration_since(last.ended) < last.took * REST;
        match (rests, last.found) {
            (false, _) => Way::Draw,
            (true, true) => Way::OnlyDraw,
            (true, false) => Way::Refuse,
        }
    }

    fn note(&mut self, to: SocketAddr, none: bool, (begun, ended): (Instant, Instant)) {
        self.0.retain(|looked| looked.to != to);
        if self.0.len() < REMEMBERED {
            self.0.push(Looked { to, ended, took: ended.saturating_duration_since(begun), found: !none });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_with_the_addresses_of_a_spliced_one_is_begun_again() {
        for (row, ports, spliced, expected) in [
            ("none is spliced", 1_u32..9, 0..0, Some(1)),
            ("the first ones", 1..9, 1..4, Some(4)),
            ("all that are tried", 1..9, 1..5, None),
            ("there are no more", 1..2, 1..5, None),
        ] {
            let mut ports = ports;
            let found = first_unused(|| ports.next().ok_or_else(no_port), |port| spliced.contains(port));
            assert_eq!(found.as_ref().ok(), expected.as_ref(), "{row}");
            assert!(expected.is_some() || is_no_port(&found), "{row}");
        }
    }

    #[test]
    fn a_long_look_is_followed_by_draws_and_one_for_nothing_by_a_rest() {
        let [to, other] = [9, 10].map(|port| SocketAddr::from(([192, 0, 2, 1], port)));
        let (begun, millis) = (Instant::now(), Duration::from_millis);
        let mut crowded = Crowded(Vec::new());
        assert_eq!(crowded.way(to, begun), Way::Search);
        let ended = begun + millis(5);
        for (row, none, to, after, expected) in [
            ("at once", false, to, 0, Way::OnlyDraw),
            ("within the rest", false, to, 44, Way::OnlyDraw),
            ("after it", false, to, 45, Way::Draw),
            ("at once, none found", true, to, 0, Way::Refuse),
            ("within the rest, none found", true, to, 44, Way::Refuse),
            ("after it, none found", true, to, 45, Way::Draw),
            ("another address", true, other, 0, Way::Search),
            ("before it is over", false, to, 59_999, Way::Draw),
            ("when it is over", false, to, 60_000, Way::Search),
        ] {
            crowded.note(SocketAddr::from(([192, 0, 2, 1], 9)), none, (begun, ended));
            assert_eq!(crowded.way(to, ended + millis(after)), expected, "{row}");
        }
        for port in 0..200 {
            crowded.note(SocketAddr::from(([192, 0, 2, 2], port)), false, (begun, begun));
        }
        assert_eq!(crowded.0.len(), REMEMBERED);
    }

    #[test]
    fn ranges_lie_within_the_ports_that_there_are() {
        let all = 32_768..=60_999;
        for bits in [[0, 0], [0xff, 0xff], [0x12, 0x34]] {
            let range = range(&all, &bits);
            assert!(all.contains(range.start()) && all.contains(range.end()), "{range:?}");
            assert_eq!(range.len(), usize::from(PORTS));
        }
        assert_eq!(range(&all, &[0, 0]), 32_768..=32_895);
        assert_eq!(range(&(0..=u16::MAX), &[0xff, 0x80]), u16::MAX - 127..=u16::MAX);
        for few in [40_000..=40_000, 40_000..=40_126] {
            assert_eq!(range(&few, &[9, 9]), few);
        }
        assert_eq!(range(&(40_000..=40_127), &[9, 9]), 40_000..=40_127);
    }

    #[test]
    fn ports_are_drawn_from_all_that_there_are() {
        for (all, bits, expected) in [
            (32_768..=60_999, 0, 32_768),
            (32_768..=60_999, 28_231, 60_999),
            (32_768..=60_999, 28_232, 32_768),
            (40_000..=40_000, 7, 40_000),
            (0..=u16::MAX, u16::MAX, u16::MAX),
        ] {
            assert_eq!(drawn(&all, bits), expected, "{all:?} {bits}");
        }
    }

    #[test]
    fn sources_take_turns_within_the_family() {
        let to = SocketAddr::from(([192, 0, 2, 1], 9));
        let sources = ["192.0.2.2", "2001:db8::2", "192.0.2.3"].map(|ip| ip.parse::<IpAddr>().unwrap());
        let v4 = [sources[0], sources[2]].map(Some);
        assert_eq!(in_turn(to, &sources, 0).collect::<Vec<_>>(), v4);
        assert_eq!(in_turn(to, &sources, 3).collect::<Vec<_>>(), [v4[1], v4[0]]);
        let v6 = SocketAddr::from(([0x2001, 0xdb8, 0, 0, 0, 0, 0, 1], 9));
        assert_eq!(in_turn(v6, &sources, 7).collect::<Vec<_>>(), [Some(sources[1])]);
        assert_eq!(in_turn(v6, &[sources[0]], 7).collect::<Vec<_>>(), [None], "the kernel's choice");
        assert_eq!(in_turn(to, &[], 7).collect::<Vec<_>>(), [None]);
    }
}
