//! A small HTTP/1.1 server for those who look at the daemon: one bounded request, one answer, connection closed. It knows
//! no resources; a [`Site`] answers. Errs towards closing: the proxy's own connections matter more.

mod listener;
mod request;
mod response;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    time::timeout,
};

use self::{listener::Connection, request::Malformed};
pub(crate) use self::{
    listener::Listener,
    request::{Method, Request},
    response::Response,
};

/// Connections at once; further ones are closed.
const MAX_AT_ONCE: usize = 16;
/// Time for a whole exchange.
const DEADLINE: Duration = Duration::from_secs(10);
/// Longest request head, in bytes.
const MAX_HEAD: usize = 4096;

/// What is served.
pub(crate) trait Site: Send + Sync + 'static {
    /// Answers a request that came to the address `local`; `None` over a unix socket. HEAD is answered as GET is: the
    /// server leaves out the body.
    fn answer(&self, request: &Request<'_>, local: Option<SocketAddr>) -> impl Future<Output = Response> + Send;
}

/// Answers clients until dropped.
pub(crate) async fn serve(listener: Listener, site: Arc<impl Site>) {
    let slots = Arc::new(tokio::sync::Semaphore::new(MAX_AT_ONCE));
    loop {
        let Ok(connection) = listener.accept().await else {
            // Descriptors ran out; the proxy's connections matter more than a look at it.
            tokio::time::sleep(Duration::from_secs(1)).await;
            continue;
        };
        let Ok(slot) = Arc::clone(&slots).try_acquire_owned() else { continue };
        let site = Arc::clone(&site);
        tokio::spawn(async move {
            let exchange = async {
                match connection {
                    Connection::Tcp(stream) => {
                        let local = stream.local_addr()?;
                        exchange(stream, Some(local), &*site).await
                    }
                    Connection::Unix(stream) => exchange(stream, None, &*site).await,
                    Connection::Stranger => Ok(()),
                }
            };
            if let Ok(Err(error)) = timeout(DEADLINE, exchange).await {
                tracing::debug!("HTTP: {error}");
            }
            drop(slot);
        });
    }
}

async fn exchange(
    mut stream: impl AsyncRead + AsyncWrite + Unpin,
    local: Option<SocketAddr>,
    site: &impl Site,
) -> io::Result<()> {
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
    let request = if head.len() < MAX_HEAD { Request::read(&head) } else { Err(Malformed) };
    let (response, is_head) = match &request {
        Ok(request) => (site.answer(request, local).await, request.method == Method::Head),
        Err(Malformed) => (Response::malformed(), false),
    };
    stream.write_all(&response.into_bytes(is_head)).await?;
    stream.shutdown().await
}

#[cfg(test)]
mod tests {
    use tokio::net::{TcpListener, TcpStream};

    use super::*;

    /// Answers with the path.
    #[derive(Debug)]
    struct Echo;

    impl Site for Echo {
        async fn answer(&self, request: &Request<'_>, _local: Option<SocketAddr>) -> Response {
            Response::plain("200 OK", request.path.to_owned())
        }
    }

    async fn served() -> SocketAddr {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        tokio::spawn(serve(Listener::Tcp(listener), Arc::new(Echo)));
        address
    }

    /// What is answered to `text`, until the end.
    async fn answer(stream: &mut TcpStream, text: &str) -> String {
        let mut read = Vec::new();
        // A connection that is closed at once may be reset.
        let _sent = stream.write_all(text.as_bytes()).await;
        let _ended = stream.read_to_end(&mut read).await;
        String::from_utf8(read).unwrap()
    }

    #[tokio::test]
    async fn connections_are_bounded_and_their_places_free_again() {
        let address = served().await;
        let mut held = Vec::new();
        for number in 0..MAX_AT_ONCE {
            let mut stream = TcpStream::connect(address).await.unwrap();
            stream.write_all(b"GET /").await.unwrap();
            held.push((number, stream));
        }
        let mut further = TcpStream::connect(address).await.unwrap();
        assert_eq!(answer(&mut further, "GET /a HTTP/1.1\r\n\r\n").await, "", "one too many");
        let (number, mut last) = held.pop().unwrap();
        let text = answer(&mut last, &format!("{number} HTTP/1.1\r\n\r\n")).await;
        assert!(text.starts_with("HTTP/1.1 200 OK\r\n") && text.ends_with("\r\n\r\n/15"), "{text}");
        // The place is free a moment after the answer.
        loop {
            let mut next = TcpStream::connect(address).await.unwrap();
            if answer(&mut next, "GET /b HTTP/1.1\r\n\r\n").await.ends_with("/b") {
                break;
            }
        }
    }

    /// Time passes while everybody waits.
    #[tokio::test(start_paused = true)]
    async fn whoever_does_not_finish_a_request_is_closed() {
        let address = served().await;
        for text in ["", "GET / HTTP/1.1\r\n", "GET / HTTP/1.1\r\nHost: a\r\n"] {
            let mut stream = TcpStream::connect(address).await.unwrap();
            let begun = tokio::time::Instant::now();
            assert_eq!(answer(&mut stream, text).await, "", "{text}");
            assert!(begun.elapsed() >= DEADLINE, "{text}");
        }
    }

    #[tokio::test]
    async fn a_head_that_is_too_long_is_refused() {
        let address = served().await;
        for (row, length, status) in [("longest", MAX_HEAD - 1, "200 OK"), ("one more", MAX_HEAD, "400 Bad Request")] {
            let (begin, end) = ("GET / HTTP/1.1\r\nX: ", "\r\n\r\n");
            let filling = "x".repeat(length - begin.len() - end.len());
            let mut stream = TcpStream::connect(address).await.unwrap();
            let text = answer(&mut stream, &format!("{begin}{filling}{end}")).await;
            assert!(text.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{row}: {text}");
        }
    }
}
