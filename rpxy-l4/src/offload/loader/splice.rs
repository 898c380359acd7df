//! The programs of spliced TCP: attached at TC on each interface, both ways, before the program for UDP.

use std::collections::HashMap;

use aya::programs::{
    LinkOrder, SchedClassifier, TcAttachType,
    links::FdLink,
    tc::{self, NlOptions, TcAttachOptions},
};

use super::attach::{AttachError, Attachment, Programs};
use crate::offload::routes::Link;

/// Programs with the way that they look at.
const PROGRAMS: [(&str, TcAttachType); 2] =
    [("rpxy_l4_tcp_in", TcAttachType::Ingress), ("rpxy_l4_tcp_out", TcAttachType::Egress)];
/// Priority of filters at clsact: before those with a priority that the kernel chooses, which begins at 49152.
const PRIORITY: u16 = 48_000;

/// The interfaces with both programs.
#[derive(Debug, Default)]
pub(super) struct SpliceHooks(HashMap<u32, [Attachment; 2]>);

impl Programs {
    /// Loads the programs for spliced TCP. From then on they are attached with the others.
    pub(super) fn load_splice(&mut self) -> Result<(), AttachError> {
        for (name, _) in PROGRAMS {
            self.program::<SchedClassifier>(name)?.load()?;
        }
        self.splice = Some(SpliceHooks::default());
        Ok(())
    }

    /// Returns the interfaces with both programs.
    pub(crate) fn splices_on(&self) -> Vec<u32> {
        self.splice.iter().flat_map(|hooks| hooks.0.keys().copied()).collect()
    }

    /// Attaches to an interface that has the program for UDP. Returns whether it has both programs.
    pub(crate) fn attach_splice_or_warn(&mut self, link: &Link) -> bool {
        if self.splice.is_none() || !self.is_attached(link.index) {
            return false;
        }
        if self.splice.as_ref().is_some_and(|hooks| hooks.0.contains_key(&link.index)) {
            return true;
        }
        match self.attach_splice(link) {
            Ok(attached) => {
                if let Some(hooks) = &mut self.splice {
                    hooks.0.insert(link.index, attached);
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
        if let Some(hooks) = &mut self.splice {
            hooks.0.remove(&index);
        }
        self.splice_refused.remove(&index);
    }

    fn attach_splice(&mut self, link: &Link) -> Result<[Attachment; 2], AttachError> {
        let [(ingress, way_in), (egress, way_out)] = PROGRAMS;
        // Egress first: what this machine says itself has to be silenced before anything is forwarded.
        let out = self.attach_one(link, egress, way_out)?;
        Ok([self.attach_one(link, ingress, way_in)?, out])
    }

    fn attach_one(
        &mut self,
        link: &Link,
        name: &'static str,
        way: TcAttachType,
    ) -> Result<Attachment, AttachError> {
        let has_tcx = self.has_tcx;
        let options = if has_tcx {
            TcAttachOptions::TcxOrder(LinkOrder::first())
        } else {
            if let Err(error) = tc::qdisc_add_clsact(&link.name) {
                tracing::debug!("kernel plane: clsact on {}: {error}", link.name);
            }
            drop(tc::qdisc_detach_program(&link.name, way, name));
            TcAttachOptions::Netlink(NlOptions { priority: PRIORITY, ..NlOptions::default() })
        };
        let program = self.program::<SchedClassifier>(name)?;
        let id = program.attach_with_options(&link.name, way, options)?;
        let attached = program.take_link(id)?;
        Ok(if has_tcx {
            Attachment::Link { _link: FdLink::try_from(attached)? }
        } else {
            Attachment::Filter { _filter: attached }
        })
    }
}
