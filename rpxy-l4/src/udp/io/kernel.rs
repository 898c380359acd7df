//! Sessions in and out of the kernel plane, and those inherited from an earlier daemon.

use std::{io, net::SocketAddr};

use rpxy_l4_proto::quic::ConnectionId;
use socket2::SockRef;

use super::{
    kernel_flow::KernelFlow,
    relay::Relay,
    sockets::{kernel_flow, open_upstream_mut},
    token::Token,
};
use crate::{
    metrics::DatagramDrop,
    net::udp::{self, Local, Message, Received},
    offload::Steered,
    udp::{
        core::{Flow, Inherited, SessionId},
        mailbox::{ClientEnd, Handover},
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
            upstream.kernel.install(&*self.shared.offload, flow);
            if let Some(reason) = upstream.kernel.reason() {
                self.shared.metrics.udp().stays(reason);
            }
            self.sessions.handle_installed(session, matches!(upstream.kernel, KernelFlow::Installed(_)));
            if matches!(upstream.kernel, KernelFlow::Waiting(..)) {
                let upstreams = &self.upstreams;
                let waits = |id| matches!(kernel_flow(upstreams, id), Some(KernelFlow::Waiting(..)));
                self.retries.add(session, self.sessions.len(), waits);
            }
        }
    }

    pub(super) fn revoke(&mut self, session: SessionId) {
        if let Some(upstream) = open_upstream_mut(&mut self.upstreams, session)
            && let Some(usage) = upstream.kernel.revoke(&*self.shared.offload)
        {
            upstream.steered.get_or_insert_default().add(&usage);
        }
    }

    /// Inherits sessions when the sockets of their clients come.
    pub(super) fn inherit(&mut self, sessions: Vec<Steered>) {
        self.heirless.extend(sessions);
        self.inheriting = true;
    }

    /// All workers have inherited.
    pub(super) fn receive_from_clients(&mut self) -> io::Result<()> {
        self.inheriting = false;
        let all = (0..).zip(&self.listeners);
        all.filter_map(|(number, held)| Some((number, held.as_ref()?)))
            .try_for_each(|(number, held)| self.poller.add(&held.socket, Token::listener(number)))
    }

    /// All of those sockets have come. Returns the number of sessions inherited; the rest ends.
    pub(super) fn inherited(&mut self) -> usize {
        self.heirless = Vec::new();
        std::mem::take(&mut self.inherited)
    }

    /// Inherits the sessions of clients of a listening socket.
    pub(super) fn inherit_for(&mut self, number: u32, address: SocketAddr) {
        let is_its = |flow: &Steered| {
            let same_family = flow.local.is_ipv4() == address.is_ipv4();
            let wildcard = address.ip().is_unspecified() && same_family;
            flow.local.port() == address.port() && (wildcard || flow.local.ip() == address.ip())
        };
        for flow in self.heirless.extract_if(.., |flow| is_its(flow)).collect::<Vec<_>>() {
            if let Err(error) = self.inherit_one(number, address, &flow) {
                tracing::debug!("session of {} with {} not inherited: {error}", flow.client, flow.backend);
            }
        }
    }

    fn inherit_one(&mut self, listener: u32, address: SocketAddr, steered: &Steered) -> io::Result<()> {
        let wildcard = address.ip().is_unspecified();
        let local = wildcard.then(|| Local { address: steered.local.ip(), interface: 0 });
        let flow = Flow { listener, client: steered.client, local };
        let known = Inherited { flow, backend: steered.backend, mark: steered.mark, cid: steered.cid };
        let Some(session) = self.with_core(|sessions, now, out| sessions.inherit(&known, now, out)) else {
            return Err(io::Error::other("its rule or its target is gone, or there is no room"));
        };
        let opened = udp::connected_from(steered.upstream, steered.backend)
            .and_then(|socket| self.keep(session, steered.backend, socket));
        self.with_core(|sessions, now, out| match &opened {
            Ok(()) => sessions.handle_inherited(session, now, out),
            Err(_) => sessions.handle_not_inherited(session, now, out),
        });
        opened?;
        let end = ClientEnd { listener: address, client: steered.client, local };
        if let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) {
            upstream.inherited = Some(Box::new(end));
            self.shared.inherited.add(end, self.lookups.own_mailbox());
            self.inherited += 1;
        }
        Ok(())
    }

    /// Returns whether datagrams of a client belong to a session that another worker has inherited; then they are on their
    /// way to it.
    pub(super) fn is_elsewhere(&self, flow: &Flow, got: &Received<'_>) -> bool {
        if self.shared.inherited.is_empty() || self.sessions.knows(flow) {
            return false;
        }
        let Some(listener) = self.address_of(flow.listener) else { return false };
        let end = ClientEnd { listener, client: flow.client, local: flow.local };
        match self.shared.inherited.hand_over(end, got.bytes, got.segment, got.tos) {
            None => false,
            Some(true) => true,
            Some(false) => {
                self.count_drop(DatagramDrop::Overflow, 1);
                true
            }
        }
    }

    /// Takes datagrams that arrived at another worker.
    pub(super) fn take_over(&mut self, handover: &Handover) {
        let Handover { end, bytes, segment, tos, .. } = handover;
        let slot =
            self.listeners.iter().position(|held| held.as_ref().is_some_and(|held| held.address == end.listener));
        let Some(listener) = slot.and_then(|slot| u32::try_from(slot).ok()) else { return };
        let flow = Flow { listener, client: end.client, local: end.local };
        self.with_core(|sessions, now, out| sessions.handle_datagrams(&flow, bytes, *segment, *tos, now, out));
        for (session, range) in std::mem::take(&mut self.output.forward) {
            let bytes = bytes.get(range).unwrap_or_default();
            self.send_up(session, &[Message::new(None, None, *tos, bytes, (*segment).min(bytes.len().max(1)))]);
        }
    }

    pub(super) fn address_of(&self, listener: u32) -> Option<SocketAddr> {
        Some(self.listeners.get(usize::try_from(listener).ok()?)?.as_ref()?.address)
    }
}
