//! A NAT on a client's host that now and then gives the same client another public port, as home routers do.
//!
//! Both sides see ordinary UDP: the client talks to [`Nat::inside`], the far side sees datagrams from one port, then
//! from the next. What arrives at a port given up is swallowed, as by a router whose mapping has expired.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread,
    time::Duration,
};

use crate::{OrFail as _, peers::udp, topology::Host};

/// The NAT, for one client at a time. Dropping it stops it.
#[derive(Debug)]
pub struct Nat {
    inside: SocketAddr,
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    host: Host,
    inner: UdpSocket,
    /// The socket with the present public port, then those given up, which stay open to swallow.
    outer: Mutex<Vec<Arc<UdpSocket>>>,
    /// The last sender on the inside.
    client: Mutex<Option<SocketAddr>>,
    to: SocketAddr,
    /// Datagrams after which the public port changes.
    every: Option<usize>,
    carried: AtomicUsize,
    rebinds: AtomicUsize,
    stop: AtomicBool,
}

impl Nat {
    /// A NAT between clients on `host` and `to`.
    ///
    /// # Panics
    ///
    /// When a socket cannot be made.
    #[track_caller]
    pub fn start(host: &Host, to: SocketAddr) -> Self {
        Self::new(host, to, None)
    }

    #[track_caller]
    fn new(host: &Host, to: SocketAddr, every: Option<usize>) -> Self {
        let local = if to.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" };
        let inner = udp::bind(host, local.parse().or_fail(local)).or_fail("inner socket");
        inner.set_read_timeout(Some(TICK)).or_fail("time limit");
        let inside = inner.local_addr().or_fail("inner address");
        let shared = Arc::new(Shared {
            host: host.clone(),
            inner,
            outer: Mutex::default(),
            client: Mutex::default(),
            to,
            every,
            carried: AtomicUsize::new(0),
            rebinds: AtomicUsize::new(0),
            stop: AtomicBool::new(false),
        });
        open(&shared);
        thread::spawn({
            let shared = Arc::clone(&shared);
            move || outwards(&shared)
        });
        Self { inside, shared }
    }

    /// As [`Nat::start`], with another public port after every `datagrams` datagrams in both directions together.
    #[track_caller]
    pub fn restless(host: &Host, to: SocketAddr, datagrams: usize) -> Self {
        Self::new(host, to, Some(datagrams))
    }

    /// Address that the client sends to.
    pub fn inside(&self) -> SocketAddr {
        self.inside
    }

    /// Changes the public port.
    pub fn rebind(&self) {
        rebind(&self.shared);
    }

    /// Number of changes of the public port so far.
    pub fn rebinds(&self) -> usize {
        self.shared.rebinds.load(Ordering::SeqCst)
    }
}

impl Drop for Nat {
    fn drop(&mut self) {
        self.shared.stop.store(true, Ordering::SeqCst);
    }
}

/// Interval in which a thread looks for the signal to stop.
const TICK: Duration = Duration::from_millis(100);

fn rebind(shared: &Arc<Shared>) {
    open(shared);
    shared.rebinds.fetch_add(1, Ordering::SeqCst);
}

/// Counts a datagram, and changes the port when it is time to.
fn count(shared: &Arc<Shared>) {
    let carried = shared.carried.fetch_add(1, Ordering::SeqCst) + 1;
    if shared.every.is_some_and(|every| carried.is_multiple_of(every)) {
        rebind(shared);
    }
}

fn open(shared: &Arc<Shared>) {
    let socket = Arc::new(udp::bind(&shared.host, udp::unspecified(shared.to)).or_fail("outer socket"));
    socket.connect(shared.to).or_fail("route to the far side");
    socket.set_read_timeout(Some(TICK)).or_fail("time limit");
    shared.outer.lock().unwrap_or_else(PoisonError::into_inner).insert(0, Arc::clone(&socket));
    let shared = Arc::clone(shared);
    thread::spawn(move || inwards(&shared, &socket));
}

fn outwards(shared: &Arc<Shared>) {
    let mut buffer = vec![0; 1 << 16];
    while !shared.stop.load(Ordering::SeqCst) {
        let Ok((length, from)) = shared.inner.recv_from(&mut buffer) else { continue };
        *shared.client.lock().unwrap_or_else(PoisonError::into_inner) = Some(from);
        let present = shared.outer.lock().unwrap_or_else(PoisonError::into_inner).first().cloned();
        if let Some(socket) = present {
            // A refusal by the far side shows up here; the client is not told, as by a real NAT.
            let _refused = socket.send(buffer.get(..length).unwrap_or_default());
            count(shared);
        }
    }
}

fn inwards(shared: &Arc<Shared>, socket: &Arc<UdpSocket>) {
    let mut buffer = vec![0; 1 << 16];
    let is_present = || {
        let outer = shared.outer.lock().unwrap_or_else(PoisonError::into_inner);
        outer.first().is_some_and(|present| Arc::ptr_eq(present, socket))
    };
    while !shared.stop.load(Ordering::SeqCst) && is_present() {
        let Ok(length) = socket.recv(&mut buffer) else { continue };
        let client = *shared.client.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(client) = client.filter(|_| is_present()) {
            let _lost = shared.inner.send_to(buffer.get(..length).unwrap_or_default(), client);
            count(shared);
        }
    }
}
