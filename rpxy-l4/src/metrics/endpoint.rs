//! `GET /metrics` for Prometheus: one bounded request, one answer, connection closed.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::Metrics;

/// Connections at once; further ones are closed.
const MAX_AT_ONCE: usize = 16;
/// Time for a whole exchange.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest request head, in bytes.
const MAX_HEAD: usize = 4096;

/// Answers scrapers until dropped.
pub(crate) async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(MAX_AT_ONCE));
    loop {
        let Ok((stream, _peer)) = listener.accept().await else {
            // Descriptors ran out; the proxy's connections matter more than a scrape.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let metrics = Arc::clone(&metrics);
        tokio::spawn(async move {
            if let Ok(Err(error)) = timeout(DEADLINE, answer(stream, &metrics)).await {
                tracing::debug!("metrics: {error}");
            }
            drop(slot);
        });
    }
}

async fn answer(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut request = Vec::with_capacity(MAX_HEAD);
    while !request.windows(4).any(|window| window == b"\r\n\r\n") {
        let free = MAX_HEAD.saturating_sub(request.len());
        if (&mut stream).take(free as u64).read_buf(&mut request).await? == 0 {
            return Ok(());
        }
    }
    let (status, body) = if request.starts_with(b"GET /metrics ") {
        ("200 OK", metrics.encode().map_err(io::Error::other)?)
    } else {
        ("404 Not Found", "only GET /metrics is answered here\n".to_owned())
    };
    let length = body.len();
    let response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: application/openmetrics-text; version=1.0.0; charset=utf-8\r\n\
         Content-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
    stream.write_all(response.as_bytes()).await
}
