//! Keeps the checkers that the configuration in effect and the addresses of its names ask for, and passes on what they find.

use std::{
    collections::{HashMap, HashSet},
    hash::{BuildHasher, RandomState},
    net::SocketAddr,
    num::NonZeroU16,
    sync::Arc,
    time::{Duration, Instant},
};

use arc_swap::ArcSwap;
use tokio::{
    sync::{Notify, Semaphore, mpsc},
    time::MissedTickBehavior,
};

use super::{
    MOST_ADDRESSES, MOST_AT_ONCE, Subject, Wanted,
    checker::{Common, Event, Key, Place as Where, Running},
    kinds, schedule, uptime,
    voice::{Told, Voice},
};
use crate::{
    config::model::{Host, Target, socket_address},
    limit::LogThrottle,
    resolve::{Lookup, Place},
    route::{Random, Standing},
};

/// Interval of looking for names whose addresses have changed.
const LOOK: Duration = Duration::from_secs(1);
/// Interval of log messages about checks for which there was no room.
const SAY_AGAIN: Duration = Duration::from_secs(60);
/// Findings on their way to the keeper; checkers wait while there are more.
const EVENTS: usize = 256;

/// Keeps checkers until its task is ended.
pub(super) async fn keep(mut inbox: mpsc::UnboundedReceiver<Wanted>, fallen: Arc<Notify>, started: Instant) {
    let (events, mut found) = mpsc::channel(EVENTS);
    let random = Random::new(RandomState::new().hash_one(started));
    let turns = Semaphore::new(MOST_AT_ONCE);
    let common = Common { started, random, turns, sources: ArcSwap::default(), events };
    let mut keeper = Keeper {
        subjects: Vec::new(),
        checkers: HashMap::new(),
        common: Arc::new(common),
        fallen,
        voice: Voice::default(),
        said_hindered: LogThrottle::new(SAY_AGAIN),
    };
    let mut look = tokio::time::interval(LOOK);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            wanted = inbox.recv() => match wanted {
                Some(Wanted { subjects, sources }) => {
                    keeper.common.sources.store(Arc::new(sources));
                    keeper.set(subjects);
                }
                None => return,
            },
            Some(event) = found.recv() => keeper.handle(event),
            _ = look.tick() => {
                keeper.follow();
                keeper.tell_owed();
            }
        }
    }
}

struct Keeper {
    subjects: Vec<Watched>,
    checkers: HashMap<Arc<Key>, Kept>,
    common: Arc<Common>,
    fallen: Arc<Notify>,
    voice: Voice,
    said_hindered: LogThrottle,
}

/// A target that is checked, with what its checkers were made for.
struct Watched {
    subject: Subject,
    /// Where its name led; `None` before the first look, and for a literal one.
    seen: Option<Vec<Place>>,
    keys: Vec<Arc<Key>>,
}

/// A checker, and the subjects that it is for, by index.
struct Kept {
    running: Running,
    told: Told,
    subjects: Vec<usize>,
}

/// A checker that is about to be started.
type Starting = (Arc<Key>, Arc<Standing>, usize);

impl Keeper {
    fn set(&mut self, subjects: Vec<Subject>) {
        let mut known = HashSet::new();
        let once = |subject: &Subject| known.insert(Arc::as_ptr(&subject.active.checked));
        let watched = |subject| Watched { subject, seen: None, keys: Vec::new() };
        let subjects: Vec<Watched> = subjects.into_iter().filter(once).map(watched).collect();
        let left = std::mem::replace(&mut self.subjects, subjects);
        for Watched { subject, .. } in left {
            // Connections may still hold what was found of a target that is not checked any more.
            if !known.contains(&Arc::as_ptr(&subject.active.checked)) {
                subject.active.checked.set(Vec::new());
            }
        }
        self.look(|_| true);
    }

    /// Follows names and services whose addresses have changed.
    fn follow(&mut self) {
        self.look(|watched| match watched.subject.lookup.as_ref().and_then(Lookup::known) {
            None => false,
            Some(known) => watched.seen.as_ref() != Some(&known),
        });
    }

