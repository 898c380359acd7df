//! What the kernel tells of a TCP connection, and does with it, for who hands it over: its numbers and options, and
//! `TCP_REPAIR`, in which a socket is read without a word to its peer, and closes without one.
//!
//! Repair takes CAP_NET_ADMIN. Everything else takes none.
#![expect(unsafe_code, reason = "getsockopt(2) and setsockopt(2) with options that have no safe wrapper")]

use std::{
    ffi::c_int,
    io,
    net::SocketAddr,
    os::fd::{AsFd, AsRawFd, OwnedFd},
    time::Duration,
};

use rustix::ioctl::{Getter, Opcode, ioctl};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

use super::{options, undelivered};

/// `SIOCINQ`, which is `FIONREAD` (tcp(7)).
const SIOCINQ: Opcode = 0x541b;
/// `tcpi_state` of a connection in which nothing has ended (`include/net/tcp_states.h`).
const ESTABLISHED: u8 = 1;
/// State of a socket without a connection.
const CLOSE: u8 = 7;
/// `TCP_SEND_QUEUE`, `TCP_RECV_QUEUE` (`include/uapi/linux/tcp.h`).
const SEND_QUEUE: c_int = 2;
const RECEIVE_QUEUE: c_int = 1;
/// Values of `TCP_REPAIR`; off with a probe, and without one (`TCP_REPAIR_OFF_NO_WP`).
const ON: c_int = 1;
const OFF: c_int = 0;
const OFF_SILENTLY: c_int = -1;

/// Bits of `tcpi_options`.
mod option {
    pub(super) const TIMESTAMPS: u8 = 1;
    pub(super) const SACK: u8 = 2;
    pub(super) const ECN: u8 = 8;
    pub(super) const SYN_DATA: u8 = 32;
}

/// What the kernel tells of a connection at any time: the beginning of `struct tcp_info`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Info {
    /// Neither side has ended.
    pub(crate) established: bool,
    /// It is gone: reset, or timed out.
    pub(crate) closed: bool,
    /// Segments carry timestamps.
    pub(crate) timestamps: bool,
    /// Selective acknowledgements.
    pub(crate) sack: bool,
    /// Explicit congestion notification.
    pub(crate) ecn: bool,
    /// The SYN carried data that was taken.
    pub(crate) fast_open: bool,
    /// Payload bytes that the peer has sent, up to the first one that is missing.
    pub(crate) bytes_received: u64,
    /// Scale of the peer's windows.
    pub(crate) peer_scale: u8,
    /// Scale of ours.
    pub(crate) own_scale: u8,
    /// Largest segment that is sent now, options not included.
    pub(crate) segment: u32,
    /// Largest segment that the peer was told of.
    pub(crate) own_segment: u32,
    /// Smoothed round-trip time.
    pub(crate) round_trip: Duration,
    /// The smallest one of late; `None` before the first sample.
    pub(crate) least_round_trip: Option<Duration>,
}

/// Bytes that timestamps take in each segment, padding included (RFC 7323 appendix A).
const TIMESTAMPS: u32 = 12;

impl Info {
    /// Largest segment that reaches the peer, the options of all segments included.
    pub(crate) fn whole_segment(&self) -> u32 {
        self.segment + if self.timestamps { TIMESTAMPS } else { 0 }
    }

    /// Reads it.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        // Up to tcpi_min_rtt, since Linux 4.6.
        let bytes: [u8; 152] = option_of(socket, libc::TCP_INFO)?;
        let word =
            |at: usize| bytes.get(at..at + 4).and_then(|word| word.try_into().ok()).map_or(0, u32::from_ne_bytes);
        let (state, options, scales) = (bytes[0], bytes[5], bytes[6]);
        let (low, high) = (scales & 0xf, scales >> 4);
        let (peer_scale, own_scale) = if cfg!(target_endian = "little") { (low, high) } else { (high, low) };
        let micros = |at| Duration::from_micros(word(at).into());
        let has = |bit| options & bit != 0;
        Ok(Self {
            established: state == ESTABLISHED,
            closed: state == CLOSE,
            timestamps: has(option::TIMESTAMPS),
            sack: has(option::SACK),
            ecn: has(option::ECN),
            fast_open: has(option::SYN_DATA),
            bytes_received: u64::from_ne_bytes(
                bytes.get(128..136).and_then(|long| long.try_into().ok()).unwrap_or_default(),
            ),
            peer_scale,
            own_scale,
            segment: word(16),
            own_segment: word(84),
            round_trip: micros(68),
            least_round_trip: Some(word(148)).filter(|least| *least != u32::MAX).map(|_| micros(148)),
        })
    }
}

