//! Unix sockets: one that only its owner and, where there is one, a group gets to, those that clients connect to, and
//! connections to backends.
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
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering},
    },
    time::Duration,
};

use rustix::{
    fs::{AtFlags, CWD, Gid, Mode, chownat, fchmod},
    io::Errno,
};
use socket2::{Domain, SockAddr, Socket, Type};

use super::peer_groups::peer_groups;

/// Waiting connections; who comes is a person or a script.
const BACKLOG: i32 = 16;

/// A listening socket with its file, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct PrivateListener {
    listener: tokio::net::UnixListener,
    members: Arc<Members>,
    _file: SocketFile,
}

/// The group whose members get in, too; it may change while the socket is listened on.
#[derive(Debug)]
pub(crate) struct Members {
    group: AtomicU32,
}

/// No group has this number (chown(2)).
const NO_GROUP: u32 = u32::MAX;

impl Members {
    fn new(group: Option<u32>) -> Self {
        Self { group: AtomicU32::new(group.unwrap_or(NO_GROUP)) }
    }

    /// From now on it is `group`; its members can connect once [`give_to`] has given them the file.
    pub(crate) fn set(&self, group: Option<u32>) {
        self.group.store(group.unwrap_or(NO_GROUP), Ordering::Relaxed);
    }

    fn group(&self) -> Option<u32> {
        Some(self.group.load(Ordering::Relaxed)).filter(|group| *group != NO_GROUP)
    }
}

/// Who is at the other end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// Root, or the user that this process runs as.
    Owner,
    /// Another user, who is in the group.
    Member,
    /// Anybody else.
    Stranger,
}

/// The reason why there is no listening socket.
#[derive(Debug, thiserror::Error)]
pub(crate) enum BindError {
    /// The path cannot be had.
    #[error(transparent)]
    Listen(#[from] io::Error),
    /// The file cannot be given to the group.
    #[error(transparent)]
    Group(io::Error),
}

/// The file of a socket.
#[derive(Debug)]
struct SocketFile {
    path: PathBuf,
    /// Device and inode: another daemon may have put its own in the place. `None` if it is another process's.
    identity: Option<(u64, u64)>,
}

impl PrivateListener {
    /// Listens at `path`, for root, the user that this process runs as and the members of `group`. What a dead process has
    /// left there is replaced.
    ///
    /// # Errors
    ///
    /// Somebody listens there ([`io::ErrorKind::AddrInUse`]), something else is there
    /// ([`io::ErrorKind::AlreadyExists`]), or the directory does not allow it. Or the file cannot be given to the group.
    pub(crate) fn bind(path: &Path, group: Option<u32>) -> Result<Self, BindError> {
        let (socket, file) = bind(path)?;
        if group.is_some() {
            give_to(path, group).map_err(BindError::Group)?;
        }
        socket.listen(BACKLOG)?;
        let listener = tokio::net::UnixListener::from_std(OwnedFd::from(socket).into())?;
        Ok(Self { listener, members: Arc::new(Members::new(group)), _file: file })
    }

    /// The group whose members get in.
    pub(crate) fn members(&self) -> &Arc<Members> {
        &self.members
    }

    /// The next connection, with who its peer is (`SO_PEERCRED` and `SO_PEERGROUPS`, unix(7)).
    pub(crate) async fn accept(&self) -> io::Result<(tokio::net::UnixStream, Peer)> {
        let (stream, _unnamed) = self.listener.accept().await?;
        let peer = self.identify(&stream);
        Ok((stream, peer))
    }

