//! A client's UDP socket.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    time::Duration,
};

use super::{Datagram, bind, receive, unspecified};
use crate::{OrFail as _, process::PATIENCE, topology::Host};

/// A UDP socket of a client. Sockets are bound to an address and not connected unless said.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
}

impl UdpClient {
    /// Any IPv4 address and port of `host`.
    #[track_caller]
    pub fn new(host: &Host) -> Self {
        Self::bind(host, (Ipv4Addr::UNSPECIFIED, 0))
    }

    /// The address `from` of `host`; port 0 stands for any.
    ///
    /// # Panics
    ///
    /// When it cannot be bound.
    #[track_caller]
    pub fn bind(host: &Host, from: impl Into<SocketAddr>) -> Self {
        let from = from.into();
        Self { socket: bind(host, from).or_fail(format_args!("bind {from}")) }
    }

    /// Connected to `to`: the kernel keeps away what comes from elsewhere, and shows its address of `host`.
    ///
    /// # Panics
    ///
    /// When the host has no route.
    #[track_caller]
    pub fn connected(host: &Host, to: SocketAddr) -> Self {
        let client = Self { socket: bind(host, unspecified(to)).or_fail("bind") };
        client.socket.connect(to).or_fail(format_args!("connect to {to}"));
        client
    }

    /// Its own address.
    ///
    /// # Panics
    ///
    /// When the kernel does not tell, which it does.
    pub fn address(&self) -> SocketAddr {
        self.socket.local_addr().or_fail("local address")
    }

    /// Sends one datagram to `to`, connected or not.
    #[track_caller]
    pub fn send(&self, to: impl Into<SocketAddr>, bytes: &[u8]) {
        let to = to.into();
        let connected = self.socket.peer_addr().is_ok();
        let sent = if connected { self.socket.send(bytes) } else { self.socket.send_to(bytes, to) };
        assert_eq!(sent.or_fail(format_args!("send to {to}")), bytes.len());
    }

    /// The next datagram.
    ///
    /// # Panics
    ///
    /// When none comes.
    #[track_caller]
    pub fn receive(&self) -> Datagram {
        self.receive_within(PATIENCE).or_fail(format_args!("a datagram to {}", self.address()))
    }

    /// The next datagram, if it comes within `time`. For polling only: that nothing comes proves nothing.
    ///
    /// # Panics
    ///
    /// When the socket fails.
    #[track_caller]
    pub fn receive_within(&self, time: Duration) -> Option<Datagram> {
        self.socket.set_read_timeout(Some(time)).or_fail("time limit");
        match receive(&self.socket, &mut vec![0; 1 << 16]) {
            Ok(datagram) => Some(datagram),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(error) => panic!("receive at {}: {error}", self.address()),
        }
    }

    /// Sends a datagram and returns the next one, which must come from where the first went.
    #[track_caller]
    pub fn ask(&self, to: impl Into<SocketAddr>, bytes: &[u8]) -> Vec<u8> {
        let to = to.into();
        self.send(to, bytes);
        let answer = self.receive();
        assert_eq!(answer.source, to, "an answer from elsewhere");
        answer.bytes
    }

    /// As [`UdpClient::ask`], as text.
    #[track_caller]
    pub fn ask_text(&self, to: impl Into<SocketAddr>, text: &str) -> String {
        String::from_utf8_lossy(&self.ask(to, text.as_bytes())).into_owned()
    }

    /// Asks an echo server and waits for the very same text, whatever else comes before it: answers to earlier questions
    /// that were late.
    #[track_caller]
    pub fn ask_again(&self, to: impl Into<SocketAddr>, text: &str) {
        self.send(to, text.as_bytes());
        while self.receive().bytes != text.as_bytes() {}
    }

    /// Sends a datagram and returns the answer, if one comes soon. For conditions that come true in time.
    #[track_caller]
    pub fn try_ask(&self, to: impl Into<SocketAddr>, bytes: &[u8]) -> Option<Vec<u8>> {
        self.send(to, bytes);
        self.receive_within(Duration::from_millis(200)).map(|answer| answer.bytes)
    }
}
