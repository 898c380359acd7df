//! The connection IDs and indices of a session as they are handed to another process.

use std::time::Duration;

use rpxy_l4_proto::quic::ConnectionId;
use serde::{Deserialize, Serialize};

use super::{Ids, Indices, QuicIds, UsedId};
use crate::udp::affinity::Key;

/// What tells a session apart, without a decryption under way.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum HandedIds {
    /// Nothing.
    None,
    /// Of a QUIC connection.
    Quic(Box<HandedQuicIds>),
    /// Of a WireGuard tunnel.
    WireGuard(HandedIndices),
}

/// Those of a QUIC connection.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedQuicIds {
    client: Option<Id>,
    first: Id,
    found_by_stated: Option<Id>,
    found_by_used: Option<Id>,
    found_with_others: bool,
    stated: Vec<Id>,
    /// Each with whether it may be another session's of the same socket.
    used: Vec<(Id, bool)>,
    current: Option<Id>,
    len: Option<usize>,
}

/// Those of a WireGuard tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedIndices {
    server: Vec<u32>,
    found_by: Option<u32>,
    initiation: Option<u32>,
    offered: Option<u32>,
    current: Option<u32>,
}

/// A connection ID, as its bytes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Id(Vec<u8>);

impl From<ConnectionId> for Id {
    fn from(id: ConnectionId) -> Self {
        Self(id.as_bytes().to_vec())
    }
}

impl Id {
    fn get(&self) -> Option<ConnectionId> {
        ConnectionId::new(&self.0)
    }
}

impl Ids {
    /// The form in which another process gets them.
    pub(in crate::udp::core) fn handed(&self) -> HandedIds {
        match self {
            Self::None => HandedIds::None,
            Self::Quic(ids) => HandedIds::Quic(Box::new(HandedQuicIds {
                client: ids.client.map(Id::from),
                first: ids.first.into(),
                found_by_stated: ids
                    .found_by
                    .and_then(|key| if let Key::Stated(id) = key { Some(id.into()) } else { None }),
                found_by_used: ids
                    .found_by
                    .and_then(|key| if let Key::Used(id) = key { Some(id.into()) } else { None }),
                found_with_others: ids.found_with_others,
                stated: ids.stated.iter().map(Id::from).collect(),
                used: ids.used.iter().map(|used| (used.id.into(), used.shared.is_some())).collect(),
                current: ids.current.map(Id::from),
                len: ids.len,
            })),
            Self::WireGuard(indices) => HandedIds::WireGuard(HandedIndices {
                server: indices.server.iter().collect(),
                found_by: indices.found_by,
                initiation: indices.initiation,
                offered: indices.offered,
                current: indices.current,
            }),
        }
    }

    /// Those that another process has handed over; what they share with others of their socket, since `now`.
    pub(in crate::udp::core) fn taken_over(handed: &HandedIds, now: Duration) -> Self {
        match handed {
            HandedIds::None => Self::None,
            HandedIds::Quic(of) => {
                let get = |id: &Option<Id>| id.as_ref().and_then(Id::get);
                let mut ids = QuicIds::new(get(&of.client), of.first.get().unwrap_or_default());
                let used = get(&of.found_by_used).map(Key::Used);
                ids.found_by = get(&of.found_by_stated).map(Key::Stated).or(used);
                ids.found_with_others = of.found_with_others;
                for id in of.stated.iter().filter_map(Id::get) {
                    let _displaced = ids.stated.add(id);
                }
                for (id, shared) in &of.used {
                    if let Some(id) = id.get() {
                        let _displaced = ids.used.add(UsedId { id, shared: shared.then_some(now) });
                    }
                }
                ids.current = get(&of.current);
                ids.len = of.len;
                Self::Quic(Box::new(ids))
            }
            HandedIds::WireGuard(of) => {
                let mut indices = Indices {
                    found_by: of.found_by,
                    initiation: of.initiation,
                    offered: of.offered,
                    current: of.current,
                    ..Indices::default()
                };
                for index in &of.server {
                    let _displaced = indices.server.add(*index);
                }
                Self::WireGuard(indices)
            }
        }
    }

    /// The keys under which the affinity table knew the session.
    pub(in crate::udp::core) fn keys(&self) -> Vec<Key> {
        match self {
            Self::None => Vec::new(),
            Self::Quic(ids) => {
                let found = ids.found_by.filter(|key| matches!(key, Key::Stated(_)));
                // Those that follow others hold nothing themselves.
                let used = ids.used.iter().filter(|_| ids.found_by.is_none()).map(|used| Key::Used(used.id));
                found.into_iter().chain(ids.stated.iter().map(Key::Stated)).chain(used).collect()
            }
            Self::WireGuard(indices) => indices.server.iter().map(Key::Index).collect(),
        }
    }
}
