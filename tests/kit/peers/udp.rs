//! UDP servers and client sockets that keep datagrams as datagrams.
//!
//! Servers record all that they receive; what they answer is up to the test. Everything gives up after [`PATIENCE`],
//! so that a lost datagram fails a test instead of hanging it.

use std::{
    io,
    net::{Ipv4Addr, SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

use crate::{OrFail as _, process::PATIENCE, topology::Host};

/// Longest payload of a UDP datagram over IPv4.
pub const LONGEST: usize = 65_507;

/// A datagram as it arrived.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Datagram {
    /// Where it came from.
    pub source: SocketAddr,
    /// All of it.
    pub bytes: Vec<u8>,
}

/// A UDP server on a thread of its own. Dropping it closes its port, and returns when that is done.
#[derive(Debug)]
pub struct UdpServer {
    address: SocketAddr,
    socket: Arc<UdpSocket>,
    shared: Arc<Shared>,
    thread: Option<thread::JoinHandle<()>>,
}

#[derive(Debug, Default)]
struct Shared {
    datagrams: Mutex<Vec<Datagram>>,
    changed: Condvar,
    stop: AtomicBool,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Vec<Datagram>> {
        self.datagrams.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl UdpServer {
    /// Serves `address` on `host`, and answers every datagram with those that `service` makes of it.
    ///
    /// # Panics
    ///
    /// When the address cannot be bound.
    #[track_caller]
    pub fn start(
        host: &Host,
        address: impl Into<SocketAddr>,
        service: impl Fn(&Datagram) -> Vec<Vec<u8>> + Send + 'static,
    ) -> Self {
        let address = address.into();
        let socket = Arc::new(bind(host, address).or_fail(format_args!("bind {address}")));
        let shared = Arc::new(Shared::default());
        let thread = thread::spawn({
            let (socket, shared) = (Arc::clone(&socket), Arc::clone(&shared));
            move || serve(&socket, &shared, service)
        });
        Self { address, socket, shared, thread: Some(thread) }
    }

    /// Sends back what it receives, behind `tag`.
    #[track_caller]
    pub fn echo(host: &Host, address: impl Into<SocketAddr>, tag: &str) -> Self {
        let tag = tag.as_bytes().to_vec();
        Self::start(host, address, move |datagram| vec![[tag.as_slice(), &datagram.bytes].concat()])
    }

    /// Says nothing.
    #[track_caller]
    pub fn recorder(host: &Host, address: impl Into<SocketAddr>) -> Self {
        Self::start(host, address, |_| Vec::new())
    }

    /// Address that it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// All datagrams so far, in order of arrival.
    pub fn received(&self) -> Vec<Datagram> {
        self.shared.lock().clone()
    }

    /// The payloads of [`UdpServer::received`].
    pub fn payloads(&self) -> Vec<Vec<u8>> {
        self.received().into_iter().map(|datagram| datagram.bytes).collect()
    }

    /// Forgets what has been received, and returns it.
    pub fn take(&self) -> Vec<Datagram> {
        std::mem::take(&mut *self.shared.lock())
    }

    /// Waits until at least `count` datagrams have been received, and returns all.
    ///
    /// # Panics
    ///
    /// When they do not come.
    #[track_caller]
    pub fn wait_for(&self, count: usize) -> Vec<Datagram> {
        let deadline = Instant::now() + PATIENCE;
        let mut datagrams = self.shared.lock();
        while datagrams.len() < count {
            let left = deadline.saturating_duration_since(Instant::now());
            let seen = datagrams.len();
            assert!(!left.is_zero(), "{} of {count} datagrams have come to {}", seen, self.address);
            datagrams = self.shared.changed.wait_timeout(datagrams, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        datagrams.clone()
    }

    /// Sends from the server's own address, unasked.
    ///
    /// # Panics
    ///
    /// When the kernel refuses.
    #[track_caller]
    pub fn send(&self, to: SocketAddr, bytes: &[u8]) {
        self.socket.send_to(bytes, to).or_fail(format_args!("send to {to}"));
    }
}

impl Drop for UdpServer {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
        // Linux wakes a blocked recvfrom(2) even where it says ENOTCONN.
        let _not_connected = rustix::net::shutdown(&*self.socket, rustix::net::Shutdown::Both);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn serve(socket: &UdpSocket, shared: &Shared, service: impl Fn(&Datagram) -> Vec<Vec<u8>>) {
    let mut buffer = vec![0; 1 << 16];
    loop {
        let received = receive(socket, &mut buffer);
        if shared.stop.load(Ordering::SeqCst) {
            return;
        }
        let Ok(datagram) = received else { continue };
        let answers = service(&datagram);
        let source = datagram.source;
        shared.lock().push(datagram);
        for answer in answers {
            // A client that is gone is its own test's business.
            let _lost = socket.send_to(&answer, source);
        }
        // Told last: who waits for the datagram may rely on the answers being out.
        shared.changed.notify_all();
    }
}

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
    /// When there is no route.
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

    /// The next datagram, if it comes within `time`. For polling only: that nothing comes is no proof.
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

    /// Sends a datagram and returns the answer, if one comes soon. For conditions that come true in time.
    #[track_caller]
    pub fn try_ask(&self, to: impl Into<SocketAddr>, bytes: &[u8]) -> Option<Vec<u8>> {
        self.send(to, bytes);
        self.receive_within(Duration::from_millis(200)).map(|answer| answer.bytes)
    }
}

/// The unspecified address of the family of `address`.
pub fn unspecified(address: SocketAddr) -> SocketAddr {
    if address.is_ipv4() { (Ipv4Addr::UNSPECIFIED, 0).into() } else { (std::net::Ipv6Addr::UNSPECIFIED, 0).into() }
}

/// Binds a UDP socket of `host`, with a buffer for bursts. IPv6 sockets are v6-only.
///
/// # Errors
///
/// When the address is taken or not of this host.
pub fn bind(host: &Host, address: SocketAddr) -> io::Result<UdpSocket> {
    const BUFFER: usize = 4 << 20;
    host.run(|| {
        let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
        if address.is_ipv6() {
            socket.set_only_v6(true)?;
        }
        // Past the machine's limit where the privilege is there; a smaller one only makes a burst lossy.
        if rustix::net::sockopt::set_socket_recv_buffer_size_force(&socket, BUFFER).is_err() {
            socket.set_recv_buffer_size(BUFFER)?;
        }
        socket.bind(&address.into())?;
        Ok(socket.into())
    })
}

/// Whether some socket of `host` is bound to UDP port `port`.
pub fn is_bound(host: &Host, port: u16) -> bool {
    let wanted = format!(":{port:04X}");
    host.run(|| {
        ["udp", "udp6"].iter().any(|table| {
            let text = std::fs::read_to_string(format!("/proc/thread-self/net/{table}")).unwrap_or_default();
            let local = |line: &str| line.split_ascii_whitespace().nth(1).is_some_and(|local| local.ends_with(&wanted));
            text.lines().skip(1).any(local)
        })
    })
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Datagram> {
    loop {
        match socket.recv_from(buffer) {
            Ok((count, source)) => {
                return Ok(Datagram { source, bytes: buffer.get(..count).unwrap_or_default().to_vec() });
            }
            // A socket with a time limit is not resumed after the process was stopped (signal(7)).
            Err(error) if error.raw_os_error() == Some(Errno::INTR.raw_os_error()) => {}
            Err(error) => return Err(error),
        }
    }
}
