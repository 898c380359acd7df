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
