//! Listening sockets that others have opened: the service manager (systemd.socket(5)), which passes them on by name, or the
//! daemon that this one succeeds. They stand in for those that the daemon would bind itself: the configuration says as ever
//! where each listener listens. One of the service manager that does not fit it is an error, since clients would reach it
//! and nobody would serve them; one of a predecessor is closed with it.

use std::{
    collections::BTreeMap,
    fmt, io,
    os::fd::{AsFd, OwnedFd},
    sync::Arc,
};

use anyhow::{Context, Result, bail};
use socket2::{Domain, Protocol, SockRef, Type};

use super::{
    hand_over::{HandedSocket, OfListener},
    sockets::{BoundAll, Key, Sockets, Wanted},
};
use crate::{
    config::model::{Transport, UnixListen},
    net::{self, Address, Bound, PassedSocket, unix::PublicListener},
};

/// Those sockets. The service manager's stay open as long as the daemon runs: a reload may give them back their listener.
#[derive(Debug, Default)]
pub(super) struct Passed(BTreeMap<Key, Vec<Held>>);

#[derive(Debug)]
struct Held {
    /// Name of its listener, if the service manager has opened it.
    named: Option<Arc<str>>,
    /// Chooses the worker of a UDP socket: its worker before, or its place among all that were passed on.
    index: usize,
    socket: OwnedFd,
}

/// A socket that was passed on, as messages call it.
struct Called<'a>(&'a str, &'a Key);

impl fmt::Display for Called<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self(name, (transport, address)) = self;
        write!(f, "the socket {name:?} that was passed on ({transport} on {address})")
    }
}

impl Passed {
    /// The sockets of `passed`.
    ///
    /// # Errors
    ///
    /// One of them is of no kind that a listener can have.
    pub(super) fn new(passed: Vec<PassedSocket>) -> Result<Self> {
        let mut sockets: BTreeMap<Key, Vec<Held>> = BTreeMap::new();
        for (index, PassedSocket { name, socket }) in passed.into_iter().enumerate() {
            let key =
                identify(&socket).with_context(|| format!("the socket {name:?} that was passed on (LISTEN_FDS)"))?;
            sockets.entry(key).or_default().push(Held { named: Some(name.into()), index, socket });
        }
        Ok(Self(sockets))
    }

    /// Adds what a predecessor has handed over.
    pub(super) fn take_over(&mut self, sockets: Vec<OfListener>) {
        for (handed, socket) in sockets {
            let named = handed.passed.then(|| handed.listener.as_str().into());
            self.0.entry(handed.key()).or_default().push(Held { named, index: handed.worker, socket });
        }
    }

    /// Closes what a predecessor had opened, as far as no worker has it.
    pub(super) fn settle(&mut self) {
        for held in self.0.values_mut() {
            held.retain(|held| held.named.is_some());
        }
        self.0.retain(|_, held| !held.is_empty());
    }

    /// Those of the service manager, for a successor.
    pub(super) fn to_hand_over(&self) -> io::Result<Vec<OfListener>> {
        let all = self.0.iter().flat_map(|(key, held)| held.iter().map(move |held| (key, held)));
        let named = all.filter_map(|(key, held)| Some((key, held, held.named.as_ref()?)));
        let hand = |((transport, address), held, name): (&Key, &Held, &Arc<str>)| {
            let handed = HandedSocket::new(*transport, address.clone(), held.index);
            Ok((HandedSocket { listener: name.to_string(), passed: true, ..handed }, held.socket.try_clone()?))
        };
        named.map(hand).collect()
    }

    /// The sockets that nobody serves, if `wanted` is what the configuration asks for: each in words, with a remedy.
    pub(super) fn unserved(&self, wanted: &Sockets) -> Vec<String> {
        let all = self.0.iter().flat_map(|(key, held)| held.iter().map(move |held| (key, held)));
        all.filter_map(|(key, held)| reason(key, held.named.as_ref()?, wanted)).collect()
    }

    /// Returns whether there are sockets for `key`, as `want` asks for.
    pub(super) fn has(&self, key: &Key, want: &Wanted) -> bool {
        self.of(key, want).next().is_some()
    }

    /// What is wrong with a socket that was passed on for `key`, but not as `want` asks for, so that it is in the way.
    pub(super) fn in_the_way(&self, key: &Key, want: &Wanted) -> Option<String> {
        let held = self.0.get(key)?.first().filter(|_| !self.has(key, want))?;
        reason(key, held.named.as_ref()?, &Sockets([(key.clone(), want.clone())].into()))
    }

