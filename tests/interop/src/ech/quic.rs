//! QUIC: servers and clients by quiche.

use std::{
    io::ErrorKind,
    net::{SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
    thread::JoinHandle,
    time::{Duration, Instant},
};

use boring::ssl::{SslContextBuilder, SslFiletype, SslMethod};
use quiche::{Config, Connection, ConnectionId, Header, PROTOCOL_VERSION, RecvInfo, Type};
use rpxy_l4_tests::{OrFail as _, peers::programs::Certificate, process::PATIENCE, topology::Host, wait};

use super::{
    keys::Keys,
    tls::{Answer, Offer, Refused},
};

/// The longest datagram, in bytes.
const DATAGRAM: usize = 1350;
/// The longest wait for a datagram before timers are looked at.
const TICK: Duration = Duration::from_millis(5);
/// Length of the connection IDs of both sides, in bytes.
const CID: usize = 12;
/// The stream on which the client asks and the server answers.
const STREAM: u64 = 0;
const ALPN: &[&[u8]] = &[b"h3", b"hq"];
/// Behind the tag of a server that was asked by early data.
pub const EARLY: &str = ", early";

/// Deviations from an ordinary server.
#[derive(Debug, Default, Clone, Copy)]
pub struct Serve<'k> {
    /// Keys whose configurations are handed out after a rejection.
    pub retry_configs: Option<&'k Keys>,
    /// Groups for the key exchange; see [`super::tls::Serve::groups`].
    pub groups: Option<&'static str>,
    /// Has every client prove its address by a Retry packet first (RFC 9000 section 8.1.2).
    pub retry: bool,
}

/// A server that tells who it is on every client's first stream. Dropping it ends it.
#[derive(Debug)]
pub struct Server {
    stop: Arc<AtomicBool>,
    accepted: Arc<AtomicUsize>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves `address` on `host`.
    ///
    /// # Panics
    ///
    /// When the address cannot be bound.
    #[track_caller]
    pub fn start(host: &Host, address: SocketAddr, tag: &str, certificate: &Certificate, serve: Serve<'_>) -> Self {
        let socket = bind(host, address);
        let config = server_config(certificate, serve).or_fail("QUIC server");
        let (stop, accepted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
        let endpoint = Endpoint {
            socket,
            address,
            config,
            tag: tag.to_owned(),
            retry: serve.retry,
            connections: Vec::new(),
            accepted: Arc::clone(&accepted),
            next_id: 0,
        };
        let thread = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || endpoint.run(&stop)
        });
        Self { stop, accepted, thread: Some(thread) }
    }

    /// Connections that were begun so far.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            let _panicked = thread.join();
        }
    }
}

fn bind(host: &Host, address: SocketAddr) -> UdpSocket {
    // A process that another test is just starting may still hold the socket of the server before.
    let socket = wait::until("the address is free", || match host.run(|| UdpSocket::bind(address)) {
        Err(error) if error.kind() == ErrorKind::AddrInUse => None,
        bound => Some(bound.or_fail(format_args!("bind {address}"))),
    });
    socket.set_read_timeout(Some(TICK)).or_fail("read timeout");
    socket
}

fn server_config(certificate: &Certificate, serve: Serve<'_>) -> anyhow::Result<Config> {
    let mut tls = SslContextBuilder::new(SslMethod::tls())?;
    tls.set_certificate_chain_file(certificate.file())?;
    tls.set_private_key_file(certificate.key(), SslFiletype::PEM)?;
    if let Some(groups) = serve.groups {
        tls.set_curves_list(groups)?;
    }
    if let Some(keys) = serve.retry_configs {
        tls.set_ech_keys(&keys.boring()?)?;
    }
    let mut config = Config::with_boring_ssl_ctx_builder(PROTOCOL_VERSION, tls)?;
    config.set_application_protos(ALPN)?;
    flow_control(&mut config);
    Ok(config)
}

fn flow_control(config: &mut Config) {
    config.enable_early_data();
    // The path is a few metres of memory, and what is lost should be missed soon.
    config.set_initial_rtt(Duration::from_millis(10));
    config.set_max_idle_timeout(30_000);
    config.set_initial_max_data(1 << 20);
    config.set_initial_max_stream_data_bidi_local(1 << 16);
    config.set_initial_max_stream_data_bidi_remote(1 << 16);
    config.set_initial_max_streams_bidi(8);
}

