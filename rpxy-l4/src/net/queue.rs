//! Bytes that a socket still has to deliver.
//!
//! Neither the standard library nor our socket crates wrap this ioctl.
#![expect(unsafe_code, reason = "SIOCOUTQ has no safe wrapper")]

use std::{ffi::c_int, os::fd::AsFd};

use rustix::ioctl::{Getter, Opcode, ioctl};

/// `SIOCOUTQ`, which is `TIOCOUTQ` (tcp(7)).
const SIOCOUTQ: Opcode = 0x5411;

/// Bytes written to a TCP socket that its peer has not acknowledged. A connection that was reset keeps its last count.
pub(crate) fn undelivered(socket: &impl AsFd) -> u32 {
    // SAFETY: SIOCOUTQ takes no input and writes one int (tcp_ioctl() in net/ipv4/tcp.c); on a descriptor that is no
    // socket it is TIOCOUTQ, which does the same, or fails.
    let result = unsafe { ioctl(socket, Getter::<SIOCOUTQ, c_int>::new()) };
    result.ok().and_then(|bytes| u32::try_from(bytes).ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use std::{
        io::{Read, Write},
        net::{Ipv4Addr, TcpListener, TcpStream},
    };

    use super::*;

    #[test]
    fn what_the_peer_has_no_room_for_is_undelivered() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let mut sender = TcpStream::from(std::os::fd::OwnedFd::from(
            crate::net::tcp_connecting(listener.local_addr().unwrap()).unwrap(),
        ));
        let mut receiver = listener.accept().unwrap().0;
        assert_eq!(undelivered(&sender), 0);
        let mut sent = 0;
        while let Ok(n) = sender.write(&[0; 65536]) {
            sent += n;
        }
        assert!(undelivered(&sender) > 0);
        receiver.read_exact(&mut vec![0; sent]).unwrap();
        while undelivered(&sender) > 0 {
            std::thread::yield_now();
        }
        assert_eq!(undelivered(&std::fs::File::open("/dev/null").unwrap()), 0);
    }
}
