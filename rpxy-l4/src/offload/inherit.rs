//! Takes over the links that an earlier daemon has left.

use std::collections::HashSet;

use aya::{
    maps::MapData,
    programs::{Xdp, links::FdLink, tc::SchedClassifierLink, xdp::XdpLink},
};

use super::{
    attach::{Hold, Plane, Programs, XDP_PROGRAM},
    explain,
    netlink::Link,
};

impl Programs {
    /// From now on our own programs run where an earlier daemon's did, with `flows` for the next daemon to find. Links of
    /// hooks or interfaces that are not used any more go.
    pub(super) fn take_over(&mut self, flows: &MapData) {
        let Some(pins) = &self.pins else { return };
        if let Err(error) = pins.pin_flows(flows) {
            tracing::warn!("kernel plane: a later daemon will not find the flows of this one: {error}");
        }
        let inherited =
            |(index, (_, hold)): (&u32, &(String, Hold))| matches!(hold, Hold::Inherited { .. }).then_some(*index);
        let inherited: Vec<u32> = self.held.iter().filter_map(inherited).collect();
        for index in inherited {
            let Some((name, Hold::Inherited { link })) = self.held.remove(&index) else { continue };
            let result = self.replace(link).or_else(|error| {
                // The interface was made anew since, above all.
                tracing::debug!("kernel plane: {name}: the link cannot be taken over: {error}");
                if let Some(pins) = &self.pins {
                    pins.unpin(index, self.plane);
                }
                self.attach_new(&Link { index, name: name.clone(), ethernet: true, ..Link::default() })
            });
            match result {
                Ok(hold) => drop(self.held.insert(index, (name, hold))),
                Err(error) => {
                    tracing::warn!("kernel plane: cannot attach to {name}, its flows stay in the daemon: {error}");
                }
            }
        }
        if let Some(pins) = &self.pins {
            let kept: HashSet<(u32, Plane)> = self.held.keys().map(|index| (*index, self.plane)).collect();
            pins.settle(&kept);
        }
    }

    /// Lets a link run our program instead of its own, between two packets.
    fn replace(&mut self, link: FdLink) -> Result<Hold, String> {
        let say = |error: &aya::programs::ProgramError| explain::program(error);
        let fits = |error: aya::programs::links::LinkError| error.to_string();
        let link = match self.plane {
            Plane::Tc => {
                let link = SchedClassifierLink::try_from(link).map_err(fits)?;
                let program = self.tc_program()?;
                let id = program.attach_to_link(link).map_err(|error| say(&error))?;
                FdLink::try_from(program.take_link(id).map_err(|error| say(&error))?).map_err(fits)?
            }
            Plane::Xdp | Plane::XdpGeneric => {
                let link = XdpLink::try_from(link).map_err(fits)?;
                let program = self.program::<Xdp>(XDP_PROGRAM)?;
                let id = program.attach_to_link(link).map_err(|error| say(&error))?;
                FdLink::try_from(program.take_link(id).map_err(|error| say(&error))?).map_err(fits)?
            }
        };
        Ok(Hold::Link { _link: link })
    }
}
