//! Loading and attaching the programs, or the reason why not.

mod attach;
mod explain;
mod hook;
mod inherit;
mod interfaces;
mod lease;
mod log;
mod machine;
mod object;
mod pin;
mod splice;

use std::{io, ops::RangeInclusive, sync::Arc};

use aya::EbpfLoader;
use rpxy_l4_common::map::name;
use rpxy_l4_common::tcp;

use self::pin::Pins;
pub(super) use self::{
    attach::Programs,
    hook::{HookMode, candidates, prefers_native_xdp},
    interfaces::{Wanted, missing, wanted},
    lease::Lease,
    log::VerdictLog,
    machine::Machine,
    object::object,
    pin::look,
};
pub(crate) use self::{
    machine::is_older_than,
    pin::{Pinned, prepare as prepare_pins, unpin, warn_of_unowned},
};
use super::{
    api::Unavailable,
    maps::{self, Maps, Readers, SpliceMaps, SpliceReaders},
    routes::{Event, Events, Link, Netlink},
};
use crate::config::model::{Ebpf, EbpfMode};

/// Slots for next hops, of 24 bytes each: two for each session, within these bounds. With more hops, some flows stay in
/// userspace. Slot 0 is not used.
const HOPS: RangeInclusive<u32> = 1 << 10..=1 << 16;

/// Loaded and attached programs, and what is needed to run them.
pub(super) struct Loaded {
    pub(super) programs: Programs,
    pub(super) maps: Maps,
    pub(super) readers: Readers,
    /// The maps of spliced TCP, if it is wanted and possible.
    pub(super) splice: Option<(SpliceMaps, SpliceReaders)>,
    /// Reads what the programs tell, if they were built to.
    pub(super) log: Option<VerdictLog>,
    /// Length of the array of next hops.
    pub(super) hops: u32,
    /// Lease of programs that survive a kill.
    pub(super) lease: Option<Lease>,
    /// Events since `network` was read.
    pub(super) events: Events,
    pub(super) netlink: Netlink,
    /// State of the network.
    pub(super) network: Vec<Event>,
}

/// Loads the programs and attaches them, as `config` says; where a daemon is `succeeded`, [`take_hooks`] attaches them. Threads
/// begin with `enter`.
pub(super) fn load(config: &Ebpf, succeeds: bool, enter: &Arc<dyn Fn() + Send + Sync>) -> Result<Loaded, Unavailable> {
    let machine = Machine::read();
    if config.mode == EbpfMode::Off {
        return Err(unavailable("it is switched off", "set ebpf.mode = \"auto\""));
    }
    let Some(object) = object() else {
        return Err(unavailable(
            "this program was built without the eBPF object",
            "run `cargo xtask build-ebpf` before the build",
        ));
    };
    if !machine.missing().is_empty() || machine.user_namespace {
        return Err(machine.refusal());
    }
    if machine.jit == Some(false) {
        tracing::warn!("kernel plane: programs are interpreted, which is slow; set net.core.bpf_jit_enable = 1");
    }
    // Subscribed before the network is read, so that no change is missed.
    let events = Events::open().map_err(|error| no_network(&error))?;
    let mut netlink = Netlink::open().map_err(|error| no_network(&error))?;
    let network = netlink.state().map_err(|error| no_network(&error))?;
    let pins = if succeeds { None } else { pins(config, &machine) };
    let mut links = wanted(config, network.clone());
    for link in &mut links {
        // The program of an earlier daemon does not count as another owner's.
        link.has_xdp &= !pins.as_ref().is_some_and(|pins| pins.has_xdp(link.index));
    }

    let entries = config.max_flows.get().saturating_mul(2);
    let hops = entries.saturating_add(1).clamp(*HOPS.start(), *HOPS.end());
    let level = log::level();
    let spliced = if config.tcp { config.max_spliced.get() } else { 1 };
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries(name::FLOWS, entries)
        .map_max_entries(name::HOPS, hops)
        // Where TCP is not spliced, its maps take no memory.
        .map_max_entries(tcp::name::TCP_FLOWS, spliced.saturating_mul(2))
        .map_max_entries(tcp::name::TCP_NOTES, spliced)
        .map_max_entries(tcp::name::TCP_ENDED, spliced)
        .override_global(aya_log::LEVEL, &level, false);
    // Links, by which programs outlive their daemon, came with Linux 6.6.
    if let Some(pins) = pins.as_ref().filter(|_| config.tcp && !machine.is_older_than((6, 6))) {
        for name in splice::MAPS {
            loader.map_pin_path(name, pins.splice_map(name, spliced));
        }
    }
    let mut ebpf =
        loader.load(object).map_err(|error| explain::unavailable("cannot load the eBPF object", &error, &machine))?;
    let (mut maps, readers) = maps::take(&mut ebpf)
        .map_err(|error| explain::unavailable("the eBPF object does not fit this program", &error, &machine))?;
    let splice = if config.tcp {
        let taken = maps::take_splice(&mut ebpf);
        Some(
            taken
                .map_err(|error| explain::unavailable("the eBPF object does not fit this program", &error, &machine))?,
        )
    } else {
        None
    };
    let log = VerdictLog::start(&mut ebpf, level, enter);
    let mut programs = Programs::new(ebpf, &machine, pins);
    let lease = programs.survive_a_kill().then(Lease::default);
    if let Some(lease) = &lease {
        lease.renew(&mut maps);
    }
    if succeeds {
        // The XDP programs that there are will be gone.
        links.iter_mut().for_each(|link| link.has_xdp = false);
        let loaded = programs.wait(candidates(config.mode, &links));
        loaded.map_err(|error| Unavailable { what: error.to_string(), remedy: explain::old_kernel(&machine) })?;
    } else {
        attach(config, &mut programs, &links, &machine)?;
    }
    let splice = splice.filter(|_| {
        let loaded = programs.load_splice(spliced);
        if let Err(error) = &loaded {
            tracing::warn!("kernel plane: no TCP connection is spliced: {error}");
        }
        loaded.is_ok()
    });
    for link in &links {
        programs.attach_splice_or_warn(link);
    }
    tell_of_limits(&programs, &links, &machine);
    Ok(Loaded { programs, maps, readers, splice, log, hops, lease, events, netlink, network })
}

