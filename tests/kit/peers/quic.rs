//! QUIC servers and clients by quinn, with one small protocol on their streams: who are you, take this, give me that.
//!
//! Sockets are made on the host; each endpoint has a runtime of its own, so that it goes on while the test does
//! something else. Everything is bounded by [`PATIENCE`], or by [`BULK_PATIENCE`] for bulk.

use std::{
    future::Future,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use anyhow::{Context as _, bail};
use quinn::{
    Endpoint, EndpointConfig, TokioRuntime, TransportConfig,
    crypto::rustls::{HandshakeData, QuicClientConfig, QuicServerConfig},
};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _},
};
use tokio::runtime::Runtime;

use super::{programs::Certificate, udp};
use crate::{OrFail as _, flow::Flow, process::PATIENCE, topology::Host};

/// How long a bulk transfer may take.
pub const BULK_PATIENCE: Duration = Duration::from_secs(120);

/// First byte of a stream: what the client wants. Seed and length of a [`Flow`] follow.
const WHO: u8 = b'?';
const DOWNLOAD: u8 = b'd';
const UPLOAD: u8 = b'u';
const REQUEST: usize = 17;

/// What a server says about itself and the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Which server this is.
    pub tag: String,
    /// The client's address as the server sees it.
    pub client: String,
    /// Name that the client asked for.
    pub server_name: String,
    /// Protocol that was agreed on.
    pub alpn: String,
}

/// A quinn server. Dropping it ends its connections.
#[derive(Debug)]
pub struct QuicServer {
    endpoint: Endpoint,
    accepted: Arc<AtomicUsize>,
    runtime: Option<Runtime>,
}

impl QuicServer {
    /// Serves `address` on `host` and agrees on one of `alpns`, or on none if there are none.
    ///
    /// # Panics
    ///
    /// When the address cannot be bound or the certificate not be read.
    #[track_caller]
    pub fn start(
        host: &Host,
        address: impl Into<SocketAddr>,
        tag: &str,
        certificate: &Certificate,
        alpns: &[&str],
    ) -> Self {
        let chain = vec![CertificateDer::from_pem_file(certificate.file()).or_fail("certificate")];
        let key = PrivateKeyDer::from_pem_file(certificate.key()).or_fail("key");
        let builder = rustls::ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).or_fail("TLS 1.3");
        let mut tls = builder.with_no_client_auth().with_single_cert(chain, key).or_fail("certificate");
        tls.alpn_protocols = alpns.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).or_fail("suites")));

        let runtime = runtime();
        let endpoint = endpoint(&runtime, host, address.into(), Some(config));
        let accepted = Arc::new(AtomicUsize::new(0));
        runtime.spawn(accept(endpoint.clone(), tag.to_owned(), Arc::clone(&accepted)));
        Self { endpoint, accepted, runtime: Some(runtime) }
    }

    /// Connections so far whose handshake is complete.
    pub fn accepted(&self) -> usize {
        self.accepted.load(Ordering::SeqCst)
    }
}

impl Drop for QuicServer {
    fn drop(&mut self) {
        end(&self.endpoint, self.runtime.take());
    }
}

/// A quinn client: one UDP socket, any number of connections. Dropping it ends them.
#[derive(Debug)]
pub struct QuicClient {
    host: Host,
    endpoint: Endpoint,
    roots: Arc<RootCertStore>,
    transport: Arc<TransportConfig>,
    runtime: Option<Runtime>,
}

impl QuicClient {
    /// A client on `host` bound to `from` (port 0 stands for any) that trusts `certificate`.
    ///
    /// # Panics
    ///
    /// When the address cannot be bound or the certificate not be read.
    #[track_caller]
    pub fn new(host: &Host, from: impl Into<SocketAddr>, certificate: &Certificate) -> Self {
        let mut roots = RootCertStore::empty();
        roots.add(CertificateDer::from_pem_file(certificate.file()).or_fail("certificate")).or_fail("trust");
        let runtime = runtime();
        let endpoint = endpoint(&runtime, host, from.into(), None);
        Self { host: host.clone(), endpoint, roots: Arc::new(roots), transport: Arc::default(), runtime: Some(runtime) }
    }

    /// Lets connections made from now on say something at least every `interval`.
    #[must_use]
    pub fn keep_alive(mut self, interval: Duration) -> Self {
        let mut transport = TransportConfig::default();
        transport.keep_alive_interval(Some(interval));
        self.transport = Arc::new(transport);
        self
    }

    /// Address of its socket.
    ///
    /// # Panics
    ///
    /// When the kernel does not tell, which it does.
    pub fn address(&self) -> SocketAddr {
        self.endpoint.local_addr().or_fail("local address")
    }

