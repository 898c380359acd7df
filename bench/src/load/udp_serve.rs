//! The backend of the UDP workloads: echoes, all in one thread.
//!
//! Each candidate has two ports to itself: one where datagrams go back one by one, one where a train (UDP_GRO) goes back
//! as a train (UDP_SEGMENT).

use std::net::{Ipv4Addr, SocketAddrV4};

use rustix::event::epoll::EventFlags;

use super::{poller::Poller, udp_socket::Port};

/// First of the ports of single datagrams.
pub const DATAGRAM_PORT: u16 = 7200;
/// First of the ports of trains.
pub const SEGMENT_PORT: u16 = 7300;

/// Serves `count` ports of either kind on `address` for ever.
///
/// # Errors
///
/// When a port is taken.
pub fn serve(address: Ipv4Addr, count: u16) -> anyhow::Result<()> {
    let mut poller = Poller::new()?;
    let mut ports = Vec::new();
    for index in 0..count {
        ports.push(Port::plain(SocketAddrV4::new(address, DATAGRAM_PORT + index))?);
        ports.push(Port::trains(SocketAddrV4::new(address, SEGMENT_PORT + index))?);
    }
    for (token, port) in ports.iter().enumerate() {
        poller.add(port, u64::try_from(token)?, EventFlags::IN)?;
    }
    let mut buffer = Port::buffer();
    let mut ready = Vec::new();
    loop {
        poller.wait(&mut ready)?;
        for &(token, _) in &ready {
            let port = &ports[usize::try_from(token)?];
            port.receive(&mut buffer, |received| port.send(None, received.from, received.bytes, received.stride))?;
        }
    }
}
