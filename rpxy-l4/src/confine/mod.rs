//! What the process gives up once it knows its configuration: the user that started it, capabilities, files, system calls.
//!
//! docs/hardening.md says which thread keeps what, docs/design/confinement.md why. All of it belongs to threads: it is in
//! place before there is one for strangers' bytes. Errs towards starting: what the kernel lacks is said, and the rest holds.
//! What the operator asked for by name, another user, is an error where it cannot be had.

mod calls;
mod files;
mod report;
mod rights;
#[cfg(test)]
mod tests;

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
};

use rustix::{
    process::{DumpableBehavior, Resource, Rlimit, set_dumpable_behavior, setrlimit},
    thread::CapabilitySet,
};
use thiserror::Error;

use self::{
    calls::Filters,
    files::{Applied, Reach, Rules},
    rights::{Machine, Rights},
};
use crate::{
    config::{
        model::{Config, Confine, EbpfMode, User},
        watch::Seen,
    },
    log::Logs,
};

pub(crate) use report::doctor;

/// What is done first by a thread that is started.
pub(crate) type Enter = Arc<dyn Fn() + Send + Sync>;

/// The reason why the process does not start.
#[derive(Debug, Error)]
pub(crate) enum ConfineError {
    /// It cannot become another user.
    #[error(
        "cannot become user {user}: {error} (start it as root with CAP_SETUID and CAP_SETGID, or as that user without the key user)"
    )]
    User {
        /// The user.
        user: Arc<str>,
        /// The error of the system.
        error: io::Error,
    },
    /// Capabilities cannot be given up.
    #[error(
        "cannot give up the capabilities of root: {0} (allow capset(2), or start it as that user without the key user)"
    )]
    Capabilities(io::Error),
}

/// Paths that the configuration does not tell.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Places<'a> {
    /// The configuration file.
    pub(crate) config: &'a Path,
    /// Files that it names.
    pub(crate) files: &'a [Seen],
    /// The directory of log files.
    pub(crate) logs: Option<&'a Path>,
}

/// What is in force.
pub(crate) struct Confinement {
    settings: Confine,
    rights: Rights,
    filters: Option<Arc<Filters>>,
    landlock: Option<Landlocked>,
    /// Memory is in no core dump and open to no other process.
    hidden: bool,
    /// What of the settings is not in force, and why.
    missing: Vec<String>,
}

/// Files are confined.
struct Landlocked {
    /// Version of Landlock.
    version: i32,
    reach: Reach,
    _rules: Arc<Rules>,
}

impl fmt::Debug for Confinement {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Confinement").field("settings", &self.settings).finish_non_exhaustive()
    }
}

/// What a thread does when it begins, besides what all do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Role {
    /// Serves TCP.
    Tcp,
    /// Hands TCP connections to the kernel.
    Splicer,
    /// Serves UDP.
    Udp,
    /// Follows the network for the kernel plane.
    Network,
    /// Reads files, or writes them.
    Files,
}

