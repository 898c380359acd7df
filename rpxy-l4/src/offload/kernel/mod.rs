//! The running kernel plane: its start and end, and what the daemon tells it.

mod splice;
mod spliced;
mod state;
mod steer;
mod sweep;
mod watch;

use std::{
    collections::HashSet,
    net::SocketAddr,
    os::fd::OwnedFd,
    sync::{Arc, atomic::Ordering},
    thread::JoinHandle,
};

use ipnet::IpNet;
use rpxy_l4_common::verdict::Counter;
use rustix::pipe::{PipeFlags, pipe_with};

pub(crate) use self::steer::by_addresses;
use self::{
    spliced::SpliceState,
    state::{Inner, State},
};
use super::{
    api::{Steered, Unavailable},
    loader::{self, HookMode, Loaded, VerdictLog, Wanted},
    maps,
    policy::{Access, Guards},
    routes::{Netlink, Table},
};
use crate::config::model::{Config, Ebpf};

/// The running kernel plane. Dropping it detaches the programs, unless they are pinned.
#[derive(Debug)]
pub(crate) struct Kernel {
    inner: Arc<Inner>,
    /// Closed to end the thread; a byte tells it that a predecessor has left the hooks.
    stop: Option<OwnedFd>,
    thread: Option<JoinHandle<()>>,
    _log: Option<VerdictLog>,
}

impl Kernel {
    /// Loads and attaches the programs as `config` says; where a daemon is `succeeded`, only [`Kernel::take_hooks`] attaches
    /// them. Threads begin with `enter`.
    ///
    /// # Errors
    ///
    /// The reason why there is no kernel plane, with its remedy. Everything then passes through the daemon.
    pub(crate) fn start(
        config: &Ebpf,
        succeeds: bool,
        enter: &Arc<dyn Fn() + Send + Sync>,
    ) -> Result<Arc<Self>, Unavailable> {
        let Loaded { programs, maps, readers, splice, log, hops, lease, events, netlink, network } =
            loader::load(config, succeeds, enter)?;
        let table = Table::new(programs.hook() != HookMode::Tc, config.max_flows.get(), hops);
        let (splice, noted) = splice.map_or((None, None), |(maps, readers)| {
            let mut splice = SpliceState::new(config.max_spliced.get(), maps);
            let inherited = splice.inherit(&readers);
            if inherited > 0 {
                tracing::info!("kernel plane: {inherited} spliced connections of an earlier daemon go on");
            }
            (Some(splice), Some(readers))
        });
        let state = State::new(table, maps, programs, netlink, splice);
        let inner = Arc::new(Inner::new(Wanted::new(config), readers, noted, state));
        inner.learn(network);
        // The first look at a counter reads the number of processors from a file, once in each thread (`aya::util::nr_cpus`).
        // Counters are asked for in this one, also when no descriptor is left.
        let _first = inner.readers.counter(Counter::IcmpTooBig.index());
        let (stopped, stop) = pipe_with(PipeFlags::CLOEXEC).map_err(|error| loader::no_network(&error.into()))?;
        let requests = Netlink::open().map_err(|error| loader::no_network(&error))?;
        let thread =
            watch::start(Arc::clone(&inner), events, requests, (stopped, lease), config.clone(), Arc::clone(enter))
                .map_err(|error| loader::no_network(&error))?;
        Ok(Arc::new(Self { inner, stop: Some(stop), thread: Some(thread), _log: log }))
    }

    /// Has the programs attached soon: a predecessor has left the hooks.
    pub(crate) fn take_hooks(&self) {
        if let Some(thread) = &self.stop
            && let Err(error) = rustix::io::write(thread, &[1])
        {
            tracing::error!("kernel plane: the programs cannot be attached: {error}");
        }
    }

