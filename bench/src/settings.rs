//! Settings of the hosts' network stacks: those of a suite, and for a while those of the system.

use std::{
    collections::BTreeMap,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use rpxy_l4_tests::{topology::Host, wait::pause};

/// Time until a closed connection's port is free: 60 s (`TCP_TIMEWAIT_LEN`), and a little.
const TIME_WAIT: Duration = Duration::from_secs(62);

/// Settings of all hosts of a rig.
#[derive(Debug)]
pub struct Settings {
    hosts: [Host; 3],
    settings: Vec<Setting>,
    /// End of the last load on hosts with the system's settings, by candidate.
    untuned: Mutex<BTreeMap<u16, Instant>>,
}

/// A key under `/proc/sys/net`.
#[derive(Debug)]
pub struct Setting {
    /// The key, as a path.
    pub key: &'static str,
    /// Its value in the suite.
    pub tuned: &'static str,
    /// Its value in a new namespace of this system.
    pub system: String,
}

impl Settings {
    /// Gives new `hosts` the values of a suite, by key.
    ///
    /// # Errors
    ///
    /// When the kernel has no such key or refuses a value.
    pub fn apply(hosts: [Host; 3], tuned: &'static [(&'static str, &'static str)]) -> anyhow::Result<Self> {
        let [first, ..] = &hosts;
        let setting =
            |(key, tuned): &(&'static str, &'static str)| Ok(Setting { key, tuned, system: first.read_sysctl(key)? });
        let list = tuned.iter().map(setting).collect::<anyhow::Result<_>>()?;
        let settings = Self { hosts, settings: list, untuned: Mutex::default() };
        settings.set(|setting| setting.tuned)?;
        Ok(settings)
    }

    /// Gives all hosts the system's values until the returned guard is dropped. Waits until the ports are free that the
    /// last such load of candidate `index` has used.
    ///
    /// # Errors
    ///
    /// When the kernel refuses.
    pub fn untuned(&self, index: u16) -> anyhow::Result<Untuned<'_>> {
        let last = self.untuned.lock().unwrap_or_else(PoisonError::into_inner).get(&index).copied();
        if let Some(left) = last.and_then(|last| TIME_WAIT.checked_sub(last.elapsed())) {
            pause(left);
        }
        let untuned = Untuned { settings: self, index };
        self.set(|setting| &setting.system)?;
        Ok(untuned)
    }

    /// Returns a Markdown table of the settings.
    pub fn table(&self) -> String {
        let mut text = "| setting of all hosts | here | system |\n|---|---|---|\n".to_owned();
        for Setting { key, tuned, system } in &self.settings {
            let system = system.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
            text += &format!("| `net.{}` | {tuned} | {system} |\n", key.replace('/', "."));
        }
        text
    }

    fn set(&self, value: impl Fn(&Setting) -> &str) -> anyhow::Result<()> {
        for host in &self.hosts {
            for setting in &self.settings {
                host.sysctl(setting.key, value(setting))?;
            }
        }
        Ok(())
    }
}

/// Hosts with the system's settings. Dropping it gives them those of the suite again.
#[derive(Debug)]
pub struct Untuned<'rig> {
    settings: &'rig Settings,
    index: u16,
}

impl Drop for Untuned<'_> {
    fn drop(&mut self) {
        let mut last = self.settings.untuned.lock().unwrap_or_else(PoisonError::into_inner);
        last.insert(self.index, Instant::now());
        // These values have been set before, so that the kernel takes them.
        let _taken = self.settings.set(|setting| setting.tuned);
    }
}
