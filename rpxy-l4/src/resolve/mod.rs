//! Names to addresses, kept fresh in the background.
//!
//! Each configured name has one task that looks it up when its answer expires; connections read the latest answer and
//! wait for nothing, except for the very first answer. An answer stays in use while its renewal fails: a backend is
//! more likely to be where it was than to be nowhere. SRV records are kept in the same way, and the names of their hosts are
//! names like others.
//!
//! Few names are looked up at once, and fewer of those that failed the last time: a name server that is down takes neither
//! the descriptors nor the turns of others.

mod answer;
mod failures;
mod lookup;
mod servers;
mod service;
mod system;

use std::{
    fmt,
    future::Future,
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use arc_swap::ArcSwapOption;
use tokio::{
    runtime::Handle,
    sync::{Notify, Semaphore, watch},
    time::{Instant, sleep, sleep_until, timeout},
};

use crate::{config::model::Dns, limit::WeakMap, metrics::Metrics};
use failures::Failures;
use system::System;

pub(crate) use lookup::{Lookup, NOT_OFFERED, Place, Weighted};
#[cfg(test)]
pub(crate) use service::Record;
pub(crate) use service::Service;

/// One whole lookup, all servers and families included.
const LOOKUP_TIMEOUT: Duration = Duration::from_secs(10);
/// An answer is used at least this long, whatever its TTL and the configured bounds: one lookup a second is enough.
const SHORTEST: Duration = Duration::from_secs(1);
/// First wait after a failed lookup; doubles up to [`RETRY_MAX`].
const RETRY_MIN: Duration = Duration::from_secs(1);
/// Longest wait after a failed lookup.
const RETRY_MAX: Duration = Duration::from_secs(30);
/// Names are looked up earlier by up to one of so many parts of the time for which their answers hold, and of the wait after
/// a failure, so that they do not all come at the same time.
const EARLY: u32 = 10;
const EARLY_RETRY: u32 = 4;
/// Addresses used of one answer.
const MAX_ADDRESSES: usize = 64;
/// Names looked up at once. Each takes up to six sockets.
const MOST_AT_ONCE: usize = 16;
/// Of these, names whose last look-up failed.
const MOST_FAILED: usize = 8;

/// All names in use. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Resolver {
    shared: Arc<Shared>,
}

#[derive(Debug)]
struct Shared {
    names: Mutex<WeakMap<Arc<str>, Name>>,
    services: Mutex<WeakMap<Arc<str>, Service>>,
    bounds: watch::Sender<Dns>,
    system: System,
    runtime: Handle,
    metrics: Arc<Metrics>,
    at_once: Semaphore,
    failed_at_once: Semaphore,
    failures: Failures,
    /// Tells names apart that would otherwise be looked up at the same time for ever.
    spread: RandomState,
}

/// What one name leads to, as of the latest answer. Its refreshing ends when the last user drops it.
#[derive(Debug)]
pub(crate) struct Entry<T> {
    name: Arc<str>,
    answer: ArcSwapOption<T>,
    /// True if a first lookup has ended, well or not.
    settled: watch::Sender<bool>,
    wanted: Arc<Notify>,
}

/// A name of hosts.
pub(crate) type Name = Entry<Vec<IpAddr>>;

/// What can be asked for under a name.
trait Sought: fmt::Debug + Send + Sync + Sized + 'static {
    /// Asks once. `known` is the last answer, of which a part may have to do. Returns the answer with the time for which it
    /// holds, if it says so.
    fn look_up(
        shared: &Arc<Shared>,
        name: &Arc<str>,
        known: Option<&Self>,
    ) -> impl Future<Output = Result<(Self, Option<Duration>), String>> + Send;
}

impl Sought for Vec<IpAddr> {
    async fn look_up(
        shared: &Arc<Shared>,
        name: &Arc<str>,
        known: Option<&Self>,
    ) -> Result<(Self, Option<Duration>), String> {
        let (addresses, ttl) = shared.system.lookup(name, known.map_or(&[], Vec::as_slice)).await?;
        Ok((distinct(addresses), ttl))
    }
}

