//! The loaded programs, and the interfaces that they are attached to.
//!
//! No program of another owner is replaced. A link detaches its program when the process ends, however it ends. TC before
//! Linux 6.6 has no links: filters of a killed daemon are removed at the next start (see `lease`).

use std::collections::{HashMap, HashSet};

use aya::{
    Ebpf,
    programs::{
        LinkOrder, Program, ProgramError, SchedClassifier, TcAttachType, Xdp, XdpMode,
        links::{FdLink, LinkError},
        tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
    },
};
use thiserror::Error;

use super::{
    explain,
    hook::HookMode,
    machine::Machine,
    pin::{PinError, Pins},
};
use crate::offload::routes::Link;

pub(super) const XDP_PROGRAM: &str = "rpxy_l4_xdp";
const TC_PROGRAM: &str = "rpxy_l4_tc";
/// The TC program for kernels without BTF.
const TC_PROGRAM_ONE: &str = "rpxy_l4_tc_one";

/// Reason why a program cannot be loaded or attached.
#[derive(Debug, Error)]
pub(crate) enum AttachError {
    #[error("the eBPF object has no program {0}")]
    NoProgram(&'static str),
    #[error("its frames have no Ethernet header")]
    NoEthernet,
    #[error("it has another XDP program, which is left alone")]
    OtherXdp,
    #[error("{}", explain::program(.0))]
    Program(#[from] ProgramError),
    #[error("the kernel does not support this kind of link: {0}")]
    Link(#[from] LinkError),
    #[error(transparent)]
    Pin(#[from] PinError),
    #[error("{interface}: {source}")]
    Interface { interface: String, source: Box<Self> },
}

/// The means by which a program stays attached to an interface.
#[derive(Debug)]
pub(super) enum Attachment {
    /// Detached when dropped, and by the kernel when the process ends, unless it is pinned.
    Link { _link: FdLink },
    /// A pinned link that still runs the program of an earlier daemon, until [`Programs::inherit`].
    Inherited { link: FdLink },
    /// Detached when dropped.
    Filter { _filter: SchedClassifierLink },
}

/// Whose the hooks are: XDP and a directory of pins have room for one daemon.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// A daemon's that this one will succeed.
    Predecessors,
    Ours,
    /// A daemon's that has succeeded this one.
    Successors,
}

/// The programs of one object, attached by one hook.
#[derive(Debug)]
pub(crate) struct Programs {
    ebpf: Ebpf,
    pub(super) hook: HookMode,
    pub(super) has_tcx: bool,
    /// The kernel accepts functions that take the packet buffer as argument.
    has_btf: bool,
    /// The directory of pinned links, if they are pinned.
    pub(super) pins: Option<Pins>,
    /// Name and attachment of each interface, by index.
    pub(super) attached: HashMap<u32, (String, Attachment)>,
    /// Interfaces whose refusal has been logged.
    refused: HashSet<u32>,
    /// Interfaces with the programs for spliced TCP, if it is wanted.
    pub(super) splice: Option<HashMap<u32, [Attachment; 2]>>,
    /// As many connections can be spliced.
    pub(super) splice_places: u32,
    /// Interfaces whose refusal of them has been logged.
    pub(super) splice_refused: HashSet<u32>,
    /// Whose the hooks are.
    turn: Turn,
}

impl Programs {
    pub(super) fn new(ebpf: Ebpf, machine: &Machine, pins: Option<Pins>) -> Self {
        // TCX came with Linux 6.6.
        let has_tcx = !machine.is_older_than((6, 6));
        Self {
            ebpf,
            hook: HookMode::Tc,
            has_tcx,
            has_btf: machine.btf,
            pins,
            attached: HashMap::new(),
            refused: HashSet::new(),
            splice: None,
            splice_places: 0,
            splice_refused: HashSet::new(),
            turn: Turn::Ours,
        }
    }

    pub(crate) fn hook(&self) -> HookMode {
        self.hook
    }

    /// Returns true if links and flows outlive the daemon.
    pub(crate) fn are_pinned(&self) -> bool {
        self.pins.is_some()
    }

    /// Returns true if TC programs stay attached when this process is killed.
    pub(super) fn survive_a_kill(&self) -> bool {
        !self.has_tcx
    }

    /// Loads the programs of `hooks`, and attaches none of them before it is told to: a predecessor has the hooks.
    pub(super) fn wait(&mut self, hooks: &[HookMode]) -> Result<(), AttachError> {
        self.turn = Turn::Predecessors;
        self.hook = hooks.first().copied().unwrap_or(HookMode::Tc);
        hooks.iter().try_for_each(|hook| self.load(*hook))
    }

    /// The predecessor has left the hooks. `pins` is the directory that it has left as well.
    pub(super) fn take_turn(&mut self, pins: Option<Pins>) {
        self.turn = Turn::Ours;
        self.pins = pins;
    }

    /// Detaches the programs for good: packets would not reach those of a successor behind them. Nothing stays pinned, and the
    /// directory of pins is free.
    pub(crate) fn leave(&mut self) {
        self.turn = Turn::Successors;
        if let Some(pins) = self.pins.take() {
            self.attached.keys().for_each(|index| pins.remove_link(*index, self.hook));
        }
        self.attached.clear();
        // The programs for spliced TCP leave to others what is not theirs, and go on.
    }

    /// Returns the interfaces with a program, each with the kind of attachment.
    pub(crate) fn attachments(&self) -> Vec<(String, &'static str)> {
        let kind = |attachment: &Attachment| match (self.hook, attachment) {
            (HookMode::Tc, Attachment::Link { .. } | Attachment::Inherited { .. }) => "tcx",
            (HookMode::Tc, Attachment::Filter { .. }) => "clsact",
            (hook, _) => hook.name(),
        };
        let mut all: Vec<_> =
            self.attached.values().map(|(name, attachment)| (name.clone(), kind(attachment))).collect();
        all.sort_unstable();
        all
    }

    /// The hook and the interfaces, in words.
    pub(crate) fn place(&self) -> String {
        let interfaces: Vec<String> =
            self.attachments().into_iter().map(|(name, kind)| format!("{name} ({kind})")).collect();
        let interfaces = if interfaces.is_empty() { "no interface yet".to_owned() } else { interfaces.join(", ") };
        format!("{} on {interfaces}", self.hook.name())
    }

    pub(crate) fn is_attached(&self, index: u32) -> bool {
        self.attached.contains_key(&index)
    }

    /// Loads the program of `hook` and attaches it to all of `links`, or to none.
    pub(super) fn attach_all(&mut self, hook: HookMode, links: &[Link]) -> Result<(), AttachError> {
        self.load(hook)?;
        self.hook = hook;
        for link in links {
            if let Err(error) = self.attach(link) {
                let ours = self
                    .attached
                    .drain()
                    .filter(|(_, (_, attachment))| !matches!(attachment, Attachment::Inherited { .. }));
                if let Some(pins) = &self.pins {
                    ours.for_each(|(index, _)| pins.remove_link(index, hook));
                }
                self.refused.clear();
                return Err(AttachError::Interface { interface: link.name.clone(), source: Box::new(error) });
            }
        }
        Ok(())
    }

    /// Loads the program of `hook` and attaches it to those of `links` that accept it.
    pub(super) fn attach_some(&mut self, hook: HookMode, links: &[Link]) -> Result<(), AttachError> {
        self.load(hook)?;
        self.hook = hook;
        for link in links {
            self.attach_or_warn(link);
        }
        Ok(())
    }

    /// Attaches to one more interface; a refusal is logged once. Returns true if the interface has the program.
    pub(crate) fn attach_or_warn(&mut self, link: &Link) -> bool {
        if self.turn != Turn::Ours {
            return false;
        }
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
                    warn_of_refusal(&link.name, &error);
                }
                false
            }
        }
    }

