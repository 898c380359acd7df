//! A session as the flow table keeps it: as small as what its two entries are made from.

use std::net::IpAddr;

use rpxy_l4_common::map::{Flow, FlowKey, HopKey, Socket};
use rpxy_l4_proto::quic::ConnectionId;

use crate::offload::{api::Steered, maps};

/// A local and a remote address: what a route is looked up for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct RoutePair {
    pub(crate) source: IpAddr,
    pub(crate) destination: IpAddr,
}

/// The direction of packets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Direction {
    /// From the client to the backend.
    Forward,
    /// From the backend to the client.
    Reverse,
}

/// How the packets of one direction arrive and leave.
#[derive(Debug, Clone, Copy)]
pub(super) struct Way {
    /// Interface that they arrive by. Others may be forged, and stay with the daemon, as far as the host lets them in
    /// (`rp_filter`).
    pub(super) ingress: u32,
    /// Ethernet address of that interface.
    pub(super) station: [u8; 6],
    /// Interface that they leave by.
    pub(super) interface: u32,
    pub(super) hop: HopKey,
}

/// A session that is installed, or parked.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Session {
    client: Socket,
    local: Socket,
    upstream: Socket,
    backend: Socket,
    kind: u8,
    cid_len: u8,
    mark: [u8; 2],
    cid: [u8; 20],
}

impl Session {
    pub(crate) fn new(flow: &Steered) -> Self {
        let [client, local, upstream, backend] =
            [flow.client, flow.local, flow.upstream, flow.backend].map(maps::socket);
        let (kind, mark) = (flow.kind, flow.mark.to_ne_bytes());
        let mut session = Self { client, local, upstream, backend, kind, cid_len: 0, mark, cid: [0; 20] };
        if let Some(cid) = &flow.cid {
            session.set_cid(cid);
        }
        session
    }

    /// The client goes on with another connection ID or index.
    pub(super) fn set_cid(&mut self, cid: &ConnectionId) {
        let bytes = cid.as_bytes();
        self.cid = [0; 20];
        self.cid.iter_mut().zip(bytes).for_each(|(byte, from)| *byte = *from);
        self.cid_len = u8::try_from(bytes.len()).unwrap_or_default();
    }

    /// Key of the entry of a direction.
    pub(crate) fn key(&self, direction: Direction) -> FlowKey {
        match direction {
            Direction::Forward => FlowKey { source: self.client, destination: self.local },
            Direction::Reverse => FlowKey { source: self.backend, destination: self.upstream },
        }
    }

    /// Addresses by which the packets of a direction leave. What answers to them arrives by the same interface.
    pub(crate) fn pair(&self, direction: Direction) -> RoutePair {
        let (source, destination) = match direction {
            Direction::Forward => (&self.upstream, &self.backend),
            Direction::Reverse => (&self.local, &self.client),
        };
        RoutePair { source: maps::ip(source), destination: maps::ip(destination) }
    }

    /// The entry of a direction.
    pub(super) fn entry(&self, direction: Direction, way: Way) -> Flow {
        let Way { ingress, station, interface, hop } = way;
        let entry = Flow { ingress, station, interface, hop, kind: self.kind, ..Flow::default() };
        match direction {
            Direction::Forward => Flow {
                source: self.upstream,
                destination: self.backend,
                cid: self.cid,
                cid_len: self.cid_len,
                mark: self.mark,
                ..entry
            },
            Direction::Reverse => Flow { source: self.local, destination: self.client, ..entry },
        }
    }
}

impl Direction {
    /// The direction of answers.
    pub(super) fn opposite(self) -> Self {
        match self {
            Self::Forward => Self::Reverse,
            Self::Reverse => Self::Forward,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_entries_come_from_one_session() {
        let mut session = Session::new(&Steered {
            client: "192.0.2.7:5000".parse().unwrap(),
            local: "[::ffff:192.0.2.1]:443".parse().unwrap(),
            upstream: "10.0.0.1:40000".parse().unwrap(),
            backend: "10.0.0.2:443".parse().unwrap(),
            kind: 5,
            mark: 0x1234,
            cid: ConnectionId::new(b"abcdefgh"),
        });
        let socket = |text: &str| maps::socket(text.parse().unwrap());
        let way = Way { ingress: 1, station: [2; 6], interface: 3, hop: 4 };
        let mut forward = Flow {
            source: socket("10.0.0.1:40000"),
            destination: socket("10.0.0.2:443"),
            interface: 3,
            ingress: 1,
            station: [2; 6],
            hop: 4,
            kind: 5,
            cid_len: 8,
            mark: 0x1234_u16.to_ne_bytes(),
            ..Flow::default()
        };
        forward.cid[..8].copy_from_slice(b"abcdefgh");
        let reverse = Flow {
            source: socket("192.0.2.1:443"),
            destination: socket("192.0.2.7:5000"),
            cid: [0; 20],
            cid_len: 0,
            mark: [0; 2],
            ..forward
        };
        assert_eq!(session.entry(Direction::Forward, way), forward);
        assert_eq!(session.entry(Direction::Reverse, way), reverse);
        for direction in [Direction::Forward, Direction::Reverse] {
            let (key, entry) = (session.key(direction), session.entry(direction.opposite(), way));
            assert_eq!((key.source, key.destination), (entry.destination, entry.source), "{direction:?}");
        }
        session.set_cid(&ConnectionId::new(b"xyz").unwrap());
        let entry = session.entry(Direction::Forward, way);
        assert_eq!((&entry.cid[..4], entry.cid_len), (&b"xyz\0"[..], 3), "nothing of the longer one is left");
    }

    #[test]
    fn it_is_small() {
        assert_eq!(size_of::<Session>(), 104);
    }
}
