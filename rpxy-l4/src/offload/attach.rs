//! The programs, and the interfaces that they stand on.
//!
//! One plane for all interfaces: XDP can hand a packet to another interface only if that one takes raw frames, which
//! those under native XDP do, and others may drop them unseen. The kernel never chooses the mode, and no program of
//! somebody else is replaced. What is attached by a link goes with the process, however it ends; TC before Linux 6.6 has
//! no links, so that filters of a killed daemon are taken away at the next start.

use std::collections::{HashMap, HashSet};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::FdLink,
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
    },
};

use super::{explain, machine::Machine, netlink::Link, pin::Pins};

pub(super) const XDP_PROGRAM: &str = "rpxy_l4_xdp";
const TC_PROGRAM: &str = "rpxy_l4_tc";
/// The one for kernels without BTF.
const TC_PROGRAM_ONE: &str = "rpxy_l4_tc_one";

/// How the kernel plane stands on the interfaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) enum Plane {
    Tc,
    Xdp,
    XdpGeneric,
}

impl Plane {
    /// As logs and `flows` show it.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Tc => "tc",
            Self::Xdp => "xdp",
            Self::XdpGeneric => "xdp-generic",
        }
    }
}

#[derive(Debug)]
pub(super) enum Hold {
    /// Detached when it is dropped, and by the kernel when the process ends, unless it is pinned.
    Link { _link: FdLink },
    /// An earlier daemon's, with its program, until [`Programs::take_over`].
    Inherited { link: FdLink },
    /// Detached when it is dropped.
    Filter { _filter: SchedClassifierLink },
}

/// Loaded programs and where they are attached.
#[derive(Debug)]
pub(super) struct Programs {
    ebpf: Ebpf,
    pub(super) plane: Plane,
    tc_links: bool,
    /// Where links are pinned, if they are.
    /// The kernel takes functions that are given the buffer.
    has_btf: bool,
    pub(super) pins: Option<Pins>,
    /// By index.
    pub(super) held: HashMap<u32, (String, Hold)>,
    /// Interfaces that did not take the program: said once.
    refused: HashSet<u32>,
}

impl Programs {
    pub(super) fn new(ebpf: Ebpf, machine: &Machine, pins: Option<Pins>) -> Self {
        // TCX came with Linux 6.6.
        let tc_links = !machine.is_older_than((6, 6));
        Self {
            ebpf,
            plane: Plane::Tc,
            tc_links,
            has_btf: machine.btf,
            pins,
            held: HashMap::new(),
            refused: HashSet::new(),
        }
    }

    /// Whether programs of TC stay when this process is killed.
    pub(super) fn may_be_left(&self) -> bool {
        !self.tc_links
    }

    /// Where the program is attached, and how.
    pub(super) fn attachments(&self) -> Vec<(String, &'static str)> {
        let mode = |hold: &Hold| match (self.plane, hold) {
            (Plane::Tc, Hold::Link { .. } | Hold::Inherited { .. }) => "tcx",
            (Plane::Tc, Hold::Filter { .. }) => "clsact",
            (plane, _) => plane.name(),
        };
        let mut all: Vec<_> = self.held.values().map(|(name, hold)| (name.clone(), mode(hold))).collect();
        all.sort_unstable();
        all
    }

    pub(super) fn is_attached(&self, index: u32) -> bool {
        self.held.contains_key(&index)
    }

    /// Loads the program of `plane` and attaches it to all of `links`, or to none.
    pub(super) fn attach_all(&mut self, plane: Plane, links: &[Link]) -> Result<(), String> {
        self.load(plane)?;
        self.plane = plane;
        for link in links {
            if let Err(error) = self.attach(link) {
                let ours = self.held.drain().filter(|(_, (_, hold))| !matches!(hold, Hold::Inherited { .. }));
                if let Some(pins) = &self.pins {
                    ours.for_each(|(index, _)| pins.unpin(index, plane));
                }
                self.refused.clear();
                return Err(format!("{}: {error}", link.name));
            }
        }
        Ok(())
    }

