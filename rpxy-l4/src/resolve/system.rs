//! The machine's own resolver configuration: `/etc/resolv.conf` and `/etc/hosts`, followed when they change.

use std::{
    io,
    net::IpAddr,
    os::unix::fs::MetadataExt,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, Instant},
};

use hickory_resolver::{TokioResolver, config::LookupIpStrategy};
use tokio::{runtime::Handle, sync::watch, time::sleep};

use crate::config::model::is_one_host;

/// The files that say how names resolve.
const FILES: [&str; 2] = ["/etc/resolv.conf", "/etc/hosts"];
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
    Hickory(Arc<TokioResolver>),
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

    /// The addresses of `name` and how long they hold, if the answer says so.
    pub(super) async fn lookup(&self, name: &str) -> Result<(Vec<IpAddr>, Option<Duration>), String> {
        match self.backend() {
            Backend::Hickory(resolver) => {
                let answer = resolver.lookup_ip(name).await.map_err(|error| error.to_string())?;
                let ttl = answer.valid_until().saturating_duration_since(Instant::now());
                found(answer.iter().collect()).map(|addresses| (addresses, Some(ttl)))
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

fn build() -> Backend {
    let built = TokioResolver::builder_tokio().and_then(|mut builder| {
        let options = builder.options_mut();
        options.ip_strategy = LookupIpStrategy::Ipv4AndIpv6;
        // `Name` is the cache.
        options.cache_size = 0;
        builder.build()
    });
    match built {
        Ok(resolver) => Backend::Hickory(Arc::new(resolver)),
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
