//! `GET /metrics` for Prometheus: one bounded request, one answer, connection closed.

use std::{io, sync::Arc, time::Duration};

use tokio::{net::TcpListener, net::TcpStream, time::timeout};

use super::Metrics;

/// Scrapers are few; more than this at once is somebody else.
const MAX_AT_ONCE: usize = 16;
/// Time for a whole exchange.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest request head, in bytes.
const MAX_HEAD: usize = 4096;

/// Answers scrapers until dropped.
pub async fn serve(listener: TcpListener, metrics: Arc<Metrics>) {
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
            if let Ok(Err(error)) = timeout(DEADLINE, answer(&stream, &metrics)).await {
                tracing::debug!("metrics: {error}");
            }
            drop(slot);
        });
    }
}

async fn answer(stream: &TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut head = [0; MAX_HEAD];
    let mut filled = 0;
    let request = loop {
        stream.readable().await?;
        let Some(free) = head.get_mut(filled..).filter(|free| !free.is_empty()) else { return Ok(()) };
        match stream.try_read(free) {
            Ok(0) => return Ok(()),
            Ok(n) => filled += n,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error),
        }
        let head = head.get(..filled).unwrap_or_default();
        if head.windows(4).any(|w| w == b"\r\n\r\n") {
            break head;
        }
    };
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
    let mut rest = response.as_bytes();
    while !rest.is_empty() {
        stream.writable().await?;
        match stream.try_write(rest) {
            Ok(n) => rest = rest.get(n..).unwrap_or_default(),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}
