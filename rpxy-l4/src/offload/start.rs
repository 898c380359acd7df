//! Loads the programs and attaches them, or says why not.

use std::{
    io,
    ops::RangeInclusive,
    sync::{Arc, atomic::AtomicBool},
};

use aya::EbpfLoader;
use rpxy_l4_common::map::name;

use super::{
    Unavailable,
    attach::{self, Plane, Programs},
    explain,
    kernel::Kernel,
    lease::Lease,
    machine::Machine,
    maps,
    netlink::{Events, Link, Netlink},
    pin::{self, Pins},
    state::{Inner, State, Wanted, interfaces},
    table::Table,
    watch,
};
use crate::config::model::{Ebpf, EbpfMode};

/// Places for next hops, of 24 bytes each, the first of which is not used: two for each session, within these bounds. With
/// more hops the flows of some stay in the daemon.
const HOPS: RangeInclusive<u32> = 1 << 10..=1 << 16;

pub(super) fn start(config: &Ebpf) -> Result<Kernel, Unavailable> {
    let machine = Machine::read();
    if config.mode == EbpfMode::Off {
        return Err(unavailable("switched off", "set ebpf.mode = \"auto\""));
    }
    let Some(object) = super::object() else {
        return Err(unavailable(
            "this program was built without the eBPF object",
            "run `cargo xtask build-ebpf` before the build",
        ));
    };
    if !machine.missing().is_empty() || machine.user_namespace {
        let (what, remedy) = machine.why_refused();
        return Err(Unavailable { what, remedy });
    }
    if machine.jit == Some(false) {
        tracing::warn!("kernel plane: programs are interpreted, which is slow: set net.core.bpf_jit_enable = 1");
    }
    let network = |error: io::Error| explain::unavailable("cannot follow the network (rtnetlink)", &error, &machine);
    // Listened to before the first look, so that nothing falls in between.
    let events = Events::open().map_err(network)?;
    let mut routes = Netlink::open().map_err(network)?;
    let world = routes.state().map_err(network)?;
    let pins = pins(config, &machine);
    let mut links = interfaces(config, world.clone());
    for link in &mut links {
        // What an earlier daemon has left is not somebody else's.
        link.has_xdp &= !pins.as_ref().is_some_and(|pins| pins.has_xdp(link.index));
    }

    let entries = config.max_flows.get().saturating_mul(2);
    let hops = entries.saturating_add(1).clamp(*HOPS.start(), *HOPS.end());
    let mut ebpf = EbpfLoader::new()
        .map_max_entries(name::FLOWS, entries)
        .map_max_entries(name::HOPS, hops)
        .load(object)
        .map_err(|error| explain::unavailable("cannot load the eBPF object", &error, &machine))?;
    let (mut maps, readers) = maps::take(&mut ebpf)
        .map_err(|error| explain::unavailable("the eBPF object does not fit this program", &error, &machine))?;
    let mut programs = Programs::new(ebpf, &machine, pins);
    let lease = programs.may_be_left().then(Lease::default);
    if let Some(lease) = &lease {
        lease.renew(&mut maps);
    }
    attach(config, &mut programs, &links, &machine)?;
    if programs.plane == Plane::Tc && !machine.btf {
        tracing::warn!(
            "kernel plane: buffers of several datagrams (GSO, GRO) pass through the daemon: this kernel has no BTF \
             (CONFIG_DEBUG_INFO_BTF)"
        );
    }

    let table = Table::new(programs.plane != Plane::Tc, config.max_flows.get(), hops);
    let state = State::new(table, maps, programs, routes);
    let inner = Arc::new(Inner::new(Wanted::new(config), readers, state));
    inner.learn(world);
    let (stopped, stop) =
        rustix::pipe::pipe_with(rustix::pipe::PipeFlags::CLOEXEC).map_err(|error| network(error.into()))?;
    let asking = Netlink::open().map_err(network)?;
    let thread = watch::start(Arc::clone(&inner), events, asking, stopped, lease).map_err(network)?;
    Ok(Kernel { inner, stop: Some(stop), thread: Some(thread), leaving: AtomicBool::new(false) })
}

/// The directory of what outlives this daemon, if it is wanted and can be had.
fn pins(config: &Ebpf, machine: &Machine) -> Option<Pins> {
    if !config.pin {
        pin::warn_of_left(&config.pin_path);
        return None;
    }
    if machine.is_older_than((6, 6)) && matches!(config.mode, EbpfMode::Tc | EbpfMode::Auto) {
        tracing::warn!("ebpf.pin: without effect on TC before Linux 6.6, whose hooks have no links");
    }
    Pins::open(&config.pin_path)
        .inspect_err(|error| tracing::warn!("ebpf.pin: flows will end with this daemon: {error}"))
        .ok()
}

fn unavailable(what: &str, remedy: &str) -> Unavailable {
    Unavailable { what: what.to_owned(), remedy: remedy.to_owned() }
}

/// Attaches by the first of the possible planes that all interfaces take; with TC, to those that take it.
fn attach(config: &Ebpf, programs: &mut Programs, links: &[Link], machine: &Machine) -> Result<(), Unavailable> {
    for name in config.interfaces.iter().filter(|name| !links.iter().any(|link| link.name == **name)) {
        tracing::warn!("ebpf.interfaces: {name} is not there or not up; it is taken when it comes");
    }
    for plane in attach::candidates(config.mode, links) {
        let result = match plane {
            Plane::Tc => programs.attach_some(*plane, links),
            Plane::Xdp | Plane::XdpGeneric => programs.attach_all(*plane, links),
        };
        match result {
            Ok(()) => return Ok(()),
            Err(error) if *plane == Plane::Tc => {
                return Err(Unavailable { what: error, remedy: explain::old_kernel(machine) });
            }
            Err(error) if config.mode == EbpfMode::Auto => {
                tracing::info!("kernel plane: no {}, TC is taken instead: {error}", plane.name());
            }
            Err(error) => tracing::warn!("kernel plane: no {}, TC is taken instead: {error}", plane.name()),
        }
    }
    Ok(())
}
