//! The kernel plane in the life of the daemon: started before the workers, told what listens, gone with the process.

use std::sync::Arc;

use rpxy_l4_common::verdict::Counter;

use tokio::time::timeout;

use super::{
    listeners::{Listeners, Transport},
    reload::{Daemon, FIRST_ANSWERS},
};
use crate::{
    config::model::{Config, EbpfMode},
    metrics::{KernelPackets, KernelPlane},
    offload::{self, Kernel, Off, Offload},
    udp::{self, Control},
};

impl KernelPlane for Kernel {
    fn packets(&self) -> Vec<KernelPackets> {
        let of = |(counter, count): (Counter, u64)| KernelPackets {
            action: counter.action().name(),
            outcome: counter.name(),
            count,
        };
        self.counters().into_iter().map(of).collect()
    }

    fn flows(&self) -> u64 {
        Kernel::flows(self) as u64
    }
}

/// The kernel plane that `config` asks for. Without it everything passes through the daemon, which is said once.
pub(super) fn start(config: &Config) -> Option<Arc<Kernel>> {
    if config.ebpf.mode == EbpfMode::Off {
        offload::warn_of_unowned(&config.ebpf.pin_path);
        return None;
    }
    match Kernel::start(&config.ebpf) {
        Ok(kernel) => {
            let interfaces: Vec<String> =
                kernel.attachments().into_iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
            let interfaces = if interfaces.is_empty() { "no interface yet".to_owned() } else { interfaces.join(", ") };
            tracing::info!("kernel plane: {} on {interfaces}", kernel.hook());
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

/// Tells the workers which sessions an earlier daemon has left; how many. Before their sockets are handed out.
pub(super) async fn expect_left(
    kernel: Option<&Arc<Kernel>>,
    snapshot: &udp::Snapshot,
    listeners: &Listeners,
) -> usize {
    let left = kernel.map(|kernel| kernel.inherited()).unwrap_or_default();
    let count = left.len();
    if count > 0 {
        // Which target a backend is may take an answer of the DNS to tell.
        drop(timeout(FIRST_ANSWERS, snapshot.resolved()).await);
        listeners.expect_udp(left);
    }
    count
}

impl Daemon {
    /// Lets the programs of this daemon run where an earlier one's did, once the workers have its sessions.
    pub(super) async fn take_over(&self, left: usize) {
        let Some(kernel) = &self.kernel else { return };
        if left > 0 {
            let mut taken = 0;
            for told in self.listeners.ask_udp(Control::Adopted) {
                taken += told.await.unwrap_or_default();
            }
            tracing::info!("kernel plane: {taken} of {left} sessions of an earlier daemon go on");
        }
        kernel.inherit();
    }

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
    if (old.pin, &old.pin_path) != (new.pin, &new.pin_path) {
        tracing::warn!("ebpf: a change of pin or pin_path takes effect when the daemon is started again");
    }
}
