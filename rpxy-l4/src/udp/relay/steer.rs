//! Sessions in and out of the kernel, and those that an earlier daemon has left there.

use std::{io, net::SocketAddr};

use rpxy_l4_proto::quic::ConnectionId;
use socket2::SockRef;

use super::{Relay, open_upstream_mut, session_steering};
use crate::{
    net::udp::{self, Local, Message, Received},
    offload::Steered,
    udp::{
        adopted::{End, Passed},
        session::{Flow, Left, SessionId},
        steering::Steering,
    },
};

impl Relay {
    /// Lets the kernel steer a session, where it can.
    pub(super) fn install(&mut self, session: SessionId, cid: Option<ConnectionId>) {
        let (Some(flow), Some(kind)) = (self.sessions.flow(session).copied(), self.sessions.steerable(session)) else {
            return;
        };
        let Some(mark) = self.sessions.mark(session) else { return };
        let Some(listening) = self.address_of(flow.listener) else { return };
        let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) else { return };
        let local = flow.local.map_or(listening, |local| SocketAddr::new(local.address, listening.port()));
        let own = SockRef::from(&upstream.socket).local_addr().ok().and_then(|own| own.as_socket());
        if let Some((own, backend)) = own.zip(upstream.backend()) {
            let flow = Steered { client: flow.client, local, upstream: own, backend, kind, mark, cid };
            upstream.steering.install(&*self.shared.offload, Box::new(flow));
            if matches!(upstream.steering, Steering::Waiting(..)) {
                let upstreams = &self.upstreams;
                let waits = |id| matches!(session_steering(upstreams, id), Some(Steering::Waiting(..)));
                self.retries.add(session, self.sessions.len(), waits);
            }
        }
    }

    pub(super) fn revoke(&mut self, session: SessionId) {
        if let Some(upstream) = open_upstream_mut(&mut self.upstreams, session)
            && let Some(usage) = upstream.steering.revoke(&*self.shared.offload)
        {
            upstream.steered.add(&usage);
        }
    }

    /// Sessions that an earlier daemon has left, to be taken over when the sockets of their clients are there.
    pub(in crate::udp) fn expect(&mut self, left: Vec<Steered>) {
        self.left.extend(left);
    }

    /// All of those sockets are there: how many were taken over. The rest ends.
    pub(in crate::udp) fn adopted(&mut self) -> usize {
        self.left = Vec::new();
        std::mem::take(&mut self.taken_over)
    }

    /// Takes over the sessions of clients of a listening socket.
    pub(super) fn adopt_left(&mut self, number: u32, address: SocketAddr) {
        let is_its = |flow: &Steered| {
            let same_family = flow.local.is_ipv4() == address.is_ipv4();
            let wildcard = address.ip().is_unspecified() && same_family;
            flow.local.port() == address.port() && (wildcard || flow.local.ip() == address.ip())
        };
        for flow in self.left.extract_if(.., |flow| is_its(flow)).collect::<Vec<_>>() {
            if let Err(error) = self.adopt_one(number, address, &flow) {
                tracing::debug!("the session of {} with {} is not taken over: {error}", flow.client, flow.backend);
            }
        }
    }

    fn adopt_one(&mut self, listener: u32, address: SocketAddr, left: &Steered) -> io::Result<()> {
        let wildcard = address.ip().is_unspecified();
        let local = wildcard.then(|| Local { address: left.local.ip(), interface: 0 });
        let flow = Flow { listener, client: left.client, local };
        let mut output = std::mem::take(&mut self.output);
        let known = Left { flow, backend: left.backend, mark: left.mark, cid: left.cid };
        let session = self.sessions.restore(&known, self.now, &mut output);
        let result = match session {
            None => Err(io::Error::other("its rule or its target is gone, or there is no room")),
            Some(session) => udp::connected_from(left.upstream, left.backend)
                .and_then(|socket| self.hold(session, left.backend, socket))
                .inspect(|()| self.sessions.handle_restored(session, self.now, &mut output))
                .inspect_err(|_| self.sessions.handle_not_restored(session, self.now, &mut output)),
        };
        self.carry_out(&mut output);
        self.output = output;
        let Some(session) = session.filter(|_| result.is_ok()) else { return result };
        let end = End { listener: address, client: left.client, local };
        if let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) {
            upstream.adopted = Some(end);
            self.shared.adopted.add(end, self.lookups.own_commands());
            self.taken_over += 1;
        }
        Ok(())
    }

    /// Whether datagrams of a client belong to a session that another worker has taken over; they are on their way to it.
    pub(super) fn is_elsewhere(&self, flow: &Flow, got: &Received<'_>) -> bool {
        if self.shared.adopted.is_empty() || self.sessions.knows(flow) {
            return false;
        }
        let Some(listener) = self.address_of(flow.listener) else { return false };
        let end = End { listener, client: flow.client, local: flow.local };
        match self.shared.adopted.pass(end, got.bytes, got.segment, got.ecn) {
            None => false,
            Some(true) => true,
            Some(false) => {
                self.count_drop(crate::metrics::DatagramDrop::Overflow, 1);
                true
            }
        }
    }

    /// Datagrams that arrived at another worker.
    pub(in crate::udp) fn passed(&mut self, passed: &Passed) {
        let Passed { end, bytes, segment, ecn, .. } = passed;
        let place =
            self.listeners.iter().position(|held| held.as_ref().is_some_and(|held| held.address == end.listener));
        let Some(listener) = place.and_then(|place| u32::try_from(place).ok()) else { return };
        let flow = Flow { listener, client: end.client, local: end.local };
        let mut output = std::mem::take(&mut self.output);
        self.sessions.handle_datagrams(&flow, bytes, *segment, *ecn, self.now, &mut output);
        self.carry_out(&mut output);
        let parts: Vec<_> = output.forward.drain(..).collect();
        self.output = output;
        for (session, range) in parts {
            let bytes = bytes.get(range).unwrap_or_default();
            self.send_up(session, &[Message::new(None, None, *ecn, bytes, (*segment).min(bytes.len().max(1)))]);
        }
    }

    fn address_of(&self, listener: u32) -> Option<SocketAddr> {
        Some(self.listeners.get(usize::try_from(listener).ok()?)?.as_ref()?.address)
    }
}
