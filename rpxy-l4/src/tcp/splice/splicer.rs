//! The thread `splicer`: carries hand-overs out, one after the other, each in a few dozen system calls that never wait.
//!
//! Repair takes a capability that the threads for strangers' bytes have not. This one looks at none of them: held bytes go
//! through as they are.

use std::{
    collections::HashMap,
    io,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{
        Arc, Mutex, PoisonError,
        mpsc::{Receiver, Sender, channel},
    },
    thread::JoinHandle,
};

use bytes::Bytes;
use rustix::net::{SendFlags, connect_unspec, send};
use tokio::sync::oneshot;

use super::hand_over::{Command, Fact, HandOver, Leg};
use crate::{
    confine::Enter,
    metrics::Metrics,
    net::repair::{self, Info, Numbers},
    offload::{Ending, Event, NotSpliced, Place, Reservation, Splice, SplicedUsage},
};

/// What is told at the end of a spliced connection.
pub(super) type Ended = (Ending, SplicedUsage);

/// The end of the kernel plane that hands connections over.
#[derive(Debug)]
pub(crate) struct Splicer {
    splice: Arc<dyn Splice>,
    metrics: Arc<Metrics>,
    waiting: Arc<Waiting>,
    /// Until it is stopped.
    thread: Mutex<Option<Thread>>,
}

/// The thread, and how it is asked.
#[derive(Debug)]
struct Thread {
    jobs: Sender<Job>,
    handle: JoinHandle<()>,
}

/// Who is told of the end of which connection.
#[derive(Debug, Default)]
struct Waiting(Mutex<HashMap<Place, oneshot::Sender<Ended>>>);

/// A connection to hand over.
#[derive(Debug)]
pub(super) struct Job {
    /// Copies of the descriptors of its sockets, which nobody else uses meanwhile: client, backend.
    pub(super) sockets: [OwnedFd; 2],
    /// The address of the socket towards the backend, and the backend's.
    pub(super) upstream: (SocketAddr, SocketAddr),
    /// Bytes of the client's that the backend has not got yet.
    pub(super) held: Bytes,
    /// See [`HandOver::new`].
    pub(super) verbatim: [u64; 2],
    /// Likewise.
    pub(super) before: [u64; 2],
    pub(super) reservation: Reservation,
    pub(super) answer: oneshot::Sender<Result<Live, NotSpliced>>,
}

/// A connection that is spliced.
#[derive(Debug)]
pub(super) struct Live {
    pub(super) place: Place,
    pub(super) ended: oneshot::Receiver<Ended>,
}

impl Splicer {
    /// Starts the thread, which begins with `enter`.
    ///
    /// # Errors
    ///
    /// There can be no more threads.
    pub(crate) fn start(splice: Arc<dyn Splice>, metrics: Arc<Metrics>, enter: Enter) -> io::Result<Arc<Self>> {
        let waiting = Arc::new(Waiting::default());
        let (jobs, inbox) = channel();
        {
            let waiting = Arc::clone(&waiting);
            splice.tell(Box::new(move |event| waiting.tell(event)));
        }
        let worker = Worker { splice: Arc::clone(&splice), waiting: Arc::clone(&waiting) };
        let handle = std::thread::Builder::new().name("splicer".to_owned()).spawn(move || {
            enter();
            worker.work(&inbox);
        })?;
        Ok(Arc::new(Self { splice, metrics, waiting, thread: Mutex::new(Some(Thread { jobs, handle })) }))
    }

    /// Ends the thread when it has done what it was asked for. No connection is handed over any more.
    pub(crate) fn stop(&self) {
        let thread = self.thread.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(Thread { jobs, handle }) = thread else { return };
        drop(jobs);
        if handle.join().is_err() {
            tracing::error!("the thread that hands connections over has panicked");
        }
    }

    /// What it hands connections over to.
    pub(in crate::tcp) fn splice(&self) -> &Arc<dyn Splice> {
        &self.splice
    }

    /// Where results are counted.
    pub(super) fn metrics(&self) -> &Metrics {
        &self.metrics
    }

    /// Has a connection be handed over. There is no more than one such request of each connection.
    pub(super) fn ask(&self, job: Job) {
        // Where there is no thread any more the answer is dropped, which says as much.
        if let Some(thread) = &*self.thread.lock().unwrap_or_else(PoisonError::into_inner) {
            drop(thread.jobs.send(job));
        }
    }

    /// Nobody waits for the end of this connection any more.
    pub(super) fn forget(&self, place: Place) {
        drop(self.waiting.take(place));
    }
}

impl Waiting {
    fn tell(&self, event: Event) {
        if let Event::Ended { place, why, usage } = event
            && let Some(waits) = self.take(place)
        {
            let _nobody_waits = waits.send((why, usage));
        }
    }

    fn wait(&self, place: Place) -> oneshot::Receiver<Ended> {
        let (tell, ended) = oneshot::channel();
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(place, tell);
        ended
    }