impl Resolver {
    /// A resolver whose tasks run on `runtime`, bounded by `bounds`.
    #[must_use]
    pub(crate) fn new(runtime: Handle, bounds: Dns, metrics: Arc<Metrics>) -> Self {
        let system = System::new(&runtime);
        let shared = Shared {
            names: Mutex::default(),
            services: Mutex::default(),
            bounds: watch::Sender::new(bounds),
            system,
            runtime,
            metrics,
            at_once: Semaphore::new(MOST_AT_ONCE),
            failed_at_once: Semaphore::new(MOST_FAILED),
            failures: Failures::default(),
            spread: RandomState::new(),
        };
        Self { shared: Arc::new(shared) }
    }

    /// Changes how long answers are used; where that is a change, all names are looked up again.
    pub(crate) fn set_bounds(&self, bounds: Dns) {
        self.shared.bounds.send_if_modified(|held| std::mem::replace(held, bounds) != bounds);
    }

    /// The entry of `name`; a new one starts to resolve at once.
    #[must_use]
    pub(crate) fn name(&self, name: &Arc<str>) -> Arc<Name> {
        self.entry(&self.shared.names, name)
    }

    /// The SRV records of `name`; a new one starts to resolve at once.
    #[must_use]
    pub(crate) fn service(&self, name: &Arc<str>) -> Arc<Service> {
        self.entry(&self.shared.services, name)
    }

    fn entry<T: Sought>(&self, entries: &Mutex<WeakMap<Arc<str>, Entry<T>>>, name: &Arc<str>) -> Arc<Entry<T>> {
        let mut entries = entries.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = entries.get(name) {
            return known;
        }
        let entry = entries.get_or_insert_with(Arc::clone(name), || Entry {
            name: Arc::clone(name),
            answer: ArcSwapOption::empty(),
            settled: watch::Sender::new(false),
            wanted: Arc::default(),
        });
        self.shared.runtime.spawn(keep_fresh(
            Arc::downgrade(&entry),
            Arc::clone(&entry.wanted),
            Arc::clone(&self.shared),
        ));
        entry
    }
}

impl<T> Entry<T> {
    /// The latest answer, at once; `None` when there never was any.
    #[must_use]
    pub(crate) fn known(&self) -> Option<Arc<T>> {
        self.answer.load_full()
    }