    /// Forgets an interface that is gone.
    pub(crate) fn forget(&mut self, index: u32) {
        self.forget_splice(index);
        if self.attached.remove(&index).is_some()
            && let Some(pins) = &self.pins
        {
            pins.remove_link(index, self.hook);
        }
        self.refused.remove(&index);
    }

    /// Forgets all interfaces but these.
    pub(crate) fn retain(&mut self, there: &HashSet<u32>) {
        let gone: Vec<u32> = self.attached.keys().filter(|index| !there.contains(index)).copied().collect();
        gone.into_iter().for_each(|index| self.forget(index));
        self.refused.retain(|index| there.contains(index));
    }

    fn load(&mut self, hook: HookMode) -> Result<(), AttachError> {
        let loaded = match hook {
            HookMode::Tc => self.tc_program()?.load(),
            HookMode::Xdp | HookMode::XdpGeneric => self.program::<Xdp>(XDP_PROGRAM)?.load(),
        };
        match loaded {
            Ok(()) | Err(ProgramError::AlreadyLoaded) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }

    pub(super) fn tc_program(&mut self) -> Result<&mut SchedClassifier, AttachError> {
        self.program(if self.has_btf { TC_PROGRAM } else { TC_PROGRAM_ONE })
    }

    pub(super) fn program<'p, P>(&'p mut self, name: &'static str) -> Result<&'p mut P, AttachError>
    where
        &'p mut P: TryFrom<&'p mut Program, Error = ProgramError>,
    {
        Ok(self.ebpf.program_mut(name).ok_or(AttachError::NoProgram(name))?.try_into()?)
    }

    fn attach(&mut self, link: &Link) -> Result<(), AttachError> {
        if !link.ethernet {
            return Err(AttachError::NoEthernet);
        }
        let inherited = self.pins.as_ref().and_then(|pins| pins.link(link.index, self.hook));
        let attachment = match inherited {
            Some(link) => Attachment::Inherited { link },
            None => self.attach_new(link)?,
        };
        self.attached.insert(link.index, (link.name.clone(), attachment));
        Ok(())
    }

    /// Attaches by a new link, which is pinned where links are.
    pub(super) fn attach_new(&mut self, link: &Link) -> Result<Attachment, AttachError> {
        let attachment = match self.hook {
            HookMode::Tc => self.attach_tc(link)?,
            HookMode::Xdp => self.attach_xdp(link, XdpMode::Driver)?,
            HookMode::XdpGeneric => self.attach_xdp(link, XdpMode::Skb)?,
        };
        match (attachment, &self.pins) {
            (Attachment::Link { _link: attached }, Some(pins)) => {
                Ok(Attachment::Link { _link: pins.pin_link(link.index, self.hook, attached)? })
            }
            (attachment, _) => Ok(attachment),
        }
    }

    fn attach_xdp(&mut self, link: &Link, mode: XdpMode) -> Result<Attachment, AttachError> {
        if link.has_xdp {
            return Err(AttachError::OtherXdp);
        }
        let program = self.program::<Xdp>(XDP_PROGRAM)?;
        let id = program.attach_to_if_index(link.index, mode)?;
        let attached = program.take_link(id)?;
        // Anything but a link would outlive a killed daemon; it is detached right here.
        Ok(Attachment::Link { _link: FdLink::try_from(attached)? })
    }

    fn attach_tc(&mut self, link: &Link) -> Result<Attachment, AttachError> {
        let has_tcx = self.has_tcx;
        let name = link.name.as_str();
        let options = if has_tcx {
            TcAttachOptions::TcxOrder(LinkOrder::default())
        } else {
            if let Err(error) = tc::qdisc_add_clsact(name) {
                // It exists already, or the next step reports the cause.
                tracing::debug!("kernel plane: clsact on {name}: {error}");
            }
            for ours in [TC_PROGRAM, TC_PROGRAM_ONE] {
                drop(tc::qdisc_detach_program(name, TcAttachType::Ingress, ours));
            }
            TcAttachOptions::Netlink(NlOptions::default())
        };
        let program = self.tc_program()?;
        let id = program.attach_with_options(name, TcAttachType::Ingress, options)?;
        let attached = program.take_link(id)?;
        Ok(if has_tcx {
            Attachment::Link { _link: FdLink::try_from(attached)? }
        } else {
            Attachment::Filter { _filter: attached }
        })
    }
}

pub(super) fn warn_of_refusal(interface: &str, error: &AttachError) {
    tracing::warn!("kernel plane: cannot attach to {interface}, its flows stay in userspace: {error}");
}