    /// Connects to the server `name` at `to`.
    ///
    /// # Errors
    ///
    /// When the handshake fails or is not answered.
    pub fn try_connect(&self, to: SocketAddr, name: &str, alpns: &[&str]) -> anyhow::Result<Connection> {
        self.try_connect_within(PATIENCE, to, name, alpns)
    }

    /// As [`QuicClient::try_connect`], giving up after `time`.
    ///
    /// # Errors
    ///
    /// When the handshake fails or is not answered.
    pub fn try_connect_within(
        &self,
        time: Duration,
        to: SocketAddr,
        name: &str,
        alpns: &[&str],
    ) -> anyhow::Result<Connection> {
        let builder = rustls::ClientConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13])?;
        let mut tls = builder.with_root_certificates(Arc::clone(&self.roots)).with_no_client_auth();
        tls.alpn_protocols = alpns.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        let mut config = quinn::ClientConfig::new(Arc::new(QuicClientConfig::try_from(tls)?));
        config.transport_config(Arc::clone(&self.transport));
        let runtime = self.runtime.as_ref().context("runtime")?;
        let connection =
            block(runtime.handle(), time, async { Ok(self.endpoint.connect_with(config, to, name)?.await?) })
                .with_context(|| format!("connect to {name} at {to}"))?;
        Ok(Connection { connection, handle: runtime.handle().clone() })
    }

    /// As [`QuicClient::try_connect`]; must succeed.
    #[track_caller]
    pub fn connect(&self, to: SocketAddr, name: &str, alpns: &[&str]) -> Connection {
        self.try_connect(to, name, alpns).or_fail("QUIC")
    }

    /// Moves to a new socket at `from`; connections migrate actively, each to another connection ID (RFC 9000
    /// section 9).
    ///
    /// # Panics
    ///
    /// When the address cannot be bound.
    #[track_caller]
    pub fn rebind(&self, from: impl Into<SocketAddr>) {
        let socket = udp::bind(&self.host, from.into()).or_fail("new socket");
        let _inside = self.runtime.as_ref().or_fail("runtime").enter();
        self.endpoint.rebind(socket).or_fail("rebind");
    }
}

impl Drop for QuicClient {
    fn drop(&mut self) {
        end(&self.endpoint, self.runtime.take());
    }
}

/// A client's connection. It ends when the last handle to it is dropped, or with its [`QuicClient`].
#[derive(Debug)]
pub struct Connection {
    connection: quinn::Connection,
    handle: tokio::runtime::Handle,
}

impl Connection {
    /// Asks the server who it is.
    ///
    /// # Errors
    ///
    /// When no answer comes within `time`.
    pub fn try_ask(&self, time: Duration) -> anyhow::Result<Identity> {
        let answer = block(&self.handle, time, async {
            let (_sending, mut receiving) = self.request(WHO, Flow { seed: 0, length: 0 }).await?;
            Ok(receiving.read_to_end(4096).await?)
        })?;
        let answer = String::from_utf8(answer)?;
        let mut lines = answer.split('\n').map(str::to_owned);
        let mut next = |what: &'static str| lines.next().context(what);
        Ok(Identity { tag: next("tag")?, client: next("client")?, server_name: next("name")?, alpn: next("ALPN")? })
    }

    /// As [`Connection::try_ask`]; must succeed.
    #[track_caller]
    pub fn ask(&self) -> Identity {
        self.try_ask(PATIENCE).or_fail("who is there")
    }

    /// Fetches `flow` from the server and compares it.
    ///
    /// # Errors
    ///
    /// When the connection fails and when a byte is wrong.
    pub fn download(&self, flow: Flow) -> anyhow::Result<()> {
        block(&self.handle, BULK_PATIENCE, async {
            let (_sending, mut receiving) = self.request(DOWNLOAD, flow).await?;
            verify(&mut receiving, flow).await
        })
    }

    /// Sends `flow` to the server, which compares it.
    ///
    /// # Errors
    ///
    /// When the connection fails and when a byte is wrong.
    pub fn upload(&self, flow: Flow) -> anyhow::Result<()> {
        block(&self.handle, BULK_PATIENCE, async {
            let (mut sending, mut receiving) = self.request(UPLOAD, flow).await?;
            write(&mut sending, flow).await?;
            sending.finish()?;
            let verdict = receiving.read_to_end(1000).await?;
            if verdict != b"ok" {
                bail!("{}", String::from_utf8_lossy(&verdict));
            }
            Ok(())
        })
    }

