//! Unix sockets: one that only its owner gets to, those that clients connect to, and connections to backends.
//!
//! Errs towards not starting: what is at the path is replaced only when it is a socket on which surely nobody listens.

use std::{
    fs, io,
    os::{
        fd::{AsFd, OwnedFd},
        unix::{
            fs::{FileTypeExt, MetadataExt, PermissionsExt},
            net::{UnixListener, UnixStream},
        },
    },
    path::{Path, PathBuf},
    time::Duration,
};

use rustix::{
    fs::{Mode, fchmod},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};

/// Waiting connections; who comes is a person or a script.
const BACKLOG: i32 = 16;

/// A listening socket with its file, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct PrivateListener {
    listener: tokio::net::UnixListener,
    _file: SocketFile,
}

/// The file of a socket.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another daemon may have put its own in the place.
    identity: (u64, u64),
}

impl PrivateListener {
    /// Listens at `path`, for root and the user that this process runs as. What a dead process has left there is
    /// replaced.
    ///
    /// # Errors
    ///
    /// Somebody listens there ([`io::ErrorKind::AddrInUse`]), something else is there
    /// ([`io::ErrorKind::AlreadyExists`]), or the directory does not allow it.
    pub(crate) fn bind(path: &Path) -> io::Result<Self> {
        let (socket, file) = bind(path)?;
        socket.listen(BACKLOG)?;
        let listener = tokio::net::UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok(Self { listener, _file: file })
    }

    /// The next connection, with whether its peer is root or the user that this process runs as (`SO_PEERCRED`, unix(7)).
    pub(crate) async fn accept(&self) -> io::Result<(tokio::net::UnixStream, bool)> {
        let (stream, _unnamed) = self.listener.accept().await?;
        // Of whoever called connect(2), at that time; unknown is a stranger.
        let peer = stream.peer_cred().map(|peer| peer.uid()).ok();
        let own = rustix::process::geteuid().as_raw();
        Ok((stream, peer.is_some_and(|peer| peer == 0 || peer == own)))
    }
}

/// A socket at `path` that does not listen yet, for the user of this process alone.
fn bind(path: &Path) -> io::Result<(Socket, SocketFile)> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    // The kernel makes the file with the mode of the socket (unix_bind() in net/unix/af_unix.c), less the umask: so
    // there is no moment at which others could connect, and the umask, which all threads share, stays alone.
    fchmod(socket.as_fd(), Mode::RUSR | Mode::WUSR)?;
    let address = SockAddr::unix(path)?;
    if let Err(error) = socket.bind(&address) {
        if error.kind() != io::ErrorKind::AddrInUse {
            return Err(error);
        }
        remove_stale(path, &address)?;
        socket.bind(&address)?;
    }
    let made = fs::symlink_metadata(path)?;
    Ok((socket, SocketFile { path: path.to_owned(), identity: (made.dev(), made.ino()) }))
}

/// A listening socket for clients, with its file, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct PublicListener {
    socket: Socket,
    _file: SocketFile,
}

impl PublicListener {
    /// Listens at `path` for those whom `mode` and `group` let connect. What a dead process has left there is replaced.
    ///
    /// # Errors
    ///
    /// As [`PrivateListener::bind`]; or there is no such group, or the process may not give the file to it.
    pub(crate) fn bind(path: &Path, mode: u32, group: Option<&str>, backlog: u32) -> io::Result<Self> {
        let group = group.map(group_id).transpose()?;
        let (socket, file) = bind(path)?;
        if let Some(group) = group {
            std::os::unix::fs::chown(path, None, Some(group))?;
        }
        fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Self { socket, _file: file })
    }

    /// The same socket, for a worker.
    pub(crate) fn share(&self) -> io::Result<UnixListener> {
        Ok(OwnedFd::from(self.socket.try_clone()?).into())
    }
}

/// The number of a group, by number or by name in /etc/group (group(5)).
fn group_id(group: &str) -> io::Result<u32> {
    if let Ok(number) = group.parse() {
        return Ok(number);
    }
    let of_line = |line: &str| {
        let mut fields = line.split(':');
        (fields.next() == Some(group)).then(|| fields.nth(1)?.parse().ok()).flatten()
    };
    let unknown = || io::Error::new(io::ErrorKind::InvalidInput, format!("there is no group {group} in /etc/group"));
    fs::read_to_string("/etc/group")?.lines().find_map(of_line).ok_or_else(unknown)
}

