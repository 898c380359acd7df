//! The two ends of a connection carry out its plan and compare every byte that arrives.
//!
//! Both are threads of the test, so that the backend's verdict needs no connection of its own. Every wait is bounded by the
//! kit's patience: what hangs is a failure that names its connection.

use std::{
    collections::HashMap,
    io::{self, Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use rpxy_l4_tests::{peers::server::Server, process::PATIENCE, socket, topology::Host, wait::pause};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::plan::{Content, Ending, Plan, Stream};

/// Longest greeting: more than one segment.
const GREETING: u64 = 5000;
/// Most bytes to read at once.
const CHUNK: usize = 1 << 16;

/// Why a connection was not what it should have been.
#[derive(Debug)]
pub(super) enum Broken {
    /// It was reset or ended before its time, at the latest when an end noticed; what had arrived was right.
    Cut(String),
    /// It hung, or carried what it should not.
    Wrong(String),
}

impl Broken {
    fn new(what: &str, error: &io::Error) -> Self {
        let text = format!("{what}: {error}");
        let refused = error.kind() == io::ErrorKind::ConnectionRefused;
        if refused || socket::is_reset(error) { Self::Cut(text) } else { Self::Wrong(text) }
    }

    fn at(self, place: &str) -> Self {
        match self {
            Self::Cut(text) => Self::Cut(format!("{place}: {text}")),
            Self::Wrong(text) => Self::Wrong(format!("{place}: {text}")),
        }
    }
}

impl std::fmt::Display for Broken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (Self::Cut(text) | Self::Wrong(text)) = self;
        f.write_str(text)
    }
}

type Verdict = Result<(), Broken>;

/// What an end knows of the other one, beside the connection itself.
#[derive(Debug)]
struct Shared {
    plan: Plan,
    verdict: mpsc::Sender<Verdict>,
    met: Mutex<u32>,
    changed: Condvar,
}

impl Shared {
    /// Waits until the other end has come here, too, or has failed.
    fn meet(&self) {
        let met = self.come();
        let _late = self.changed.wait_timeout_while(met, PATIENCE, |met| *met < 2);
    }

    /// Notes that this end is here, or has ended.
    fn come(&self) -> MutexGuard<'_, u32> {
        let mut met = self.met.lock().unwrap_or_else(PoisonError::into_inner);
        *met += 1;
        self.changed.notify_all();
        met
    }
}

/// The backend, and the connections that are under way.
#[derive(Debug)]
pub(super) struct Game {
    seed: u64,
    open: Arc<Mutex<HashMap<u64, Arc<Shared>>>>,
    servers: Vec<Server>,
}

impl Game {
    /// Serves `quiet`, where the client speaks first, and `greeting`, on `host`.
    pub(super) fn start(host: &Host, seed: u64, quiet: SocketAddr, greeting: SocketAddr) -> Self {
        let open: Arc<Mutex<HashMap<u64, Arc<Shared>>>> = Arc::default();
        let serve = |address, greets: bool| {
            let open = Arc::clone(&open);
            Server::start(host, address, move |stream, _| serve(stream, greets, &open))
        };
        let servers = vec![serve(quiet, false), serve(greeting, true)];
        Self { seed, open, servers }
    }

    /// Waits until the backend has no connection left.
    pub(super) fn wait_for_the_last(&self) {
        for server in &self.servers {
            server.wait_for_open(0);
        }
    }

    /// Plays connection `number` from `host`. Both fronts lead to the backend's addresses, in the order of
    /// [`Game::start`].
    ///
    /// Returns how long it took.
    pub(super) fn play(&self, host: &Host, number: u64, fronts: [SocketAddr; 2]) -> Result<Duration, Broken> {
        let plan = Plan::new(self.seed, number);
        let begun = Instant::now();
        self.connection(host, &plan, fronts).map_err(|broken| broken.at(&format!("{plan:?}\n  ")))?;
        Ok(begun.elapsed())
    }