    fn take(&self, place: Place) -> Option<oneshot::Sender<Ended>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&place)
    }
}

/// What the thread has.
struct Worker {
    splice: Arc<dyn Splice>,
    waiting: Arc<Waiting>,
}

impl Worker {
    fn work(&self, jobs: &Receiver<Job>) {
        while let Ok(job) = jobs.recv() {
            let Job { sockets, upstream, held, verbatim, before, reservation, answer } = job;
            let result = self.hand_over(&sockets, upstream, &held, (verbatim, before), reservation);
            if let Err(Ok(Live { place, .. })) = answer.send(result) {
                // Closed meanwhile.
                self.waiting.take(place);
                self.splice.close(place);
            }
        }
    }

    fn hand_over(
        &self,
        sockets: &[OwnedFd; 2],
        (local, backend): (SocketAddr, SocketAddr),
        held: &Bytes,
        (verbatim, before): ([u64; 2], [u64; 2]),
        reservation: Reservation,
    ) -> Result<Live, NotSpliced> {
        let place = reservation.place().ok_or(NotSpliced::Failed)?;
        let splice = &*self.splice;
        let mut hand_over = HandOver::new(u32::try_from(held.len()).unwrap_or(u32::MAX), verbatim, before);
        let mut ended = None;
        let mut fact = Fact::Begin;
        loop {
            let command = hand_over.next(fact);
            fact = match command {
                Command::Acknowledge => on_both(sockets, repair::acknowledge),
                Command::Block => done(splice.block(place)),
                Command::Read => legs(sockets).map_or(Fact::Failed(NotSpliced::Failed), Fact::Legs),
                Command::Probe { timestamps } => {
                    let ended = on_both(sockets, |socket| repair::end(socket, timestamps));
                    let noted = if timestamps { splice.probes(place) } else { [None; 2] };
                    if ended == Fact::Done { Fact::Probes(noted) } else { ended }
                }
                Command::Live(numbers) => {
                    // An end may be told before the call returns.
                    ended = Some(self.waiting.wait(place));
                    done(splice.live(place, &numbers))
                }
                Command::Send => {
                    let [_, backend] = sockets;
                    // What was not sent is the client's to send again.
                    let _less = send(backend, held, SendFlags::NOSIGNAL);
                    Fact::Done
                }
                Command::Silence => {
                    let silent = on_both(sockets, repair::begin);
                    let is_closed = |socket| Info::of(socket).is_ok_and(|info| info.closed);
                    if silent == Fact::Done && sockets.iter().any(is_closed) { Fact::Broken } else { silent }
                }
                Command::Finish | Command::Abandon => {
                    splice.held_sent(place);
                    self.park(place, sockets, local, backend);
                    if command == Command::Abandon {
                        splice.close(place);
                    }
                    reservation.keep();
                    return ended.map(|ended| Live { place, ended }).ok_or(NotSpliced::Failed);
                }
                Command::Undo(reason) => {
                    self.waiting.take(place);
                    // From here on what the daemon sends goes out again, first of all what it has acknowledged meanwhile.
                    drop(reservation);
                    for socket in sockets {
                        // Whatever one of them says, the other one is not left in repair.
                        let _gone = repair::begin(socket).and_then(|()| repair::end(socket, true));
                    }
                    return Err(reason);
                }
            };
        }
    }

    /// Closes the socket towards the backend, and keeps its port. The old socket has bytes to send again, in vain, until it
    /// gives up and the port with it.
    fn park(&self, place: Place, [_, old]: &[OwnedFd; 2], local: SocketAddr, backend: SocketAddr) {
        let parked = connect_unspec(old).map_err(io::Error::from).and_then(|()| repair::parked(local, backend));
        match parked {
            Ok(parked) => self.splice.park(place, parked),
            // The programs drop the SYN of whoever takes the port.
            Err(error) => tracing::debug!("cannot keep {local} from others while its connection is spliced: {error}"),
        }
    }
}

fn legs([client, backend]: &[OwnedFd; 2]) -> io::Result<[Leg; 2]> {
    repair::begin(client)?;
    repair::begin(backend)?;
    let leg = |socket| Ok::<_, io::Error>(Leg { numbers: Numbers::of(socket)?, info: Info::of(socket)? });
    Ok([leg(client)?, leg(backend)?])
}

fn on_both(sockets: &[OwnedFd; 2], action: impl Fn(&OwnedFd) -> io::Result<()>) -> Fact {
    match sockets.iter().try_for_each(action) {
        Ok(()) => Fact::Done,
        Err(error) => {
            tracing::debug!("a connection cannot be handed over: {error}");
            Fact::Failed(NotSpliced::Failed)
        }
    }
}

fn done(result: Result<(), NotSpliced>) -> Fact {
    result.map_or_else(Fact::Failed, |()| Fact::Done)
}