    /// Looks at whoever called connect(2), as it was at that time; what is unknown is a stranger.
    fn identify(&self, stream: &tokio::net::UnixStream) -> Peer {
        let Ok(peer) = stream.peer_cred() else { return Peer::Stranger };
        if peer.uid() == 0 || peer.uid() == rustix::process::geteuid().as_raw() {
            return Peer::Owner;
        }
        let is_member = |group| peer.gid() == group || peer_groups(stream).is_ok_and(|groups| groups.contains(&group));
        if self.members.group().is_some_and(is_member) { Peer::Member } else { Peer::Stranger }
    }
}

/// Lets the members of `group` connect to the socket at `path`, or nobody but its owner. First it becomes the group's, then
/// its members may write to it, which is what connect(2) asks for.
///
/// # Errors
///
/// This process is neither privileged nor a member of the group.
pub(crate) fn give_to(path: &Path, group: Option<u32>) -> io::Result<()> {
    let Some(group) = group else { return fs::set_permissions(path, fs::Permissions::from_mode(0o600)) };
    chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o660))
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
    Ok((socket, SocketFile { path: path.to_owned(), identity: Some((made.dev(), made.ino())) }))
}

/// Lets those connect whom `mode` and `group` let. Nobody else may in between: the group changes under the fewer permissions.
fn admit(path: &Path, mode: u32, group: Option<u32>) -> io::Result<()> {
    if let Some(group) = group {
        fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        chownat(CWD, path, None, Some(Gid::from_raw(group)), AtFlags::SYMLINK_NOFOLLOW)?;
    }
    fs::set_permissions(path, fs::Permissions::from_mode(mode))
}

/// A listening socket for clients, with its file, which goes when this is dropped.
#[derive(Debug)]
pub(crate) struct PublicListener {
    socket: Socket,
    file: SocketFile,
}

