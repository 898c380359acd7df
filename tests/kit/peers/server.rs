//! Small TCP servers made of threads: echo, tagged, recording.

use std::{
    io::{self, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
        mpsc,
    },
    thread,
};

use crate::{OrFail as _, process::PATIENCE, socket, topology::Host, wait};

/// A listening server that runs one function per connection, each on its own thread. Dropping it closes the listener;
/// connections end when the function does.
#[derive(Debug)]
pub struct Server {
    address: SocketAddr,
    listener: Arc<TcpListener>,
    count: Arc<Count>,
}

#[derive(Debug, Default)]
struct Count {
    accepted: AtomicUsize,
    open: AtomicUsize,
}

impl Server {
    /// Serves `address` on `host`.
    ///
    /// # Panics
    ///
    /// When the address cannot be bound.
    #[track_caller]
    pub fn start(
        host: &Host,
        address: impl Into<SocketAddr>,
        service: impl Fn(&TcpStream, SocketAddr) + Send + Sync + 'static,
    ) -> Self {
        let address = address.into();
        let listener = Arc::new(socket::listen(host, address));
        let count = Arc::new(Count::default());
        let server = Self { address, listener: Arc::clone(&listener), count: Arc::clone(&count) };
        let service = Arc::new(service);
        thread::spawn(move || {
            // The loop ends when `Drop` shuts the listener down.
            while let Ok((stream, peer)) = listener.accept() {
                let (service, count) = (Arc::clone(&service), Arc::clone(&count));
                count.accepted.fetch_add(1, Ordering::SeqCst);
                count.open.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || {
                    if let Ok(stream) = socket::guard(stream) {
                        service(&stream, peer);
                    }
                    count.open.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    /// Sends back what it receives.
    #[track_caller]
    pub fn echo(host: &Host, address: impl Into<SocketAddr>) -> Self {
        Self::start(host, address, |stream, _| {
            let _ended = io::copy(&mut &*stream, &mut &*stream);
        })
    }

    /// Says `tag` and a line feed at once, then reads to the end.
    #[track_caller]
    pub fn tagged(host: &Host, address: impl Into<SocketAddr>, tag: &str) -> Self {
        let line = format!("{tag}\n");
        Self::start(host, address, move |mut stream, _| {
            if stream.write_all(line.as_bytes()).is_ok() {
                let _ended = io::copy(&mut stream, &mut io::sink());
            }
        })
    }

    /// Address that it serves.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Connections so far.
    pub fn accepted(&self) -> usize {
        self.count.accepted.load(Ordering::SeqCst)
    }

    /// Connections not yet ended.
    pub fn open(&self) -> usize {
        self.count.open.load(Ordering::SeqCst)
    }

    /// Waits until `count` connections have come since the start.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_for_accepted(&self, count: usize) {
        wait::until(&format!("{count} connections have come to {}", self.address), || {
            (self.accepted() >= count).then_some(())
        });
    }

    /// Waits until exactly `count` connections are open.
    ///
    /// # Panics
    ///
    /// When that does not happen.
    #[track_caller]
    pub fn wait_for_open(&self, count: usize) {
        wait::until(&format!("{count} connections are open at {}", self.address), || {
            (self.open() == count).then_some(())
        });
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Linux wakes a blocked accept(2) when the listener is shut down.
        let _done = rustix::net::shutdown(&*self.listener, rustix::net::Shutdown::Both);
    }
}

/// One connection as a [`Recorder`] saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Record {
    /// Address of the other side.
    pub peer: SocketAddr,
    /// All that arrived.
    pub bytes: Vec<u8>,
    /// Its end: in good order or not.
    pub end: socket::End,
}

/// A server that keeps what it receives and says nothing.
#[derive(Debug)]
pub struct Recorder {
    server: Server,
    records: Mutex<mpsc::Receiver<Record>>,
}

impl Recorder {
    /// Serves `address` on `host`.
    #[track_caller]
    pub fn start(host: &Host, address: impl Into<SocketAddr>) -> Self {
        let (sender, records) = mpsc::channel();
        let server = Server::start(host, address, move |mut stream, peer| {
            let mut bytes = Vec::new();
            let end = match stream.read_to_end(&mut bytes) {
                Ok(_) => socket::End::Closed,
                Err(_) => socket::End::Reset,
            };
            // Nobody listens any more when the test has ended.
            let _unheard = sender.send(Record { peer, bytes, end });
        });
        Self { server, records: Mutex::new(records) }
    }

    /// The next connection that has ended, in order of their ends.
    ///
    /// # Panics
    ///
    /// When none ends in time.
    #[track_caller]
    pub fn next(&self) -> Record {
        let records = self.records.lock().unwrap_or_else(PoisonError::into_inner);
        records.recv_timeout(PATIENCE).or_fail(format_args!("a connection recorded at {}", self.server.address()))
    }

    /// The server behind the recorder.
    pub fn server(&self) -> &Server {
        &self.server
    }
}
