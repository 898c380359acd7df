//! One address and one check: asks again and again, and turns the verdict.

use std::{
    io,
    net::{IpAddr, Ipv6Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Semaphore, mpsc, watch},
    task::JoinHandle,
    time::{sleep, sleep_until},
};

use super::{
    ask::{Found, Over, ask},
    kinds::Question,
    schedule,
    streak::{Streak, Verdict},
    uptime,
};
use crate::{
    config::model::Check,
    net,
    route::{Random, Standing},
};

/// What tells checkers from each other.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Key {
    /// Name and variant of the check.
    pub(super) check: (Arc<str>, u8),
    pub(super) udp: bool,
    pub(super) place: Place,
    /// Whom the check asks for there.
    pub(super) addressee: Option<Arc<str>>,
}

/// Where a check asks: an address and a port.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) enum Place {
    Address(SocketAddr),
    /// On an interface that is looked up for each check.
    LinkLocal {
        address: Ipv6Addr,
        zone: Arc<str>,
        port: u16,
    },
    Unix(Arc<Path>),
}

impl Place {
    /// The address, unless it is a path.
    pub(super) fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Address(address) => Some(address.ip()),
            Self::LinkLocal { address, .. } => Some((*address).into()),
            Self::Unix(_) => None,
        }
    }
}

/// What all checkers share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) started: Instant,
    pub(super) random: Random,
    pub(super) turns: Semaphore,
    /// Addresses of this machine that checks over TCP come from, as connections do; empty leaves it to the kernel.
    pub(super) sources: ArcSwap<Vec<IpAddr>>,
    pub(super) events: mpsc::Sender<Event>,
}

/// What the keeper has to know.
#[derive(Debug)]
pub(super) enum Event {
    /// The address has gone down, after so many checks in a row.
    Fallen(Arc<Key>, u16),
    /// The address is up again, after so many checks in a row.
    Risen(Arc<Key>, u16),
    /// It has answered a check that began at this time, although connections have failed before.
    Refuted(Arc<Key>, Duration),
    /// Nothing could be asked, for want of something on our side.
    Hindered(String),
}

/// A checker that runs until this is dropped.
#[derive(Debug)]
pub(super) struct Running {
    pub(super) standing: Arc<Standing>,
    settings: watch::Sender<Arc<Check>>,
    task: JoinHandle<()>,
}

impl Running {
    /// Starts to check the address of `key` after the time `first`; what was found of it so far is in `standing`.
    pub(super) fn start(
        key: Arc<Key>,
        check: &Arc<Check>,
        standing: &Arc<Standing>,
        common: &Arc<Common>,
        first: Duration,
    ) -> Self {
        let (settings, inbox) = watch::channel(Arc::clone(check));
        let verdict = if standing.down_since().is_some() { Verdict::Down } else { Verdict::Up };
        let checker = Checker {
            key,
            settings: inbox,
            standing: Arc::clone(standing),
            streak: Streak::new(verdict),
            doubted: false,
            common: Arc::clone(common),
        };
        let task = tokio::spawn(checker.run(first));
        Self { standing: Arc::clone(standing), settings, task }
    }

    /// Checks as `check` says from now on.
    pub(super) fn set(&self, check: &Arc<Check>) {
        self.settings.send_if_modified(|held| {
            let changed = *held != *check;
            *held = Arc::clone(check);
            changed
        });
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.task.abort();
    }
}

#[derive(Debug)]
struct Checker {
    key: Arc<Key>,
    settings: watch::Receiver<Arc<Check>>,
    standing: Arc<Standing>,
    streak: Streak,
    /// Connections have failed since the last check that passed.
    doubted: bool,
    common: Arc<Common>,
}

impl Checker {
    async fn run(mut self, first: Duration) {
        sleep(first).await;
        loop {
            let check = Arc::clone(&self.settings.borrow_and_update());
            let began = tokio::time::Instant::now();
            if self.check(&check).await.is_none() || !self.wait(began, check).await {
                return;
            }
        }
    }

    /// Asks once, when it is its turn; `None` when nobody wants to know any more.
    async fn check(&mut self, check: &Check) -> Option<()> {
        let common = Arc::clone(&self.common);
        let turn = common.turns.acquire().await.ok()?;
        let since = uptime(common.started);
        let found = match self.over() {
            Ok(over) => {
                let mut question = Question::new(check, self.key.addressee.as_deref(), &common.random);
                ask(over, &mut question, check.timeout).await
            }
            Err(error) => Found::Failed(error.to_string()),
        };
        drop(turn);
        for event in self.note(found, check, since) {
            common.events.send(event).await.ok()?;
        }
        Some(())
    }

    /// Takes what a check has found that began at `since`.
    fn note(&mut self, found: Found, check: &Check, since: Duration) -> Vec<Event> {
        let mut events = Vec::new();
        let passed = match found {
            Found::Nothing(reason) => return vec![Event::Hindered(reason)],
            Found::Passed { answered } => {
                self.standing.passed();
                if answered && std::mem::replace(&mut self.doubted, false) {
                    events.push(Event::Refuted(Arc::clone(&self.key), since));
                }
                true
            }
            Found::Failed(reason) => {
                self.standing.failed(&reason);
                false
            }
        };
        match self.streak.note(passed, check.fall, check.rise) {
            None => {}
            Some((Verdict::Down, after)) => {
                self.standing.set_down(uptime(self.common.started));
                events.push(Event::Fallen(Arc::clone(&self.key), after));
            }
            Some((Verdict::Up, after)) => {
                self.standing.set_up();
                events.push(Event::Risen(Arc::clone(&self.key), after));
            }
        }
        events
    }

    /// Waits for the time of the next check after the one that `began`; false when there is none.
    async fn wait(&mut self, began: tokio::time::Instant, mut check: Arc<Check>) -> bool {
        let mut next = began + schedule::next(check.interval, self.common.random.next());
        loop {
            tokio::select! {
                () = sleep_until(next) => return true,
                () = self.standing.doubted() => {
                    self.doubted = true;
                    next = next.min(began + schedule::rest(check.interval));
                }
                changed = self.settings.changed() => {
                    if changed.is_err() {
                        return false;
                    }
                    let new = Arc::clone(&self.settings.borrow_and_update());
                    let random = self.common.random.next();
                    next = if new.asks_like(&check) {
                        began + schedule::next(new.interval, random)
                    } else {
                        self.streak.start_over();
                        tokio::time::Instant::now() + schedule::first(new.interval, 1, random)
                    };
                    check = new;
                }
            }
        }
    }

    fn over(&self) -> io::Result<Over> {
        let address = match &self.key.place {
            Place::Address(address) => *address,
            Place::LinkLocal { address, zone, port } => net::link_local(*address, zone, *port)?,
            Place::Unix(path) => return Ok(Over::Unix(Arc::clone(path))),
        };
        if self.key.udp {
            return Ok(Over::Udp(address));
        }
        let same_family = |source: &&IpAddr| source.is_ipv4() == address.is_ipv4();
        let mut sources: Vec<IpAddr> = self.common.sources.load().iter().filter(same_family).copied().collect();
        let first = usize::try_from(self.common.random.next()).unwrap_or(0).checked_rem(sources.len()).unwrap_or(0);
        sources.rotate_left(first);
        Ok(Over::Tcp(address, sources))
    }
}
