//! Names to addresses, kept fresh in the background.
//!
//! Each configured name has one task that looks it up when its answer expires; connections read the latest answer and
//! wait for nothing, except for the very first answer. An answer stays in use while its renewal fails: a backend is
//! more likely to be where it was than to be nowhere.

mod system;

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    runtime::Handle,
    sync::{Notify, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{config::model::Dns, metrics::Metrics};
use system::System;

/// One whole lookup, all servers and families included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is used at least this long, whatever its TTL and the configured bounds: one lookup a second is enough.
const SHORTEST: Duration = Duration::from_secs(1);
/// First wait after a failed lookup; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failed lookup.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Addresses used of one answer.
const MAX_ADDRESSES: usize = 64;

/// All names in use. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names: Mutex<HashMap<Arc<str>, Weak<Name>>>,
    bounds: watch::Sender<Dns>,
    system: System,
    runtime: Handle,
    metrics: Arc<Metrics>,
}

/// One name and its latest addresses. Its refreshing ends when the last user drops it.
#[derive(Debug)]
pub(crate) struct Name {
    name: Arc<str>,
    addresses: ArcSwapOption<Vec<IpAddr>>,
    /// True if a first lookup has ended, well or not.
    settled: watch::Sender<bool>,
    wanted: Arc<Notify>,
}

impl Resolver {
    /// A resolver whose tasks run on `runtime`, bounded by `bounds`.
    #[must_use]
    pub(crate) fn new(runtime: Handle, bounds: Dns, metrics: Arc<Metrics>) -> Self {
        let system = System::new(&runtime);
        let bounds = watch::Sender::new(bounds);
        Self { shared: Arc::new(Shared { names: Mutex::default(), bounds, system, runtime, metrics }) }
    }

    /// Changes how long answers are used; where that is a change, all names are looked up again.
    pub(crate) fn set_bounds(&self, bounds: Dns) {
        self.shared.bounds.send_if_modified(|held| std::mem::replace(held, bounds) != bounds);
    }

    /// The entry of `name`; a new one starts to resolve at once.
    #[must_use]
    pub(crate) fn name(&self, name: &Arc<str>) -> Arc<Name> {
        let mut names = self.shared.names.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = names.get(name).and_then(Weak::upgrade) {
            return known;
        }
        names.retain(|_, entry| entry.strong_count() > 0);
        let entry = Arc::new(Name {
            name: Arc::clone(name),
            addresses: ArcSwapOption::empty(),
            settled: watch::Sender::new(false),
            wanted: Arc::default(),
        });
        names.insert(Arc::clone(name), Arc::downgrade(&entry));
        self.shared.runtime.spawn(keep_fresh(
            Arc::downgrade(&entry),
            Arc::clone(&entry.wanted),
            Arc::clone(&self.shared),
        ));
        entry
    }
}

impl Name {
    /// The latest addresses, at once; `None` when there never were any.
    #[must_use]
    pub(crate) fn known(&self) -> Option<Arc<Vec<IpAddr>>> {
        self.addresses.load_full()
    }

    /// The latest addresses. Waits only while the very first lookup runs; `None` when the name does not resolve.
    pub(crate) async fn addresses(&self) -> Option<Arc<Vec<IpAddr>>> {
        if let Some(known) = self.known() {
            return Some(known);
        }
        let mut settled = self.settled.subscribe();
        // The sender lives as long as `self`.
        drop(settled.wait_for(|settled| *settled).await.map(|_| ()));
        let known = self.known();
        if known.is_none() {
            self.wanted.notify_one();
        }
        known
    }

    /// Has the name resolve to `addresses` from now on.
    #[cfg(test)]
    pub(crate) fn set(&self, addresses: Vec<IpAddr>) {
        self.store(addresses);
    }

    /// Has the name looked up again soon, at most once a second: its addresses may have moved.
    pub(crate) fn ask_again(&self) {
        self.wanted.notify_one();
    }

    fn store(&self, addresses: Vec<IpAddr>) {
        self.addresses.store(Some(Arc::new(addresses)));
    }
}

impl Drop for Name {
    fn drop(&mut self) {
        // Lets the refreshing task see that nobody is left.
        self.wanted.notify_one();
    }
}

async fn keep_fresh(entry: Weak<Name>, wanted: Arc<Notify>, shared: Arc<Shared>) {
    let mut failures = 0_u32;
    let mut system_changed = shared.system.changes();
    let mut bounds_changed = shared.bounds.subscribe();
    loop {
        let Some((name, known)) = entry.upgrade().map(|entry| (Arc::clone(&entry.name), entry.known())) else { return };
        system_changed.mark_unchanged();
        let asked = Instant::now();
        let answer =
            timeout(LOOKUP_TIMEOUT, shared.system.lookup(&name, known.as_deref().map_or(&[], Vec::as_slice))).await;
        let Some(entry) = entry.upgrade() else { return };
        let wait = match answer.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned())) {
            Ok((addresses, ttl)) => {
                if failures > 0 {
                    tracing::info!("{name} resolves again");
                }
                failures = 0;
                accept(&entry, addresses);
                let bounds = *bounds_changed.borrow_and_update();
                ttl.unwrap_or(bounds.min_ttl).clamp(bounds.min_ttl, bounds.max_ttl).max(SHORTEST)
            }
            Err(reason) => {
                shared.metrics.dns_failed();
                if failures == 0 {
                    let stays = if entry.known().is_some() {
                        "its last addresses stay in use"
                    } else {
                        "it has no address yet"
                    };
                    tracing::warn!("cannot resolve {name}: {reason}; {stays}");
                }
                failures = failures.saturating_add(1);
                retry_wait(failures)
            }
        };
        entry.settled.send_replace(true);
        drop(entry);
        tokio::select! {
            () = sleep(wait) => {}
            // Somebody needs an address that is missing or has moved: look again soon, but not for each of them.
            () = wanted.notified() => sleep_until(asked + RETRY_MIN).await,
            _ = system_changed.changed() => {}
            _ = bounds_changed.changed() => {}
        }
    }
}

fn accept(entry: &Name, mut addresses: Vec<IpAddr>) {
    addresses.truncate(MAX_ADDRESSES);
    let mut unique = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    tracing::debug!("{} is {unique:?}", entry.name);
    entry.store(unique);
}

fn retry_wait(failures: u32) -> Duration {
    RETRY_MIN.saturating_mul(1 << failures.saturating_sub(1).min(5)).min(RETRY_MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retries_double_up_to_a_bound() {
        let waits: Vec<u64> = (1..=8).map(|failures| retry_wait(failures).as_secs()).collect();
        assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30, 30]);
        assert_eq!(retry_wait(u32::MAX), RETRY_MAX);
    }

    #[tokio::test]
    async fn a_name_is_shared_while_used_and_forgotten_afterwards() {
        let bounds = Dns { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(1) };
        let resolver = Resolver::new(Handle::current(), bounds, Metrics::new());
        let localhost: Arc<str> = "localhost".into();
        let (one, two) = (resolver.name(&localhost), resolver.name(&localhost));
        assert!(Arc::ptr_eq(&one, &two));
        let addresses = one.addresses().await.expect("localhost resolves from /etc/hosts");
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        let forgotten = Arc::downgrade(&one);
        drop((one, two));
        assert!(forgotten.upgrade().is_none());
    }
}
