//! The machine's own resolver configuration: `/etc/resolv.conf` and `/etc/hosts`, followed when they change.

use std::{
    collections::HashMap,
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use hickory_resolver::net::NetError;
use tokio::{runtime::Handle, sync::watch, time::sleep};

use super::{
    answer::{Answer, Missing, Why, both, found, merged},
    servers::{Family, Servers},
    service::Told,
};

/// The files that say how names resolve.
const FILES: [&str; 2] = [RESOLV_CONF, HOSTS];
const RESOLV_CONF: &str = "/etc/resolv.conf";
const HOSTS: &str = "/etc/hosts";
/// Interval of polling them. DHCP clients and container runtimes rewrite them while we run.
const CHECK: Duration = Duration::from_secs(5);

/// Looks names up as this machine does.
#[derive(Debug)]
pub(super) struct System {
    resolver: Mutex<Option<(Fingerprint, Backend)>>,
    changes: watch::Receiver<()>,
}

#[derive(Debug, Clone)]
enum Backend {
    /// What both files say.
    Files(Arc<Hosts>, Arc<Servers>),
    /// `getaddrinfo`, where there is no resolv.conf that hickory understands. It tells no TTL.
    Libc,
}

type Fingerprint = [Option<(u64, u64, i64, i64)>; FILES.len()];

impl System {
    pub(super) fn new(runtime: &Handle) -> Self {
        let (changed, changes) = watch::channel(());
        runtime.spawn(async move {
            let mut last = fingerprint();
            while !changed.is_closed() {
                sleep(CHECK).await;
                let now = fingerprint();
                if now != last {
                    last = now;
                    changed.send_replace(());
                }
            }
        });
        Self { resolver: Mutex::default(), changes }
    }

    /// Tells when the machine's resolver configuration has changed.
    pub(super) fn changes(&self) -> watch::Receiver<()> {
        self.changes.clone()
    }

    /// The addresses of `name` and how long they hold, if the answer says so. A family whose answer does not come keeps
    /// what is `known` of it.
    pub(super) async fn lookup(&self, name: &str, known: &[IpAddr]) -> Result<(Vec<IpAddr>, Option<Duration>), String> {
        let told = match self.backend() {
            Backend::Files(hosts, servers) => {
                // A name that is there is not asked for, in either family, and may have any shape.
                if let Ok(addresses) = found(hosts.addresses(name)) {
                    return Ok((addresses, None));
                }
                ask(&servers, name, known).await.map(|(addresses, ttl)| (addresses, Some(ttl)))
            }
            Backend::Libc => {
                let answer = tokio::net::lookup_host((name, 0)).await.map_err(|error: io::Error| error.to_string())?;
                found(answer.map(|address| address.ip()).collect()).map(|addresses| (addresses, None))
            }
        };
        told.map_err(|missing| missing.reason)
    }

    /// The SRV records of `name`, and how long they hold.
    pub(super) async fn look_up_service(&self, name: &str) -> Result<(Vec<Told>, Duration), String> {
        let servers = match self.backend() {
            Backend::Files(_, servers) => servers,
            Backend::Libc => return Err(format!("SRV records need name servers, and {RESOLV_CONF} cannot be used")),
        };
        ask_service(&servers, name).await.map_err(|missing| missing.reason)
    }

    fn backend(&self) -> Backend {
        let mut cached = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fingerprint();
        match &*cached {
            Some((made_for, backend)) if *made_for == now => backend.clone(),
            _ => {
                let backend =
                    build().unwrap_or_else(|refused| refused.go_on(cached.as_ref().map(|(_, before)| before)));
                *cached = Some((now, backend.clone()));
                backend
            }
        }
    }
}

/// Asks for the addresses of each name that `name` may stand for.
async fn ask(servers: &Servers, name: &str, known: &[IpAddr]) -> Answer {
    let mut told = InOrder::new();
    for candidate in servers.candidates(name).map_err(|reason| Missing { why: Why::Absent, reason })? {
        let answers = both(servers.ask(&candidate, Family::V4), servers.ask(&candidate, Family::V6)).await;
        if let Some(answer) = told.note(merged(answers, known)) {
            return answer;
        }
    }
    told.0
}

/// The same for its SRV records.
async fn ask_service(servers: &Servers, name: &str) -> Result<(Vec<Told>, Duration), Missing> {
    let mut told = InOrder::new();
    for candidate in servers.candidates(name).map_err(|reason| Missing { why: Why::Absent, reason })? {
        if let Some(answer) = told.note(servers.ask_service(&candidate).await) {
            return answer;
        }
    }
    told.0
}

/// Answers to the names that one may stand for, in order: what counts of them so far.
struct InOrder<T>(Result<T, Missing>);

impl<T> InOrder<T> {
    fn new() -> Self {
        Self(Err(Missing { why: Why::Absent, reason: "the name has no address".to_owned() }))
    }

    /// The next one; returned if it is the last word.
    fn note(&mut self, answer: Result<T, Missing>) -> Option<Result<T, Missing>> {
        match (answer, &self.0) {
            (Err(Missing { why: Why::Absent, .. }), Err(Missing { why: Why::Failed, .. })) => None,
            // Who says nothing to this name will say nothing to the next.
            (answer @ (Ok(_) | Err(Missing { why: Why::Silent, .. })), _) => Some(answer),
            (answer @ Err(_), _) => {
                self.0 = answer;
                None
            }
        }
    }
}

/// A hosts file (hosts(5)).
#[derive(Debug)]
struct Hosts(HashMap<Box<str>, Vec<IpAddr>>);

impl Hosts {
    fn read(text: &str) -> Self {
        let mut names: HashMap<Box<str>, Vec<IpAddr>> = HashMap::new();
        for line in text.lines() {
            let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
            let Some(address) = words.next().and_then(|word| word.parse().ok()) else { continue };
            for name in words {
                names.entry(Self::key(name)).or_default().push(address);
            }
        }
        Self(names)
    }

    fn addresses(&self, name: &str) -> Vec<IpAddr> {
        self.0.get(&Self::key(name)).cloned().unwrap_or_default()
    }

    fn key(name: &str) -> Box<str> {
        name.trim_end_matches('.').to_ascii_lowercase().into()
    }
}

/// A file that may not be read any more: a new one has taken the place of the one that the daemon let itself read (Landlock).
#[derive(Debug, PartialEq, Eq)]
struct Refused(&'static str);

impl Refused {
    /// Goes on with what was read before, or by the C library.
    fn go_on(&self, before: Option<&Backend>) -> Backend {
        let Self(file) = self;
        let instead =
            if before.is_some() { "names are resolved as before" } else { "names are resolved by the C library" };
        tracing::warn!(
            "{file} was replaced and may not be read, {instead}: start the daemon again, as a user that is not root, or with \
             confine.landlock = false"
        );
        before.cloned().unwrap_or(Backend::Libc)
    }
}

fn build() -> Result<Backend, Refused> {
    let read = |file| match std::fs::read(file) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => Err(Refused(file)),
        read => Ok(read),
    };
    let servers = read(RESOLV_CONF)?.map_err(NetError::from).and_then(|text| Servers::read(&text));
    Ok(match servers {
        Ok(servers) => {
            let hosts = read(HOSTS)?.unwrap_or_default();
            Backend::Files(Hosts::read(&String::from_utf8_lossy(&hosts)).into(), servers.into())
        }
        Err(error) => {
            tracing::info!("{RESOLV_CONF} cannot be used ({error}): names are resolved by the C library");
            Backend::Libc
        }
    })
}

fn fingerprint() -> Fingerprint {
    FILES.map(|file| {
        let meta = std::fs::metadata(file).ok()?;
        Some((meta.dev(), meta.ino(), meta.mtime(), meta.mtime_nsec()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_read_before_holds_where_a_file_may_not_be_read_any_more() {
        let before =
            Backend::Files(Hosts::read("192.0.2.1 a").into(), Servers::read(b"nameserver 192.0.2.2").unwrap().into());
        let Backend::Files(hosts, _) = Refused(RESOLV_CONF).go_on(Some(&before)) else { panic!("another one") };
        assert_eq!(hosts.addresses("a").len(), 1);
        assert!(matches!(Refused(HOSTS).go_on(None), Backend::Libc));
    }

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let ip = |text: &str| text.parse::<IpAddr>().unwrap();
        let hosts = Hosts::read(
            "127.0.0.1 localhost\n192.0.2.1\tmy_app -a.example # old_app\n2001:db8::1 other MY_APP.\nbroken my_app\n",
        );
        for (name, expected) in [
            ("my_app", vec![ip("192.0.2.1"), ip("2001:db8::1")]),
            ("my_app.", vec![ip("192.0.2.1"), ip("2001:db8::1")]),
            ("-a.example", vec![ip("192.0.2.1")]),
            ("old_app", vec![]),
        ] {
            assert_eq!(hosts.addresses(name), expected, "{name}");
        }
    }
}