impl PublicListener {
    /// Listens at `path` for those whom `mode` and `group` let connect. What a dead process has left there is replaced.
    ///
    /// # Errors
    ///
    /// As [`PrivateListener::bind`].
    pub(crate) fn bind(path: &Path, mode: u32, group: Option<u32>, backlog: u32) -> io::Result<Self> {
        let (socket, file) = bind(path)?;
        admit(path, mode, group)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Self { socket, file })
    }

    /// A socket that another process has opened at `path`, for those whom `mode` and `group` let connect now. The file is
    /// the other process's until [`PublicListener::own`].
    pub(crate) fn take_over(
        socket: OwnedFd,
        path: &Path,
        mode: u32,
        group: Option<u32>,
        backlog: u32,
    ) -> io::Result<Self> {
        let socket = Socket::from(socket);
        admit(path, mode, group)?;
        socket.set_nonblocking(true)?;
        socket.listen(i32::try_from(backlog).unwrap_or(i32::MAX))?;
        Ok(Self { socket, file: SocketFile { path: path.to_owned(), identity: None } })
    }

    /// Others may connect from now on: those whom `mode` and `group` let, or the process's own group. Whoever is connected stays.
    ///
    /// # Errors
    ///
    /// The process is neither privileged nor a member of the group, or the file is another one now.
    pub(crate) fn admit(&self, mode: u32, group: Option<u32>) -> io::Result<()> {
        let path = &self.file.path;
        let found = fs::symlink_metadata(path)?;
        if self.file.identity.is_some_and(|identity| identity != (found.dev(), found.ino())) {
            return Err(io::Error::other("it is another file now"));
        }
        admit(path, mode, Some(group.unwrap_or_else(|| rustix::process::getegid().as_raw())))
    }

    /// From now on the file goes when this is dropped.
    pub(crate) fn own(&mut self) {
        self.file.identity = fs::symlink_metadata(&self.file.path).ok().map(|found| (found.dev(), found.ino()));
    }

    /// Leaves the file to another process.
    pub(crate) fn leave(&mut self) {
        self.file.identity = None;
    }

    /// The same socket, for a worker.
    pub(crate) fn share(&self) -> io::Result<UnixListener> {
        Ok(OwnedFd::from(self.socket.try_clone()?).into())
    }
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
        let ours = |found: fs::Metadata| Some((found.dev(), found.ino())) == self.identity;
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

    fn kind(bound: Result<PrivateListener, BindError>) -> io::ErrorKind {
        match bound.unwrap_err() {
            BindError::Listen(error) | BindError::Group(error) => error.kind(),
        }
    }

    #[tokio::test]
    async fn the_file_is_the_owners_alone_and_goes_with_the_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let bound = PrivateListener::bind(&path, None).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o600);
        let _client = connect(&path, Duration::from_secs(10)).unwrap();
        let (_stream, peer) = bound.accept().await.unwrap();
        assert_eq!(peer, Peer::Owner);
        drop(bound);
        assert!(!path.exists());
    }

    #[tokio::test]
    async fn the_file_is_opened_to_a_group_that_is_the_processs_own() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let own = rustix::process::getegid().as_raw();
        let bound = PrivateListener::bind(&path, Some(own)).unwrap();
        let made = fs::metadata(&path).unwrap();
        assert_eq!((made.permissions().mode() & 0o7777, made.gid()), (0o660, own));
        drop(bound);
        if !rustix::process::geteuid().is_root() {
            let refused = PrivateListener::bind(&path, Some(0));
            assert!(matches!(refused, Err(BindError::Group(_))), "{refused:?}");
            assert!(!path.exists(), "nothing is left behind");
        }
    }

    #[tokio::test]
    async fn only_what_a_dead_process_has_left_is_replaced() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        // A closed listener leaves its file.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        let first = PrivateListener::bind(&path, None).unwrap();
        assert_eq!(kind(PrivateListener::bind(&path, None)), io::ErrorKind::AddrInUse);
        assert!(path.exists());

        // Another one in its place is not the first one's to remove.
        fs::remove_file(&path).unwrap();
        let second = PrivateListener::bind(&path, None).unwrap();
        drop(first);
        assert!(path.exists());
        drop(second);

        fs::write(&path, "text").unwrap();
        assert_eq!(kind(PrivateListener::bind(&path, None)), io::ErrorKind::AlreadyExists);
        assert_eq!(fs::read_to_string(&path).unwrap(), "text");
        let missing = directory.path().join("no/such");
        assert_eq!(kind(PrivateListener::bind(&missing, None)), io::ErrorKind::NotFound);
    }

    #[tokio::test]
    async fn a_queue_that_is_full_is_a_live_one() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let _bound = PrivateListener::bind(&path, None).unwrap();
        let address = SockAddr::unix(&path).unwrap();
        let mut clients = Vec::new();
        loop {
            let client = Socket::new(Domain::UNIX, Type::STREAM.nonblocking(), None).unwrap();
            if client.connect(&address).is_err() {
                break;
            }
            clients.push(client);
        }
        assert_eq!(kind(PrivateListener::bind(&path, None)), io::ErrorKind::AddrInUse);
        let in_vain = connect(&path, Duration::from_millis(10));
        assert_eq!(in_vain.unwrap_err().kind(), io::ErrorKind::WouldBlock);
    }

    #[tokio::test]
    async fn clients_connect_as_mode_and_group_let_them() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("socket");
        let own = rustix::process::getegid().as_raw();
        for (mode, group) in [(0o660, Some(own)), (0o600, None)] {
            let bound = PublicListener::bind(&path, mode, group, 16).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.permissions().mode() & 0o7777, metadata.gid()), (mode, own));
            let (listener, _second) = (bound.share().unwrap(), bound.share().unwrap());
            let _client = connected(&path).unwrap();
            assert!(listener.accept().is_ok());
            bound.admit(0o666, None).unwrap();
            let metadata = fs::metadata(&path).unwrap();
            assert_eq!((metadata.permissions().mode() & 0o7777, metadata.gid()), (0o666, own));
            drop(bound);
            assert!(!path.exists(), "the file goes, though workers have the socket yet");
        }
        if !rustix::process::geteuid().is_root() {
            let refused = PublicListener::bind(&path, 0o660, Some(0), 16).unwrap_err();
            assert_eq!(refused.kind(), io::ErrorKind::PermissionDenied);
            assert!(!path.exists(), "nothing is left behind");
        }
        assert_eq!(connected(&path).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