    /// Returns the name of the hook: `tc`, `xdp` or `xdp-generic`.
    pub(crate) fn hook(&self) -> &'static str {
        self.inner.state().programs.hook().name()
    }

    /// The hook and the interfaces, in words.
    pub(crate) fn place(&self) -> String {
        self.inner.state().programs.place()
    }

    /// Returns the interfaces with a program, each with the kind of attachment.
    pub(crate) fn attachments(&self) -> Vec<(String, &'static str)> {
        self.inner.state().programs.attachments()
    }

    /// Returns the sessions that an earlier daemon left in the kernel. [`Kernel::inherit`] ends those that were not
    /// installed before.
    pub(crate) fn inherited(&self) -> Vec<Steered> {
        self.inner.state().programs.inherited()
    }

    /// Replaces the programs and flows of an earlier daemon by those of this one.
    pub(crate) fn inherit(&self) {
        let state = &mut *self.inner.state();
        state.programs.inherit(&state.maps.flows_data);
        let attached: Vec<u32> = state.table.links().map(|link| link.index).collect();
        for index in attached {
            state.table.set_attached(index, state.programs.is_attached(index));
        }
    }

    /// Prepares the end of the daemon: pinned flows are no longer revoked.
    pub(crate) fn leave(&self) {
        if self.inner.state().programs.are_pinned() {
            self.inner.leaving.store(true, Ordering::Relaxed);
        }
    }

    /// Leaves the hooks to a successor. Nothing is steered any more.
    pub(crate) fn leave_hooks(&self) {
        self.inner.state().programs.leave();
    }

    /// Replaces the listening sockets, wildcards included, each with the name of its listener in `config` and its bits of
    /// `map::drop_class`.
    pub(crate) fn set_listeners(&self, listeners: &[(SocketAddr, &str, u32)], config: &Config) {
        let maps = &mut self.inner.state().maps;
        let access = Access::new(config, maps.access());
        let written = maps.add_access(&access);
        if let Err(error) = &written {
            tracing::warn!("kernel plane: cannot set all access lists, which are left to the daemon: {error}");
        }
        let bits = |name: &str, drop: u32| if written.is_ok() { drop | access.bits(name) } else { drop };
        let wanted =
            listeners.iter().map(|(address, name, drop)| (maps::socket(*address), bits(name, *drop))).collect();
        if let Err(error) = maps.set_listeners(wanted) {
            tracing::warn!(
                "kernel plane: cannot set all listening sockets, so early_drop and ban miss datagrams to some: {error}"
            );
        }
        if let Err(error) = maps.forget_access(access) {
            tracing::debug!("kernel plane: cannot remove old access lists: {error}");
        }
    }

    /// Replaces what handshakes are judged by. Returns whether listeners may use it.
    #[must_use]
    pub(crate) fn set_guards(&self, guards: &Guards) -> bool {
        let result = self.inner.state().maps.set_guards(guards);
        if let Err(error) = &result {
            tracing::warn!("kernel plane: cannot set the checks of handshakes, which are left to the daemon: {error}");
        }
        result.is_ok()
    }

    /// Replaces the networks whose datagrams to listening sockets are dropped.
    pub(crate) fn set_bans(&self, networks: &[IpNet]) {
        let wanted: HashSet<IpNet> = networks.iter().map(IpNet::trunc).collect();
        if let Err(error) = self.inner.state().maps.set_banned(wanted) {
            tracing::warn!("kernel plane: cannot set all banned networks: {error}");
        }
    }

    /// Drops the datagrams of one more network, or of one less.
    pub(crate) fn set_ban(&self, network: IpNet, banned: bool) {
        if let Err(error) = self.inner.state().maps.set_ban(network.trunc(), banned) {
            tracing::warn!("kernel plane: cannot ban {network}, or lift its ban: {error}");
        }
    }

    /// Returns the packets of all interfaces since the start, by outcome.
    pub(crate) fn counters(&self) -> Vec<(Counter, u64)> {
        let counted = |counter: &Counter| Some((*counter, self.inner.readers.counter(counter.index())?));
        Counter::ALL.iter().filter_map(counted).collect()
    }

    /// Returns the number of installed sessions.
    pub(crate) fn flows(&self) -> usize {
        self.inner.state().table.sessions()
    }

    pub(crate) fn max_flows(&self) -> usize {
        self.inner.state().table.max_sessions()
    }
}

impl Drop for Kernel {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take()
            && thread.join().is_err()
        {
            tracing::error!("kernel plane: the thread that follows the network has panicked");
        }
    }
}