    /// A socket for each of so many workers, as far as they were passed on for `key`.
    ///
    /// All workers accept from a socket of TCP. Datagrams are received by one worker: the answers of a backend come to the
    /// one that has asked, and so must the client's.
    pub(super) fn bind(&self, key: &Key, want: &Wanted, workers: usize) -> Option<io::Result<BoundAll>> {
        let held: Vec<&Held> = self.of(key, want).collect();
        if held.is_empty() {
            return None;
        }
        let (transport, address) = key;
        Some(match (transport, address) {
            (Transport::Udp, Address::Ip(address)) => {
                let bind = |held: &&Held| {
                    let socket = net::udp::listener_of(held.socket.try_clone()?, *address, want.receive_buffer)?;
                    Ok((held.index % workers.max(1), socket))
                };
                held.iter().map(bind).collect::<io::Result<_>>().map(BoundAll::Udp)
            }
            (Transport::Tcp | Transport::Udp, _) => {
                let bind = |index: usize| {
                    let held = held.get(index % held.len()).ok_or(io::ErrorKind::NotFound)?;
                    let socket = held.socket.try_clone()?;
                    let bound = match address {
                        Address::Ip(_) => Bound::tcp_of(socket, want.backlog),
                        Address::Unix(_) => Bound::unix_of(socket, want.backlog),
                    };
                    Ok((index % workers.max(1), bound?))
                };
                let sockets = (0..held.len().max(workers)).map(bind).collect::<io::Result<_>>();
                sockets.and_then(|sockets| Ok(BoundAll::Tcp(sockets, file_of(&held, want)?)))
            }
        })
    }

    fn of(&self, key: &Key, want: &Wanted) -> impl Iterator<Item = &Held> {
        let listener = Arc::clone(&want.listener);
        let is_its = move |held: &&Held| held.named.as_ref().is_none_or(|named| *named == listener);
        self.0.get(key).into_iter().flatten().filter(is_its)
    }
}

/// The file of a unix socket that a predecessor has opened; the service manager's are not the daemon's.
fn file_of(held: &[&Held], want: &Wanted) -> io::Result<Option<PublicListener>> {
    match (held.first().filter(|held| held.named.is_none()), &want.unix) {
        (Some(held), Some(UnixListen { path, mode, group, .. })) => {
            let socket = held.socket.try_clone()?;
            PublicListener::take_over(socket, path, *mode, *group, want.backlog).map(Some)
        }
        _ => Ok(None),
    }
}

/// Why a socket of this name is not served; `None` if it is.
fn reason(key: &Key, name: &str, wanted: &Sockets) -> Option<String> {
    let (called, (transport, address)) = (Called(name, key), key);
    match wanted.0.get(key) {
        Some(want) if *want.listener == *name => return None,
        Some(want) => {
            let listener = &want.listener;
            return Some(format!(
                "{called} is named otherwise than the listener {listener:?}, which listens there: set \
                 FileDescriptorName={listener} in its .socket unit"
            ));
        }
        None => {}
    }
    let of_name =
        |transport| wanted.of(transport).filter(|(_, of)| *of == name).map(|(address, _)| address.to_string());
    let own: Vec<String> = of_name(*transport).collect();
    let other = [Transport::Tcp, Transport::Udp].into_iter().any(|transport| of_name(transport).next().is_some());
    Some(if !own.is_empty() {
        let listens = own.join(", ");
        format!(
            "{called} is not where the listener {name:?} listens, which is on {listens}: change the one or the other"
        )
    } else if other {
        format!(
            "{called}: the listener {name:?} does not listen on {transport}: give it rules or a target for that, or remove the socket"
        )
    } else {
        format!(
            "{called} is of no listener, and the file has nothing on {address}: set FileDescriptorName= in its .socket unit \
             to the name of a listener (\"default\" is the top of the file)"
        )
    })
}