/// A connection at the server.
struct Accepted {
    connection: Connection,
    peer: SocketAddr,
    /// Destination of the client before it knows the server's own ID.
    first_dcid: Vec<u8>,
}

struct Endpoint {
    socket: UdpSocket,
    address: SocketAddr,
    config: Config,
    tag: String,
    retry: bool,
    connections: Vec<Accepted>,
    accepted: Arc<AtomicUsize>,
    next_id: u64,
}

impl Endpoint {
    fn run(mut self, stop: &AtomicBool) {
        let mut buffer = [0; 2048];
        while !stop.load(Ordering::SeqCst) {
            if let Some((length, peer)) = receive(&self.socket, &mut buffer) {
                self.take(&mut buffer[..length], peer);
            }
            for Accepted { connection, peer, .. } in &mut self.connections {
                tick(connection);
                answer(connection, &self.tag);
                flush(connection, |datagram| drop(self.socket.send_to(datagram, *peer)));
            }
            self.connections.retain(|accepted| !accepted.connection.is_closed());
        }
    }

    fn take(&mut self, datagram: &mut [u8], peer: SocketAddr) {
        let Ok(header) = Header::from_slice(datagram, CID) else { return };
        let known = |accepted: &Accepted| {
            accepted.first_dcid == *header.dcid || accepted.connection.source_ids().any(|id| *id == header.dcid)
        };
        let index = match self.connections.iter().position(known) {
            Some(index) => index,
            None if header.ty != Type::Initial => return,
            None => match self.begin(&header, peer) {
                Some(begun) => {
                    self.connections.push(begun);
                    self.accepted.fetch_add(1, Ordering::SeqCst);
                    self.connections.len() - 1
                }
                None => return,
            },
        };
        let accepted = &mut self.connections[index];
        accepted.peer = peer;
        let _refused = accepted.connection.recv(datagram, RecvInfo { from: peer, to: self.address });
    }

    /// A connection for a first Initial packet; `None` while the client has to prove its address.
    fn begin(&mut self, header: &Header<'_>, peer: SocketAddr) -> Option<Accepted> {
        self.next_id += 1;
        let mut scid = [0; CID];
        scid[..8].copy_from_slice(&self.next_id.to_be_bytes());
        // No two servers give out the same.
        scid[8..10].copy_from_slice(&self.address.port().to_be_bytes());
        let fresh = ConnectionId::from_ref(&scid);
        let token = header.token.as_deref().unwrap_or_default();
        if self.retry && token.is_empty() {
            // The token is the first connection ID: tests have no forgers.
            let mut out = [0; DATAGRAM];
            let length =
                quiche::retry(&header.scid, &header.dcid, &fresh, &header.dcid, header.version, &mut out).ok()?;
            let _lost = self.socket.send_to(&out[..length], peer);
            return None;
        }
        let odcid = ConnectionId::from_ref(token);
        let (scid, odcid) = if self.retry { (&header.dcid, Some(&odcid)) } else { (&fresh, None) };
        let connection = quiche::accept(scid, odcid, self.address, peer, &mut self.config).ok()?;
        Some(Accepted { connection, peer, first_dcid: header.dcid.to_vec() })
    }
}

/// Answers the client's question, once it is there.
fn answer(connection: &mut Connection, tag: &str) {
    let mut question = [0; 64];
    while connection.stream_readable(STREAM) {
        // Before the handshake is over, it can only have come as early data.
        let early = if connection.is_established() { "" } else { EARLY };
        let Ok((_, fin)) = connection.stream_recv(STREAM, &mut question) else { return };
        if fin {
            let tag = &format!("{tag}{early}");
            let alpn = String::from_utf8_lossy(connection.application_proto()).into_owned();
            let line = Answer::line(tag, connection.server_name().unwrap_or_default(), &alpn);
            let _closed = connection.stream_send(STREAM, line.as_bytes(), true);
        }
    }
}

fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> Option<(usize, SocketAddr)> {
    // Nothing yet, or an ICMP error, which is a loss like any other.
    socket.recv_from(buffer).ok()
}

fn tick(connection: &mut Connection) {
    if connection.timeout().is_some_and(|left| left.is_zero()) {
        connection.on_timeout();
    }
}

fn flush(connection: &mut Connection, mut send: impl FnMut(&[u8])) {
    let mut out = [0; DATAGRAM];
    while let Ok((length, _)) = connection.send(&mut out) {
        send(&out[..length]);
    }
}

/// A bad line: of a hundred datagrams, each way, so many are lost. The same seed loses the same ones.
#[derive(Debug, Clone, Copy)]
pub struct Loss {
    percent: u64,
    state: u64,
}

