//! A SOCKS5 server (RFC 1928) without authentication: CONNECT to IPv4 and IPv6 addresses.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpStream},
    thread,
};

use super::server::Server;
use crate::{socket, topology::Host};

/// Serves SOCKS5 at `address` of `host`, and connects onwards from there.
#[track_caller]
pub fn start(host: &Host, address: impl Into<SocketAddr>) -> Server {
    let inside = host.clone();
    Server::start(host, address, move |stream, _| {
        // A client that breaks off is its own test's business.
        let _ended = serve(&inside, stream);
    })
}

fn serve(host: &Host, mut stream: &TcpStream) -> io::Result<()> {
    // Section 3: version, method list; 0 is "no authentication".
    let [version, methods] = read(stream)?;
    let mut offered = vec![0; usize::from(methods)];
    stream.read_exact(&mut offered)?;
    if version != 5 || !offered.contains(&0) {
        return stream.write_all(&[5, 0xff]);
    }
    stream.write_all(&[5, 0])?;

    // Section 4: version, command 1 (CONNECT), reserved, address type.
    let [_, command, _, kind] = read(stream)?;
    let address = match kind {
        1 => IpAddr::from(Ipv4Addr::from(read::<4>(stream)?)),
        4 => IpAddr::from(Ipv6Addr::from(read::<16>(stream)?)),
        _ => return stream.write_all(&[5, 8, 0, 1, 0, 0, 0, 0, 0, 0]),
    };
    let to = SocketAddr::new(address, u16::from_be_bytes(read(stream)?));
    if command != 1 {
        return stream.write_all(&[5, 7, 0, 1, 0, 0, 0, 0, 0, 0]);
    }
    let Ok(onward) = socket::try_dial(host, None, to) else {
        return stream.write_all(&[5, 5, 0, 1, 0, 0, 0, 0, 0, 0]);
    };
    stream.write_all(&[5, 0, 0, 1, 0, 0, 0, 0, 0, 0])?;
    thread::scope(|scope| {
        scope.spawn(|| copy(stream, &onward));
        copy(&onward, stream);
    });
    Ok(())
}

fn copy(mut from: &TcpStream, mut to: &TcpStream) {
    let _ended = io::copy(&mut from, &mut to);
    let _ended = to.shutdown(Shutdown::Write);
}

fn read<const N: usize>(mut stream: &TcpStream) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    stream.read_exact(&mut bytes)?;
    Ok(bytes)
}
