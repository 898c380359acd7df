//! The thread of one worker: receives in batches, has the relay carry out what the core commands, sends in batches.
//!
//! The thread waits in epoll_wait(2) itself. As a task among TCP's it would wait there through the runtime, which costs
//! a second system call and a second wake-up for each datagram of a quiet flow.

use std::{
    io,
    ops::{ControlFlow, Range},
    panic::{AssertUnwindSafe, catch_unwind},
    sync::{
        Arc,
        mpsc::{Receiver as Inbox, TryRecvError},
    },
    thread::JoinHandle,
    time::Duration,
};

use tokio::runtime::Handle;

use super::{ingress::Ingress, lookups::Lookups, relay::Relay, sockets::Listener, token::Token};
use crate::{
    metrics::{DatagramDrop, SessionEnd},
    net::{
        poller::{Poller, Ready},
        udp::{Message, Received, Receiver, Runs},
    },
    udp::{
        Shared, Snapshot,
        core::{Flow, SessionId},
        handed::HandOver,
        mailbox::{Control, Mailbox},
    },
};

/// Buffers for datagrams of clients; each takes up to 64 of one client.
const RECEIVE: usize = 32;
/// Buffers for answers of backends, which are sent on together.
const ANSWERS: usize = 64;
/// Buffers that one backend's answers may take at a time.
const ANSWERS_OF_ONE: usize = 16;
/// Interval at which expired sessions are looked for. Lifetimes are seconds.
const TICK: Duration = Duration::from_millis(250);

/// The supervisor's end of a worker. Dropping it ends the worker with all its sessions.
#[derive(Debug)]
pub(crate) struct Worker {
    mailbox: Mailbox,
    thread: Option<JoinHandle<()>>,
}

impl Worker {
    /// Starts a worker, which begins with `enter`. Names are looked up on `runtime`.
    pub(crate) fn start(
        index: usize,
        shared: Arc<Shared>,
        snapshot: Arc<Snapshot>,
        runtime: Handle,
        enter: impl FnOnce() + Send + 'static,
    ) -> io::Result<Self> {
        let poller = Arc::new(Poller::new()?);
        let (mailbox, inbox) = Mailbox::new(&poller);
        let lookups = Lookups::new(runtime, mailbox.clone());
        let thread = std::thread::Builder::new().name(format!("udp-{index}")).spawn(move || {
            // Before it is confined: it may open no such socket afterwards.
            let ingress = Ingress::open();
            enter();
            let number = u32::try_from(index).unwrap_or(u32::MAX);
            let relay = Relay::new(number, (shared, snapshot), Arc::clone(&poller), lookups, ingress);
            Thread::new(relay).run(&poller, &inbox);
        })?;
        Ok(Self { mailbox, thread: Some(thread) })
    }

    /// Puts a message into the worker's mailbox.
    pub(crate) fn tell(&self, control: Control) {
        self.mailbox.send(control);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tell(Control::Stop);
        if let Some(thread) = self.thread.take() {
            drop(thread.join());
        }
    }
}

/// How a worker ends.
enum End {
    /// With its sessions.
    Ended,
    /// Its sessions go on in another process.
    Left,
}

/// Everything that lives on the worker's thread.
struct Thread {
    received: Receiver,
    answers: Answers,
    /// Parts of the received buffers and the sessions that they go to.
    parts: Vec<Part>,
    relay: Relay,
    /// What came while the worker reads no sockets; `None` while it does.
    frozen: Option<Vec<Control>>,
    /// What came while it did not.
    thawed: Vec<Control>,
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
    range: Range<usize>,
}

impl Thread {
    fn new(relay: Relay) -> Self {
        Self {
            received: Receiver::new(RECEIVE, false),
            answers: Answers { buffers: Receiver::new(ANSWERS, true), filled: 0, of: Vec::with_capacity(ANSWERS) },
            parts: Vec::with_capacity(RECEIVE),
            relay,
            frozen: None,
            thawed: Vec::new(),
        }
    }

    /// Serves until told to stop; then every session ends.
    fn run(mut self, poller: &Poller, inbox: &Inbox<Control>) {
        let mut ready = Ready::new();
        let mut next_tick = Duration::ZERO;
        loop {
            let waits = self.frozen.is_none() && self.relay.has_deadlines();
            let patience = waits.then(|| next_tick.saturating_sub(self.relay.now()));
            if let Err(error) = poller.wait(&mut ready, patience) {
                tracing::error!("UDP is no longer served by this worker: {error}");
                break;
            }
            self.relay.clock();
            match catch_unwind(AssertUnwindSafe(|| self.turn(&ready, inbox, &mut next_tick))) {
                Ok(ControlFlow::Continue(())) => {}
                Ok(ControlFlow::Break(End::Ended)) => break,
                Ok(ControlFlow::Break(End::Left)) => return,
                Err(_panic) => self.reset(),
            }
        }
        self.relay.end_all(SessionEnd::Drained);
    }

