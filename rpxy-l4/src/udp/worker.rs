//! Runs the sessions of one worker: receives in batches, does what the core commands, sends in batches.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    sync::{mpsc, oneshot},
    time::{MissedTickBehavior, interval},
};

use super::{
    Plane, Shared,
    relay::{Listener, Relay},
    session::{Flow, SessionId},
};
use crate::{
    metrics::{DatagramDrop, SessionEnd},
    net::{
        poller::{Poller, Ready},
        udp::{Message, Received, Receiver, Runs},
    },
};

/// Buffers for datagrams of clients; each takes up to 64 of one client.
const RECEIVE: usize = 32;
/// Buffers for answers of backends, which are sent on together.
const ANSWERS: usize = 64;
/// Buffers that one backend's answers may take at a time.
const ANSWERS_OF_ONE: usize = 16;
/// Looks at the sockets until the other tasks of the worker have their turn.
const ROUNDS: usize = 8;
/// How often it is looked which sessions are over. Lifetimes are seconds.
const TICK: Duration = Duration::from_millis(250);

/// What the supervisor tells a worker's UDP side.
#[derive(Debug)]
pub enum Control {
    /// Receive on this socket, which is bound to this address.
    Listen(SocketAddr, std::net::UdpSocket),
    /// Close the socket of that address with all its sessions, then drop the sender.
    Close(SocketAddr, oneshot::Sender<()>),
    /// Another configuration is in effect.
    Plane(Arc<Plane>),
}

/// Serves until the sender of `inbox` is dropped; then every session ends.
pub async fn serve(shared: Arc<Shared>, plane: Arc<Plane>, mut inbox: mpsc::UnboundedReceiver<Control>) {
    let poller = match Poller::new() {
        Ok(poller) => Arc::new(poller),
        Err(error) => {
            tracing::error!("UDP is not served by this worker: {error}");
            return;
        }
    };
    // Each session asks once at most.
    let (resolved, mut resolutions) = mpsc::unbounded_channel();
    let mut worker = Worker {
        ready: Ready::new(),
        received: Receiver::new(RECEIVE, false),
        answers: Answers { buffers: Receiver::new(ANSWERS, true), filled: 0, of: Vec::with_capacity(ANSWERS) },
        parts: Vec::with_capacity(RECEIVE),
        relay: Relay::new(shared, plane, Arc::clone(&poller), resolved),
    };
    let mut tick = interval(TICK);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        // In no fixed order: none of these may starve under load.
        tokio::select! {
            control = inbox.recv() => match control {
                Some(control) => worker.obey(control),
                None => break,
            },
            result = poller.ready() => match result {
                Ok(()) => {
                    if worker.contained_turn(&poller) == Turn::Unfinished {
                        // The connections of this worker have their turn.
                        tokio::task::yield_now().await;
                    }
                }
                Err(error) => {
                    tracing::error!("UDP is no longer served by this worker: {error}");
                    break;
                }
            },
            Some(session) = resolutions.recv() => worker.relay.resolved(session),
            _ = tick.tick(), if worker.relay.has_sessions() => worker.relay.timeout(),
        }
    }
    worker.relay.end_all(SessionEnd::Drained);
}

/// How a look at the sockets ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// All of them were read empty.
    Drained,
    /// There may be more.
    Unfinished,
}

struct Worker {
    ready: Ready,
    received: Receiver,
    answers: Answers,
    /// Parts of the received buffers and the sessions that they go to.
    parts: Vec<Part>,
    relay: Relay,
}

/// Answers of backends on their way to clients.
struct Answers {
    buffers: Receiver,
    /// Buffers in use.
    filled: usize,
    /// Where each of them goes.
    of: Vec<(Flow, usize)>,
}

/// Datagrams in a received buffer that one session gets.
struct Part {
    session: SessionId,
    buffer: usize,
    range: std::ops::Range<usize>,
}

/// What a token of the poller stands for.
enum Token {
    Listener(u32),
    Session(SessionId),
}

/// Marks tokens of listeners; no session's index gets that far.
const LISTENER: u64 = 1 << 63;

pub(super) fn listener_token(listener: u32) -> u64 {
    LISTENER | u64::from(listener)
}

pub(super) fn session_token(session: SessionId) -> u64 {
    u64::from(session.index) << 32 | u64::from(session.generation)
}

fn token(value: u64) -> Token {
    let [high, low] = [value >> 32, value & u64::from(u32::MAX)].map(|half| u32::try_from(half).unwrap_or(u32::MAX));
    if value & LISTENER != 0 {
        Token::Listener(low)
    } else {
        Token::Session(SessionId { index: high, generation: low })
    }
}

impl Worker {
    fn obey(&mut self, control: Control) {
        match control {
            Control::Listen(address, socket) => {
                if let Err(error) = self.relay.listen(address, socket) {
                    tracing::error!("cannot receive on {address}: {error}");
                }
            }
            Control::Close(address, closed) => {
                self.relay.close(address);
                drop(closed);
            }
            Control::Plane(plane) => self.relay.adopt(plane),
        }
    }