    fn connection(&self, host: &Host, plan: &Plan, [quiet, greeting]: [SocketAddr; 2]) -> Verdict {
        let front = if plan.greets { greeting } else { quiet };
        let stream = host.run(|| dial(front, plan.down.buffer)).map_err(|error| Broken::new("connect", &error))?;
        let (sender, verdict) = mpsc::channel();
        let shared =
            Arc::new(Shared { plan: plan.clone(), verdict: sender, met: Mutex::default(), changed: Condvar::new() });
        self.open().insert(plan.number, Arc::clone(&shared));
        let ours = client(&stream, &shared).map_err(|broken| broken.at("client"));
        drop(stream);
        let theirs = match ours {
            // The number may not have arrived before the reset.
            Ok(()) if plan.is_reset() => Ok(()),
            Ok(()) => {
                let missing = |_| Err(Broken::Wrong("no verdict".to_owned()));
                verdict.recv_timeout(2 * PATIENCE).unwrap_or_else(missing)
            }
            Err(_) => verdict.recv_timeout(Duration::from_millis(200)).unwrap_or(Ok(())),
        };
        self.open().remove(&plan.number);
        match (ours, theirs.map_err(|broken| broken.at("backend"))) {
            (Ok(()), Ok(())) => Ok(()),
            (Err(one), Ok(())) | (Ok(()), Err(one)) => Err(one),
            (Err(Broken::Cut(one)), Err(Broken::Cut(other))) => Err(Broken::Cut(format!("{one}; {other}"))),
            (Err(one), Err(other)) => Err(Broken::Wrong(format!("{one}; {other}"))),
        }
    }

    fn open(&self) -> MutexGuard<'_, HashMap<u64, Arc<Shared>>> {
        self.open.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn dial(to: SocketAddr, buffer: Option<usize>) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    if let Some(buffer) = buffer {
        socket.set_recv_buffer_size(buffer)?;
    }
    socket.connect_timeout(&to.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    socket::guard(socket.into())
}

fn client(stream: &TcpStream, shared: &Shared) -> Verdict {
    let plan = &shared.plan;
    if plan.greets {
        hear_greeting(stream)?;
    }
    let number = plan.number.to_be_bytes();
    let halves = Halves { stream, shared, up: true, before: &number };
    halves.run(&plan.up, &plan.down)
}

fn serve(stream: &TcpStream, greets: bool, open: &Mutex<HashMap<u64, Arc<Shared>>>) {
    if greets && greet(stream).is_err() {
        return;
    }
    let mut number = [0; 8];
    // A connection that was reset before it said its number has nobody to tell.
    let Ok(()) = (&*stream).read_exact(&mut number) else { return };
    let found = open.lock().unwrap_or_else(PoisonError::into_inner).get(&u64::from_be_bytes(number)).cloned();
    let Some(shared) = found else { return };
    if let Some(buffer) = shared.plan.up.buffer {
        let _kept = SockRef::from(stream).set_recv_buffer_size(buffer);
    }
    let halves = Halves { stream, shared: &shared, up: false, before: &[] };
    let verdict = halves.run(&shared.plan.down, &shared.plan.up);
    // The client may have failed and gone.
    let _unheard = shared.verdict.send(verdict);
}

/// Sends a greeting of any length, which it begins with.
fn greet(mut stream: &TcpStream) -> io::Result<()> {
    let port = u64::from(stream.peer_addr()?.port());
    let length = port.wrapping_mul(7919) % GREETING;
    let mut greeting = length.to_be_bytes().to_vec();
    greeting.resize(8 + usize::try_from(length).unwrap_or(0), 0);
    Content::GREETING.fill(0, greeting.get_mut(8..).unwrap_or_default());
    stream.write_all(&greeting)
}

fn hear_greeting(mut stream: &TcpStream) -> Verdict {
    let mut length = [0; 8];
    stream.read_exact(&mut length).map_err(|error| early("greeting", &error))?;
    let length = u64::from_be_bytes(length);
    if length >= GREETING {
        return Err(Broken::Wrong(format!("a greeting of {length} bytes")));
    }
    let mut greeting = vec![0; usize::try_from(length).unwrap_or(0)];
    stream.read_exact(&mut greeting).map_err(|error| early("greeting", &error))?;
    Content::GREETING.check(0, &greeting).map_err(Broken::Wrong)
}

/// An error of `read_exact`, for which an end is an error too.
fn early(what: &str, error: &io::Error) -> Broken {
    if error.kind() == io::ErrorKind::UnexpectedEof {
        Broken::Cut(format!("{what}: ended"))
    } else {
        Broken::new(what, error)
    }
}

/// One end at work: a thread sends, another one receives.
struct Halves<'a> {
    stream: &'a TcpStream,
    shared: &'a Shared,
    /// True at the client.
    up: bool,
    /// Sent before the stream.
    before: &'a [u8],
}