/// What it tells only in repair.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(crate) struct Numbers {
    /// The number behind the last byte that was written.
    pub(crate) written: u32,
    /// The number behind the last byte that was received.
    pub(crate) received: u32,
    /// The acknowledgement number that the peer was told last.
    pub(crate) told: u32,
    /// The largest window that the peer has offered, in bytes.
    pub(crate) window: u32,
    /// The window that the peer was told of last, in bytes from `told` on.
    pub(crate) offered: u32,
    /// Largest segment that the peer takes.
    pub(crate) peer_segment: u32,
    /// Bytes received that wait to be read.
    pub(crate) unread: u32,
    /// Bytes written that the peer has not acknowledged.
    pub(crate) unacknowledged: u32,
}

impl Numbers {
    /// Reads them from a socket in repair. The receive queue stays selected: with the other one, the kernel would take
    /// for sent what is not.
    ///
    /// # Errors
    ///
    /// The socket is not in repair, or has no connection.
    pub(crate) fn of(socket: &impl AsFd) -> io::Result<Self> {
        set(socket, libc::TCP_REPAIR_QUEUE, SEND_QUEUE)?;
        let written = number(socket, libc::TCP_QUEUE_SEQ);
        set(socket, libc::TCP_REPAIR_QUEUE, RECEIVE_QUEUE)?;
        let written = written?;
        let received = number(socket, libc::TCP_QUEUE_SEQ)?;
        // struct tcp_repair_window: snd_wl1, snd_wnd, max_window, rcv_wnd, rcv_wup.
        let [_, _, window, offered, told]: [u32; 5] = option_of(socket, libc::TCP_REPAIR_WINDOW)?;
        Ok(Self {
            written,
            received,
            told,
            window,
            offered,
            peer_segment: number(socket, libc::TCP_MAXSEG)?,
            unread: unread(socket)?,
            unacknowledged: undelivered(socket),
        })
    }
}

/// Begins repair: from now on the socket sends nothing of its own, and closes silently.
///
/// # Errors
///
/// The thread has no CAP_NET_ADMIN.
pub(crate) fn begin(socket: &impl AsFd) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, ON)
}

/// Ends repair. With `probe`, an established connection sends an empty segment with its acknowledgement number and
/// timestamps.
pub(crate) fn end(socket: &impl AsFd, probe: bool) -> io::Result<()> {
    set(socket, libc::TCP_REPAIR, if probe { OFF } else { OFF_SILENTLY })?;
    // Repair has taken it away, and a listener's port would be in use for a minute after its end.
    SockRef::from(socket).set_reuse_address(true)
}

/// Has acknowledgements wait for data that goes the other way, or for 40 ms. On a listening socket it counts for the
/// connections that it accepts; `listen(2)` undoes it.
pub(crate) fn hold_acknowledgements(socket: &impl AsFd, held: bool) -> io::Result<()> {
    set(socket, libc::TCP_QUICKACK, c_int::from(!held))
}

/// Sends the acknowledgement that waits, if there is one, and has later ones wait as before.
pub(crate) fn acknowledge(socket: &impl AsFd) -> io::Result<()> {
    // Even: once (__tcp_sock_set_quickack() in net/ipv4/tcp.c).
    set(socket, libc::TCP_QUICKACK, 2)
}

/// Limits the segments of a connection that is not established yet, both ways.
pub(crate) fn set_segment(socket: &impl AsFd, bytes: u32) -> io::Result<()> {
    set(socket, libc::TCP_MAXSEG, c_int::try_from(bytes).unwrap_or(c_int::MAX))
}

