//! The groups of the process at the other end of a unix socket.
//!
//! Neither the standard library nor our socket crates wrap this option.
#![expect(unsafe_code, reason = "SO_PEERGROUPS has no safe wrapper")]

use std::{
    io,
    os::fd::{AsFd, AsRawFd as _},
};

/// Groups asked for at first; most processes have fewer.
const FEW: usize = 64;
/// Most groups of a process (`NGROUPS_MAX`).
const MOST: usize = 65_536;

/// The supplementary groups that the peer of a connected unix socket had when it called connect(2) (`SO_PEERGROUPS`, since
/// Linux 4.13). Its own group is not always among them.
///
/// # Errors
///
/// The socket has no peer, or the kernel does not tell.
pub(super) fn peer_groups(socket: &impl AsFd) -> io::Result<Vec<u32>> {
    let mut room = FEW;
    loop {
        let mut groups: Vec<libc::gid_t> = vec![0; room];
        let mut len = libc::socklen_t::try_from(size_of_val(groups.as_slice())).map_err(io::Error::other)?;
        // SAFETY: the kernel writes `len` bytes at most to the vector, which has that many, and the length it wants to
        // `len` (sk_getsockopt() in net/core/sock.c); every bit pattern is a gid_t. The descriptor is borrowed.
        let result = unsafe {
            libc::getsockopt(
                socket.as_fd().as_raw_fd(),
                libc::SOL_SOCKET,
                libc::SO_PEERGROUPS,
                groups.as_mut_ptr().cast(),
                &raw mut len,
            )
        };
        let told = usize::try_from(len).map_err(io::Error::other)? / size_of::<libc::gid_t>();
        if result == 0 {
            groups.truncate(told);
            return Ok(groups);
        }
        let error = io::Error::last_os_error();
        if error.raw_os_error() != Some(libc::ERANGE) || told <= room || told > MOST {
            return Err(error);
        }
        room = told;
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixStream;

    use rustix::process::Gid;

    use super::*;

    #[test]
    fn the_groups_of_the_peer_are_those_of_the_process() {
        let (one, _other) = UnixStream::pair().unwrap();
        let mut own: Vec<u32> = rustix::process::getgroups().unwrap().into_iter().map(Gid::as_raw).collect();
        let mut told = peer_groups(&one).unwrap();
        own.sort_unstable();
        told.sort_unstable();
        assert_eq!(told, own);
        let unconnected = socket2::Socket::new(socket2::Domain::UNIX, socket2::Type::STREAM, None).unwrap();
        peer_groups(&unconnected).unwrap_err();
    }
}
