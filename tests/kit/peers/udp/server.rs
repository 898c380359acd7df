//! A UDP server that records what it receives; its answers are up to the test.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc, Condvar, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Instant,
};

use super::{Datagram, bind, receive};
use crate::{OrFail as _, process::PATIENCE, topology::Host, waiting::Waiting};

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
        let _waiting = Waiting::begin(&format!("{count} datagrams come to {}", self.address));
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
