//! QUIC servers and clients by quinn, with one small protocol on their streams: who are you, take this, give me that.
//!
//! Sockets are made on the host; each endpoint has a runtime of its own, so that it goes on while the test does
//! something else. Everything is bounded by [`PATIENCE`](crate::process::PATIENCE), or by [`BULK_PATIENCE`] for bulk.

mod client;
mod ids;
mod server;

use std::{net::SocketAddr, sync::Arc, time::Duration};

use quinn::{Endpoint, TokioRuntime};
use tokio::runtime::Runtime;

pub use quinn::EndpointConfig;

pub use self::{
    client::{Connection, QuicClient},
    ids::telling,
    server::QuicServer,
};
use super::udp;
use crate::{OrFail as _, flow::Flow, topology::Host};

/// Limit of a bulk transfer. A guard against hanging for ever, not a measurement.
pub const BULK_PATIENCE: Duration = Duration::from_secs(300);

/// First byte of a stream: the request. Seed and length of a [`Flow`] follow.
const WHO: u8 = b'?';
const DOWNLOAD: u8 = b'd';
const UPLOAD: u8 = b'u';
const REQUEST: usize = 17;

/// A server's answer about itself and the connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Identity {
    /// Tag of the server.
    pub tag: String,
    /// The client's address as the server sees it.
    pub client: String,
    /// Name that the client asked for.
    pub server_name: String,
    /// Protocol that was agreed on.
    pub alpn: String,
}

/// ALPN entries that make a ClientHello longer by about `length` bytes, to be offered before a real one.
pub fn filler(length: usize) -> Vec<String> {
    const ENTRY: usize = 100;
    (0..length / (ENTRY + 1)).map(|n| format!("{n:0>ENTRY$}")).collect()
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
fn endpoint(
    runtime: &Runtime,
    host: &Host,
    address: SocketAddr,
    config: EndpointConfig,
    server: Option<quinn::ServerConfig>,
) -> Endpoint {
    let socket = udp::bind(host, address).or_fail(format_args!("bind {address}"));
    let _inside = runtime.enter();
    Endpoint::new(config, server, socket, Arc::new(TokioRuntime)).or_fail("endpoint")
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
