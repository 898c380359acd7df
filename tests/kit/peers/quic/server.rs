//! The server.

use std::{
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::{Context as _, bail};
use quinn::{
    Endpoint, EndpointConfig,
    crypto::rustls::{HandshakeData, QuicServerConfig},
};
use rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject as _};
use tokio::runtime::Runtime;

use super::{DOWNLOAD, REQUEST, UPLOAD, WHO, end, endpoint, provider, runtime, verify, write};
use crate::{OrFail as _, flow::Flow, peers::programs::Certificate, topology::Host};

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
        Self::start_with(host, address, tag, certificate, alpns, EndpointConfig::default())
    }

    /// As [`QuicServer::start`], with the endpoint set up as told.
    ///
    /// # Panics
    ///
    /// Likewise.
    #[track_caller]
    pub fn start_with(
        host: &Host,
        address: impl Into<SocketAddr>,
        tag: &str,
        certificate: &Certificate,
        alpns: &[&str],
        endpoint_config: EndpointConfig,
    ) -> Self {
        let chain = vec![CertificateDer::from_pem_file(certificate.file()).or_fail("certificate")];
        let key = PrivateKeyDer::from_pem_file(certificate.key()).or_fail("key");
        let builder = rustls::ServerConfig::builder_with_provider(provider());
        let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).or_fail("TLS 1.3");
        let mut tls = builder.with_no_client_auth().with_single_cert(chain, key).or_fail("certificate");
        tls.alpn_protocols = alpns.iter().map(|alpn| alpn.as_bytes().to_vec()).collect();
        let config = quinn::ServerConfig::with_crypto(Arc::new(QuicServerConfig::try_from(tls).or_fail("suites")));

        let runtime = runtime();
        let endpoint = endpoint(&runtime, host, address.into(), endpoint_config, Some(config));
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