    /// The latest answer. Waits only while the very first lookup runs; `None` when the name does not resolve.
    pub(crate) async fn first(&self) -> Option<Arc<T>> {
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

    /// Has the name resolve to `answer` from now on.
    #[cfg(test)]
    pub(crate) fn set(&self, answer: T) {
        self.answer.store(Some(Arc::new(answer)));
    }

    /// Has the name looked up again soon, at most once a second: its answer may have changed.
    pub(crate) fn ask_again(&self) {
        self.wanted.notify_one();
    }
}

impl<T> Drop for Entry<T> {
    fn drop(&mut self) {
        // Lets the refreshing task see that nobody is left.
        self.wanted.notify_one();
    }
}

async fn keep_fresh<T: Sought>(entry: Weak<Entry<T>>, wanted: Arc<Notify>, shared: Arc<Shared>) {
    let Some(name) = entry.upgrade().map(|entry| Arc::clone(&entry.name)) else { return };
    let mut failures = 0_u32;
    let mut system_changed = shared.system.changes();
    let mut bounds_changed = shared.bounds.subscribe();
    loop {
        system_changed.mark_unchanged();
        let Some((asked, answer)) = shared.look_up(&entry, failures > 0).await else { break };
        let Some(entry) = entry.upgrade() else { break };
        let wait = match answer {
            Ok((answer, ttl)) => {
                if failures > 0
                    && let Some(message) = shared.failures.ended(&entry.name, true)
                {
                    tracing::info!("{message}");
                }
                failures = 0;
                tracing::debug!("{} is {answer:?}", entry.name);
                entry.answer.store(Some(Arc::new(answer)));
                let bounds = *bounds_changed.borrow_and_update();
                let wait = ttl.unwrap_or(bounds.min_ttl).clamp(bounds.min_ttl, bounds.max_ttl);
                shared.spread(&entry.name, wait, EARLY).max(bounds.min_ttl).max(SHORTEST)
            }
            Err(reason) => {
                shared.metrics.dns_failed();
                let stays =
                    if entry.known().is_some() { "its last addresses stay in use" } else { "it has no address yet" };
                let now = Instant::now().into_std();
                if let Some(warning) = shared.failures.failed(&entry.name, failures == 0, now, (&reason, stays)) {
                    tracing::warn!("{warning}");
                }
                failures = failures.saturating_add(1);
                shared.spread(&entry.name, retry_wait(failures), EARLY_RETRY)
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
    if failures > 0 {
        let _nothing_to_say = shared.failures.ended(&name, false);
    }
}

/// What a look-up came to.
type LookedUp<T> = Result<(T, Option<Duration>), String>;

impl Shared {
    /// Looks a name up when it is its turn, and says when that was; `None` when nobody uses it any more.
    async fn look_up<T: Sought>(
        self: &Arc<Self>,
        entry: &Weak<Entry<T>>,
        failed: bool,
    ) -> Option<(Instant, LookedUp<T>)> {
        // Never closed.
        let _of_failed = if failed { self.failed_at_once.acquire().await.ok() } else { None };
        let _turn = self.at_once.acquire().await.ok();
        let (name, known) = entry.upgrade().map(|entry| (Arc::clone(&entry.name), entry.known()))?;
        let asked = Instant::now();
        // Boxed, so that a name takes little memory while it is not looked up.
        let answer = Box::pin(timeout(LOOKUP_TIMEOUT, T::look_up(self, &name, known.as_deref()))).await;
        Some((asked, answer.unwrap_or_else(|_elapsed| Err("no answer in time".to_owned()))))
    }

    /// Shortens a wait by up to one of so many parts, each name by another one.
    fn spread(&self, name: &str, wait: Duration, parts: u32) -> Duration {
        let share = u32::try_from(self.spread.hash_one(name) % 256).unwrap_or(0);
        wait - wait / parts * share / 256
    }
}

/// As many different ones of `addresses` as are used.
fn distinct(mut addresses: Vec<IpAddr>) -> Vec<IpAddr> {
    addresses.truncate(MAX_ADDRESSES);
    let mut unique = Vec::with_capacity(addresses.len());
    for address in addresses {
        if !unique.contains(&address) {
            unique.push(address);
        }
    }
    unique
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
    async fn waits_are_spread_and_never_longer() {
        let bounds = Dns { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(1) };
        let resolver = Resolver::new(Handle::current(), bounds, Metrics::new());
        let (wait, least) = (Duration::from_secs(100), Duration::from_secs(90));
        let waits: Vec<Duration> =
            (0..100).map(|index| resolver.shared.spread(&format!("n{index}.test"), wait, EARLY)).collect();
        assert!(waits.iter().all(|spread| (least..=wait).contains(spread)), "{waits:?}");
        let distinct: std::collections::BTreeSet<_> = waits.iter().collect();
        assert!(distinct.len() > 50, "{waits:?}");
    }

    #[tokio::test]
    async fn a_name_is_shared_while_used_and_forgotten_afterwards() {
        let bounds = Dns { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(1) };
        let resolver = Resolver::new(Handle::current(), bounds, Metrics::new());
        let localhost: Arc<str> = "localhost".into();
        let (one, two) = (resolver.name(&localhost), resolver.name(&localhost));
        assert!(Arc::ptr_eq(&one, &two));
        let addresses = one.first().await.expect("localhost resolves from /etc/hosts");
        assert!(addresses.iter().all(IpAddr::is_loopback), "{addresses:?}");
        let forgotten = Arc::downgrade(&one);
        drop((one, two));
        assert!(forgotten.upgrade().is_none());
    }
}