/// Confines the calling thread, which has to be the only one but for those of `logs`.
///
/// # Errors
///
/// The process cannot become the user that the configuration names, or give up capabilities.
pub(crate) fn confine(config: &Config, places: &Places<'_>, logs: &Logs) -> Result<Confinement, ConfineError> {
    let settings = config.confine.clone();
    let root = rights::is_root();
    let user = settings.user.as_ref().filter(|_| root).cloned();
    let mut missing = Vec::new();
    if let (Some(user), false) = (&settings.user, root)
        && user.id != rustix::process::geteuid().as_raw()
    {
        missing.push(format!("user = {:?} has no effect: the daemon was not started as root", user.name));
    }
    let rights = Rights::new(config, machine(root, user.as_ref()));
    if let (Some(user), Some(directory)) = (&user, places.logs) {
        report::give_logs(directory, user);
    }
    if let Some(user) = &user {
        let failed = |error| ConfineError::User { user: Arc::clone(&user.name), error };
        rights::become_user(user).map_err(failed)?;
        let of_logs = user.clone();
        let became = logs.on_each_thread(move || rights::become_user(&of_logs));
        became.into_iter().collect::<io::Result<()>>().map_err(failed)?;
    }
    // Another user never has what root had.
    if settings.capabilities || user.is_some() {
        let seals = settings.capabilities;
        let given_up = give_up(seals, rights.start).and_then(|()| {
            let of_logs = logs.on_each_thread(move || give_up(seals, rights.files));
            of_logs.into_iter().collect()
        });
        match given_up {
            Err(error) if user.is_some() => return Err(ConfineError::Capabilities(error)),
            Err(error) => missing.push(lack("capabilities are kept", &error.to_string(), "capabilities")),
            Ok(()) => {}
        }
    }
    if let Some(user) = &user {
        missing.extend(report::out_of_reach(user, rights.files, places));
    }

    crate::offload::prepare_pins(&config.ebpf);
    let mut confinement = Confinement { settings, rights, filters: None, landlock: None, hidden: false, missing };
    confinement.restrict_files(config, places, logs);
    confinement.filter_calls(config);
    confinement.hide_memory(config);
    Ok(confinement)
}

fn machine(root: bool, user: Option<&User>) -> Machine {
    Machine {
        root,
        stays_root: root && user.is_none_or(|user| user.id == 0),
        old_bpf: crate::offload::is_older_than((5, 19)),
        receive_buffer: crate::net::udp::largest_receive_buffer(),
    }
}

/// Leaves the calling thread these capabilities.
fn give_up(seals: bool, kept: CapabilitySet) -> io::Result<()> {
    if seals {
        rights::seal()?;
    }
    rights::reduce(kept)
}

/// A line about something that is not in force.
fn lack(what: &str, why: &str, key: &str) -> String {
    format!("{what}: {why} (confine.{key} = false says that this is meant)")
}

impl Confinement {
    fn restrict_files(&mut self, config: &Config, places: &Places<'_>, logs: &Logs) {
        if !self.settings.landlock {
            return;
        }
        let reach = Reach::new(config, places, rights::is_root());
        let to_abstract =
            std::env::var_os("NOTIFY_SOCKET").is_some_and(|name| name.as_encoded_bytes().starts_with(b"@"));
        let result = Rules::new(&reach, to_abstract).and_then(|rules| {
            let rules = Arc::new(rules);
            let applied = rules.apply()?;
            let of_logs = Arc::clone(&rules);
            logs.on_each_thread(move || of_logs.apply().map(drop)).into_iter().collect::<Result<(), _>>()?;
            Ok((applied, rules))
        });
        match result {
            Ok((Applied::Version(version), rules)) => {
                self.landlock = Some(Landlocked { version, reach, _rules: rules });
            }
            Ok((Applied::Not(why), _)) => self.lacks("files are not confined", why, "landlock"),
            Err(error) => self.lacks("files are not confined", &error.to_string(), "landlock"),
        }
    }

    fn filter_calls(&mut self, config: &Config) {
        if !self.settings.seccomp {
            return;
        }
        let filters = Filters::new(config.ebpf.mode != EbpfMode::Off, config.ebpf.tcp);
        let applied = filters.and_then(|filters| filters.apply_to_all().map(|()| filters));
        match applied {
            Ok(filters) => self.filters = Some(Arc::new(filters)),
            Err(error) => self.lacks("system calls are not filtered", &error.to_string(), "seccomp"),
        }
    }

    fn lacks(&mut self, what: &str, why: &str, key: &str) {
        self.missing.push(lack(what, why, key));
    }

    /// Hides memory if `config` has secrets. It stays hidden.
    fn hide_memory(&mut self, config: &Config) {
        if self.hidden || !self.settings.memory || !config.has_secrets() {
            return;
        }
        let no_core = setrlimit(Resource::Core, Rlimit { current: Some(0), maximum: Some(0) });
        let hidden = set_dumpable_behavior(DumpableBehavior::NotDumpable).and(no_core);
        match hidden {
            Ok(()) => self.hidden = true,
            Err(error) => self.lacks("memory is not hidden", &io::Error::from(error).to_string(), "memory"),
        }
    }

