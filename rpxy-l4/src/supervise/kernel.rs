//! The kernel plane in the life of the daemon: started before the workers, told of listeners and bans, stopped last.

use std::{collections::HashMap, sync::Arc};

use rpxy_l4_common::verdict::Counter;
use tokio::time::timeout;

use super::{
    daemon::{Daemon, FIRST_ANSWERS},
    listeners::Listeners,
};
use crate::{
    config::model::{Config, EbpfMode, Listener},
    confine::{Confinement, Role},
    metrics::{KernelPackets, KernelPlane},
    offload::{self, Kernel, Off, Offload, Splice},
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

    fn spliced(&self) -> Option<u64> {
        self.splices().then(|| Kernel::spliced(self).0 as u64)
    }

    fn tcp_packets(&self) -> Vec<(&'static str, u64)> {
        self.tcp_counters().into_iter().map(|(counter, count)| (counter.name(), count)).collect()
    }
}

/// Starts the kernel plane that `config` asks for. A failure is logged once, and all datagrams pass through the daemon.
/// Where a daemon is `succeeded`, its programs are attached once that has left.
pub(super) fn start(config: &Config, succeeds: bool, confinement: &Confinement) -> Option<Arc<Kernel>> {
    if config.ebpf.mode == EbpfMode::Off {
        offload::warn_of_unowned(&config.ebpf.pin_path);
        return None;
    }
    match Kernel::start(&config.ebpf, succeeds, &confinement.enter(Role::Network)) {
        Ok(kernel) if succeeds => Some(kernel),
        Ok(kernel) => {
            tracing::info!("kernel plane: {}", kernel.place());
            Some(kernel)
        }
        Err(error) => {
            tracing::warn!("no kernel plane, all datagrams pass through the daemon: {error}");
            None
        }
    }
}

/// Returns the offload that UDP workers send flow commands to.
pub(super) fn offload(kernel: Option<&Arc<Kernel>>) -> Arc<dyn Offload> {
    match kernel {
        Some(kernel) => Arc::clone(kernel) as Arc<dyn Offload>,
        None => Arc::new(Off),
    }
}

/// Returns what TCP connections are spliced by, if they are.
pub(super) fn splice(kernel: Option<&Arc<Kernel>>) -> Option<Arc<dyn Splice>> {
    kernel.filter(|kernel| kernel.splices()).map(|kernel| Arc::clone(kernel) as Arc<dyn Splice>)
}

/// Hands the sessions of an earlier daemon to the workers, which must not have their sockets yet. Returns how many.
pub(super) async fn hand_out_inherited(
    kernel: Option<&Arc<Kernel>>,
    snapshot: &udp::Snapshot,
    listeners: &Listeners,
) -> usize {
    let inherited = kernel.map(|kernel| kernel.inherited()).unwrap_or_default();
    let count = inherited.len();
    if count > 0 {
        // The DNS may have to answer before the backend of a session is known as a target.
        drop(timeout(FIRST_ANSWERS, snapshot.resolved()).await);
        listeners.hand_out_inherited(inherited);
    }
    count
}

impl Daemon {
    /// Replaces the programs of an earlier daemon, once the workers have its sessions, of which there are `inherited`.
    pub(super) async fn start_inherited(&self, inherited: usize) {
        let Some(kernel) = &self.kernel else { return };
        if inherited > 0 {
            let mut resumed = 0;
            for told in self.listeners.ask_udp(Control::Inherited) {
                resumed += told.await.unwrap_or_default();
            }
            self.listeners.tell_udp(|| Control::Receive);
            tracing::info!("kernel plane: {resumed} of {inherited} sessions of an earlier daemon go on");
        }
        kernel.inherit();
    }

    /// Passes listeners, drop classes, guards and bans to the kernel plane.
    pub(super) fn tell_kernel(&self) {
        let Some(kernel) = &self.kernel else { return };
        let guards = offload::Guards::new(&self.config);
        let guarded = kernel.set_guards(&guards);
        let bits = |listener: &Listener| {
            let drops = if self.config.ebpf.early_drop { offload::drops(listener) } else { 0 };
            if guarded { drops | guards.bits(listener) } else { drops }
        };
        let bits: HashMap<&str, u32> =
            self.config.listeners().map(|listener| (&*listener.name, bits(listener))).collect();
        let sockets = self.listeners.udp_addresses().into_iter();
        let listeners: Vec<_> =
            sockets.map(|(address, name)| (address, name, bits.get(name).copied().unwrap_or_default())).collect();
        kernel.set_bans(&self.bans.networks());
        kernel.set_listeners(&listeners, &self.config);
    }

    /// Applies the bans of the configuration, and ends the sessions that they concern if they have changed.
    pub(super) fn apply_bans(&self) {
        if self.bans.set_configured(&self.config.ebpf.ban) {
            self.listeners.tell_udp(|| Control::Bans);
            if let Some(kernel) = &self.kernel {
                kernel.set_bans(&self.bans.networks());
            }
        }
    }
}

/// Warns of changes that a reload does not apply.
pub(super) fn warn_of_postponed(old: &Config, new: &Config) {
    let (old, new) = (&old.ebpf, &new.ebpf);
    if (old.mode, &old.interfaces, old.max_flows) != (new.mode, &new.interfaces, new.max_flows) {
        tracing::warn!("ebpf: a change of mode, interfaces or max_flows takes effect when the daemon is started again");
    }
    if (old.tcp, old.max_spliced) != (new.tcp, new.max_spliced) {
        tracing::warn!("ebpf: a change of tcp or max_spliced takes effect when the daemon is started again");
    }
    if (old.pin, &old.pin_path) != (new.pin, &new.pin_path) {
        tracing::warn!("ebpf: a change of pin or pin_path takes effect when the daemon is started again");
    }
}
