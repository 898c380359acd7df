//! Sessions that leave for a successor of this process, or come from its predecessor.
//!
//! While frozen, a worker reads no socket: datagrams wait in their buffers, which are the same ones in both processes.

use std::{
    io,
    net::SocketAddr,
    os::fd::{AsFd as _, OwnedFd},
};

use super::{relay::Relay, sockets::open_upstream, token::Token};
use crate::{
    net::udp::Message,
    udp::{
        core::{Flow, HandedSession, SessionId},
        handed::{Give, Handed, HandedEnd, TakenOver},
    },
};

impl Relay {
    /// Copies of the listening sockets, with their addresses.
    pub(super) fn share(&self) -> io::Result<Vec<(SocketAddr, OwnedFd)>> {
        let share = |held: &super::sockets::Listener| Ok((held.address, held.socket.as_fd().try_clone_to_owned()?));
        self.listeners.iter().flatten().map(share).collect()
    }

    /// Reads no socket any more, and lets the kernel steer nothing.
    pub(super) fn freeze(&mut self) {
        self.with_core(|sessions, _, out| sessions.handle_freeze(out));
        for held in self.listeners.iter().flatten() {
            drop(self.poller.remove(&held.socket));
        }
        for upstream in self.upstreams.iter().flatten() {
            drop(self.poller.remove(&upstream.socket));
        }
    }

    /// Goes on: the successor has not come.
    pub(super) fn thaw(&mut self) {
        let listeners = (0_u32..).zip(&self.listeners).filter_map(|(number, held)| Some((number, held.as_ref()?)));
        let added = listeners.map(|(number, held)| self.poller.add(&held.socket, Token::listener(number)));
        let failed = added.filter_map(Result::err).last();
        let upstreams = (0_u32..).zip(&self.upstreams).filter_map(|(index, held)| Some((index, held.as_ref()?)));
        let added = upstreams.map(|(index, upstream)| {
            let session = SessionId { index, generation: upstream.generation };
            self.poller.add(&upstream.socket, Token::session(session))
        });
        if let Some(error) = added.filter_map(Result::err).last().or(failed) {
            tracing::error!("not all UDP sockets are served again: {error}");
        }
        self.with_core(|sessions, _, out| sessions.handle_thaw(out));
    }

    /// Gives all sessions away, one after the other; they stay here until the worker ends or goes on.
    pub(super) fn hand_over(&mut self, give: &mut Give) -> io::Result<usize> {
        let mut count = 0;
        for session in self.sessions.to_hand_over() {
            let Some(flow) = self.sessions.flow(session).copied() else { continue };
            let Some(listener) = self.address_of(flow.listener) else { continue };
            let end = HandedEnd { listener, client: flow.client, local: flow.local };
            for (datagram, tos) in self.sessions.held_datagrams(session) {
                give(&Handed::Held(end, datagram.into(), tos), None)?;
            }
            let handed = self.sessions.handed(session, self.now);
            if let Some((mut handed, upstream)) = handed.zip(open_upstream(&self.upstreams, session)) {
                if let Some(steered) = &upstream.steered {
                    handed.add_steered(steered.bytes_up, steered.bytes_down);
                }
                give(&Handed::Session(end, Box::new(handed)), Some(upstream.socket.as_fd()))?;
                count += 1;
            }
        }
        Ok(count)
    }

    /// Keeps what comes from a predecessor until the sockets of its clients come.
    pub(super) fn take_all_over(&mut self, taken: TakenOver) {
        self.handed.extend(taken);
    }

    /// All of those sockets have come. Returns how many sessions go on, and how many do not.
    pub(super) fn taken_over(&mut self) -> (usize, usize) {
        let left = std::mem::take(&mut self.handed).into_iter();
        let lost = left.filter(|(handed, _)| matches!(handed, Handed::Session(..))).count();
        let (taken, refused) = std::mem::take(&mut self.taken);
        (taken, refused + lost)
    }

    /// Goes on with the sessions of clients of a listening socket.
    pub(super) fn take_over_for(&mut self, number: u32, address: SocketAddr) {
        let its: TakenOver = self.handed.extract_if(.., |(handed, _)| handed.listener() == address).collect();
        for (handed, socket) in its {
            match (handed, socket) {
                (Handed::Session(end, session), Some(socket)) => match self
                    .take_one_over(number, &end, &session, socket)
                {
                    Ok(()) => self.taken.0 += 1,
                    Err(error) => {
                        self.taken.1 += 1;
                        tracing::debug!("session of {} with {} does not go on: {error}", end.client, session.backend);
                    }
                },
                (Handed::Held(end, datagram, tos), _) => self.take_datagram(number, &end, &datagram, tos),
                (Handed::Session(..), None) => self.taken.1 += 1,
            }
        }
    }

    fn take_one_over(
        &mut self,
        listener: u32,
        end: &HandedEnd,
        handed: &HandedSession,
        socket: OwnedFd,
    ) -> io::Result<()> {
        let flow = Flow { listener, client: end.client, local: end.local };
        let mut output = std::mem::take(&mut self.output);
        let session = self.sessions.take_over(handed, flow, self.now, &mut output);
        let kept = match session {
            Some(session) => self.keep(session, handed.backend, socket.into()),
            None => Err(io::Error::other("its rule or its target is gone, or there is no room")),
        };
        self.carry_out(&mut output);
        self.output = output;
        if let Some(session) = session {
            match &kept {
                Ok(()) => self.with_core(|sessions, _, out| sessions.handle_taken_over(session, out)),
                Err(_) => drop(self.close_session(session)),
            }
        }
        kept
    }

    /// A datagram that has waited elsewhere arrives here.
    fn take_datagram(&mut self, listener: u32, end: &HandedEnd, datagram: &[u8], tos: u8) {
        let flow = Flow { listener, client: end.client, local: end.local };
        let segment = datagram.len().max(1);
        self.with_core(|sessions, now, out| sessions.handle_datagrams(&flow, datagram, segment, tos, now, out));
        for (session, range) in std::mem::take(&mut self.output.forward) {
            let bytes = datagram.get(range).unwrap_or_default();
            self.send_up(session, &[Message::new(None, None, tos, bytes, bytes.len().max(1))]);
        }
    }
}