/// The transport and address of a socket.
fn identify(socket: &impl AsFd) -> Result<Key> {
    let socket = SockRef::from(socket);
    let (domain, kind, protocol) = (socket.domain()?, socket.r#type()?, socket.protocol()?);
    let address = socket.local_addr()?;
    let transport = match (domain, kind, protocol) {
        (Domain::IPV4 | Domain::IPV6, Type::STREAM, Some(Protocol::TCP)) | (Domain::UNIX, Type::STREAM, _) => {
            if !socket.is_listener()? {
                bail!("it does not listen: its unit must have Accept=no");
            }
            Transport::Tcp
        }
        (Domain::IPV4 | Domain::IPV6, Type::DGRAM, Some(Protocol::UDP)) => Transport::Udp,
        _ => bail!("it is none of TCP, UDP or a unix socket for streams: use ListenStream= or ListenDatagram="),
    };
    if let Some(path) = address.as_pathname() {
        return Ok((transport, Address::Unix(path.into())));
    }
    let Some(address) = address.as_socket() else { bail!("it has no address that a listener can have") };
    if address.is_ipv6() && address.ip().is_unspecified() && !socket.only_v6()? {
        bail!(
            "it takes IPv4 too, as systemd has it by default: set BindIPv6Only=ipv6-only in its .socket unit, and add a line for IPv4"
        );
    }
    Ok((transport, address.into()))
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket};

    use super::*;
    use crate::config;

    fn passed(sockets: Vec<(&str, OwnedFd)>) -> Result<Passed> {
        let named = |(name, socket): (&str, OwnedFd)| PassedSocket { name: name.to_owned(), socket };
        Passed::new(sockets.into_iter().map(named).collect())
    }

    fn wanted(config: &str) -> Sockets {
        let config = config::parse(config).unwrap_or_else(|problems| panic!("{problems}")).config;
        Sockets::new(&config).unwrap()
    }

    fn tcp() -> TcpListener {
        TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap()
    }

    #[test]
    fn a_socket_stands_in_for_that_of_its_listener_or_the_mistake_is_told() {
        let port = |socket: &TcpListener| socket.local_addr().unwrap().port();
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let udp_port = udp.local_addr().unwrap().port();
        let (web, other) = (tcp(), tcp());
        let (web_port, other_port) = (port(&web), port(&other));
        let config = |port: u16| {
            let top =
                format!("listen_port = {port}\nlisten_address_v4 = \"127.0.0.1\"\ntcp_target = [\"192.0.2.1:1\"]\n");
            format!("{top}[listeners.wg]\nlisten_port = {udp_port}\nudp_target = [\"192.0.2.1:1\"]\n")
        };
        let set = passed(vec![("default", web.into()), ("wg", udp.into())]).unwrap();
        assert_eq!(set.unserved(&wanted(&config(web_port))), Vec::<String>::new());
        let elsewhere = set.unserved(&wanted(&config(other_port)));
        assert_eq!(elsewhere.len(), 1);
        assert!(elsewhere[0].contains(&format!("which is on 127.0.0.1:{other_port}")), "{elsewhere:?}");
        for (row, name, remedy) in [
            ("named otherwise", "wg", "FileDescriptorName=default"),
            ("its unit's name", "rpxy-l4.socket", "FileDescriptorName=default"),
        ] {
            let set = passed(vec![(name, other.try_clone().unwrap().into())]).unwrap();
            let told = set.unserved(&wanted(&config(other_port)));
            assert!(told.len() == 1 && told[0].contains(remedy), "{row}: {told:?}");
        }
        for (row, name, remedy) in [
            ("of no listener", "nobody", "\"default\" is the top of the file"),
            ("a listener of another transport", "wg", "does not listen on TCP"),
        ] {
            let set = passed(vec![(name, other.try_clone().unwrap().into())]).unwrap();
            let told = set.unserved(&wanted(&config(1)));
            assert!(told.len() == 1 && told[0].contains(remedy), "{row}: {told:?}");
        }
    }

    #[test]
    fn all_workers_accept_and_one_receives() {
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let listener = tcp();
        let (tcp_at, udp_at) = (listener.local_addr().unwrap(), udp.local_addr().unwrap());
        let set = passed(vec![("default", listener.into()), ("wg", udp.into())]).unwrap();
        let top = format!("listen_port = {}\nlisten_address_v4 = \"127.0.0.1\"\n", tcp_at.port());
        let wg = format!("[listeners.wg]\nlisten_port = {}\nudp_target = [\"192.0.2.1:1\"]\n", udp_at.port());
        let wanted = wanted(&format!("{top}tcp_target = [\"192.0.2.1:1\"]\n{wg}"));
        for (key, want) in &wanted.0 {
            assert!(set.has(key, want));
            match set.bind(key, want, 3).unwrap().unwrap() {
                BoundAll::Tcp(sockets, None) => {
                    assert_eq!(sockets.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [0, 1, 2]);
                    let client = TcpStream::connect_timeout(&tcp_at, std::time::Duration::from_secs(10)).unwrap();
                    let Bound::Tcp(last) = &sockets[2].1 else { panic!("{sockets:?}") };
                    let (accepted, from) = last.accept().unwrap();
                    assert_eq!(from, client.local_addr().unwrap());
                    assert!(accepted.nodelay().unwrap(), "connections inherit the options");
                }
                BoundAll::Udp(sockets) => {
                    assert_eq!(sockets.iter().map(|(worker, _)| *worker).collect::<Vec<_>>(), [1]);
                }
                BoundAll::Tcp(..) => panic!("no file of ours"),
            }
        }
    }

    #[test]
    fn what_no_listener_can_have_is_refused() {
        let closed = socket2::Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).unwrap();
        let both = TcpListener::bind((std::net::Ipv6Addr::UNSPECIFIED, 0));
        let (stream, _) = std::os::unix::net::UnixStream::pair().unwrap();
        let datagrams = std::os::unix::net::UnixDatagram::unbound().unwrap();
        let mut rows: Vec<(&str, OwnedFd, &str)> = vec![
            ("it does not listen", closed.into(), "Accept=no"),
            ("a connection", stream.into(), "Accept=no"),
            ("unix datagrams", datagrams.into(), "ListenStream="),
        ];
        // Where there is IPv6.
        rows.extend(both.ok().map(|both| ("both families", both.into(), "BindIPv6Only=ipv6-only")));
        for (row, socket, remedy) in rows {
            let error = format!("{:#}", passed(vec![("default", socket)]).unwrap_err());
            assert!(error.contains(remedy) && error.contains("\"default\""), "{row}: {error}");
        }
    }
}