    fn turn(&mut self, ready: &Ready, inbox: &Inbox<Control>, next_tick: &mut Duration) -> ControlFlow<End> {
        self.read_mailbox(inbox)?;
        if self.frozen.is_some() {
            return ControlFlow::Continue(());
        }
        self.serve(ready);
        if self.relay.now() >= *next_tick {
            *next_tick = self.relay.now() + TICK;
            self.relay.timeout();
        }
        ControlFlow::Continue(())
    }

    fn read_mailbox(&mut self, inbox: &Inbox<Control>) -> ControlFlow<End> {
        // Once for any number of them: all sessions are looked at.
        let mut bans = false;
        loop {
            match self.next(inbox) {
                Ok(Control::Share(asker)) => drop(asker.send(self.relay.share())),
                Ok(Control::Freeze(asker)) => {
                    self.relay.freeze();
                    self.frozen = Some(Vec::new());
                    let _gone = asker.send(());
                }
                Ok(Control::HandOver(HandOver { mut give, done })) => {
                    let given = self.relay.hand_over(&mut give);
                    // Whoever is told has the conversation to itself.
                    drop(give);
                    drop(done.send(given));
                }
                // Nothing is frozen any more.
                Ok(Control::Thaw) => {}
                Ok(Control::Leave) => return ControlFlow::Break(End::Left),
                Ok(Control::TakeOver(taken)) => self.relay.take_all_over(taken),
                Ok(Control::TakenOver(asker)) => drop(asker.send(self.relay.taken_over())),
                Ok(Control::Listen(address, socket)) => {
                    if let Err(error) = self.relay.listen(address, socket) {
                        tracing::error!("cannot receive on {address}: {error}");
                    }
                }
                Ok(Control::Close(address, closed)) => {
                    self.relay.close(address);
                    drop(closed);
                }
                Ok(Control::Snapshot(snapshot)) => self.relay.reload(snapshot),
                Ok(Control::Resolved(session)) => self.relay.resolved(session),
                Ok(Control::Inherit(sessions)) => self.relay.inherit(sessions),
                Ok(Control::Inherited(asker)) => drop(asker.send(self.relay.inherited())),
                Ok(Control::Receive) => {
                    if let Err(error) = self.relay.receive_from_clients() {
                        tracing::error!("cannot receive from clients: {error}");
                    }
                }
                Ok(Control::Handover(handover)) => self.relay.take_over(&handover),
                Ok(Control::Bans) => bans = true,
                Ok(Control::Fallen) => self.relay.fallen(),
                Ok(Control::Flows(asker, limit, selection)) => drop(asker.send(self.relay.flows(limit, &selection))),
                Ok(Control::CloseSession(asker, session)) => drop(asker.send(self.relay.close_session(session))),
                Ok(Control::Ping(asker)) => drop(asker.send(())),
                Ok(Control::Drain(drained)) => self.relay.drain(drained),
                Ok(Control::Stop) | Err(TryRecvError::Disconnected) => return ControlFlow::Break(End::Ended),
                Err(TryRecvError::Empty) => break,
            }
        }
        if bans {
            self.relay.bans();
        }
        ControlFlow::Continue(())
    }

    /// The next message. While frozen, what has to do with sessions is kept for later.
    fn next(&mut self, inbox: &Inbox<Control>) -> Result<Control, TryRecvError> {
        loop {
            if self.frozen.is_none() && !self.thawed.is_empty() {
                return Ok(self.thawed.remove(0));
            }
            let control = inbox.try_recv()?;
            let Some(kept) = &mut self.frozen else { return Ok(control) };
            match control {
                Control::HandOver(_) | Control::Leave | Control::Ping(_) | Control::Stop => return Ok(control),
                Control::Thaw => {
                    self.thawed = self.frozen.take().unwrap_or_default();
                    self.relay.thaw();
                }
                Control::Listen(..)
                | Control::Close(..)
                | Control::Snapshot(_)
                | Control::Resolved(_)
                | Control::Inherit(_)
                | Control::Inherited(_)
                | Control::Share(_)
                | Control::Freeze(_)
                | Control::TakeOver(_)
                | Control::TakenOver(_)
                | Control::Receive
                | Control::Handover(_)
                | Control::Bans
                | Control::Fallen
                | Control::Flows(..)
                | Control::CloseSession(..)
                | Control::Drain(_) => kept.push(control),
            }
        }
    }

