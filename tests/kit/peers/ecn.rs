//! A UDP socket that sets and sees the ECN bits (RFC 3168 section 5) of every datagram.

use std::{
    io::{self, IoSliceMut},
    net::{SocketAddr, UdpSocket},
};

pub use quinn_udp::EcnCodepoint;
use quinn_udp::{RecvMeta, Transmit, UdpSocketState};

use crate::{OrFail as _, peers::udp, topology::Host, wait};

/// The socket. It does not fragment, so datagrams must fit the path.
#[derive(Debug)]
pub struct EcnSocket {
    socket: UdpSocket,
    state: UdpSocketState,
}

impl EcnSocket {
    /// Binds `address` of `host`; port 0 stands for any.
    ///
    /// # Panics
    ///
    /// When it cannot be bound.
    #[track_caller]
    pub fn bind(host: &Host, address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        let socket = udp::bind(host, address).or_fail(format_args!("bind {address}"));
        let state = UdpSocketState::new((&socket).into()).or_fail("socket options");
        Self { socket, state }
    }

    /// Sends one datagram; `None` stands for Not-ECT.
    #[track_caller]
    pub fn send(&self, destination: SocketAddr, ecn: Option<EcnCodepoint>, contents: &[u8]) {
        let transmit = Transmit { destination, ecn, contents, segment_size: None, src_ip: None };
        self.state.try_send((&self.socket).into(), &transmit).or_fail(format_args!("send to {destination}"));
    }

    /// The next datagram: source, ECN, payload.
    ///
    /// # Panics
    ///
    /// When none comes, and when the kernel has merged two.
    #[track_caller]
    pub fn receive(&self) -> (SocketAddr, Option<EcnCodepoint>, Vec<u8>) {
        let mut buffer = vec![0; 1 << 16];
        let mut meta = [RecvMeta::default()];
        wait::until("a datagram arrives", || {
            match self.state.recv((&self.socket).into(), &mut [IoSliceMut::new(&mut buffer)], &mut meta) {
                Ok(_) => Some(()),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => None,
                Err(error) => panic!("receive: {error}"),
            }
        });
        let [meta] = meta;
        assert!(meta.len <= meta.stride, "several datagrams at once; ask for one after the other");
        buffer.truncate(meta.len);
        (meta.addr, meta.ecn, buffer)
    }
}