    /// A turn whose bugs end the sessions of this worker, and not its connections.
    fn contained_turn(&mut self, poller: &Poller) -> Turn {
        let turn = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| self.turn(poller)));
        turn.unwrap_or_else(|_panic| {
            tracing::error!("a bug: the UDP sessions of this worker begin anew; the log has its place");
            self.ready = Ready::new();
            self.answers.of.clear();
            self.answers.filled = 0;
            self.parts.clear();
            self.relay.begin_anew();
            Turn::Unfinished
        })
    }

    /// Reads what is there and sends it on.
    fn turn(&mut self, poller: &Poller) -> Turn {
        for _ in 0..ROUNDS {
            if let Err(error) = poller.look(&mut self.ready) {
                tracing::debug!("epoll_wait: {error}");
                return Turn::Unfinished;
            }
            self.relay.clock();
            let ready = std::mem::replace(&mut self.ready, Ready::none());
            let mut empty = !ready.is_full();
            for value in ready.tokens() {
                empty &= match token(value) {
                    Token::Listener(listener) => self.receive(listener),
                    Token::Session(session) => self.answers_of(session),
                };
            }
            self.ready = ready;
            self.flush_answers();
            if empty {
                poller.drained();
                return Turn::Drained;
            }
        }
        Turn::Unfinished
    }

    /// One batch of a listening socket; true when nothing is left there.
    fn receive(&mut self, listener: u32) -> bool {
        let Some(socket) = self.relay.listener(listener).map(Listener::socket) else { return true };
        let filled = match self.received.receive(socket, 0, RECEIVE) {
            Ok(filled) => filled,
            Err(error) => {
                // Nothing there, or something that only concerned a datagram sent before.
                tracing::trace!("receive: {error}");
                return true;
            }
        };
        for buffer in 0..filled {
            let Some(got) = self.received.get(buffer) else { continue };
            let Some(client) = got.from.filter(|client| client.port() != 0) else {
                // Port 0 cannot be answered.
                self.relay.count_drop(DatagramDrop::NotRecognised, 1);
                continue;
            };
            let flow = Flow { listener, client, local: got.local };
            self.relay.datagrams(&flow, &got, |session, range| self.parts.push(Part { session, buffer, range }));
        }
        self.send_parts();
        filled < RECEIVE
    }

    /// Sends the received parts on, those of one session together and in order.
    fn send_parts(&mut self) {
        let mut parts = std::mem::take(&mut self.parts);
        parts.sort_by_key(|part| part.session);
        for of_one in parts.chunk_by(|a, b| a.session == b.session) {
            let (Some(first), segmentation) = (of_one.first(), true) else { continue };
            let mut runs = Runs::new();
            for part in of_one {
                let Some(got) = self.received.get(part.buffer) else { continue };
                let bytes = got.bytes.get(part.range.clone()).unwrap_or_default();
                let segment = got.segment.min(bytes.len().max(1));
                runs.push(Message::new(None, None, got.ecn, bytes, segment), segmentation);
            }
            self.relay.send_up(first.session, runs.messages());
        }
        parts.clear();
        self.parts = parts;
    }

    /// One batch of a backend's answers; true when nothing is left there.
    fn answers_of(&mut self, session: SessionId) -> bool {
        if self.answers.buffers.buffers() - self.answers.filled < ANSWERS_OF_ONE {
            self.flush_answers();
        }
        let Some(socket) = self.relay.upstream(session) else { return true };
        let first = self.answers.filled;
        let filled = match self.answers.buffers.receive(socket, first, ANSWERS_OF_ONE) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return true,
            Err(error) => {
                self.relay.failed(session, &error);
                // Datagrams may wait behind the error.
                return false;
            }
        };
        for buffer in first..first + filled {
            let Some(got) = self.answers.buffers.get(buffer) else { continue };
            if let Some(flow) = self.relay.answers(session, &got) {
                self.answers.of.push((flow, buffer));
            }
        }
        self.answers.filled += filled;
        filled < ANSWERS_OF_ONE
    }

    /// Sends all answers on, those of one listening socket in as few system calls as may be.
    fn flush_answers(&mut self) {
        let Answers { buffers, filled, of } = &mut self.answers;
        if of.is_empty() {
            *filled = 0;
            return;
        }
        // Stable, so that the answers to one client stay in order.
        of.sort_by_key(|(flow, _)| flow.listener);
        for of_one in of.chunk_by(|(a, _), (b, _)| a.listener == b.listener) {
            let Some((first, _)) = of_one.first() else { continue };
            let mut runs = Runs::new();
            for (flow, buffer) in of_one {
                let Some(Received { bytes, segment, ecn, .. }) = buffers.get(*buffer) else { continue };
                runs.push(Message::new(Some(flow.client), flow.local, ecn, bytes, segment), true);
            }
            self.relay.send_down(first.listener, runs.messages());
        }
        of.clear();
        *filled = 0;
    }
}