    /// Makes the checkers of all subjects that have `changed`, and ends those that nobody asks for any more.
    fn look(&mut self, changed: impl Fn(&Watched) -> bool) {
        let mut starting: Vec<Starting> = Vec::new();
        let mut new: HashMap<Arc<Key>, Arc<Standing>> = HashMap::new();
        let mut any = false;
        for (index, watched) in self.subjects.iter_mut().enumerate().filter(|(_, watched)| changed(watched)) {
            any = true;
            let Subject { active, lookup, .. } = &watched.subject;
            watched.seen = lookup.as_ref().and_then(Lookup::known);
            let keys = watched.subject.keys(watched.seen.as_deref().unwrap_or_default());
            let before = active.checked.addresses();
            let standings = keys.iter().map(|(backend, key)| {
                if let Some(Kept { running, .. }) = self.checkers.get(key) {
                    running.set(&active.check);
                    return (*backend, Arc::clone(&running.standing));
                }
                let standing = new.entry(Arc::clone(key)).or_insert_with(|| {
                    // What was found of this address with another port or name holds until the first check.
                    let before =
                        before.iter().find(|(address, _)| address.map(|address| address.ip()) == key.place.ip());
                    let standing = Arc::new(before.map_or_else(Standing::default, |(_, before)| before.successor()));
                    starting.push((Arc::clone(key), Arc::clone(&standing), index));
                    standing
                });
                (*backend, Arc::clone(standing))
            });
            active.checked.set(standings.collect());
            watched.keys = keys.into_iter().map(|(_, key)| key).collect();
        }
        if !any {
            return;
        }
        let count = starting.len();
        for (key, standing, index) in starting {
            let Some(watched) = self.subjects.get(index) else { continue };
            let check = &watched.subject.active.check;
            let first = schedule::first(check.interval, count, self.common.random.next());
            let running = Running::start(Arc::clone(&key), check, &standing, &self.common, first);
            self.checkers.insert(key, Kept { running, told: Told::default(), subjects: Vec::new() });
        }
        for kept in self.checkers.values_mut() {
            kept.subjects.clear();
        }
        for (index, watched) in self.subjects.iter().enumerate() {
            for key in &watched.keys {
                if let Some(kept) = self.checkers.get_mut(key) {
                    kept.subjects.push(index);
                }
            }
        }
        self.checkers.retain(|_, kept| !kept.subjects.is_empty());
    }

    fn handle(&mut self, event: Event) {
        let now = uptime(self.common.started);
        match event {
            Event::Fallen(key, after) => self.fallen(&key, after, now),
            Event::Risen(key, after) => {
                let Some(Kept { told, .. }) = self.checkers.get_mut(&key) else { return };
                if let Some(withheld) = self.voice.risen(told, now) {
                    let (targets, check) = (self.targets(&key), &key.check.0);
                    tracing::info!("{targets}: up again, {}{}", passed(check, after), more(withheld));
                }
            }
            Event::Refuted(key, since) => {
                for watched in self.of(&key).filter(|watched| watched.subject.active.check.port.is_none()) {
                    if watched.subject.health.refuted(since) {
                        tracing::info!("{} can be reached again", watched.subject.target);
                    }
                }
            }
            Event::Hindered(reason) => {
                if let Some(withheld) = self.said_hindered.speak(Instant::now()) {
                    tracing::warn!("cannot check targets: {reason} ({withheld} more not shown)");
                }
            }
        }
    }

    /// Tells how many changes were not shown, when no other one has done so.
    fn tell_owed(&mut self) {
        if let Some(withheld) = self.voice.owed(uptime(self.common.started)) {
            tracing::warn!("{withheld} more changes of the health of targets were not shown");
        }
    }

