//! A small HTTP/1.1 server for those who look at the daemon: one bounded request, one answer, connection closed. It knows
//! no resources; a [`Site`] answers. Errs towards closing: the proxy's own connections matter more.

mod listener;
mod places;
mod request;
mod response;

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    io::{AsyncRead, AsyncReadExt as _, AsyncWrite, AsyncWriteExt as _},
    task::{AbortHandle, JoinSet},
    time::timeout,
};

use self::{
    listener::Connection,
    places::{Places, Source},
    request::Malformed,
};
pub(crate) use self::{
    listener::Listener,
    request::{Method, Request},
    response::Response,
};

/// Connections at once. For a further one, the oldest of whoever has the most is closed.
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
    let mut places = Places::new(MAX_AT_ONCE);
    let mut exchanges = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(ended) = exchanges.join_next_with_id() => {
                let id = ended.map_or_else(|error| error.id(), |(id, ())| id);
                places.free(|exchange: &AbortHandle| exchange.id() == id);
                continue;
            }
        };
        let (source, connection) = match accepted {
            Ok(Connection::Stranger) => continue,
            Ok(connection @ Connection::Unix(_)) => (Source::Unix, connection),
            Ok(Connection::Tcp(stream, peer)) => (Source::of(peer.ip()), Connection::Tcp(stream, peer)),
            Err(_shortage) => {
                // Descriptors ran out; the proxy's connections matter more than a look at it.
                tokio::time::sleep(Duration::from_secs(1)).await;
                continue;
            }
        };
        let exchange = exchanges.spawn(converse(connection, Arc::clone(&site)));
        if let Some(goes) = places.take(source, exchange) {
            goes.abort();
        }
    }
}

async fn converse(connection: Connection, site: Arc<impl Site>) {
    let exchange = async {
        match connection {
            Connection::Tcp(stream, _) => {
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

    /// A connection of somebody at 127.0.0.`last`.
    async fn connect_from(last: u8, address: SocketAddr) -> TcpStream {
        let socket = tokio::net::TcpSocket::new_v4().unwrap();
        socket.bind(([127, 0, 0, last], 0).into()).unwrap();
        socket.connect(address).await.unwrap()
    }

    #[tokio::test]
    async fn whoever_holds_all_places_keeps_nobody_out() {
        let address = served().await;
        let mut held = Vec::new();
        for number in 0..MAX_AT_ONCE {
            let mut stream = connect_from(1, address).await;
            stream.write_all(b"GET /").await.unwrap();
            held.push((number, stream));
        }
        let mut other = connect_from(2, address).await;
        let text = answer(&mut other, "GET /other HTTP/1.1\r\n\r\n").await;
        assert!(text.ends_with("/other"), "{text}");
        for (number, mut stream) in held {
            let text = answer(&mut stream, &format!("{number} HTTP/1.1\r\n\r\n")).await;
            let expected = if number == 0 { String::new() } else { format!("/{number}") };
            assert!(text.ends_with(&expected) && text.is_empty() == (number == 0), "{number}: {text}");
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
