//! TCP sockets on the test's hosts. All of them give up after [`PATIENCE`], so that a stuck proxy fails a test
//! instead of hanging it.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream},
};

use socket2::{Domain, Protocol, SockRef, Socket, Type};

use crate::{OrFail as _, process::PATIENCE, topology::Host, wait};

/// Connects from `host` to `to`.
///
/// # Errors
///
/// When the connection is refused or not answered.
pub fn try_dial(host: &Host, from: Option<IpAddr>, to: SocketAddr) -> io::Result<TcpStream> {
    host.run(|| {
        let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
        if let Some(from) = from {
            socket.bind(&SocketAddr::new(from, 0).into())?;
        }
        socket.connect_timeout(&to.into(), PATIENCE)?;
        socket.set_tcp_nodelay(true)?;
        guard(socket.into())
    })
}

/// Connects from `host` to `to`; must succeed.
#[track_caller]
pub fn dial(host: &Host, to: impl Into<SocketAddr>) -> TcpStream {
    let to = to.into();
    try_dial(host, None, to).or_fail(format_args!("connect to {to}"))
}

/// Connects from the address `from` of `host` to `to`; must succeed.
#[track_caller]
pub fn dial_from(host: &Host, from: impl Into<IpAddr>, to: impl Into<SocketAddr>) -> TcpStream {
    let (from, to) = (from.into(), to.into());
    try_dial(host, Some(from), to).or_fail(format_args!("connect from {from} to {to}"))
}

/// Listens on `host`; must succeed. IPv6 sockets are v6-only.
#[track_caller]
pub fn listen(host: &Host, address: impl Into<SocketAddr>) -> TcpListener {
    listen_with_backlog(host, address.into(), 4096)
}

/// As [`listen`], with an accept queue of `backlog` connections.
#[track_caller]
pub fn listen_with_backlog(host: &Host, address: SocketAddr, backlog: i32) -> TcpListener {
    let bound = host.run(|| -> io::Result<TcpListener> {
        let socket = Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
        socket.set_reuse_address(true)?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        socket.bind(&address.into())?;
        socket.listen(backlog)?;
        Ok(socket.into())
    });
    bound.or_fail(format_args!("listen on {address}"))
}

/// Sets the time limits of a stream.
///
/// # Errors
///
/// When the kernel refuses, which it does not for a live socket.
pub fn guard(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    Ok(stream)
}

/// The other side's way of ending a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// It closed, having read all that was sent.
    Closed,
    /// It reset the connection.
    Reset,
}

/// Reads until the other side ends, and says how it did.
///
/// # Panics
///
/// When it does not end in time.
#[track_caller]
pub fn read_to_end(mut stream: &TcpStream) -> (Vec<u8>, End) {
    let mut bytes = Vec::new();
    match stream.read_to_end(&mut bytes) {
        Ok(_) => (bytes, End::Closed),
        Err(error) if is_reset(&error) => (bytes, End::Reset),
        Err(error) => panic!("neither closed nor reset after {} bytes: {error}", bytes.len()),
    }
}

/// Reads exactly `count` bytes.
#[track_caller]
pub fn read_exactly(mut stream: &TcpStream, count: usize) -> Vec<u8> {
    let mut bytes = vec![0; count];
    stream.read_exact(&mut bytes).or_fail(format_args!("read {count} bytes"));
    bytes
}

/// Reads a line, without its end. `None` when the other side closes or resets first.
///
/// # Panics
///
/// When neither comes in time.
#[track_caller]
pub fn read_line(mut stream: &TcpStream) -> Option<String> {
    let mut line = Vec::new();
    let mut byte = [0];
    loop {
        match stream.read(&mut byte) {
            Ok(0) => return None,
            Ok(_) if byte == *b"\n" => return Some(String::from_utf8_lossy(&line).into_owned()),
            Ok(_) => line.push(byte[0]),
            Err(error) if is_reset(&error) => return None,
            // A socket with a time limit is not resumed after the process was stopped (signal(7)).
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => panic!("no line, only {:?}: {error}", String::from_utf8_lossy(&line)),
        }
    }
}

/// Sends all of `bytes`.
#[track_caller]
pub fn send(mut stream: &TcpStream, bytes: &[u8]) {
    stream.write_all(bytes).or_fail(format_args!("send {} bytes", bytes.len()));
}

/// Ends the sending direction.
#[track_caller]
pub fn finish(stream: &TcpStream) {
    stream.shutdown(Shutdown::Write).or_fail("shut down for writing");
}

/// Closes with a reset.
#[track_caller]
pub fn reset(stream: TcpStream) {
    SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO)).or_fail("linger");
    drop(stream);
}

/// Returns true when an error says that the peer is gone, in one of the ways in which Linux says it.
pub fn is_reset(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe | io::ErrorKind::NotConnected)
}

/// Waits until the other side's kernel has acknowledged all that was sent.
///
/// # Panics
///
/// When it does not.
#[track_caller]
pub fn wait_until_acknowledged(host: &Host, stream: &TcpStream) {
    let ports = [stream.local_addr(), stream.peer_addr()].map(|address| address.or_fail("address").port());
    let [local, remote] = ports.map(|port| format!(":{port:04X}"));
    // Columns of /proc/net/tcp: number, local address, remote address, state, transmit and receive queue.
    let is_sent = |line: &str| {
        let words: Vec<_> = line.split_ascii_whitespace().collect();
        matches!(words.as_slice(), [_, from, to, _, queues, ..]
            if from.ends_with(&local) && to.ends_with(&remote) && queues.starts_with("00000000:"))
    };
    wait::until("all that was sent is acknowledged", || table_has(host, "tcp", is_sent).then_some(()));
}

/// Returns true when a socket of `host` listens on TCP port `port`.
pub fn is_listening(host: &Host, port: u16) -> bool {
    // State 0A is LISTEN.
    let wanted = format!(":{port:04X}");
    table_has(host, "tcp", |line| {
        let mut words = line.split_ascii_whitespace().skip(1);
        words.next().is_some_and(|local| local.ends_with(&wanted)) && words.nth(1) == Some("0A")
    })
}

/// Returns true when a line of the tables of sockets of `protocol` (`tcp`, `udp`) on `host` is wanted, in either family.
pub(crate) fn table_has(host: &Host, protocol: &str, is_wanted: impl Fn(&str) -> bool + Sync) -> bool {
    // The tables show the namespace of the thread that reads them.
    let tables = [protocol.to_owned(), format!("{protocol}6")];
    host.run(|| {
        tables.iter().any(|table| {
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            text.lines().skip(1).any(&is_wanted)
        })
    })
}