    fn fallen(&mut self, key: &Arc<Key>, after: u16, now: Duration) {
        let Some(Kept { running, told, .. }) = self.checkers.get_mut(key) else { return };
        let reason = running.standing.reason();
        let say = self.voice.fallen(told, now);
        let mut close = false;
        for watched in self.of(key) {
            watched.subject.active.checked.tell_fallen();
            close |= watched.subject.active.check.close;
        }
        if close {
            self.fallen.notify_one();
        }
        if let Some(withheld) = say {
            let (targets, check) = (self.targets(key), &key.check.0);
            let reason = reason.as_deref().unwrap_or("no reason");
            tracing::warn!("{targets}: down, {}: {reason}{}", failed(check, after), more(withheld));
        }
    }

    /// The subjects whose addresses include that of `key`.
    fn of(&self, key: &Key) -> impl Iterator<Item = &Watched> {
        let indices = self.checkers.get(key).map(|kept| kept.subjects.as_slice()).unwrap_or_default();
        indices.iter().filter_map(|index| self.subjects.get(*index))
    }

    /// The targets that have the address of `key`, for the log.
    fn targets(&self, key: &Key) -> String {
        const SHOWN: usize = 3;
        let text = |watched: &Watched| match &watched.subject.target.host {
            Host::Name(_) => match key.place.ip() {
                Some(address) => format!("{} at {address}", watched.subject.target),
                None => watched.subject.target.to_string(),
            },
            Host::Srv(_) => match &key.place {
                Where::Address(address) => format!("{} at {address}", watched.subject.target),
                Where::LinkLocal { .. } | Where::Unix(_) => watched.subject.target.to_string(),
            },
            Host::Ip { .. } | Host::LinkLocal { .. } | Host::Unix(_) => watched.subject.target.to_string(),
        };
        let mut targets = self.of(key).map(text);
        let shown: Vec<String> = targets.by_ref().take(SHOWN).collect();
        match targets.count() {
            0 => shown.join(", "),
            others => format!("{} and {others} more", shown.join(", ")),
        }
    }
}

impl Subject {
    /// The checkers of the target, each with the backend address that it speaks for, `None` for a path. A name or service led
    /// to `known`.
    fn keys(&self, known: &[Place]) -> Vec<(Option<SocketAddr>, Arc<Key>)> {
        let check = &self.active.check;
        let Target { host, port, .. } = &self.target;
        let asked = |port: u16| check.port.map_or(port, NonZeroU16::get);
        let key = |place, addressee| {
            let (check, udp) = ((Arc::clone(&check.name), check.variant()), check.kind.is_udp());
            Arc::new(Key { check, udp, place, addressee })
        };
        let addressee = kinds::addressee(check, host, *port);
        let fixed = |backend, place| vec![(backend, key(place, addressee.clone()))];
        match host {
            Host::Ip { address, scope } => {
                let place = Where::Address(socket_address(*address, *scope, asked(*port)));
                fixed(Some(SocketAddr::new(*address, *port)), place)
            }
            Host::LinkLocal { address, zone } => {
                let place = Where::LinkLocal { address: *address, zone: Arc::clone(zone), port: asked(*port) };
                fixed(Some(SocketAddr::new((*address).into(), *port)), place)
            }
            Host::Unix(path) => fixed(None, Where::Unix(Arc::clone(path))),
            Host::Name(_) | Host::Srv(_) => {
                let of_place = |Place { address, record }: &Place| {
                    let addressee = match record {
                        Some(record) => kinds::addressee(check, &Host::Name(Arc::clone(&record.host)), address.port()),
                        None => addressee.clone(),
                    };
                    let place = Where::Address(SocketAddr::new(address.ip(), asked(address.port())));
                    (Some(*address), key(place, addressee))
                };
                known.iter().take(MOST_ADDRESSES).map(of_place).collect()
            }
        }
    }
}

fn failed(check: &str, after: u16) -> String {
    match after {
        1 => format!("check {check:?} has failed"),
        _ => format!("check {check:?} has failed {after} times"),
    }
}

fn passed(check: &str, after: u16) -> String {
    match after {
        1 => format!("check {check:?} has passed"),
        _ => format!("check {check:?} has passed {after} times"),
    }
}

fn more(withheld: u32) -> String {
    if withheld == 0 { String::new() } else { format!(" ({withheld} more changes not shown)") }
}
