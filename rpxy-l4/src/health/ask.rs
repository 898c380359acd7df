//! Asks one address once.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpStream, UdpSocket},
    time::timeout,
};

use super::kinds::{Judgement, Question};
use crate::net::{self, Dial};

/// Bytes read at once.
const BUFFER: usize = 2048;

/// What one check found.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Found {
    /// It lives; `answered` unless it merely did not refuse.
    Passed { answered: bool },
    /// In a few words, for the log.
    Failed(String),
    /// Nothing, for want of something on our side, which comes back.
    Nothing(String),
}

/// Where and over what a question is asked.
#[derive(Debug)]
pub(super) enum Over {
    /// From the first of some addresses of this machine that can be had; from the kernel's choice without any.
    Tcp(SocketAddr, Vec<IpAddr>),
    Udp(SocketAddr),
    Unix(Arc<Path>),
}

/// Asks `question`, and waits for the answer for `within` at most.
pub(super) async fn ask(over: Over, question: &mut Question, within: Duration) -> Found {
    let asked = async {
        match over {
            Over::Tcp(address, sources) => over_tcp(address, &sources, question).await,
            Over::Udp(address) => over_udp(address, question).await,
            Over::Unix(path) => over_stream(net::unix::connected(&path)?, question).await,
        }
    };
    match timeout(within, asked).await {
        Ok(Ok(Judgement::Failed(reason))) => Found::Failed(reason),
        Ok(Ok(Judgement::Passed)) => Found::Passed { answered: true },
        Ok(Ok(Judgement::NeedMore)) => Found::Failed("the answer is not complete".to_owned()),
        Ok(Err(error)) if net::is_exhaustion(&error) || error.kind() == io::ErrorKind::AddrNotAvailable => {
            Found::Nothing(error.to_string())
        }
        Ok(Err(error)) => Found::Failed(error.to_string()),
        Err(_elapsed) if question.may_be_silent() => Found::Passed { answered: false },
        Err(_elapsed) => Found::Failed(format!("no answer in {within:?}")),
    }
}

async fn over_tcp(address: SocketAddr, sources: &[IpAddr], question: &mut Question) -> io::Result<Judgement> {
    let stream = TcpStream::from_std(connecting(address, sources)?)?;
    stream.writable().await?;
    if let Some(error) = stream.take_error()? {
        return Err(error);
    }
    if net::is_connected_to_itself(&stream, address) {
        // Nobody listens there.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    over_stream(stream, question).await
}

async fn over_stream(mut stream: TcpStream, question: &mut Question) -> io::Result<Judgement> {
    stream.write_all(question.bytes()).await?;
    let mut judgement = question.sent();
    let mut buffer = [0; BUFFER];
    while judgement == Judgement::NeedMore {
        let read = stream.read(&mut buffer).await?;
        if read == 0 {
            break;
        }
        judgement = question.arrived(buffer.get(..read).unwrap_or_default());
    }
    Ok(judgement)
}

fn connecting(to: SocketAddr, sources: &[IpAddr]) -> io::Result<std::net::TcpStream> {
    if sources.is_empty() {
        return Dial::new(to)?.connect();
    }
    let from = |source: &IpAddr| {
        let dial = Dial::new(to)?;
        dial.set_source(*source)?;
        dial.connect()
    };
    let mut tried = sources.iter().map(from);
    let had =
        |result: &io::Result<_>| !result.as_ref().is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable);
    tried.find(had).unwrap_or_else(|| Err(io::ErrorKind::AddrNotAvailable.into()))
}

async fn over_udp(address: SocketAddr, question: &mut Question) -> io::Result<Judgement> {
    // Without GRO: a buffer is one datagram.
    let any: IpAddr = if address.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
    let socket = UdpSocket::bind((any, 0)).await?;
    socket.connect(address).await?;
    if socket.local_addr().is_ok_and(|own| own == address) {
        // Nobody listens there, and the kernel has picked that very port for us.
        return Err(io::ErrorKind::ConnectionRefused.into());
    }
    socket.send(question.bytes()).await?;
    let mut buffer = [0; BUFFER];
    loop {
        let read = socket.recv(&mut buffer).await?;
        match question.arrived(buffer.get(..read).unwrap_or_default()) {
            Judgement::NeedMore => {}
            judgement @ (Judgement::Passed | Judgement::Failed(_)) => return Ok(judgement),
        }
    }
}
