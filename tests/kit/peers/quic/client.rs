//! The client: one UDP socket and its connections.

use std::{future::Future, net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context as _, bail};
use quinn::{Endpoint, EndpointConfig, TransportConfig, crypto::rustls::QuicClientConfig};
use rustls::{
    RootCertStore,
    pki_types::{CertificateDer, pem::PemObject as _},
};
use tokio::runtime::Runtime;

use super::{BULK_PATIENCE, DOWNLOAD, Identity, UPLOAD, WHO, end, endpoint, provider, runtime, verify, write};
use crate::{
    OrFail as _,
    flow::Flow,
    peers::{programs::Certificate, udp},
    process::PATIENCE,
    topology::Host,
    waiting::Waiting,
};

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
        let endpoint = endpoint(&runtime, host, from.into(), EndpointConfig::default(), None);
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

fn block<T>(
    handle: &tokio::runtime::Handle,
    time: Duration,
    work: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<T> {
    let _waiting = Waiting::begin("a QUIC peer answers");
    handle.block_on(async { tokio::time::timeout(time, work).await.context("took too long")? })
}
