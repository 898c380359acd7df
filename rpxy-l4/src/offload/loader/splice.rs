//! The programs of spliced TCP: attached at TC on each interface, both ways, before the program for UDP.

use std::{collections::HashMap, path::PathBuf};

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{self, NlOptions, SchedClassifierLink, TcAttachOptions},
};
use rpxy_l4_common::tcp::name;

use super::{
    attach::{AttachError, Attachment, Programs},
    pin::Pins,
};
use crate::offload::routes::Link;

/// A program with the way that it looks at, and the name of that in pins.
#[derive(Debug, Clone, Copy)]
struct Way {
    program: &'static str,
    attach: TcAttachType,
    pin: &'static str,
}

const IN: Way = Way { program: "rpxy_l4_tcp_in", attach: TcAttachType::Ingress, pin: "in" };
const OUT: Way = Way { program: "rpxy_l4_tcp_out", attach: TcAttachType::Egress, pin: "out" };
/// The maps that a later daemon goes on to use.
pub(super) const MAPS: [&str; 3] = [name::TCP_FLOWS, name::TCP_NOTES, name::TCP_ENDED];
/// Priority of filters at clsact: before those with a priority that the kernel chooses, which begins at 49152.
const PRIORITY: u16 = 48_000;

impl Programs {
    /// Loads the programs for spliced TCP, of which there can be `places` connections. From then on they are attached with the
    /// others.
    pub(super) fn load_splice(&mut self, places: u32) -> Result<(), AttachError> {
        for way in [IN, OUT] {
            self.program::<SchedClassifier>(way.program)?.load()?;
        }
        self.splice = Some(HashMap::new());
        self.splice_places = places;
        Ok(())
    }

    /// Attaches to an interface that has the program for UDP. Returns whether it has both programs.
    pub(crate) fn attach_splice_or_warn(&mut self, link: &Link) -> bool {
        if self.splice.is_none() || !self.is_attached(link.index) {
            return false;
        }
        if self.splice.as_ref().is_some_and(|hooks| hooks.contains_key(&link.index)) {
            return true;
        }
        match self.attach_splice(link) {
            Ok(attached) => {
                if let Some(hooks) = &mut self.splice {
                    hooks.insert(link.index, attached);
                }
                true
            }
            Err(error) => {
                if self.splice_refused.insert(link.index) {
                    tracing::warn!(
                        "kernel plane: cannot attach to {} for TCP, whose connections stay relayed: {error}",
                        link.name
                    );
                }
                false
            }
        }
    }

    pub(super) fn forget_splice(&mut self, index: u32) {
        if let Some(hooks) = &mut self.splice
            && hooks.remove(&index).is_some()
            && let Some(pins) = &self.pins
        {
            [IN, OUT].iter().for_each(|way| pins.remove_splice_link(way.pin, index));
        }
        self.splice_refused.remove(&index);
    }

    /// Returns true if spliced connections outlive the daemon.
    pub(crate) fn pins_splice(&self) -> bool {
        self.splice.is_some() && self.pins.is_some() && self.has_tcx
    }

    /// The pins that a later daemon needs of spliced TCP.
    pub(super) fn splice_pins(&self, pins: &Pins) -> Vec<PathBuf> {
        let Some(hooks) = self.splice.as_ref().filter(|_| self.has_tcx) else { return Vec::new() };
        pins.of_splice(&MAPS, self.splice_places, &[IN.pin, OUT.pin], hooks.keys().copied())
    }

    fn attach_splice(&mut self, link: &Link) -> Result<[Attachment; 2], AttachError> {
        // Egress first: what this machine says itself has to be silenced before anything is forwarded.
        let out = self.attach_one(link, OUT)?;
        Ok([self.attach_one(link, IN)?, out])
    }

    fn attach_one(&mut self, link: &Link, way: Way) -> Result<Attachment, AttachError> {
        if !self.has_tcx {
            return self.attach_filter(link, way);
        }
        if let Some(earlier) = self.pins.as_ref().and_then(|pins| pins.splice_link(way.pin, link.index)) {
            match self.take_over(earlier, way) {
                Ok(attachment) => return Ok(attachment),
                Err(error) => {
                    // Usually the interface was deleted and created again.
                    tracing::debug!("kernel plane: cannot inherit the link for TCP on {}: {error}", link.name);
                    if let Some(pins) = &self.pins {
                        pins.remove_splice_link(way.pin, link.index);
                    }
                }
            }
        }
        let program = self.program::<SchedClassifier>(way.program)?;
        let options = TcAttachOptions::TcxOrder(LinkOrder::first());
        let id = program.attach_with_options(&link.name, way.attach, options)?;
        let attached = FdLink::try_from(program.take_link(id)?)?;
        let attached = match &self.pins {
            Some(pins) => pins.pin_splice_link(way.pin, link.index, attached)?,
            None => attached,
        };
        Ok(Attachment::Link { _link: attached })
    }

    /// Lets the link of an earlier daemon run this one's program, between two packets. Both use the same maps.
    fn take_over(&mut self, link: FdLink, way: Way) -> Result<Attachment, AttachError> {
        let link = SchedClassifierLink::try_from(link)?;
        let program = self.program::<SchedClassifier>(way.program)?;
        let id = program.attach_to_link(link)?;
        Ok(Attachment::Link { _link: FdLink::try_from(program.take_link(id)?)? })
    }

    fn attach_filter(&mut self, link: &Link, way: Way) -> Result<Attachment, AttachError> {
        if let Err(error) = tc::qdisc_add_clsact(&link.name) {
            tracing::debug!("kernel plane: clsact on {}: {error}", link.name);
        }
        drop(tc::qdisc_detach_program(&link.name, way.attach, way.program));
        let program = self.program::<SchedClassifier>(way.program)?;
        let options = TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, ..NlOptions::default() });
        let id = program.attach_with_options(&link.name, way.attach, options)?;
        Ok(Attachment::Filter { _filter: program.take_link(id)? })
    }
}
