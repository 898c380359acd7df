//! Where the server listens: an address of TCP, or a unix socket for those who may read.

use std::{io, net::SocketAddr};

use tokio::net::{TcpListener, TcpStream, UnixStream};

use crate::net::unix::{Peer, PrivateListener};

/// A listening socket.
#[derive(Debug)]
pub(crate) enum Listener {
    /// For whoever gets to the address.
    Tcp(TcpListener),
    /// For root, the daemon's own user and the members of a group.
    Unix(PrivateListener),
}

/// An accepted connection.
pub(super) enum Connection {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
    /// Of somebody who may not connect.
    Stranger,
}

impl Listener {
    pub(super) async fn accept(&self) -> io::Result<Connection> {
        match self {
            Self::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Connection::Tcp(stream, peer)),
            Self::Unix(listener) => Ok(match listener.accept().await? {
                (stream, Peer::Owner | Peer::Member) => Connection::Unix(stream),
                (_, Peer::Stranger) => Connection::Stranger,
            }),
        }
    }
}
