//! Carries out the commands of the core.

use std::{
    io,
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::{Duration, Instant},
};

use super::{
    kernel_flow::KernelFlow,
    relay::{CLOSING, MOST_CLOSING, Relay},
    sockets::{Appetite, Losses, Upstream, open_upstream_mut},
    token::Token,
};
use crate::{
    config::model::Transport,
    id::Id,
    log::{Access, Ended, Named},
    metrics::SessionEnd,
    net::{
        self,
        udp::{self, Message},
    },
    offload::Usage,
    udp::core::{Command, OpenError, Output, SessionId, Started},
};

/// Refusals of one turn for which room is kept.
const USUAL_REFUSALS: usize = 64;

impl Relay {
    /// Carries out the commands of the core in order; a result may make it add further ones.
    pub(super) fn carry_out(&mut self, output: &mut Output) {
        while let Some(command) = output.commands.pop_front() {
            self.handle_command(command, output);
        }
        for state in output.hellos.drain(..) {
            self.shared.metrics.udp_ech(state);
        }
        for (reason, count) in output.dropped.drain(..) {
            self.shared.metrics.udp().dropped(reason, u64::from(count));
        }
        for refused in output.refused.drain(..) {
            self.log_refused(&refused);
        }
        output.refused.shrink_to(USUAL_REFUSALS);
    }