/// Attaches what waits for a predecessor, which is gone, to the interfaces of `network`.
pub(super) fn take_hooks(config: &Ebpf, programs: &mut Programs, network: Vec<Event>) -> Result<(), Unavailable> {
    let machine = Machine::read();
    programs.take_turn(pins(config, &machine));
    attach(config, programs, &wanted(config, network), &machine)
}

/// Says what does without the kernel plane by the way in which programs are attached.
fn tell_of_limits(programs: &Programs, links: &[Link], machine: &Machine) {
    if programs.hook() == HookMode::Tc && !machine.btf {
        tracing::warn!(
            "kernel plane: buffers of several datagrams (GSO, GRO) pass through the daemon: this kernel has no BTF \
             (CONFIG_DEBUG_INFO_BTF)"
        );
    }
    if programs.hook() == HookMode::Xdp {
        for link in links.iter().filter(|link| link.kind.as_deref() == Some("veth")) {
            tracing::info!(
                "kernel plane: {} is a veth, whose peer drops what XDP sends on unless GRO is on there (`ethtool -K <peer> gro \
                 on`)",
                link.name
            );
        }
    }
}

/// Explains that the network cannot be followed.
pub(super) fn no_network(error: &io::Error) -> Unavailable {
    explain::unavailable("cannot follow the network (rtnetlink)", error, &Machine::read())
}

fn unavailable(what: &str, remedy: &str) -> Unavailable {
    Unavailable { what: what.to_owned(), remedy: remedy.to_owned() }
}

/// Opens the directory of pins, if the configuration asks for it and it can be used.
fn pins(config: &Ebpf, machine: &Machine) -> Option<Pins> {
    if !config.pin {
        warn_of_unowned(&config.pin_path);
        return None;
    }
    if machine.is_older_than((6, 6)) && matches!(config.mode, EbpfMode::Tc | EbpfMode::Auto) {
        tracing::warn!("ebpf.pin has no effect on TC before Linux 6.6, whose hooks have no links");
    }
    Pins::open(&config.pin_path)
        .inspect_err(|error| tracing::warn!("ebpf.pin: flows will end with this daemon: {error}"))
        .ok()
}

/// Attaches by the first possible hook that all interfaces accept; with TC, to those that accept it.
fn attach(config: &Ebpf, programs: &mut Programs, links: &[Link], machine: &Machine) -> Result<(), Unavailable> {
    for name in missing(config, links) {
        tracing::warn!("ebpf.interfaces: {name} does not exist or is down; the program is attached when it comes up");
    }
    for hook in candidates(config.mode, links) {
        let result = match hook {
            HookMode::Tc => programs.attach_some(*hook, links),
            HookMode::Xdp | HookMode::XdpGeneric => programs.attach_all(*hook, links),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(error) if *hook == HookMode::Tc => {
                return Err(Unavailable { what: error.to_string(), remedy: explain::old_kernel(machine) });
            }
            Err(error) if config.mode == EbpfMode::Auto => {
                tracing::info!("kernel plane: cannot use {}, falling back to TC: {error}", hook.name());
            }
            Err(error) => tracing::warn!("kernel plane: cannot use {}, falling back to TC: {error}", hook.name()),
        }
    }
    Ok(())
}