impl Halves<'_> {
    fn run(&self, sent: &Stream, received: &Stream) -> Verdict {
        let ending = self.shared.plan.ending;
        let (waits, waits_for_bytes) = match ending {
            // The client's first bytes are its number, which is sent in any case.
            Ending::ClientFirst => (!self.up, false),
            Ending::BackendFirst => (self.up, true),
            Ending::Each | Ending::Together | Ending::ClientResets(_) | Ending::BackendResets(_) => (false, false),
        };
        let resets = match ending {
            Ending::ClientResets(after) => self.up.then_some(after),
            Ending::BackendResets(after) => (!self.up).then_some(after),
            Ending::Each | Ending::ClientFirst | Ending::BackendFirst | Ending::Together => None,
        };
        let (arrived, at_end) = mpsc::channel();
        let (halves, stream) = (self, self.stream);
        let verdict = thread::scope(|scope| {
            let sender = scope.spawn(move || {
                if waits && waits_for_bytes {
                    halves.say(halves.before)?;
                    let _end = at_end.recv_timeout(PATIENCE);
                    halves.send(&[], sent)?;
                } else {
                    if waits {
                        let _end = at_end.recv_timeout(PATIENCE);
                    }
                    match halves.shared.plan.silence.filter(|_| halves.up) {
                        Some(silence) => {
                            halves.say(halves.before)?;
                            pause(silence);
                            halves.send(&[], sent)?;
                        }
                        None => halves.send(halves.before, sent)?,
                    }
                }
                match ending {
                    Ending::Each | Ending::ClientFirst | Ending::BackendFirst => halves.finish(),
                    Ending::Together | Ending::ClientResets(_) | Ending::BackendResets(_) => Ok(()),
                }
            });
            let receiving = match resets {
                Some(after) => receive_and_reset(stream, received, after),
                None if ending == Ending::Together => self.together(received),
                None => self.receive(received),
            };
            let _unheard = arrived.send(());
            let sending = sender.join().unwrap_or_else(|_| Err(Broken::Wrong("the sender has panicked".to_owned())));
            match (receiving, sending) {
                // The kernel tells a reset once, to whoever asks first; the other one meets an end.
                (Ok(()), Ok(())) if self.shared.plan.is_reset() && resets.is_none() => {
                    Err(Broken::Wrong("a reset arrived as an orderly end".to_owned()))
                }
                (Err(wrong @ Broken::Wrong(_)), _) | (_, Err(wrong @ Broken::Wrong(_))) => Err(wrong),
                (Err(Broken::Cut(_)), _) | (_, Err(Broken::Cut(_))) if self.shared.plan.is_reset() => Ok(()),
                (receiving, sending) => receiving.and(sending),
            }
        });
        drop(self.shared.come());
        verdict
    }

    fn say(&self, bytes: &[u8]) -> Verdict {
        let mut stream = self.stream;
        stream.write_all(bytes).map_err(|error| Broken::new("send the number", &error))
    }

    fn send(&self, before: &[u8], plan: &Stream) -> Verdict {
        let mut stream = self.stream;
        let mut pauses = plan.pauses.iter().peekable();
        let mut urgent = plan.urgent;
        let mut sizes = plan.sizes();
        let mut bytes = before.to_vec();
        let (mut position, mut first) = (0, true);
        while position < plan.length || (first && !bytes.is_empty()) {
            first = false;
            while let Some((_, time)) = pauses.next_if(|(at, _)| *at <= position) {
                pause(*time);
            }
            if urgent.is_some_and(|at| at <= position) {
                urgent = None;
                // The stream goes on without it: see tcp(7) about out-of-band data.
                let sent = SockRef::from(stream).send_out_of_band(b"!");
                sent.map_err(|error| Broken::new("send an urgent byte", &error))?;
            }
            let count = usize::try_from(plan.length - position).unwrap_or(usize::MAX).min(sizes());
            let kept = bytes.len();
            bytes.resize(kept + count, 0);
            plan.content.fill(position, bytes.get_mut(kept..).unwrap_or_default());
            stream.write_all(&bytes).map_err(|error| Broken::new(&format!("send byte {position}"), &error))?;
            position += count as u64;
            bytes.clear();
        }
        Ok(())
    }

    fn finish(&self) -> Verdict {
        self.stream.shutdown(Shutdown::Write).map_err(|error| Broken::new("finish", &error))
    }

    /// Receives to the end and compares.
    fn receive(&self, plan: &Stream) -> Verdict {
        let mut received = Receiver::new(self.stream, plan);
        while received.some()? > 0 {}
        if self.shared.plan.is_reset() { Ok(()) } else { received.whole() }
    }

    /// Receives all, waits until the other end has, too, and then finishes.
    fn together(&self, plan: &Stream) -> Verdict {
        let mut received = Receiver::new(self.stream, plan);
        while received.position < plan.length && received.some()? > 0 {}
        received.whole()?;
        self.shared.meet();
        self.finish()?;
        // More than there is would be an error of its own.
        received.some().map(drop)
    }
}

