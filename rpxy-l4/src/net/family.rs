//! Backends of an IP version that this machine does not have. The kernel says so in the words that it has for used-up ports,
//! too, or not in words at all.

use std::{
    io,
    net::{Ipv6Addr, SocketAddr},
};

use rustix::io::Errno;
use socket2::{Domain, Protocol, Socket, Type};

/// `error`, met on the way to `address`, in plain words where it means that this machine has no IPv6.
#[must_use]
pub(super) fn explain(error: io::Error, address: SocketAddr) -> io::Error {
    if !address.is_ipv6() {
        return error;
    }
    match error.raw_os_error().map(Errno::from_raw_os_error) {
        Some(Errno::AFNOSUPPORT) => unreachable("this machine has no IPv6"),
        Some(Errno::ADDRNOTAVAIL) if has_no_source(address) => {
            unreachable("this machine has no IPv6 address to reach it from")
        }
        _ => error,
    }
}

fn unreachable(why: &'static str) -> io::Error {
    io::Error::new(io::ErrorKind::NetworkUnreachable, why)
}

/// Returns whether there is no own address to reach `address` from, by asking the kernel to choose one for a socket that
/// has its port already. Sends nothing.
fn has_no_source(address: SocketAddr) -> bool {
    let Ok(socket) = Socket::new(Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)) else { return false };
    let any = SocketAddr::from((Ipv6Addr::UNSPECIFIED, 0));
    if socket.bind(&any.into()).is_err() {
        return false;
    }
    let connected = socket.connect(&address.into());
    connected.is_err_and(|error| error.kind() == io::ErrorKind::AddrNotAvailable)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_has_nothing_to_do_with_ipv6_is_left_as_it_is() {
        let error = |errno: Errno| io::Error::from_raw_os_error(errno.raw_os_error());
        let (v4, v6) = ("127.0.0.1:1".parse().unwrap(), "[::1]:1".parse().unwrap());
        for (row, errno, address, expected) in [
            ("no ports in IPv4", Errno::ADDRNOTAVAIL, v4, io::ErrorKind::AddrNotAvailable),
            ("no ports in IPv6: loopback is a source", Errno::ADDRNOTAVAIL, v6, io::ErrorKind::AddrNotAvailable),
            ("refused", Errno::CONNREFUSED, v6, io::ErrorKind::ConnectionRefused),
            ("no IPv6 in the kernel", Errno::AFNOSUPPORT, v6, io::ErrorKind::NetworkUnreachable),
        ] {
            // Where the test machine has no IPv6 at all, its loopback is no source either.
            if row.contains("loopback") && has_no_source(v6) {
                continue;
            }
            assert_eq!(explain(error(errno), address).kind(), expected, "{row}");
        }
    }
}