impl Loss {
    /// Nothing is lost.
    pub const NONE: Self = Self { percent: 0, state: 1 };

    /// Loses `percent` of a hundred.
    pub fn new(percent: u64, seed: u64) -> Self {
        // Spread, since the generator begins slowly with small numbers.
        Self { percent, state: seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1 }
    }

    /// Returns true when the next datagram is to be lost (xorshift64).
    fn strikes(&mut self) -> bool {
        self.state ^= self.state << 13;
        self.state ^= self.state >> 7;
        self.state ^= self.state << 17;
        self.state % 100 < self.percent
    }
}

/// Connects from `host`, asks, and reads the answer.
pub fn client(
    host: &Host,
    from: SocketAddr,
    to: SocketAddr,
    certificate: &Certificate,
    name: &str,
    offer: &Offer,
    loss: Loss,
) -> Result<Answer, Refused> {
    resume(host, (from, to), certificate, name, offer, loss, &mut None)
}

/// As [`client`], with what an earlier connection left in `session`, so that the question can go as early data; leaves
/// its own there.
pub fn resume(
    host: &Host,
    (from, to): (SocketAddr, SocketAddr),
    certificate: &Certificate,
    name: &str,
    offer: &Offer,
    mut loss: Loss,
    session: &mut Option<Vec<u8>>,
) -> Result<Answer, Refused> {
    let socket = bind(host, from);
    let local = socket.local_addr().or_fail("local address");
    let mut config = client_config(certificate).or_fail("QUIC client");
    let scid = [0x5c; CID];
    let mut connection = quiche::connect(Some(name), &ConnectionId::from_ref(&scid), local, to, &mut config)
        .map_err(|error| refused(&error.to_string()))?;
    match offer {
        Offer::Nothing => {}
        Offer::Grease => connection.as_mut().set_enable_ech_grease(true),
        Offer::Encrypted(list) => connection.as_mut().set_ech_config_list(list).or_fail("ECHConfigList"),
    }
    if let Some(session) = session.take() {
        connection.set_session(&session).or_fail("session");
    }
    let (mut buffer, mut line, mut asked) = ([0; 2048], Vec::new(), false);
    let deadline = Instant::now() + PATIENCE;
    while Instant::now() < deadline {
        if (connection.is_established() || connection.is_in_early_data()) && !asked {
            asked = connection.stream_send(STREAM, b"who are you?", true).is_ok();
        }
        flush(&mut connection, |datagram| {
            if !loss.strikes() {
                let _unreachable = socket.send_to(datagram, to);
            }
        });
        if connection.is_closed() {
            return Err(ended(&mut connection));
        }
        if let Some((length, peer)) = receive(&socket, &mut buffer)
            && !loss.strikes()
        {
            let _refused = connection.recv(&mut buffer[..length], RecvInfo { from: peer, to: local });
        }
        tick(&mut connection);
        while connection.stream_readable(STREAM) {
            let Ok((length, fin)) = connection.stream_recv(STREAM, &mut buffer) else { break };
            line.extend_from_slice(&buffer[..length]);
            if fin {
                let accepted = connection.as_mut().ech_accepted();
                *session = connection.session().map(<[u8]>::to_vec);
                let _done = connection.close(true, 0, b"");
                flush(&mut connection, |datagram| drop(socket.send_to(datagram, to)));
                return Ok(Answer::parse(&String::from_utf8_lossy(&line), accepted));
            }
        }
    }
    Err(refused("no answer in time"))
}

fn client_config(certificate: &Certificate) -> anyhow::Result<Config> {
    let mut tls = SslContextBuilder::new(SslMethod::tls())?;
    tls.set_ca_file(certificate.file())?;
    let mut config = Config::with_boring_ssl_ctx_builder(PROTOCOL_VERSION, tls)?;
    config.verify_peer(true);
    config.set_application_protos(&ALPN[..1])?;
    flow_control(&mut config);
    Ok(config)
}

fn refused(error: &str) -> Refused {
    Refused { error: error.to_owned(), retry_configs: None }
}

fn ended(connection: &mut Connection) -> Refused {
    let error = match (connection.local_error(), connection.peer_error()) {
        (None, None) => "closed".to_owned(),
        errors => format!("{errors:?}"),
    };
    let retry_configs = connection.as_mut().get_ech_retry_configs().map(<[u8]>::to_vec);
    Refused { error, retry_configs }
}
