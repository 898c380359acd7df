//! Tells when the configuration file, or a file that it names, has changed.
//!
//! The directories on the way to the file are watched, not the file: editors replace it, Kubernetes swaps a symbolic
//! link above it. An event there is only a reason to look; whether the file changed is told by its fingerprint, so that
//! a log file in the same directory causes nothing. Some file systems (NFS, 9p, some container mounts) send no events,
//! so there is a look every 5 s as well, and when the system has no watches left, looking is all there is.
//!
//! It errs towards reading once too often: a file written anew with the same content counts as changed.

mod debounce;
mod location;

use std::{
    collections::BTreeMap,
    io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use notify::{
    Event, EventKind, RecommendedWatcher, RecursiveMode, Watcher as _,
    event::{AccessKind, AccessMode},
};
use thiserror::Error;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use self::{
    debounce::Debounce,
    location::{DirectoryId, Fingerprint, directories},
};

/// Interval of polling without events.
const LOOK: Duration = Duration::from_secs(5);

/// The least time between two looks, however many events there are.
const BREATH: Duration = Duration::from_millis(20);

/// Error of a file that cannot be watched at all.
#[derive(Debug, Error)]
pub(crate) enum WatchError {
    /// The path is relative and the current directory is gone.
    #[error("cannot watch {}: no current directory: {error}", path.display())]
    CurrentDirectory {
        /// The path.
        path: PathBuf,
        /// The error of the system.
        error: io::Error,
    },
}

/// The directories in which an entry can be changed so that `path` leads to another file.
pub(crate) fn directories_to(path: &Path) -> Vec<PathBuf> {
    directories(path).into_keys().collect()
}

/// A watch on one file, which need not exist yet.
#[derive(Debug)]
pub(crate) struct Watch {
    path: PathBuf,
    /// Files that the configuration names.
    others: Vec<Seen>,
    debounce: Debounce<State>,
    events: Events,
    last_look: Instant,
    next_look: Instant,
    interval: Duration,
}

impl Watch {
    /// Watches the file at `path` from now on. Create the watch before reading the file, so that no change is missed.
    ///
    /// Must be called inside a tokio runtime.
    ///
    /// # Errors
    ///
    /// A relative path cannot be made absolute. Lack of watches is not an error: see [`Watch::degraded`].
    pub(crate) fn new(path: &Path) -> Result<Self, WatchError> {
        Self::with_interval(path, LOOK)
    }

    fn with_interval(path: &Path, interval: Duration) -> Result<Self, WatchError> {
        let absolute =
            std::path::absolute(path).map_err(|error| WatchError::CurrentDirectory { path: path.to_owned(), error })?;
        let mut events = Events::new();
        events.follow(&absolute, &[]);
        let now = Instant::now();
        Ok(Self {
            debounce: Debounce::new(state(&absolute, &[])),
            path: absolute,
            others: Vec::new(),
            events,
            last_look: now,
            next_look: now + interval,
            interval,
        })
    }

    /// Resolves when the file has changed and has been quiet for 100 ms, or has kept changing for 1 s. Changes in
    /// between are one. A file that is removed counts as changed once it is back.
    ///
    /// Cancel-safe: a change seen by a call that was dropped is reported by the next.
    pub(crate) async fn changed(&mut self) {
        loop {
            let wake = self.debounce.deadline().map_or(self.next_look, |due| due.min(self.next_look));
            tokio::select! {
                () = self.events.occurred(self.last_look + BREATH) => {}
                () = sleep_until(wake) => {}
            }
            if self.look(Instant::now()) {
                return;
            }
        }
    }

    /// Starts anew to follow events, by a thread with the rights of the calling one. What happens meanwhile is found.
    pub(crate) fn restart(&mut self) {
        self.events = Events::new();
        self.events.follow(&self.path, &self.others);
        self.next_look = Instant::now();
    }

    /// The files that are watched beside the configuration file.
    pub(crate) fn others(&self) -> &[Seen] {
        &self.others
    }

    /// From now on watches these files beside the configuration file. Changes since they were seen are found.
    pub(crate) fn set_others(&mut self, files: &[Seen]) {
        self.others = files.to_vec();
        self.debounce.amend(|(_, others)| *others = files.iter().map(|seen| seen.fingerprint).collect());
        // There were no events for what happened until now.
        self.next_look = Instant::now();
        self.events.follow(&self.path, &self.others);
    }

    /// Reason for which there are no events and the file is only polled every 5 s; `None` if there are.
    pub(crate) fn degraded(&self) -> Option<&str> {
        self.events.degraded.as_deref()
    }

    /// One look at the file and the way to it. These are a few calls on a local file system: too short to be worth a
    /// thread of their own.
    fn look(&mut self, now: Instant) -> bool {
        self.last_look = now;
        if now >= self.next_look {
            self.next_look = now + self.interval;
            self.events.retry();
        }
        self.events.follow(&self.path, &self.others);
        self.debounce.look(state(&self.path, &self.others), now)
    }
}

/// The configuration file, and those that it names; a missing one of these is a state like any other.
type State = (Fingerprint, Vec<Option<Fingerprint>>);

/// `None` while there is no configuration file.
fn state(path: &Path, others: &[Seen]) -> Option<State> {
    Some((Fingerprint::of(path)?, others.iter().map(Seen::fingerprint).collect()))
}

/// A file, or the names in a directory, as it was before it was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Seen {
    path: PathBuf,
    is_directory: bool,
    fingerprint: Option<Fingerprint>,
}

