//! The kernel plane in the life of the daemon: started before the workers, told what listens, gone with the process.

use std::{net::SocketAddr, sync::Arc};

use crate::{
    config::model::{Config, EbpfMode},
    offload::{self, Kernel},
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

/// Tells the kernel plane what to drop, and where.
pub(super) fn apply(kernel: Option<&Kernel>, config: &Config, listening: impl Iterator<Item = SocketAddr>) {
    let Some(kernel) = kernel else {
        if !config.ebpf.ban.is_empty() {
            tracing::warn!("ebpf.ban: without effect, because there is no kernel plane");
        }
        return;
    };
    let drops = offload::drops(config);
    let listeners: Vec<(SocketAddr, u32)> = listening.map(|address| (address, drops)).collect();
    kernel.set_bans(&config.ebpf.ban);
    kernel.set_listeners(&listeners);
}

/// Says what a reload does not change.
pub(super) fn warn_of_what_waits(old: &Config, new: &Config) {
    let (old, new) = (&old.ebpf, &new.ebpf);
    if (old.mode, &old.interfaces, old.max_flows) != (new.mode, &new.interfaces, new.max_flows) {
        tracing::warn!("ebpf: a change of mode, interfaces or max_flows takes effect when the daemon is started again");
    }
}
