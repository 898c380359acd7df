//! The metrics endpoint: `/metrics` for Prometheus, `/healthz` and `/readyz` for those who start and balance. One bounded
//! request, one answer, connection closed.

use std::{io, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
    time::timeout,
};

use super::{
    Metrics,
    request::{Format, Refused, Request, Resource},
    text,
};

/// Connections at once; further ones are closed.
const MAX_AT_ONCE: usize = 16;
/// Time for a whole exchange.
const DEADLINE: Duration = Duration::from_secs(5);
/// Longest request head, in bytes.
const MAX_HEAD: usize = 4096;
/// Content type of everything but metrics.
const PLAIN: &str = "text/plain; charset=utf-8";

/// An answer.
struct Response {
    status: &'static str,
    content_type: &'static str,
    body: String,
}

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
            if let Ok(Err(error)) = timeout(DEADLINE, exchange(stream, &metrics)).await {
                tracing::debug!("metrics: {error}");
            }
            drop(slot);
        });
    }
}

async fn exchange(mut stream: TcpStream, metrics: &Metrics) -> io::Result<()> {
    let mut head = Vec::with_capacity(MAX_HEAD);
    while !head.windows(4).any(|window| window == b"\r\n\r\n") {
        let free = MAX_HEAD.saturating_sub(head.len());
        if free == 0 {
            break;
        }
        if (&mut stream).take(free as u64).read_buf(&mut head).await? == 0 {
            return Ok(());
        }
    }
    let request = if head.len() < MAX_HEAD { Request::read(&head) } else { Err(Refused::Malformed) };
    let Response { status, content_type, body } = match request {
        Ok(request) => answer(request.resource, metrics)?,
        Err(refused) => refusal(refused),
    };
    let length = body.len();
    let mut response = format!(
        "HTTP/1.1 {status}\r\nContent-Type: {content_type}\r\nContent-Length: {length}\r\nCache-Control: no-store\r\n\
         Connection: close\r\n\r\n"
    );
    if !request.is_ok_and(|request| request.head) {
        response.push_str(&body);
    }
    stream.write_all(response.as_bytes()).await
}

fn answer(resource: Resource, metrics: &Metrics) -> io::Result<Response> {
    let plain = |status, body: String| Response { status, content_type: PLAIN, body };
    Ok(match resource {
        Resource::Metrics(format) => {
            let openmetrics = metrics.encode().map_err(io::Error::other)?;
            let body = match format {
                Format::OpenMetrics => openmetrics,
                Format::Prometheus => text::prometheus(&openmetrics),
            };
            Response { status: "200 OK", content_type: format.content_type(), body }
        }
        // The thread that answers is the one that does everything but forwarding.
        Resource::Health => plain("200 OK", "alive\n".to_owned()),
        Resource::Readiness => match metrics.readiness().reason() {
            Some(reason) => plain("503 Service Unavailable", format!("not ready: {reason}\n")),
            None if metrics.is_file_refused() => {
                let body = "ready\nthe last reload was refused: the configuration before it stays in effect\n";
                plain("200 OK", body.to_owned())
            }
            None => plain("200 OK", "ready\n".to_owned()),
        },
    })
}

fn refusal(refused: Refused) -> Response {
    let (status, body) = match refused {
        Refused::Malformed => ("400 Bad Request", "not a request that is answered here\n"),
        Refused::NotFound => ("404 Not Found", "there are /metrics, /healthz and /readyz\n"),
        Refused::Method => ("405 Method Not Allowed\r\nAllow: GET, HEAD", "only GET and HEAD are answered\n"),
    };
    Response { status, content_type: PLAIN, body: body.to_owned() }
}
