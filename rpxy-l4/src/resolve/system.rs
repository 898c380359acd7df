//! The machine's own resolver configuration: `/etc/resolv.conf` and `/etc/hosts`, followed when they change.

use std::{
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    pin::pin,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{
    TokioResolver,
    config::{LookupIpStrategy, ResolveHosts},
    net::{DnsError, NetError, NoRecords},
    proto::{op::ResponseCode, rr::Name},
};
use tokio::{
    runtime::Handle,
    sync::watch,
    time::{sleep, timeout},
};

use crate::config::model::is_one_host;

/// The files that say how names resolve.
const FILES: [&str; 2] = ["/etc/resolv.conf", HOSTS];
const HOSTS: &str = "/etc/hosts";
/// Time for the answer of one family once the other has addresses.
const OTHER_FAMILY: Duration = Duration::from_millis(500);
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
    /// One for each family, IPv4 first, so that neither waits for the other.
    Hickory([Arc<TokioResolver>; 2]),
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
        match self.backend() {
            Backend::Hickory(families) => {
                // A name that is there is not asked for, in either family, and may have any shape.
                let hosts = std::fs::read_to_string(HOSTS).unwrap_or_default();
                if let Ok(addresses) = found(in_hosts(&hosts, name)) {
                    return Ok((addresses, None));
                }
                let question = question(name)?;
                let [v4, v6] = families.each_ref().map(|resolver| ask(resolver, question.clone()));
                let answers = both(v4, v6).await;
                merged(answers, known)
            }
            Backend::Libc => {
                let answer = tokio::net::lookup_host((name, 0)).await.map_err(|error: io::Error| error.to_string())?;
                found(answer.map(|address| address.ip()).collect()).map(|addresses| (addresses, None))
            }
        }
    }

    fn backend(&self) -> Backend {
        let mut cached = self.resolver.lock().unwrap_or_else(PoisonError::into_inner);
        let now = fingerprint();
        match &*cached {
            Some((made_for, backend)) if *made_for == now => backend.clone(),
            _ => {
                let backend = build();
                *cached = Some((now, backend.clone()));
                backend
            }
        }
    }
}

/// The addresses of an answer that a backend can have: a name server must not make us send to all hosts, or to any.
fn found(mut addresses: Vec<IpAddr>) -> Result<Vec<IpAddr>, String> {
    addresses.retain(|address| is_one_host(*address));
    if addresses.is_empty() { Err("the name has no address".to_owned()) } else { Ok(addresses) }
}

/// One family's answer.
type Answer = Result<(Vec<IpAddr>, Duration), Missing>;

/// No address of a family.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Missing {
    /// True if the name surely has none.
    certain: bool,
    reason: String,
}

/// The question for `name`, of any bytes: names of hosts have letters, digits and hyphens, but those that people use
/// have underscores, and hyphens in front.
fn question(name: &str) -> Result<Name, String> {
    let mut question = Name::from_labels(name.split('.').map(str::as_bytes)).map_err(|error| error.to_string())?;
    // So that the search list holds for it.
    question.set_fqdn(false);
    Ok(question)
}

async fn ask(resolver: &TokioResolver, question: Name) -> Answer {
    match resolver.lookup_ip(question).await {
        Ok(answer) => {
            let ttl = answer.valid_until().saturating_duration_since(Instant::now());
            let addresses = found(answer.iter().collect()).map_err(|reason| Missing { certain: true, reason })?;
            Ok((addresses, ttl))
        }
        Err(error) => Err(Missing { certain: is_certain(&error), reason: error.to_string() }),
    }
}

/// Returns whether a server that knows said that there is no such record. SERVFAIL counts as no records, too.
fn is_certain(error: &NetError) -> bool {
    matches!(
        error,
        NetError::Dns(DnsError::NoRecordsFound(NoRecords {
            response_code: ResponseCode::NoError | ResponseCode::NXDomain,
            ..
        }))
    )
}

/// Both families' answers, as far as they come: once one has addresses, the other has [`OTHER_FAMILY`].
async fn both(v4: impl Future<Output = Answer>, v6: impl Future<Output = Answer>) -> [Answer; 2] {
    let late = || Err(Missing { certain: false, reason: "no answer in time".to_owned() });
    let (mut v4, mut v6) = (pin!(v4), pin!(v6));
    tokio::select! {
        first = &mut v4 => {
            let second = if first.is_ok() { timeout(OTHER_FAMILY, v6).await.unwrap_or_else(|_| late()) } else { v6.await };
            [first, second]
        }
        first = &mut v6 => {
            let second = if first.is_ok() { timeout(OTHER_FAMILY, v4).await.unwrap_or_else(|_| late()) } else { v4.await };
            [second, first]
        }
    }
}