    /// Loads the program of `plane` and attaches it to those of `links` that take it.
    pub(super) fn attach_some(&mut self, plane: Plane, links: &[Link]) -> Result<(), String> {
        self.load(plane)?;
        self.plane = plane;
        for link in links {
            self.attach_or_say(link);
        }
        Ok(())
    }

    /// Attaches to one more interface; a refusal is said once. Returns whether the program stands there.
    pub(super) fn attach_or_say(&mut self, link: &Link) -> bool {
        if self.is_attached(link.index) {
            return true;
        }
        match self.attach(link) {
            Ok(()) => {
                self.refused.remove(&link.index);
                true
            }
            Err(error) => {
                if self.refused.insert(link.index) {
                    tracing::warn!(
                        "kernel plane: cannot attach to {}, its flows stay in the daemon: {error}",
                        link.name
                    );
                }
                false
            }
        }
    }

    /// An interface is gone.
    pub(super) fn forget(&mut self, index: u32) {
        if self.held.remove(&index).is_some()
            && let Some(pins) = &self.pins
        {
            pins.unpin(index, self.plane);
        }
        self.refused.remove(&index);
    }

    /// Only these interfaces are left.
    pub(super) fn retain(&mut self, there: &HashSet<u32>) {
        let gone: Vec<u32> = self.held.keys().filter(|index| !there.contains(index)).copied().collect();
        gone.into_iter().for_each(|index| self.forget(index));
        self.refused.retain(|index| there.contains(index));
    }

    fn load(&mut self, plane: Plane) -> Result<(), String> {
        let loaded = match plane {
            Plane::Tc => self.tc_program()?.load(),
            Plane::Xdp | Plane::XdpGeneric => self.program::<Xdp>(XDP_PROGRAM)?.load(),
        };
        match loaded {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
            Err(error) => Err(explain::program(&error)),
        }
    }

    pub(super) fn tc_program(&mut self) -> Result<&mut SchedClassifier, String> {
        self.program(if self.has_btf { TC_PROGRAM } else { TC_PROGRAM_ONE })
    }

    pub(super) fn program<'p, P>(&'p mut self, name: &str) -> Result<&'p mut P, String>
    where
        &'p mut P: TryFrom<&'p mut aya::programs::Program, Error = ProgramError>,
    {
        let program = self.ebpf.program_mut(name).ok_or_else(|| format!("the object has no program {name}"))?;
        program.try_into().map_err(|error: ProgramError| format!("{name}: {error}"))
    }

    fn attach(&mut self, link: &Link) -> Result<(), String> {
        if !link.ethernet {
            return Err("its frames have no Ethernet header".to_owned());
        }
        let inherited = self.pins.as_ref().and_then(|pins| pins.link(link.index, self.plane));
        let hold = match inherited {
            Some(link) => Hold::Inherited { link },
            None => self.attach_new(link)?,
        };
        self.held.insert(link.index, (link.name.clone(), hold));
        Ok(())
    }

    /// Attaches without regard to what stands there.
    pub(super) fn attach_new(&mut self, link: &Link) -> Result<Hold, String> {
        let hold = match self.plane {
            Plane::Tc => self.attach_tc(link)?,
            Plane::Xdp => self.attach_xdp(link, XdpMode::Driver)?,
            Plane::XdpGeneric => self.attach_xdp(link, XdpMode::Skb)?,
        };
        match (hold, &self.pins) {
            (Hold::Link { _link: attached }, Some(pins)) => {
                Ok(Hold::Link { _link: pins.pin(link.index, self.plane, attached)? })
            }
            (hold, _) => Ok(hold),
        }
    }

    fn attach_xdp(&mut self, link: &Link, mode: XdpMode) -> Result<Hold, String> {
        if link.has_xdp {
            return Err("there is another XDP program, which is left alone".to_owned());
        }
        let program = self.program::<Xdp>(XDP_PROGRAM)?;
        let id = program.attach_to_if_index(link.index, mode).map_err(|error| explain::program(&error))?;
        let attached = program.take_link(id).map_err(|error| explain::program(&error))?;
        // Anything else would outlive a killed daemon; it is detached right here.
        let link = FdLink::try_from(attached).map_err(|error| format!("no link for XDP: {error}"))?;
        Ok(Hold::Link { _link: link })
    }

    fn attach_tc(&mut self, link: &Link) -> Result<Hold, String> {
        let links = self.tc_links;
        let name = link.name.as_str();
        let options = if links {
            TcAttachOptions::TcxOrder(LinkOrder::default())
        } else {
            if let Err(error) = tc::qdisc_add_clsact(name) {
                // It is there already, or the next step says what is wrong.
                tracing::debug!("clsact on {name}: {error}");
            }
            for ours in [TC_PROGRAM, TC_PROGRAM_ONE] {
                drop(tc::qdisc_detach_program(name, TcAttachType::Ingress, ours));
            }
            TcAttachOptions::Netlink(NlOptions::default())
        };
        let program = self.tc_program()?;
        let id = program
            .attach_with_options(name, TcAttachType::Ingress, options)
            .map_err(|error| explain::program(&error))?;
        let attached = program.take_link(id).map_err(|error| explain::program(&error))?;
        if !links {
            return Ok(Hold::Filter { _filter: attached });
        }
        let link = FdLink::try_from(attached).map_err(|error| error.to_string())?;
        Ok(Hold::Link { _link: link })
    }
}

