//! The thread that follows the network and keeps next hops current.
//!
//! After every change of links, addresses, routes or rules it looks up the routes of all flows again: the kernel does not
//! tell which destinations a change affects. It also confirms neighbours that only XDP sends to, since the kernel would
//! forget them as unused.

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use rpxy_l4_common::verdict::Counter;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::{Errno, read},
};

use super::state::Inner;
use crate::config::model::Ebpf;
use crate::offload::{
    loader::{Lease, no_network},
    routes::{Events, Netlink, RoutePair},
};

/// Interval between confirmations of neighbours in use. The kernel considers an entry stale after 30 s.
const CONFIRM: Duration = Duration::from_secs(10);
/// Longest wait for events, for poll(2): leases are renewed in time.
const WAIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// The same while there are sessions, whose paths may turn out to be narrower.
const LOOK_WAIT: Timespec = Timespec { tv_sec: 0, tv_nsec: 100_000_000 };
/// Number of routes looked up at once without an event.
const REFRESH_AT_ONCE: usize = 512;
/// Pause after a failure.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Starts the thread, which begins with `enter`. It ends when the other end of `stopped` is closed.
pub(super) fn start(
    inner: Arc<Inner>,
    events: Events,
    netlink: Netlink,
    (stopped, lease): (OwnedFd, Option<Lease>),
    config: Ebpf,
    enter: Arc<dyn Fn() + Send + Sync>,
) -> io::Result<JoinHandle<()>> {
    let (confirmed, pending) = (Instant::now(), Vec::new());
    let mut watch =
        Watch { inner, events, netlink, stopped, config, lease, confirmed, pending, too_big: 0, narrower: false };
    Builder::new().name("network".to_owned()).spawn(move || {
        enter();
        watch.run();
    })
}

struct Watch {
    inner: Arc<Inner>,
    events: Events,
    netlink: Netlink,
    /// Closed at the other end when the thread has to end; a byte says that a predecessor has left the hooks.
    stopped: OwnedFd,
    config: Ebpf,
    /// Lease of programs that would outlive this process.
    lease: Option<Lease>,
    confirmed: Instant,
    /// Pairs whose routes are still to be looked up in this round.
    pending: Vec<(RoutePair, Option<IpAddr>)>,
    /// ICMP of packets that were too big, when it was last looked.
    too_big: u64,
    /// It has come since, and `pending` are to be looked up without waiting.
    narrower: bool,
}

impl Watch {
    fn run(&mut self) {
        self.follow();
        if !self.inner.keeps_spliced() {
            self.inner.close_all();
        }
    }

    fn follow(&mut self) {
        // For changes since the network was first read.
        self.refresh_all();
        self.confirm();
        while !self.is_stopped(self.wait(), true) {
            self.renew();
            self.inner.sweep();
            self.look_for_narrower_paths();
            let changed = match self.events.read() {
                Ok(Some(events)) => self.inner.learn(events),
                Ok(None) => self.read_network(),
                Err(error) => {
                    tracing::debug!("kernel plane: cannot read events of the network: {error}");
                    if self.is_stopped(&PAUSE, false) {
                        return;
                    }
                    self.read_network()
                }
            };
            if changed {
                self.refresh_all();
            }
            if changed || self.confirmed.elapsed() >= CONFIRM {
                self.confirm();
            }
        }
    }

    fn renew(&self) {
        if let Some(lease) = self.lease.as_ref().filter(|lease| lease.is_due()) {
            lease.renew(&mut self.inner.state().maps);
        }
    }

    /// Waits for `timeout`, or less if events arrive and are wanted. Returns true if the thread has to end.
    fn is_stopped(&mut self, timeout: &Timespec, wants_events: bool) -> bool {
        let mut both = [PollFd::new(&self.stopped, PollFlags::IN), PollFd::new(&self.events.socket, PollFlags::IN)];
        let waited = if wants_events { &mut both[..] } else { &mut both[..1] };
        match poll(waited, Some(timeout)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => tracing::debug!("kernel plane: poll: {error}"),
        }
        if both[0].revents().is_empty() {
            return false;
        }
        let goes_on = matches!(read(&self.stopped, &mut [0]), Ok(1));
        if goes_on {
            self.take_hooks();
        }
        !goes_on
    }

    /// A predecessor has left the hooks.
    fn take_hooks(&mut self) {
        let unavailable = match self.netlink.state() {
            Ok(network) => self.inner.take_hooks(&self.config, network).err(),
            Err(error) => Some(no_network(&error)),
        };
        match unavailable {
            None => tracing::info!("kernel plane: {}", self.inner.state().programs.place()),
            Some(error) => {
                tracing::warn!("kernel plane: no program is attached, all datagrams pass through the daemon: {error}");
            }
        }
    }

    /// Reads the whole state of the network, after events were lost.
    fn read_network(&mut self) -> bool {
        match self.netlink.state() {
            Ok(network) => self.inner.relearn(network),
            Err(error) => tracing::debug!("kernel plane: cannot read the state of the network: {error}"),
        }
        true
    }

    fn refresh_all(&mut self) {
        // The lock is not held during look-ups. Sessions that are installed meanwhile do their own.
        let pairs = self.inner.state().table.pairs();
        for (pair, source) in pairs {
            self.renew();
            let route = self.netlink.route(pair.destination, source).ok();
            self.inner.reroute(pair, route);
        }
        let inner = Arc::clone(&self.inner);
        inner.reroute_spliced(|pair| {
            self.renew();
            self.netlink.route(pair.destination, Some(pair.source)).ok().map(|route| route.interface)
        });
        self.inner.changed();
    }

    /// Looks up some routes again, and all of them in turn: the kernel keeps path MTUs apart from routes for some minutes
    /// and sends no event for them.
    fn refresh_some(&mut self) {
        if self.pending.is_empty() {
            self.pending = self.inner.state().table.pairs();
        }
        let from = self.pending.len().saturating_sub(REFRESH_AT_ONCE);
        for (pair, source) in self.pending.split_off(from) {
            let route = self.netlink.route(pair.destination, source).ok();
            self.inner.reroute(pair, route);
        }
    }

    /// How long to wait for events.
    fn wait(&self) -> &'static Timespec {
        let state = self.inner.state();
        let spliced = state.splice.as_ref().is_some_and(|splice| !splice.due.is_empty());
        if spliced || state.table.sessions() > 0 { &LOOK_WAIT } else { &WAIT }
    }

    /// The kernel keeps what routers say about the ways to clients for itself: it is asked when something has come.
    fn look_for_narrower_paths(&mut self) {
        let too_big = self.inner.readers.counter(Counter::IcmpTooBig.index()).unwrap_or(self.too_big);
        if std::mem::replace(&mut self.too_big, too_big) != too_big {
            self.narrower = true;
            self.pending.clear();
        }
        if self.narrower {
            self.refresh_some();
            self.narrower = !self.pending.is_empty();
        }
    }

    fn confirm(&mut self) {
        self.confirmed = Instant::now();
        self.refresh_some();
        let neighbours = self.inner.state().table.neighbours_in_use();
        for (interface, address) in neighbours {
            if let Err(error) = self.netlink.use_neighbour(interface, address) {
                tracing::trace!("kernel plane: neighbour {address}: {error}");
            }
        }
    }
}