impl Seen {
    /// The file at `path` now; it need not exist.
    #[must_use]
    pub(crate) fn now(path: &Path) -> Self {
        Self::new(path, false)
    }

    /// The names in the directory at `path` now; it need not exist.
    #[must_use]
    pub(crate) fn directory(path: &Path) -> Self {
        Self::new(path, true)
    }

    fn new(path: &Path, is_directory: bool) -> Self {
        let path = std::path::absolute(path).unwrap_or_else(|_no_directory| path.to_owned());
        let seen = Self { path, is_directory, fingerprint: None };
        Self { fingerprint: seen.fingerprint(), ..seen }
    }

    /// As it is now.
    fn fingerprint(&self) -> Option<Fingerprint> {
        if self.is_directory { Fingerprint::of_directory(&self.path) } else { Fingerprint::of(&self.path) }
    }

    /// Its path.
    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Returns whether it is a directory whose names count.
    pub(crate) fn is_directory(&self) -> bool {
        self.is_directory
    }

    /// The directories whose changes can change it.
    fn directories(&self) -> BTreeMap<PathBuf, DirectoryId> {
        // Any name in a directory tells the way to it.
        if self.is_directory { directories(&self.path.join("*")) } else { directories(&self.path) }
    }
}

/// Events of the directories on the way to the file.
struct Events {
    /// Holds one permit at most, and giving it never blocks the watcher's thread.
    happened: Arc<Notify>,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeMap<PathBuf, DirectoryId>,
    degraded: Option<String>,
}

impl Events {
    fn new() -> Self {
        let mut events =
            Self { happened: Arc::new(Notify::new()), watcher: None, watched: BTreeMap::new(), degraded: None };
        events.start();
        events
    }

    /// Completes when something happened in one of the directories, not before `earliest`.
    async fn occurred(&self, earliest: Instant) {
        sleep_until(earliest).await;
        self.happened.notified().await;
    }

    /// Watches the directories that matter for `path` and `others` now, and no others.
    fn follow(&mut self, path: &Path, others: &[Seen]) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted = directories(path);
        wanted.extend(others.iter().flat_map(Seen::directories));
        // A directory made anew under its old name is another directory.
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, id)| wanted.get(*path) != Some(id))
            .map(|(path, _)| path.clone())
            .collect();
        for directory in stale {
            // Fails when the directory is gone, and its watch with it.
            watcher.unwatch(&directory).ok();
            self.watched.remove(&directory);
        }
        let mut failure = None;
        for (directory, id) in wanted {
            if self.watched.contains_key(&directory) {
                continue;
            }
            match watcher.watch(&directory, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(directory, id);
                }
                Err(error) => failure = Some(format!("cannot watch {}: {error}", directory.display())),
            }
        }
        self.degraded = failure;
    }

    /// Tries again to get a watcher, if there is none.
    fn retry(&mut self) {
        if self.watcher.is_none() {
            self.start();
        }
    }

    fn start(&mut self) {
        let happened = Arc::clone(&self.happened);
        let started = notify::recommended_watcher(move |event: notify::Result<Event>| {
            if event.map_or(true, |event| is_change(event.kind)) {
                happened.notify_one();
            }
        });
        match started {
            Ok(watcher) => {
                self.watcher = Some(watcher);
                self.degraded = None;
            }
            Err(error) => self.degraded = Some(format!("cannot watch directories: {error}")),
        }
    }
}

impl std::fmt::Debug for Events {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Events")
            .field("watched", &self.watched)
            .field("degraded", &self.degraded)
            .finish_non_exhaustive()
    }
}

/// Returns whether an event may mean other contents. Reading a file, as the daemon itself does, does not.
fn is_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        EventKind::Any | EventKind::Create(_) | EventKind::Modify(_) | EventKind::Remove(_) | EventKind::Other => true,
    }
}

#[cfg(test)]
mod tests;
