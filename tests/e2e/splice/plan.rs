//! What the two ends of one connection do, drawn from a seed and the connection's number.

use std::time::Duration;

use rpxy_l4_tests::random::Random;

/// Both ends of a connection.
#[derive(Debug, Clone)]
pub(super) struct Plan {
    pub(super) number: u64,
    /// From client to backend, after the number of the connection.
    pub(super) up: Stream,
    /// From backend to client, after the greeting where there is one.
    pub(super) down: Stream,
    /// The backend greets before the client has said anything.
    pub(super) greets: bool,
    /// The client says its number alone, and nothing for so long.
    pub(super) silence: Option<Duration>,
    pub(super) ending: Ending,
}

/// One direction.
#[derive(Debug, Clone)]
pub(super) struct Stream {
    pub(super) content: Content,
    pub(super) length: u64,
    pub(super) writes: Writes,
    /// Positions at which the sender pauses, and for how long.
    pub(super) pauses: Vec<(u64, Duration)>,
    /// Position at which an urgent byte is sent, which is not part of the stream.
    pub(super) urgent: Option<u64>,
    /// Position at which the receiver reads nothing for a while, so that its window closes.
    pub(super) stops: Option<(u64, Duration)>,
    /// The receiver's buffer, where it is not the system's.
    pub(super) buffer: Option<usize>,
}

/// Sizes of the sender's writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Writes {
    Bytes,
    Small,
    Mixed,
    Large,
}

/// How a connection ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    /// Each end finishes when it has sent all.
    Each,
    /// The backend says nothing until the client has finished.
    ClientFirst,
    /// The client says nothing but its number until the backend has finished.
    BackendFirst,
    /// Both finish at the same moment, when both have got all.
    Together,
    /// The client resets after it has got so many bytes.
    ClientResets(u64),
    /// The backend resets after it has got so many bytes.
    BackendResets(u64),
}

/// Most bytes of what is written one by one, or in small pieces.
const SLOW: u64 = 3000;
/// Has streams carry urgent bytes, too: a relay over sockets can wait at one for ever, when splice(2) stands before it.
const URGENT_VARIABLE: &str = "RPXY_L4_TESTS_URGENT";

fn urgent_bytes() -> bool {
    std::env::var_os(URGENT_VARIABLE).is_some_and(|value| value == "1")
}

/// Most bytes of a stream with an urgent byte. The pointer to it has 16 bits (RFC 9293 section 3.8.5), and Linux points
/// elsewhere when it is farther ahead.
const URGENT: u64 = 30_000;
/// Bytes that no end can send before it is reset.
pub(super) const ENDLESS: u64 = 1 << 40;

impl Plan {
    /// The plan of connection `number`.
    pub(super) fn new(seed: u64, number: u64) -> Self {
        let mut random = Random::new(Random::new(seed).bits() ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d));
        let ending = match random.between(0, 99) {
            0..=49 => Ending::Each,
            50..=64 => Ending::ClientFirst,
            65..=74 => Ending::BackendFirst,
            75..=89 => Ending::Together,
            90..=94 => Ending::ClientResets(random.between(0, 200_000)),
            _ => Ending::BackendResets(random.between(0, 200_000)),
        };
        let (mut up, mut down) = (Stream::draw(&mut random), Stream::draw(&mut random));
        // Who is reset goes on sending until it notices: a lost reset is told again to those who say something.
        match ending {
            Ending::ClientResets(_) => down.make_endless(),
            Ending::BackendResets(_) => up.make_endless(),
            Ending::Each | Ending::ClientFirst | Ending::BackendFirst | Ending::Together => {}
        }
        let silence = random.chance(650).then(|| Duration::from_millis(random.between(1, 40)));
        Self { number, up, down, greets: random.chance(200), silence, ending }
    }

    pub(super) fn is_reset(&self) -> bool {
        matches!(self.ending, Ending::ClientResets(_) | Ending::BackendResets(_))
    }
}

