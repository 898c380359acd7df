//! Inheritance from an earlier daemon that pinned its links and flows: first its sessions, then its links.

use std::collections::HashSet;

use aya::{
    maps::MapData,
    programs::{Xdp, links::FdLink, tc::SchedClassifierLink, xdp::XdpLink},
};
use rpxy_l4_common::map::{Flow, FlowKey};
use rpxy_l4_proto::quic::ConnectionId;

use super::{
    attach::{AttachError, Attachment, Programs, XDP_PROGRAM, warn_of_refusal},
    hook::HookMode,
};
use crate::offload::{api::Steered, maps, routes::Link};

impl Programs {
    /// Returns the sessions whose flows an earlier daemon pinned, with all that their entries tell.
    pub(crate) fn inherited(&self) -> Vec<Steered> {
        self.pins.as_ref().map(|pins| sessions(&pins.flows())).unwrap_or_default()
    }

    /// Replaces the programs of an earlier daemon by this one's, and pins `flows` for the next daemon. Links of hooks and
    /// interfaces that are no longer used are removed.
    pub(crate) fn inherit(&mut self, flows: &MapData) {
        let Some(pins) = &self.pins else { return };
        if let Err(error) = pins.pin_flows(flows) {
            tracing::warn!("kernel plane: a later daemon cannot inherit the flows of this one: {error}");
        }
        let inherited = |(index, (_, attachment)): (&u32, &(String, Attachment))| {
            matches!(attachment, Attachment::Inherited { .. }).then_some(*index)
        };
        let inherited: Vec<u32> = self.attached.iter().filter_map(inherited).collect();
        for index in inherited {
            let Some((name, Attachment::Inherited { link })) = self.attached.remove(&index) else { continue };
            let result = self.replace(link).or_else(|error| {
                // Usually the interface was deleted and created again.
                tracing::debug!("kernel plane: cannot inherit the link on {name}: {error}");
                if let Some(pins) = &self.pins {
                    pins.remove_link(index, self.hook);
                }
                self.attach_new(&Link { index, name: name.clone(), ethernet: true, ..Link::default() })
            });
            match result {
                Ok(attachment) => drop(self.attached.insert(index, (name, attachment))),
                Err(error) => warn_of_refusal(&name, &error),
            }
        }
        if let Some(pins) = &self.pins {
            let kept: HashSet<(u32, HookMode)> = self.attached.keys().map(|index| (*index, self.hook)).collect();
            if let Err(error) = pins.settle(&kept, &self.splice_pins(pins)) {
                tracing::warn!("kernel plane: a later daemon cannot inherit the flows of this one: {error}");
            }
        }
    }

    /// Lets a link run this daemon's program instead of its own, between two packets (`BPF_LINK_UPDATE`).
    fn replace(&mut self, link: FdLink) -> Result<Attachment, AttachError> {
        let link = match self.hook {
            HookMode::Tc => {
                let link = SchedClassifierLink::try_from(link)?;
                let program = self.tc_program()?;
                let id = program.attach_to_link(link)?;
                FdLink::try_from(program.take_link(id)?)?
            }
            HookMode::Xdp | HookMode::XdpGeneric => {
                let link = XdpLink::try_from(link)?;
                let program = self.program::<Xdp>(XDP_PROGRAM)?;
                let id = program.attach_to_link(link)?;
                FdLink::try_from(program.take_link(id)?)?
            }
        };
        Ok(Attachment::Link { _link: link })
    }
}

/// Joins both directions of each session.
fn sessions(entries: &[(FlowKey, Flow)]) -> Vec<Steered> {
    let keys: HashSet<&FlowKey> = entries.iter().map(|(key, _)| key).collect();
    // A session that lacks one direction has just lost its route, or was being removed.
    let is_complete = |flow: &Flow| keys.contains(&FlowKey { source: flow.destination, destination: flow.source });
    let session = |(key, flow): &(FlowKey, Flow)| {
        let mark = u16::from_ne_bytes(flow.mark);
        if mark == 0 || !is_complete(flow) {
            return None;
        }
        let cid = flow.cid.get(..usize::from(flow.cid_len)).filter(|cid| !cid.is_empty()).and_then(ConnectionId::new);
        Some(Steered {
            client: maps::socket_address(&key.source)?,
            local: maps::socket_address(&key.destination)?,
            upstream: maps::socket_address(&flow.source)?,
            backend: maps::socket_address(&flow.destination)?,
            kind: flow.kind,
            mark,
            cid,
        })
    };
    entries.iter().filter_map(session).collect()
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;

    const CLIENT: &str = "192.0.2.7:5000";
    const LOCAL: &str = "192.0.2.1:443";
    const UPSTREAM: &str = "10.0.0.1:40000";
    const BACKEND: &str = "10.0.0.2:443";

    /// The addresses of an entry, in order: those that its packets come with, then those that they leave with.
    fn entry(text: [&str; 4], mark: u16) -> (FlowKey, Flow) {
        let [from, to, source, destination] = text.map(|text| maps::socket(text.parse::<SocketAddr>().unwrap()));
        let flow = Flow { source, destination, mark: mark.to_ne_bytes(), ..Flow::default() };
        (FlowKey { source: from, destination: to }, flow)
    }

    #[test]
    fn both_directions_make_a_session() {
        let (forward, reverse) =
            (entry([CLIENT, LOCAL, UPSTREAM, BACKEND], 7), entry([BACKEND, UPSTREAM, LOCAL, CLIENT], 0));
        let v6 = ["[2001:db8::7]:5000", "[2001:db8::1]:443", "[fd00::1]:40000", "[fd00::2]:443"];
        let back = [v6[3], v6[2], v6[1], v6[0]];
        let mut with_id = entry(v6, 9);
        with_id.1.cid_len = 4;
        with_id.1.cid[..4].copy_from_slice(b"abcd");
        let found = sessions(&[forward, reverse, entry(back, 0), with_id]);
        let text = |flow: &Steered| {
            let ends = [flow.client, flow.local, flow.upstream, flow.backend].map(|end| end.to_string());
            (ends, flow.mark, flow.cid.as_ref().map(|cid| cid.as_bytes().to_vec()))
        };
        let found: Vec<_> = found.iter().map(text).collect();
        assert_eq!(
            found,
            [
                ([CLIENT, LOCAL, UPSTREAM, BACKEND].map(str::to_owned), 7, None),
                (v6.map(str::to_owned), 9, Some(b"abcd".to_vec())),
            ]
        );
    }

    #[test]
    fn half_a_session_is_not_inherited() {
        let rows = [
            ("the answers' half is missing", vec![entry([CLIENT, LOCAL, UPSTREAM, BACKEND], 7)]),
            ("the client's half is missing", vec![entry([BACKEND, UPSTREAM, LOCAL, CLIENT], 0)]),
            (
                "the other half is another session's",
                vec![
                    entry([CLIENT, LOCAL, UPSTREAM, BACKEND], 7),
                    entry([BACKEND, "10.0.0.1:40001", LOCAL, CLIENT], 0),
                ],
            ),
        ];
        for (name, entries) in rows {
            assert!(sessions(&entries).is_empty(), "{name}");
        }
    }
}