    /// A bug of the core ends the sessions of this worker, and nothing else.
    fn reset(&mut self) {
        tracing::error!("internal error: worker reset, its UDP sessions were dropped (see the previous message)");
        self.answers.of.clear();
        self.answers.filled = 0;
        self.parts.clear();
        self.relay.reset();
    }

    /// Reads what is there and sends it on. What is left is told of again.
    fn serve(&mut self, ready: &Ready) {
        for value in ready.tokens() {
            match Token::from_value(value) {
                Token::Listener(listener) => self.receive(listener),
                Token::Session(session) => self.answers_of(session),
            }
        }
        self.flush_answers();
        self.relay.count_sent();
    }

    /// One batch of a listening socket.
    fn receive(&mut self, listener: u32) {
        let Some((socket, appetite)) = self.relay.listener(listener).map(Listener::source) else { return };
        let filled = match self.received.receive(socket, 0, appetite.ask(RECEIVE)) {
            Ok(filled) => filled,
            Err(error) => {
                // Nothing there, or something that only concerned a datagram sent before.
                tracing::trace!("receive: {error}");
                return;
            }
        };
        appetite.got(filled);
        self.relay.read(listener, filled == RECEIVE);
        if let Some(count) = last_told(&self.received, filled) {
            self.relay.clients_lost(listener, count);
        }
        for buffer in 0..filled {
            let Some(got) = self.received.get(buffer) else { continue };
            let Some(client) = got.from.filter(|client| client.port() != 0) else {
                // Port 0 cannot be answered.
                self.relay.count_drop(DatagramDrop::NotRecognised, 1);
                continue;
            };
            if self.relay.is_from_us(client) {
                self.relay.count_drop(DatagramDrop::Loop, got.bytes.len().div_ceil(got.segment).max(1));
                continue;
            }
            let flow = Flow { listener, client, local: got.local };
            self.relay.datagrams(&flow, &got, |session, range| self.parts.push(Part { session, buffer, range }));
        }
        self.send_parts();
    }

    /// Sends the received parts on, those of one session together and in order.
    fn send_parts(&mut self) {
        let mut parts = std::mem::take(&mut self.parts);
        parts.sort_by_key(|part| part.session);
        for of_one in parts.chunk_by(|a, b| a.session == b.session) {
            let Some(first) = of_one.first() else { continue };
            let mut runs = Runs::new();
            for part in of_one {
                let Some(got) = self.received.get(part.buffer) else { continue };
                let bytes = got.bytes.get(part.range.clone()).unwrap_or_default();
                let segment = got.segment.min(bytes.len().max(1));
                runs.push(Message::new(None, None, got.tos, bytes, segment));
            }
            self.relay.send_up(first.session, runs.messages());
        }
        parts.clear();
        self.parts = parts;
    }

    /// One batch of a backend's answers.
    fn answers_of(&mut self, session: SessionId) {
        if self.answers.buffers.buffers() - self.answers.filled < ANSWERS_OF_ONE {
            self.flush_answers();
        }
        let Some((socket, appetite)) = self.relay.upstream(session) else { return };
        let first = self.answers.filled;
        let filled = match self.answers.buffers.receive(socket, first, appetite.ask(ANSWERS_OF_ONE)) {
            Ok(filled) => filled,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
            // Datagrams that wait behind the error are told of again.
            Err(error) => return self.relay.failed(session, &error),
        };
        appetite.got(filled);
        if let Some(count) = last_told(&self.answers.buffers, first + filled) {
            self.relay.backend_lost(session, count);
        }
        for buffer in first..first + filled {
            let Some(got) = self.answers.buffers.get(buffer) else { continue };
            if let Some(flow) = self.relay.answers(session, &got) {
                self.answers.of.push((flow, buffer));
            }
        }
        self.answers.filled += filled;
    }

    /// Sends all answers on, those of one listening socket in as few system calls as may be.
    fn flush_answers(&mut self) {
        let Answers { buffers, filled, of } = &mut self.answers;
        // Stable, so that the answers to one client stay in order.
        of.sort_by_key(|(flow, _)| flow.listener);
        for of_one in of.chunk_by(|(a, _), (b, _)| a.listener == b.listener) {
            let Some((first, _)) = of_one.first() else { continue };
            let mut runs = Runs::new();
            for (flow, buffer) in of_one {
                let Some(Received { bytes, segment, tos, .. }) = buffers.get(*buffer) else { continue };
                runs.push(Message::new(Some(flow.client), flow.local, tos, bytes, segment));
            }
            self.relay.send_down(first.listener, runs.messages());
        }
        of.clear();
        *filled = 0;
    }
}

/// The socket's count of losses that came with the last of the `filled` buffers.
fn last_told(buffers: &Receiver, filled: usize) -> Option<u32> {
    buffers.get(filled.checked_sub(1)?)?.lost
}
