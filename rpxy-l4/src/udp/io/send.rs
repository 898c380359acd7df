//! Sending, and the counters of what was sent.

use super::{
    relay::{Relay, Sums},
    sockets::{open_upstream, open_upstream_mut},
};
use crate::{
    metrics::DatagramDrop,
    net::udp::{self, Message, Sent},
    udp::core::SessionId,
};

impl Relay {
    /// Sends datagrams to a session's backend.
    pub(super) fn send_up(&mut self, session: SessionId, messages: &[Message<'_>]) {
        let mut sent = self.try_send_up(session, messages);
        // What an earlier datagram met is told to a later one, which is then not sent (sock_error() in
        // sock_alloc_send_pskb()): once more, unless the session has turned to another backend.
        if let Some(error) = sent.error.take_if(|error| udp::is_unreachable(error)) {
            let tried_all = sent.datagrams == 0;
            self.failed(session, &error);
            if tried_all && open_upstream(&self.upstreams, session).is_some() {
                sent = self.try_send_up(session, messages);
            }
        }
        self.count_drop(DatagramDrop::NotSentUp, sent.refused);
        self.sent.up.0 += sent.datagrams as u64;
        self.sent.up.1 += sent.bytes as u64;
    }

    fn try_send_up(&mut self, session: SessionId, messages: &[Message<'_>]) -> Sent {
        let all = messages.iter().map(|message| message.count).sum();
        match open_upstream(&self.upstreams, session) {
            Some(upstream) => self.sender.send(&upstream.socket, upstream.v6, messages),
            None => Sent { refused: all, ..Sent::default() },
        }
    }

    /// Sends answers to clients of one listening socket.
    pub(super) fn send_down(&mut self, listener: u32, messages: &[Message<'_>]) {
        let Some(Some(held)) = usize::try_from(listener).ok().and_then(|slot| self.listeners.get(slot)) else {
            return;
        };
        let sent = self.sender.send(&held.socket, held.address.is_ipv6(), messages);
        if let Some(error) = &sent.error {
            tracing::trace!("answers on {}: {error}", held.address);
        }
        self.count_drop(DatagramDrop::NotSentDown, sent.refused);
        self.sent.down.0 += sent.datagrams as u64;
        self.sent.down.1 += sent.bytes as u64;
    }

    /// Tells the counters what was sent.
    pub(super) fn count_sent(&mut self) {
        let Sums { up, down } = std::mem::take(&mut self.sent);
        let counters = self.shared.metrics.udp();
        if up.0 > 0 {
            counters.sent_up(up.0, up.1);
        }
        if down.0 > 0 {
            counters.sent_down(down.0, down.1);
        }
    }

    /// A listening socket has told how many datagrams it had no room for so far.
    pub(super) fn clients_lost(&mut self, listener: u32, count: u32) {
        if let Some(held) = self.listener(listener) {
            let lost = held.losses.told(count);
            self.shared.metrics.udp().lost_up(lost);
        }
    }

    /// A session's socket has told the same.
    pub(super) fn backend_lost(&mut self, session: SessionId, count: u32) {
        if let Some(upstream) = open_upstream_mut(&mut self.upstreams, session) {
            self.shared.metrics.udp().lost_down(upstream.losses.told(count));
        }
    }

    pub(super) fn count_drop(&self, reason: DatagramDrop, count: usize) {
        if count > 0 {
            self.shared.metrics.udp().dropped(reason, count as u64);
        }
    }
}