    /// What a thread of this role has to do first.
    pub(crate) fn enter(&self, role: Role) -> Enter {
        let Rights { network, files, udp, tcp, splicer, .. } = self.rights;
        let kept = match role {
            Role::Tcp => tcp,
            Role::Udp => udp,
            Role::Splicer => splicer,
            Role::Network => network,
            Role::Files => files,
        };
        let kept = self.settings.capabilities.then_some(kept);
        let filters = self.filters.clone();
        Arc::new(move || {
            let reduced = kept.map_or(Ok(()), rights::reduce).map_err(|error| error.to_string());
            let filtered = match (&filters, role) {
                (Some(filters), Role::Tcp) => filters.apply_tcp(),
                (Some(filters), Role::Udp | Role::Splicer) => filters.apply_udp(),
                (Some(_), Role::Network | Role::Files) | (None, _) => Ok(()),
            };
            if let Err(error) = reduced.and(filtered.map_err(|error| error.to_string())) {
                let thread = std::thread::current();
                tracing::warn!("cannot confine the thread {}: {error}", thread.name().unwrap_or("?"));
            }
        })
    }

    /// The daemon is ready: the calling thread gives up what only the start needed. Says what is in force, and warns of what is
    /// not.
    pub(crate) fn ready(&mut self) {
        if self.settings.capabilities
            && let Err(error) = rights::reduce(self.rights.control)
        {
            self.lacks("capabilities of the start are kept", &error.to_string(), "capabilities");
        }
        self.say_missing();
        tracing::info!("confined: {}", self.summary());
    }

    fn say_missing(&mut self) {
        for line in self.missing.drain(..) {
            tracing::warn!("{line}");
        }
    }

    /// Another configuration is in effect, which may have the first secrets. What is not in force because of that is said.
    pub(crate) fn reloaded(&mut self, config: &Config) {
        if config.confine != self.settings {
            tracing::warn!("user, group, confine: the change takes effect when the daemon is started again");
        }
        self.hide_memory(config);
        self.say_missing();
    }

    /// What is in force, in one line.
    fn summary(&self) -> String {
        let Confine { user, capabilities, landlock, seccomp, memory } = &self.settings;
        let off = |on: bool| if on { "not possible" } else { "off" };
        let user = match user {
            Some(user) if rustix::process::geteuid().as_raw() == user.id => format!("user {}", user.name),
            _ => format!("user {}", rustix::process::geteuid().as_raw()),
        };
        let held = rustix::thread::capabilities(None)
            .map_or_else(|_unknown| "unknown".to_owned(), |held| rights::names(held.permitted));
        let capabilities = if *capabilities {
            format!("capabilities {held}, of workers none")
        } else {
            "capabilities kept".to_owned()
        };
        let landlock = match &self.landlock {
            Some(Landlocked { version, .. }) => format!("Landlock {version}"),
            None => format!("Landlock {}", off(*landlock)),
        };
        let seccomp = if self.filters.is_some() {
            "system calls filtered".to_owned()
        } else {
            format!("seccomp {}", off(*seccomp))
        };
        let memory = match (self.hidden, memory) {
            (true, _) => "memory hidden",
            (false, true) => "memory not hidden (no secrets)",
            (false, false) => "memory not hidden (off)",
        };
        format!("{user}; {capabilities}; {landlock}; {seccomp}; {memory}")
    }

    /// The sockets of `config` that cannot be made.
    pub(crate) fn without_socket<'c>(&self, config: &'c Config) -> Vec<&'c Path> {
        self.landlock.as_ref().map(|landlocked| landlocked.reach.without_socket(config)).unwrap_or_default()
    }

    /// Which of `files`, or of their directories, cannot be read.
    pub(crate) fn unreadable(&self, files: &[Seen]) -> Vec<PathBuf> {
        self.landlock.as_ref().map(|landlocked| landlocked.reach.unreadable(files)).unwrap_or_default()
    }
}
