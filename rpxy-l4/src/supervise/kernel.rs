//! The kernel plane in the life of the daemon: started before the workers, told what listens, gone with the process.

use std::sync::Arc;

use super::{listeners::Transport, reload::Daemon};
use crate::{
    config::model::{Config, EbpfMode},
    offload::{self, Kernel, Off, Offload},
};

/// The kernel plane that `config` asks for. Without it everything passes through the daemon, which is said once.
pub(super) fn start(config: &Config) -> Option<Arc<Kernel>> {
    if config.ebpf.mode == EbpfMode::Off {
        return None;
    }
    match offload::start(&config.ebpf) {
        Ok(kernel) => {
            let places: Vec<String> =
                kernel.attachments().into_iter().map(|(name, mode)| format!("{name} ({mode})")).collect();
            let places = if places.is_empty() { "no interface yet".to_owned() } else { places.join(", ") };
            tracing::info!("kernel plane: {} on {places}", kernel.plane());
            Some(kernel)
        }
        Err(error) => {
            tracing::warn!("no kernel plane, all datagrams pass through the daemon: {error}");
            None
        }
    }
}

/// What carries out the flow commands of the sessions.
pub(super) fn offload(kernel: Option<&Arc<Kernel>>) -> Arc<dyn Offload> {
    match kernel {
        Some(kernel) => Arc::clone(kernel) as Arc<dyn Offload>,
        None => Arc::new(Off),
    }
}

impl Daemon {
    /// Tells the kernel plane what to drop, where, and from whom.
    pub(super) fn tell_kernel(&self) {
        let Some(kernel) = &self.kernel else { return };
        let drops = offload::drops(&self.config) | kernel.set_guards(&offload::Guards::new(&self.config));
        let listeners: Vec<_> = self.listeners.addresses(Transport::Udp).map(|address| (*address, drops)).collect();
        kernel.set_bans(&self.bans.networks());
        kernel.set_listeners(&listeners);
    }

    /// Takes over the bans of the configuration, and lets everybody know where they have changed.
    pub(super) fn adopt_bans(&self) {
        if self.bans.set_configured(&self.config.ebpf.ban) {
            self.bans_changed();
        }
    }
}

/// Says what a reload does not change.
pub(super) fn warn_of_what_waits(old: &Config, new: &Config) {
    let (old, new) = (&old.ebpf, &new.ebpf);
    if (old.mode, &old.interfaces, old.max_flows) != (new.mode, &new.interfaces, new.max_flows) {
        tracing::warn!("ebpf: a change of mode, interfaces or max_flows takes effect when the daemon is started again");
    }
}