/// One answer of two, with what is `known` in place of what did not come.
fn merged(answers: [Answer; 2], known: &[IpAddr]) -> Result<(Vec<IpAddr>, Option<Duration>), String> {
    if let [Err(v4), Err(v6)] = &answers {
        let worse = if v4.certain { v6 } else { v4 };
        return Err(worse.reason.clone());
    }
    let mut addresses = Vec::new();
    let mut ttl: Option<Duration> = None;
    for (answer, is_v4) in answers.into_iter().zip([true, false]) {
        match answer {
            Ok((more, holds)) => {
                addresses.extend(more);
                ttl = Some(ttl.map_or(holds, |ttl| ttl.min(holds)));
            }
            Err(Missing { certain: true, .. }) => {}
            Err(Missing { certain: false, .. }) => {
                addresses.extend(known.iter().filter(|address| address.is_ipv4() == is_v4));
            }
        }
    }
    Ok((addresses, ttl))
}

/// The addresses of `name` in a hosts file (hosts(5)).
fn in_hosts(text: &str, name: &str) -> Vec<IpAddr> {
    let line = |line: &str| {
        let mut words = line.split('#').next()?.split_whitespace();
        let address = words.next()?.parse().ok()?;
        words.any(|word| word.trim_end_matches('.').eq_ignore_ascii_case(name)).then_some(address)
    };
    text.lines().filter_map(line).collect()
}

fn build() -> Backend {
    let built = |strategy| {
        TokioResolver::builder_tokio().and_then(|mut builder| {
            let options = builder.options_mut();
            options.ip_strategy = strategy;
            // `Name` is the cache.
            options.cache_size = 0;
            options.use_hosts_file = ResolveHosts::Never;
            builder.build()
        })
    };
    let families = built(LookupIpStrategy::Ipv4Only)
        .and_then(|v4| Ok([Arc::new(v4), Arc::new(built(LookupIpStrategy::Ipv6Only)?)]));
    match families {
        Ok(families) => Backend::Hickory(families),
        Err(error) => {
            tracing::info!("/etc/resolv.conf cannot be used ({error}): names are resolved by the C library");
            Backend::Libc
        }
    }
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

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    fn missing(certain: bool) -> Answer {
        Err(Missing { certain, reason: format!("certain: {certain}") })
    }

    #[test]
    fn families_are_put_together() {
        let ok = |address, seconds| Ok((vec![ip(address)], Duration::from_secs(seconds)));
        let known = [ip("192.0.2.9"), ip("2001:db8::9")];
        for (row, answers, expected) in [
            ("both", [ok("192.0.2.1", 60), ok("2001:db8::1", 30)], Ok((vec!["192.0.2.1", "2001:db8::1"], 30))),
            ("IPv4 only", [ok("192.0.2.1", 60), missing(true)], Ok((vec!["192.0.2.1"], 60))),
            ("IPv6 late", [ok("192.0.2.1", 60), missing(false)], Ok((vec!["192.0.2.1", "2001:db8::9"], 60))),
            ("IPv4 late", [missing(false), ok("2001:db8::1", 30)], Ok((vec!["192.0.2.9", "2001:db8::1"], 30))),
            ("none", [missing(true), missing(true)], Err("certain: true")),
            ("none, one uncertain", [missing(true), missing(false)], Err("certain: false")),
        ] {
            let expected = expected
                .map(|(addresses, ttl)| (addresses.into_iter().map(ip).collect(), Some(Duration::from_secs(ttl))))
                .map_err(str::to_owned);
            assert_eq!(merged(answers, &known), expected, "{row}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_family_does_not_wait_for_the_other() {
        let ok = || Ok((vec![ip("192.0.2.1")], Duration::ZERO));
        let begun = tokio::time::Instant::now();
        let [v4, v6] = both(async { ok() }, std::future::pending()).await;
        assert!(v4.is_ok() && !v6.unwrap_err().certain);
        assert!(begun.elapsed() < Duration::from_secs(1));
        let slow = async {
            sleep(Duration::from_secs(5)).await;
            ok()
        };
        assert!(both(slow, async { missing(true) }).await[0].is_ok(), "what has no address is no reason to hurry");
    }

    #[test]
    fn hosts_are_found_by_any_of_their_names() {
        let text =
            "127.0.0.1 localhost\n192.0.2.1\tmy_app -a.example # old_app\n2001:db8::1 other MY_APP.\nbroken my_app\n";
        assert_eq!(in_hosts(text, "my_app"), [ip("192.0.2.1"), ip("2001:db8::1")]);
        assert_eq!(in_hosts(text, "-a.example"), [ip("192.0.2.1")]);
        assert!(in_hosts(text, "old_app").is_empty());
    }

    #[test]
    fn names_of_any_shape_can_be_asked_for() {
        for name in ["my_app", "-a.example", "a-.example", "_srv.example", "plain.example"] {
            let question = question(name).unwrap();
            let labels: Vec<_> = question.iter().collect();
            assert_eq!(labels.join(&b'.'), name.as_bytes());
            assert!(!question.is_fqdn());
        }
        assert!(question(&"a".repeat(64)).is_err());
    }
}