    fn handle_command(&mut self, command: Command, output: &mut Output) {
        match command {
            Command::Open { session, address } => match self.open(session, address) {
                Ok(()) => self.sessions.handle_opened(session, self.now, output),
                Err(error) => self.sessions.handle_open_failed(session, open_error(error), self.now, output),
            },
            Command::Resolve { session, lookup } => self.lookups.begin(session, lookup),
            Command::Send { session, datagram, tos } => {
                self.send_up(session, &[Message::new(None, None, tos, &datagram, datagram.len())]);
            }
            Command::Reply { flow, datagram } => {
                let message = Message::new(Some(flow.client), flow.local, 0, &datagram, datagram.len());
                self.send_down(flow.listener, &[message]);
            }
            Command::Started(started) => self.started(*started),
            Command::Ended { session, end, bytes_up, bytes_down, first_answer } => {
                self.ended(session, end, (bytes_up, bytes_down), first_answer);
            }
            Command::InstallFlow { session, cid } => self.install(session, cid),
            Command::UpdateFlow { session, cid } => {
                if let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) {
                    upstream.kernel.update(&*self.shared.offload, cid);
                }
            }
            Command::RevokeFlow { session } => self.revoke(session),
            Command::Log(notice) => self.log(notice),
        }
    }

    fn open(&mut self, session: SessionId, address: SocketAddr) -> io::Result<()> {
        let is_short = |error: &io::Error| net::is_exhaustion(error) || udp::is_out_of_ports(error);
        let socket = match udp::connected(address) {
            // What rests is given up first.
            Err(error) if is_short(&error) && self.closing.pop_front().is_some() => udp::connected(address),
            other => other,
        }?;
        if socket.local_addr().is_ok_and(|own| own == address) {
            // Nobody listens there, and the kernel has picked that very port for us.
            return Err(io::ErrorKind::ConnectionRefused.into());
        }
        if self.is_ours(address) {
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, "it is this daemon's own listener"));
        }
        self.keep(session, address, socket)
    }

    /// Keeps the socket of a session.
    pub(super) fn keep(&mut self, session: SessionId, address: SocketAddr, socket: UdpSocket) -> io::Result<()> {
        self.poller.add(&socket, Token::session(session))?;
        let port = socket.local_addr().ok().map(|own| self.shared.ports.open(own.port()));
        let slot = usize::try_from(session.index).unwrap_or(usize::MAX);
        if self.upstreams.len() <= slot {
            self.upstreams.resize_with(slot + 1, || None);
        }
        if let Some(free) = self.upstreams.get_mut(slot) {
            *free = Some(Upstream {
                generation: session.generation,
                socket: socket.into(),
                v6: address.is_ipv6(),
                _port: port,
                appetite: Appetite::default(),
                losses: Losses::default(),
                ingress: 0,
                kernel: KernelFlow::Unasked,
                steered: None,
                inherited: None,
                format: self.lines.format,
                listener: Arc::default(),
                access: None,
                carried: None,
            });
        }
        Ok(())
    }

    /// A datagram to ourselves would come back as a new client's, for ever.
    fn is_ours(&mut self, address: SocketAddr) -> bool {
        let Self { listeners, locals, now, .. } = self;
        locals.leads_to(address, listeners.iter().flatten().map(|held| held.address), *now)
    }

    /// Returns whether datagrams come from a socket of ours: their answers would do so, too.
    pub(super) fn is_from_us(&mut self, source: SocketAddr) -> bool {
        let Self { listeners, locals, shared, now, .. } = self;
        locals.is_own(source, &shared.ports, listeners.iter().flatten().map(|held| held.address), *now)
    }

    fn started(&mut self, started: Started) {
        let Started { session, flow, carries, target, destination, detail, carried, resumed } = started;
        let Some(held) = self.listener(flow.listener) else { return };
        if resumed.is_none() {
            held.started.add();
        }
        let listener = Arc::clone(&held.name);
        self.shared.metrics.udp().started();
        let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) else { return };
        let (proto, now) = (carries.name(), Instant::now());
        let since = resumed.and_then(|ago| now.checked_sub(ago)).unwrap_or(now);
        let (source, destination) = (flow.client.into(), destination.into());
        let access = Access { proto, source, target, destination, connect: None, since, detail };
        // A predecessor has logged its beginning.
        if resumed.is_none() {
            let named = Named { id: id_of(self.worker, session), listener: &listener, access: &access };
            self.shared.access.start(upstream.format, named);
        }
        upstream.listener = listener;
        upstream.access = Some(access);
        upstream.carried = carried;
    }

    pub(super) fn ended(
        &mut self,
        session: SessionId,
        end: SessionEnd,
        (bytes_up, bytes_down): (u64, u64),
        first_answer: Option<Duration>,
    ) {
        self.shared.metrics.udp().ended(end);
        let slot = usize::try_from(session.index).unwrap_or(usize::MAX);
        let Some(held) = self.upstreams.get_mut(slot) else { return };
        let Some(mut upstream) = held.take_if(|upstream| upstream.generation == session.generation) else { return };
        upstream.tell_accounts(&*self.shared.offload, bytes_up, bytes_down);
        if let Some(end) = &upstream.inherited {
            self.shared.inherited.remove(end);
        }
        let now = self.now;
        if let Some(access) = &upstream.access {
            let duration = access.since.elapsed();
            let Usage { packets, bytes_up: steered_up, bytes_down: steered_down, .. } =
                upstream.steered.as_deref().copied().unwrap_or_default();
            let (bytes_up, bytes_down) = (bytes_up + steered_up, bytes_down + steered_down);
            let (reason, steered) = (end.name(), packets > 0);
            let ended = Ended { bytes_up, bytes_down, reason, duration, first_byte: first_answer, steered };
            let named = Named { id: id_of(self.worker, session), listener: &upstream.listener, access };
            self.shared.access.finish(upstream.format, named, &ended);
        }
        // Its backend may have more to say: nobody else shall get its port before that has come and gone.
        if end != SessionEnd::Idle && self.poller.remove(&upstream.socket).is_ok() {
            if self.closing.len() >= MOST_CLOSING {
                self.closing.pop_front();
            }
            self.closing.push_back((now.saturating_add(CLOSING), upstream.socket));
        }
    }
}

/// The name of a session of a worker.
fn id_of(worker: u32, session: SessionId) -> Id {
    let SessionId { index, generation } = session;
    Id { transport: Transport::Udp, worker, slot: index, serial: generation }
}

fn open_error(error: io::Error) -> OpenError {
    if net::is_exhaustion(&error) {
        OpenError::Shortage(error)
    } else if udp::is_out_of_ports(&error) {
        OpenError::NoPort(error)
    } else {
        OpenError::Unreachable(error)
    }
}
