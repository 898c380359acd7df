//! Asks targets whether they live: checkers on the control runtime, whose findings balancing reads.
//!
//! There is one checker for each address and check, however many rules name them. What it finds outlives a reload in which
//! both stay. A check never costs a worker anything: [`ask`] does all IO here, and [`kinds`], [`streak`] and [`schedule`]
//! decide without any.

mod ask;
mod checker;
mod keeper;
mod kinds;
mod schedule;
mod streak;
mod voice;

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, Instant},
};

use tokio::{
    sync::{Notify, mpsc},
    task::JoinHandle,
};

use crate::{
    config::model::Target,
    resolve::Lookup,
    route::{Active, Endpoint, Health},
};

/// Checks at once; further ones wait for their turn. Each takes a descriptor.
const MOST_AT_ONCE: usize = 128;
/// Addresses of one name or service that are checked.
const MOST_ADDRESSES: usize = 16;

/// A target that is checked.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    target: Target,
    lookup: Option<Lookup>,
    health: Arc<Health>,
    active: Active,
}

impl Subject {
    /// The target of `endpoint`; `None` when its rule has no check, or never chooses it.
    #[must_use]
    pub(crate) fn of(endpoint: &Endpoint) -> Option<Self> {
        if endpoint.target.down {
            return None;
        }
        Some(Self {
            target: endpoint.target.clone(),
            lookup: endpoint.lookup().cloned(),
            health: Arc::clone(&endpoint.health),
            active: endpoint.active.clone()?,
        })
    }
}

/// The descriptors that checks of `subjects` take at most.
#[must_use]
pub(crate) fn descriptors(subjects: &[Subject]) -> u64 {
    let addresses = subjects.iter().map(|subject| if subject.lookup.is_some() { MOST_ADDRESSES } else { 1 });
    addresses.sum::<usize>().min(MOST_AT_ONCE) as u64
}

/// What is to be checked, and from where.
#[derive(Debug)]
struct Wanted {
    subjects: Vec<Subject>,
    sources: Vec<IpAddr>,
}

/// All checkers. They end when this is dropped.
#[derive(Debug)]
pub(crate) struct Checks {
    wanted: mpsc::UnboundedSender<Wanted>,
    fallen: Arc<Notify>,
    keeper: JoinHandle<()>,
}

impl Checks {
    /// No checkers yet, in a daemon that runs since `started`. Must be called on the control runtime.
    #[must_use]
    pub(crate) fn start(started: Instant) -> Self {
        // Unbounded: only the supervisor sends, once a reload.
        let (wanted, inbox) = mpsc::unbounded_channel();
        let fallen = Arc::new(Notify::new());
        let keeper = tokio::spawn(keeper::keep(inbox, Arc::clone(&fallen), started));
        Self { wanted, fallen, keeper }
    }

    /// Checks `subjects` from now on, and no others, over TCP from one of `sources`, if there are any. What was found of
    /// those that stay remains.
    pub(crate) fn set(&self, subjects: Vec<Subject>, sources: Vec<IpAddr>) {
        drop(self.wanted.send(Wanted { subjects, sources }));
    }

    /// What tells that a target has gone down whose sessions are to end.
    pub(crate) fn fallen(&self) -> Arc<Notify> {
        Arc::clone(&self.fallen)
    }
}

impl Drop for Checks {
    fn drop(&mut self) {
        self.keeper.abort();
    }
}

/// Time since `started`, the clock of target health.
fn uptime(started: Instant) -> Duration {
    started.elapsed()
}