    async fn request(&self, kind: u8, flow: Flow) -> anyhow::Result<(quinn::SendStream, quinn::RecvStream)> {
        let (mut sending, receiving) = self.connection.open_bi().await?;
        sending.write_all(&[&[kind], flow.seed.to_be_bytes().as_slice(), &flow.length.to_be_bytes()].concat()).await?;
        Ok((sending, receiving))
    }
}

/// ALPN entries that make a ClientHello longer by about `length` bytes, to be offered before a real one.
pub fn filler(length: usize) -> Vec<String> {
    const ENTRY: usize = 100;
    (0..length / (ENTRY + 1)).map(|n| format!("{n:0>ENTRY$}")).collect()
}

async fn accept(endpoint: Endpoint, tag: String, accepted: Arc<AtomicUsize>) {
    while let Some(incoming) = endpoint.accept().await {
        let (tag, accepted) = (tag.clone(), Arc::clone(&accepted));
        tokio::spawn(async move {
            let Ok(connection) = incoming.await else { return };
            accepted.fetch_add(1, Ordering::SeqCst);
            while let Ok((sending, receiving)) = connection.accept_bi().await {
                let (connection, tag) = (connection.clone(), tag.clone());
                tokio::spawn(async move {
                    // A client that breaks off is its own test's business.
                    let _ended = serve(&connection, &tag, sending, receiving).await;
                });
            }
        });
    }
}

async fn serve(
    connection: &quinn::Connection,
    tag: &str,
    mut sending: quinn::SendStream,
    mut receiving: quinn::RecvStream,
) -> anyhow::Result<()> {
    let mut request = [0; REQUEST];
    receiving.read_exact(&mut request).await?;
    let [kind, numbers @ ..] = request;
    let (seed, length) = numbers.split_at(8);
    let flow = Flow { seed: u64::from_be_bytes(seed.try_into()?), length: u64::from_be_bytes(length.try_into()?) };
    match kind {
        WHO => {
            let handshake = connection.handshake_data().and_then(|data| data.downcast::<HandshakeData>().ok());
            let handshake = handshake.context("handshake data")?;
            let name = handshake.server_name.unwrap_or_default();
            let alpn = String::from_utf8(handshake.protocol.unwrap_or_default())?;
            let answer = [tag, &connection.remote_address().to_string(), &name, &alpn].join("\n");
            sending.write_all(answer.as_bytes()).await?;
        }
        DOWNLOAD => write(&mut sending, flow).await?,
        UPLOAD => {
            let verdict = verify(&mut receiving, flow).await;
            let verdict = verdict.map_or_else(|error| format!("{error:#}"), |()| "ok".to_owned());
            sending.write_all(verdict.as_bytes()).await?;
        }
        _ => bail!("no such request: {kind}"),
    }
    sending.finish()?;
    sending.stopped().await?;
    Ok(())
}

async fn write(sending: &mut quinn::SendStream, flow: Flow) -> anyhow::Result<()> {
    let mut blocks = flow.blocks();
    while let Some(block) = blocks.next() {
        sending.write_all(block).await?;
    }
    Ok(())
}

async fn verify(receiving: &mut quinn::RecvStream, flow: Flow) -> anyhow::Result<()> {
    let mut buffer = Vec::new();
    let mut blocks = flow.blocks();
    while let Some(expected) = blocks.next() {
        buffer.resize(expected.len(), 0);
        receiving.read_exact(&mut buffer).await?;
        flow.compare(&buffer, expected)?;
    }
    Ok(())
}

fn provider() -> Arc<rustls::crypto::CryptoProvider> {
    Arc::new(rustls::crypto::ring::default_provider())
}

fn runtime() -> Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().or_fail("runtime")
}

#[track_caller]
fn endpoint(runtime: &Runtime, host: &Host, address: SocketAddr, config: Option<quinn::ServerConfig>) -> Endpoint {
    let socket = udp::bind(host, address).or_fail(format_args!("bind {address}"));
    let _inside = runtime.enter();
    Endpoint::new(EndpointConfig::default(), config, socket, Arc::new(TokioRuntime)).or_fail("endpoint")
}

fn block<T>(
    handle: &tokio::runtime::Handle,
    time: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    handle.block_on(async { tokio::time::timeout(time, work).await.context("took too long")? })
}

fn end(endpoint: &Endpoint, runtime: Option<Runtime>) {
    endpoint.close(0_u8.into(), b"the test is over");
    if let Some(runtime) = runtime {
        // Waiting lets the farewell out and frees the port.
        let _too_long =
            runtime.block_on(async { tokio::time::timeout(Duration::from_secs(1), endpoint.wait_idle()).await });
        runtime.shutdown_background();
    }
}