/// A connected stream as the type that TCP is served by. To tokio, that is a descriptor that becomes readable and writable;
/// reading, writing, splice(2) and shutdown(2) are the same for both. Only its addresses are none of IP.
pub(crate) fn served_as_tcp(stream: UnixStream) -> io::Result<tokio::net::TcpStream> {
    stream.set_nonblocking(true)?;
    tokio::net::TcpStream::from_std(OwnedFd::from(stream).into())
}

/// Connects to a backend. Never waits: a full queue is an error ([`io::ErrorKind::WouldBlock`]).
///
/// # Errors
///
/// Nobody listens, or too many wait already.
pub(crate) fn connected(path: &Path) -> io::Result<tokio::net::TcpStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    socket.connect(&SockAddr::unix(path)?)?;
    served_as_tcp(OwnedFd::from(socket).into())
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        let ours = |found: fs::Metadata| (found.dev(), found.ino()) == self.identity;
        if fs::symlink_metadata(&self.path).is_ok_and(ours) {
            // A file that cannot be removed is found to be stale by the next start.
            drop(fs::remove_file(&self.path));
        }
    }
}

/// Connects to the socket at `path`. Neither that nor any later read or write waits for longer than `limit`.
///
/// # Errors
///
/// Nobody listens, or not within `limit` ([`io::ErrorKind::WouldBlock`]).
pub(crate) fn connect(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The former also bounds the wait for a place in the listener's queue (unix_stream_connect()).
    socket.set_write_timeout(Some(limit))?;
    socket.set_read_timeout(Some(limit))?;
    socket.connect(&SockAddr::unix(path)?)?;
    Ok(OwnedFd::from(socket).into())
}

/// Removes the socket at `path` if it refuses connections: then nobody listens on it, and nobody ever will. Of two
/// daemons that start in the same moment, the second may still take the place of the first.
fn remove_stale(path: &Path, address: &SockAddr) -> io::Result<()> {
    let found = fs::symlink_metadata(path)?;
    if !found.file_type().is_socket() {
        let message = "the path exists and is not a socket; remove it or choose another path";
        return Err(io::Error::new(io::ErrorKind::AlreadyExists, message));
    }
    let probe = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None)?;
    match probe.connect(address) {
        Err(error) if error.raw_os_error() == Some(Errno::CONNREFUSED.raw_os_error()) => fs::remove_file(path),
        // Without the right to connect it is another user's; a full queue is somebody's.
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(error),
        Ok(()) | Err(_) => Err(io::Error::new(
            io::ErrorKind::AddrInUse,
            "another process listens there; stop it, or choose another path",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_file_is_the_owners_alone_and_goes_with_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let bound = PrivateListener::bind(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let _client = connect(&path, Duration::from_secs(10)).unwrap();
        let (_stream, trusted) = bound.accept().await.unwrap();
        assert!(trusted);
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn only_what_a_dead_process_has_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        // A closed listener leaves its file.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = PrivateListener::bind(&path).unwrap();
        assert_eq!(PrivateListener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        assert!(path.exists());

        // Another one in its place is not the first one's to remove.
        fs::remove_file(&path).unwrap();
        let second = PrivateListener::bind(&path).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);

        fs::write(&path, "text").unwrap();
        assert_eq!(PrivateListener::bind(&path).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let missing = directory.path().join("no/such");
        assert_eq!(PrivateListener::bind(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_queue_that_is_full_is_a_live_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _bound = PrivateListener::bind(&path).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        let mut clients = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
            if client.connect(&address).is_err() {
                break;
            }
            clients.push(client);
        }
        assert_eq!(PrivateListener::bind(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let in_vain = connect(&path, Duration::from_millis(10));
        assert_eq!(in_vain.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn clients_connect_as_mode_and_group_let_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let own = rustix::process::getegid().as_raw();
        for (mode, group) in [(0o660, Some(own.to_string())), (0o600, None), (0o666, Some("root".to_owned()))] {
            if group.as_deref() == Some("root") && own != 0 {
                continue;
            }
            let bound = PublicListener::bind(&path, mode, group.as_deref(), 16).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.permissions().mode() & 0o7777, metadata.gid()), (mode, own));
            let (listener, _second) = (bound.share().unwrap(), bound.share().unwrap());
            let _client = connected(&path).unwrap();
            assert!(listener.accept().is_ok());
            drop(bound);
            assert!(!path.exists(), "the file goes, though workers have the socket yet");
        }
        let unknown = PublicListener::bind(&path, 0o600, Some("no such group"), 16).unwrap_err();
        assert!(unknown.to_string().contains("no such group"), "{unknown}");
        assert!(!path.exists());
        assert_eq!(connected(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