fn receive_and_reset(stream: &TcpStream, plan: &Stream, after: u64) -> Verdict {
    let mut received = Receiver::new(stream, plan);
    while received.position < after && received.some()? > 0 {}
    // Takes effect when both halves are done and the descriptor is closed.
    SockRef::from(stream).set_linger(Some(Duration::ZERO)).map_err(|error| Broken::new("linger", &error))
}

struct Receiver<'a> {
    stream: &'a TcpStream,
    plan: &'a Stream,
    position: u64,
    stopped: bool,
    buffer: Vec<u8>,
}

impl<'a> Receiver<'a> {
    fn new(stream: &'a TcpStream, plan: &'a Stream) -> Self {
        Self { stream, plan, position: 0, stopped: false, buffer: vec![0; CHUNK] }
    }

    /// Reads what is there and compares it. Returns how much it was.
    fn some(&mut self) -> Result<usize, Broken> {
        if let Some((at, time)) = self.plan.stops
            && !self.stopped
            && self.position >= at
        {
            self.stopped = true;
            pause(time);
        }
        let count = loop {
            let mut stream = self.stream;
            match stream.read(&mut self.buffer) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                other => break other.map_err(|error| Broken::new(&format!("byte {}", self.position), &error))?,
            }
        };
        let bytes = self.buffer.get(..count).unwrap_or_default();
        if self.position + count as u64 > self.plan.length {
            return Err(Broken::Wrong(format!("{count} bytes at {}, more than there are", self.position)));
        }
        self.plan.content.check(self.position, bytes).map_err(Broken::Wrong)?;
        self.position += count as u64;
        Ok(count)
    }

    fn whole(&self) -> Verdict {
        if self.position == self.plan.length {
            return Ok(());
        }
        Err(Broken::Cut(format!("ended after {} of {} bytes", self.position, self.plan.length)))
    }
}