/// A socket that keeps `local` towards `peer` from everybody else: connected in repair, so that no packet was sent, with
/// nothing to send again, and silent when it closes.
///
/// # Errors
///
/// The thread has no CAP_NET_ADMIN, or another socket has this connection.
pub(crate) fn parked(local: SocketAddr, peer: SocketAddr) -> io::Result<OwnedFd> {
    let new = || {
        let socket = Socket::new(Domain::for_address(local), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
        begin(&socket)?;
        Ok::<_, io::Error>(socket)
    };
    // A port that connect(2) has chosen goes on to serve connections to other peers, and from other addresses; one that was bound
    // is nobody else's at all (__inet_hash_connect() in net/ipv4/inet_hashtables.c).
    let socket = new()?;
    let chosen = options::set_local_ports(&socket, &(local.port()..=local.port()))
        .and_then(|()| options::set_bind_address_no_port(&socket))
        .and_then(|()| socket.bind(&SocketAddr::new(local.ip(), 0).into()))
        .and_then(|()| socket.connect(&peer.into()));
    let is_there = || socket.local_addr().is_ok_and(|chosen| chosen.as_socket() == Some(local));
    if chosen.is_ok() && is_there() {
        return Ok(socket.into());
    }
    drop(socket);
    // Before Linux 6.3, or where the port is not one for clients. Repair has it be bound beside whatever has the port
    // (SK_FORCE_REUSE).
    let socket = new()?;
    socket.bind(&local.into())?;
    socket.connect(&peer.into())?;
    Ok(socket.into())
}

/// Resets a connection that no socket of this machine has any more: sends its peer one RST with these numbers.
///
/// # Errors
///
/// The thread has no CAP_NET_ADMIN, another socket has this connection, or there is no route.
pub(crate) fn reset(local: SocketAddr, peer: SocketAddr, sequence: u32, acknowledgement: u32) -> io::Result<()> {
    let socket = Socket::new(Domain::for_address(local), Type::STREAM.nonblocking(), Some(Protocol::TCP))?;
    begin(&socket)?;
    socket.bind(&local.into())?;
    for (queue, number) in [(SEND_QUEUE, sequence), (RECEIVE_QUEUE, acknowledgement)] {
        set(&socket, libc::TCP_REPAIR_QUEUE, queue)?;
        set(&socket, libc::TCP_QUEUE_SEQ, number.cast_signed())?;
    }
    socket.connect(&peer.into())?;
    set(&socket, libc::TCP_REPAIR, OFF_SILENTLY)?;
    socket.set_linger(Some(Duration::ZERO))
}

/// Bytes received that wait to be read, up to the first urgent one.
pub(crate) fn unread(socket: &impl AsFd) -> io::Result<u32> {
    // SAFETY: SIOCINQ takes no input and writes one int (tcp_ioctl() in net/ipv4/tcp.c).
    let bytes = unsafe { ioctl(socket, Getter::<SIOCINQ, c_int>::new()) }?;
    Ok(bytes.cast_unsigned())
}

fn number(socket: &impl AsFd, name: c_int) -> io::Result<u32> {
    option_of(socket, name)
}

/// Values that the kernel may fill with any bytes.
trait Plain: Copy {
    const ZERO: Self;
}

impl Plain for u32 {
    const ZERO: Self = 0;
}

impl<const N: usize> Plain for [u32; N] {
    const ZERO: Self = [0; N];
}

impl<const N: usize> Plain for [u8; N] {
    const ZERO: Self = [0; N];
}

fn option_of<T: Plain>(socket: &impl AsFd, name: c_int) -> io::Result<T> {
    let mut value = T::ZERO;
    let mut len = libc::socklen_t::try_from(size_of::<T>()).map_err(io::Error::other)?;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, and the kernel writes `len` bytes at most, which any bytes may be.
    let result = unsafe { libc::getsockopt(socket, libc::IPPROTO_TCP, name, (&raw mut value).cast(), &raw mut len) };
    if result == 0 { Ok(value) } else { Err(io::Error::last_os_error()) }
}

fn set(socket: &impl AsFd, name: c_int, value: c_int) -> io::Result<()> {
    // An int is four bytes on every Linux.
    let len: libc::socklen_t = 4;
    let socket = socket.as_fd().as_raw_fd();
    // SAFETY: the descriptor is borrowed, and the value is an int of the length given.
    let result = unsafe { libc::setsockopt(socket, libc::IPPROTO_TCP, name, (&raw const value).cast(), len) };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read as _, Write as _},
        net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpListener, TcpStream},
    };

    use super::*;

    const PATIENCE: Duration = Duration::from_secs(10);

    fn connected(ip: IpAddr) -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind((ip, 0)).unwrap();
        hold_acknowledgements(&listener, true).unwrap();
        let client = TcpStream::connect_timeout(&listener.local_addr().unwrap(), PATIENCE).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn both_ends_of_a_connection_agree() {
        for ip in [IpAddr::from(Ipv4Addr::LOCALHOST), Ipv6Addr::LOCALHOST.into()] {
            let (client, server) = connected(ip);
            let [one, other] = [&client, &server].map(|end| Info::of(end).unwrap());
            assert!(one.established && other.established && !one.fast_open, "{one:?}");
            assert_eq!((one.own_scale, one.peer_scale), (other.peer_scale, other.own_scale));
            assert_eq!((one.timestamps, one.sack, one.ecn), (other.timestamps, other.sack, other.ecn));
            assert!(one.segment > 500 && one.own_segment >= one.segment, "{one:?}");
        }
    }

    #[test]
    fn numbers_are_told_in_repair_alone_and_closing_in_it_is_silent() {
        let (mut client, mut server) = connected(Ipv4Addr::LOCALHOST.into());
        assert!(Numbers::of(&server).is_err(), "not in repair");
        client.write_all(b"hello").unwrap();
        server.read_exact(&mut [0; 2]).unwrap();
        match begin(&server) {
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied => return,
            begun => begun.unwrap(),
        }
        assert_eq!(Info::of(&server).unwrap().bytes_received, 5, "read or not");
        let numbers = Numbers::of(&server).unwrap();
        assert_eq!((numbers.unread, numbers.unacknowledged), (3, 0));
        assert_eq!(numbers.received.wrapping_sub(numbers.told), 5, "the acknowledgement of the first bytes is held");
        begin(&client).unwrap();
        let other = Numbers::of(&client).unwrap();
        assert_eq!((other.written, other.received), (numbers.received, numbers.written));
        assert_eq!(other.unacknowledged, 5);
        end(&client, false).unwrap();
        drop(server);
        client.set_nonblocking(true).unwrap();
        let read = client.read(&mut [0; 1]);
        assert!(read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock), "neither an end nor a reset");
    }

    #[test]
    fn a_reset_is_taken_at_once() {
        let (client, server) = connected(Ipv4Addr::LOCALHOST.into());
        let (local, peer) = (server.local_addr().unwrap(), server.peer_addr().unwrap());
        if begin(&server).is_err() {
            return;
        }
        let Numbers { written, received, .. } = Numbers::of(&server).unwrap();
        drop(server);
        reset(local, peer, written, received).unwrap();
        assert!(Info::of(&client).unwrap().closed);
    }

    #[test]
    fn a_parked_socket_keeps_its_port_without_a_packet() {
        for ip in ["127.0.0.1", "::1"] {
            let ip: IpAddr = ip.parse().unwrap();
            let listener = TcpListener::bind((ip, 0)).unwrap();
            let peer = listener.local_addr().unwrap();
            let stream = TcpStream::connect_timeout(&peer, PATIENCE).unwrap();
            let local = stream.local_addr().unwrap();
            if begin(&stream).is_err() {
                return;
            }
            drop(stream);
            let parked = parked(local, peer).unwrap();
            let other = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP)).unwrap();
            let limited = options::set_local_ports(&other, &(local.port()..=local.port()));
            if ip.is_ipv4() && limited.is_ok() {
                options::set_bind_address_no_port(&other).unwrap();
                other.bind(&SocketAddr::from(([127, 0, 0, 2], 0)).into()).unwrap();
                other.connect(&peer.into()).expect("the port is free from another address");
            }
            let again = Socket::new(Domain::for_address(local), Type::STREAM, Some(Protocol::TCP)).unwrap();
            again.set_reuse_address(true).unwrap();
            let taken = again.bind(&local.into()).and_then(|()| again.connect(&peer.into()));
            assert!(taken.is_err(), "the connection has an owner");
            drop(parked);
        }
    }
}