impl Stream {
    fn draw(random: &mut Random) -> Self {
        let length = match random.between(0, 99) {
            0..=9 => 0,
            10..=34 => random.between(1, 100),
            35..=64 => random.between(101, 10_000),
            65..=92 => random.between(10_001, 300_000),
            _ => random.between(300_001, 4_000_000),
        };
        let writes = match random.between(0, 9) {
            0..=1 if length <= SLOW => Writes::Bytes,
            2..=3 if length <= SLOW * 10 => Writes::Small,
            4..=6 => Writes::Mixed,
            _ => Writes::Large,
        };
        let pause = |random: &mut Random| (random.between(0, length), Duration::from_millis(random.between(1, 60)));
        let mut pauses: Vec<_> = (0..random.between(0, 3)).map(|_| pause(random)).collect();
        pauses.sort_unstable();
        Self {
            content: Content(random.bits()),
            length,
            writes,
            pauses,
            urgent: random
                .chance(100)
                .then(|| random.between(0, length))
                .filter(|_| length <= URGENT && urgent_bytes()),
            stops: random
                .chance(80)
                .then(|| (random.between(0, length / 2), Duration::from_millis(random.between(50, 500)))),
            buffer: random.chance(100).then(|| 1 << random.between(12, 15)),
        }
    }

    fn make_endless(&mut self) {
        self.length = ENDLESS;
        self.writes = Writes::Mixed;
        self.stops = None;
    }

    /// The positions where a write ends, until `end`: a generator of sizes.
    pub(super) fn sizes(&self) -> impl FnMut() -> usize + use<> {
        let (writes, mut random) = (self.writes, Random::new(self.content.0));
        move || {
            let size = match writes {
                Writes::Bytes => 1,
                Writes::Small => random.between(1, 100),
                Writes::Mixed => random.between(1, 20_000),
                Writes::Large => 1 << 17,
            };
            usize::try_from(size).unwrap_or(1)
        }
    }
}

/// The bytes of one stream: each depends on its position, so that a byte lost, doubled or moved is seen at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Content(u64);

impl Content {
    /// The content of the greetings.
    pub(super) const GREETING: Self = Self(0);

    /// Fills `bytes` with what is at `position` and after it.
    pub(super) fn fill(self, position: u64, bytes: &mut [u8]) {
        let mut next = position;
        let mut rest = bytes;
        while !rest.is_empty() {
            let word = Random::new(self.0 ^ (next / 8)).bits().to_be_bytes();
            let word = word.get(usize::try_from(next % 8).unwrap_or(0)..).unwrap_or_default();
            let count = word.len().min(rest.len());
            let (now, later) = rest.split_at_mut(count);
            now.copy_from_slice(word.get(..count).unwrap_or_default());
            next += count as u64;
            rest = later;
        }
    }

    /// Compares `bytes` with what is at `position` and after it.
    pub(super) fn check(self, position: u64, bytes: &[u8]) -> Result<(), String> {
        let mut expected = vec![0; bytes.len()];
        self.fill(position, &mut expected);
        if expected == bytes {
            return Ok(());
        }
        let wrong = expected.iter().zip(bytes).position(|(a, b)| a != b).unwrap_or(0);
        Err(format!("byte {} of the stream is wrong", position + wrong as u64))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_is_repeated_by_its_seed_and_number() {
        let show = |seed, number| format!("{:?}", Plan::new(seed, number));
        assert_eq!(show(1, 2), show(1, 2));
        assert_ne!(show(1, 2), show(2, 2));
        assert_ne!(show(1, 2), show(1, 3));
    }

    #[test]
    fn the_content_is_the_same_in_pieces_of_any_size_and_nowhere_else() {
        let content = Content(42);
        let mut whole = vec![0; 1000];
        content.fill(0, &mut whole);
        for (from, to) in [(0, 1), (1, 8), (7, 9), (8, 8), (13, 1000)] {
            assert_eq!(content.check(from as u64, &whole[from..to]), Ok(()), "{from}..{to}");
        }
        for moved in [1, 8, 64, 1460, 1 << 16] {
            assert!(content.check(moved, &whole).is_err(), "moved by {moved}");
        }
        whole[500] ^= 1;
        assert_eq!(content.check(0, &whole), Err("byte 500 of the stream is wrong".to_owned()));
    }
}