/// The planes to try, best first, for `mode` on `links`. TC is always the last.
pub(super) fn candidates(mode: crate::config::model::EbpfMode, links: &[Link]) -> &'static [Plane] {
    use crate::config::model::EbpfMode;
    match mode {
        EbpfMode::Off => &[],
        EbpfMode::Tc => &[Plane::Tc],
        EbpfMode::Xdp => &[Plane::Xdp, Plane::Tc],
        EbpfMode::XdpGeneric => &[Plane::XdpGeneric, Plane::Tc],
        EbpfMode::Auto if !links.is_empty() && links.iter().all(takes_native_xdp) => &[Plane::Xdp, Plane::Tc],
        EbpfMode::Auto => &[Plane::Tc],
    }
}

/// Whether native XDP is the better choice: on network cards, where it runs before the kernel makes an skb. Virtual
/// devices make one anyway.
pub(super) fn takes_native_xdp(link: &Link) -> bool {
    link.physical && link.kind.is_none() && link.ethernet && !link.has_xdp
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::model::EbpfMode;

    #[test]
    fn automatic_choice() {
        let card = Link { physical: true, ethernet: true, ..Link::default() };
        let veth = Link { kind: Some("veth".to_owned()), ethernet: true, ..Link::default() };
        let taken = Link { has_xdp: true, ..card.clone() };
        let vlan = Link { kind: Some("vlan".to_owned()), ..card.clone() };
        let rows: &[(&str, EbpfMode, &[Link], Plane)] = &[
            ("cards", EbpfMode::Auto, &[card.clone(), card.clone()], Plane::Xdp),
            ("a card and a veth", EbpfMode::Auto, &[card.clone(), veth.clone()], Plane::Tc),
            ("a card with another program", EbpfMode::Auto, &[taken], Plane::Tc),
            ("a VLAN", EbpfMode::Auto, &[vlan], Plane::Tc),
            ("no interface yet", EbpfMode::Auto, &[], Plane::Tc),
            ("XDP asked for", EbpfMode::Xdp, std::slice::from_ref(&veth), Plane::Xdp),
            ("generic XDP asked for", EbpfMode::XdpGeneric, std::slice::from_ref(&veth), Plane::XdpGeneric),
            ("TC asked for", EbpfMode::Tc, &[card], Plane::Tc),
        ];
        for (name, mode, links, first) in rows {
            let candidates = candidates(*mode, links);
            assert_eq!(candidates.first(), Some(first), "{name}");
            assert_eq!(candidates.last(), Some(&Plane::Tc), "{name}");
        }
        assert!(candidates(EbpfMode::Off, &[]).is_empty());
    }
}
