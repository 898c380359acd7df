//! The thread that follows the network, so that the kernel's entries say where packets go now.
//!
//! It asks for the routes of all flows again after every change of links, addresses, routes and rules: the kernel does
//! not tell which destinations a change concerns. Neighbours that only XDP sends to are confirmed by asking, since the
//! kernel would forget them as unused.

use std::{
    io,
    net::IpAddr,
    os::fd::OwnedFd,
    sync::Arc,
    thread::{Builder, JoinHandle},
    time::{Duration, Instant},
};

use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    io::Errno,
};

use super::{
    lease::Lease,
    netlink::{Events, Netlink},
    state::Inner,
    table::Way,
};

/// How often neighbours in use are confirmed. The kernel takes an entry for stale after half a minute.
const CONFIRM: Duration = Duration::from_secs(10);
/// The same, as poll(2) takes it.
const CONFIRM_WAIT: Timespec = Timespec { tv_sec: 10, tv_nsec: 0 };
/// How often a lease is renewed, likewise.
const RENEW_WAIT: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };
/// Ways whose routes are asked for at once, without an event that says so.
const ASK_AT_ONCE: usize = 512;
/// A pause after a failure that does not end the thread.
const PAUSE: Timespec = Timespec { tv_sec: 1, tv_nsec: 0 };

/// Starts it. It ends when the other end of `stopped` is closed.
pub(super) fn start(
    inner: Arc<Inner>,
    events: Events,
    asking: Netlink,
    stopped: OwnedFd,
    lease: Option<Lease>,
) -> io::Result<JoinHandle<()>> {
    let watch = Watch { inner, events, asking, stopped, lease, confirmed: Instant::now(), left: Vec::new() };
    Builder::new().name("network".to_owned()).spawn(move || watch.run())
}

struct Watch {
    inner: Arc<Inner>,
    events: Events,
    asking: Netlink,
    stopped: OwnedFd,
    /// Where programs would stay without this process.
    lease: Option<Lease>,
    confirmed: Instant,
    /// Ways whose routes are still to be asked for in this round.
    left: Vec<(Way, Option<IpAddr>)>,
}

impl Watch {
    fn run(mut self) {
        // What has changed between the first look and now.
        self.ask_for_all();
        self.confirm();
        let patience = if self.lease.is_some() { RENEW_WAIT } else { CONFIRM_WAIT };
        while !self.is_stopped(&patience, true) {
            self.renew();
            let changed = match self.events.read() {
                Ok(Some(events)) => self.inner.learn(events),
                Ok(None) => self.look_again(),
                Err(error) => {
                    tracing::debug!("kernel plane: events of the network: {error}");
                    if self.is_stopped(&PAUSE, false) {
                        return;
                    }
                    self.look_again()
                }
            };
            if changed {
                self.ask_for_all();
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

    /// Waits for events, or just for the time. True at the end.
    fn is_stopped(&self, patience: &Timespec, wants_events: bool) -> bool {
        let mut both = [PollFd::new(&self.stopped, PollFlags::IN), PollFd::new(&self.events.socket, PollFlags::IN)];
        let waited = if wants_events { &mut both[..] } else { &mut both[..1] };
        match poll(waited, Some(patience)) {
            Ok(_) | Err(Errno::INTR) => {}
            Err(error) => tracing::debug!("kernel plane: poll: {error}"),
        }
        !both[0].revents().is_empty()
    }

    /// Events were lost: reads everything.
    fn look_again(&mut self) -> bool {
        match self.asking.state() {
            Ok(world) => self.inner.relearn(world),
            Err(error) => tracing::debug!("kernel plane: state of the network: {error}"),
        }
        true
    }

    fn ask_for_all(&mut self) {
        // The lock is not held while the kernel is asked. What is installed meanwhile asks for itself.
        let ways = self.inner.state().table.ways();
        for (way, source) in ways {
            self.renew();
            let route = self.asking.route(way.destination, source).ok();
            self.inner.reroute(way, route);
        }
        self.inner.changed();
    }

    /// Asks for the routes of some ways again, and of all of them in turn: what routers have told of the MTU of a way is
    /// kept beside the routes for some minutes, and no event says so.
    fn ask_for_some(&mut self) {
        if self.left.is_empty() {
            self.left = self.inner.state().table.ways();
        }
        let from = self.left.len().saturating_sub(ASK_AT_ONCE);
        for (way, source) in self.left.split_off(from) {
            let route = self.asking.route(way.destination, source).ok();
            self.inner.reroute(way, route);
        }
    }

    fn confirm(&mut self) {
        self.confirmed = Instant::now();
        self.ask_for_some();
        let neighbours = self.inner.state().table.neighbours_in_use();
        for (interface, address) in neighbours {
            if let Err(error) = self.asking.use_neighbour(interface, address) {
                tracing::trace!("kernel plane: neighbour {address}: {error}");
            }
        }
    }
}
