//! What tells the sessions of one client socket apart: the connection IDs of QUIC, the indices of WireGuard.

mod handed;

use std::time::Duration;

use rpxy_l4_proto::quic::ConnectionId;

use super::{decryption::Decryption, few::Few};
use crate::udp::affinity::Key;

pub(crate) use handed::HandedIds;

/// The connection IDs of a QUIC session.
#[derive(Debug)]
pub(super) struct QuicIds {
    /// The client's source connection ID, which its long headers carry from beginning to end; `None` for a connection
    /// that was found by a short header, which does not tell it.
    client: Option<ConnectionId>,
    /// The destination connection ID of the client's first packet, which the Initial keys come from.
    first: ConnectionId,
    /// The ID that this session was found by, where it goes on with an earlier one's connection.
    found_by: Option<Key>,
    /// That ID may be another session's of the same socket as well: the table knows whose.
    found_with_others: bool,
    /// What the server stated in long headers of this session: only an answer can have told them to the client.
    stated: Few<ConnectionId>,
    /// What the client's short headers carry beside those, since the server has told it secretly.
    used: Few<UsedId>,
    /// The one that the client used last, as far as it is known; the kernel steers short headers with this one only.
    current: Option<ConnectionId>,
    /// Those that the affinity table has for this session.
    remembered: Vec<Key>,
    /// Length of the server's connection IDs in bytes, once it is known.
    len: Option<usize>,
    /// Its hello was decrypted, and its handshake is not known to be over.
    pub(super) decryption: Option<Box<Decryption>>,
}

/// An ID that the client of a session went on to use, or that of another session on the same socket.
#[derive(Debug, Clone, Copy)]
struct UsedId {
    id: ConnectionId,
    /// Since when it could be several sessions'.
    shared: Option<Duration>,
}

impl PartialEq for UsedId {
    fn eq(&self, other: &Self) -> bool {
        self.id == other.id
    }
}

/// The extent to which a short header is of a session.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ownership {
    /// Its ID is known to be this session's.
    Certain,
    /// Its ID could be another session's of the same socket as well.
    Shared,
    /// Its ID is unknown.
    Unknown,
}

impl QuicIds {
    pub(super) fn new(client: Option<ConnectionId>, first: ConnectionId) -> Self {
        Self {
            client,
            first,
            found_by: None,
            found_with_others: false,
            stated: Few::default(),
            used: Few::default(),
            current: None,
            remembered: Vec::new(),
            len: None,
            decryption: None,
        }
    }

    /// For a connection that goes on from another address, under an ID that its server is known by.
    pub(super) fn known(client: Option<ConnectionId>, key: Key) -> Self {
        let id = match key {
            Key::Stated(id) | Key::Used(id) => id,
            Key::Index(_) => ConnectionId::default(),
        };
        let mut ids = Self::new(client, id);
        ids.found_by = Some(key);
        ids.current = Some(id);
        ids.len = Some(id.len());
        ids
    }

    /// As [`QuicIds::known`], where several servers are known by that ID.
    pub(super) fn known_with_others(key: Key) -> Self {
        Self { found_with_others: true, ..Self::known(None, key) }
    }

    /// The destination connection ID of the client's first packet.
    pub(super) fn first(&self) -> ConnectionId {
        self.first
    }

    pub(super) fn is_from_client(&self, source: ConnectionId) -> bool {
        self.client == Some(source)
    }

    /// Returns whether the server stated this ID on this session.
    pub(super) fn is_stated(&self, id: &[u8]) -> bool {
        self.stated.iter().any(|stated| stated.as_bytes() == id)
    }

    /// Returns whether only an answer on this session can have told the client this ID: the server stated it, and it is none
    /// that the client chose itself and a backend may have echoed.
    pub(super) fn is_secret(&self, id: &[u8]) -> bool {
        let of_client = self.first.as_bytes() == id || self.client.is_some_and(|client| client.as_bytes() == id);
        !id.is_empty() && !of_client && self.is_stated(id)
    }

    /// Returns whether the server is known to be addressed without an ID.
    pub(super) fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// Returns whether no ID can come that only an answer told the client: the server has none, or its long headers passed
    /// on an earlier session.
    pub(super) fn are_without_secret(&self) -> bool {
        self.is_empty() || self.found_by.is_some()
    }

    /// Returns whether its first short header comes after a long header with an ID that only an answer told the client.
    pub(super) fn begin_with_long(&self) -> bool {
        self.client.is_some() && !self.are_without_secret()
    }

    /// The ID that this session was found by.
    pub(super) fn found_by(&self) -> Option<Key> {
        self.found_by
    }

    fn was_found_by(&self, id: &[u8]) -> bool {
        matches!(self.found_by, Some(Key::Stated(known) | Key::Used(known)) if known.as_bytes() == id)
    }

    /// Returns whether a long header with these IDs is of this connection.
    pub(super) fn owns_long(&self, destination: &[u8], source: &[u8]) -> bool {
        self.client.is_none_or(|client| client.as_bytes() == source)
            && (self.first.as_bytes() == destination || self.is_stated(destination) || self.was_found_by(destination))
    }

    /// Returns the extent to which a short header is of this connection.
    pub(super) fn owns_short(&self, datagram: &[u8]) -> Ownership {
        let Some(id) = self.of_short(datagram) else { return Ownership::Unknown };
        if self.stated.contains(id) || (self.was_found_by(id.as_bytes()) && !self.found_with_others) {
            return Ownership::Certain;
        }
        match self.used.iter().find(|used| used.id == id) {
            Some(UsedId { shared: None, .. }) => Ownership::Certain,
            Some(UsedId { shared: Some(_), .. }) => Ownership::Shared,
            None => Ownership::Unknown,
        }
    }

    /// Returns whether one of the IDs that lead here begins with these bytes.
    fn has_beginning(&self, bytes: &[u8]) -> bool {
        let begins = |id: &ConnectionId| id.as_bytes().starts_with(bytes);
        let found_by = match self.found_by {
            Some(Key::Stated(id) | Key::Used(id)) => begins(&id),
            Some(Key::Index(_)) | None => false,
        };
        found_by || self.stated.iter().any(|id| begins(&id)) || self.used.iter().any(|used| begins(&used.id))
    }

    /// The destination connection ID of a short header; `None` while its length is unknown, and where it is empty.
    pub(super) fn of_short(&self, datagram: &[u8]) -> Option<ConnectionId> {
        let len = self.len.filter(|len| *len > 0)?;
        ConnectionId::new(datagram.get(1..1 + len)?)
    }

    /// Adds an ID from a long header of the server; returns the one that had to go.
    pub(super) fn add_stated(&mut self, id: ConnectionId) -> Option<ConnectionId> {
        self.stated.add(id)
    }

    /// The server's IDs are so long, in bytes.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = Some(len);
    }

    /// Adds an ID that the client goes on to use, or since `shared` maybe for another session; returns the one that had to
    /// go.
    pub(super) fn add_used(&mut self, id: ConnectionId, shared: Option<Duration>) -> Option<ConnectionId> {
        self.used.add(UsedId { id, shared }).map(|displaced| displaced.id)
    }

    /// The client goes on with an ID that is this session's alone: those that it began to share by `before` are of other
    /// sessions, and returned.
    pub(super) fn drop_shared(&mut self, before: Duration) -> Vec<ConnectionId> {
        let is_others = |used: &UsedId| used.shared.is_some_and(|since| since <= before);
        self.used.remove_if(is_others).into_iter().map(|used| used.id).collect()
    }

    /// Sets the ID that the client uses; returns whether it is another one.
    pub(super) fn set_current(&mut self, id: ConnectionId) -> bool {
        self.current.replace(id) != Some(id)
    }

    /// The affinity table has taken this key for this session.
    pub(super) fn remember(&mut self, key: Key) {
        // Most sessions stay with one or two.
        self.remembered.reserve_exact(1);
        self.remembered.push(key);
    }

    /// Returns whether the affinity table had this key for this session, which it is to forget.
    pub(super) fn forget(&mut self, key: Key) -> bool {
        let at = self.remembered.iter().position(|remembered| *remembered == key);
        at.map(|at| self.remembered.swap_remove(at)).is_some()
    }

    /// Keys that the affinity table has for this session.
    pub(super) fn remembered(&self) -> &[Key] {
        &self.remembered
    }
}

/// What tells a session apart from others of the same client socket.
#[derive(Debug, Default)]
pub(super) enum Ids {
    /// Nothing.
    #[default]
    None,
    Quic(Box<QuicIds>),
    WireGuard(Indices),
}

/// The indices of a WireGuard session.
#[derive(Debug, Clone, Default)]
pub(super) struct Indices {
    /// What the server chose in handshakes of this session, the last few.
    server: Few<u32>,
    /// The index that this session was found by, where it goes on with an earlier one's tunnel.
    found_by: Option<u32>,
    /// The client's index in its last initiation, until the server has answered it.
    initiation: Option<u32>,
    /// The server's index in its last initiation, until the client has answered it.
    offered: Option<u32>,
    /// The one that the client uses, as far as it is known; the kernel steers messages with this one only.
    current: Option<u32>,
}

impl Indices {
    /// For a session that goes on from another address, under an index that its server is known by.
    pub(super) fn known(index: u32) -> Self {
        Self { found_by: Some(index), current: Some(index), ..Self::default() }
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.is_stated(index) || self.found_by == Some(index) || self.offered == Some(index)
    }

    /// Returns whether the server chose this index on this session.
    pub(super) fn is_stated(&self, index: u32) -> bool {
        self.server.contains(index)
    }

    /// Returns whether the client has begun a handshake that is not answered.
    pub(super) fn begin_with_initiation(&self) -> bool {
        self.initiation.is_some() && self.found_by.is_none()
    }

    /// The client begins a handshake under this index of its own.
    pub(super) fn begin(&mut self, client: u32) {
        self.initiation = Some(client);
    }

    /// The server begins a handshake under this index of its own; not if that is the client's, which it echoes.
    pub(super) fn offer(&mut self, server: u32) {
        if self.initiation != Some(server) {
            self.offered = Some(server);
        }
    }

    /// The server answers the client's initiation `client` with its index; false when there was none.
    pub(super) fn answer(&mut self, client: u32, server: u32) -> bool {
        let answers = self.initiation.take_if(|initiation| *initiation == client).is_some();
        if answers && !self.server.contains(server) {
            self.server.add(server);
        }
        answers
    }

    /// The client answers the server's initiation `server`; false when there was none.
    pub(super) fn accept(&mut self, server: u32) -> bool {
        let answers = self.offered.take_if(|offered| *offered == server).is_some();
        if answers && !self.server.contains(server) {
            self.server.add(server);
        }
        answers
    }

    /// Sets the index that the client uses; returns whether it is another one.
    pub(super) fn set_current(&mut self, index: u32) -> bool {
        self.current.replace(index) != Some(index)
    }
}

impl Ids {
    /// What is left of them for a session that goes on with another backend: nothing that the first one chose.
    pub(super) fn anew(&mut self) -> Self {
        match self {
            Self::None => Self::None,
            Self::Quic(ids) => {
                let mut anew = QuicIds::new(ids.client, ids.first);
                anew.decryption = ids.decryption.take();
                Self::Quic(Box::new(anew))
            }
            Self::WireGuard(_) => Self::WireGuard(Indices::default()),
        }
    }

    /// The decryption under way.
    pub(super) fn decryption(&self) -> Option<&Decryption> {
        self.quic()?.decryption.as_deref()
    }

    /// The same, to be gone on with.
    pub(super) fn decryption_mut(&mut self) -> Option<&mut Decryption> {
        self.quic_mut()?.decryption.as_deref_mut()
    }

    /// Ends the decryption under way; returns how many datagrams waited in it.
    pub(super) fn end_decryption(&mut self) -> usize {
        let waiting = self.waiting();
        if let Self::Quic(ids) = self {
            ids.decryption = None;
        }
        waiting
    }

    /// Number of datagrams that wait in the decryption under way.
    pub(super) fn waiting(&self) -> usize {
        self.decryption().map_or(0, Decryption::waiting)
    }

    /// Returns whether nothing can come that only an answer told the client.
    pub(super) fn are_without_secret(&self) -> bool {
        match self {
            Self::None => true,
            Self::Quic(ids) => ids.are_without_secret(),
            Self::WireGuard(indices) => indices.found_by.is_some(),
        }
    }

    /// Returns whether datagrams that carry this ID, or one that begins with it, may be of this session. Of a tunnel they
    /// have another form.
    pub(super) fn may_be_of(&self, id: &ConnectionId) -> bool {
        match self {
            Self::None => false,
            Self::Quic(ids) => ids.has_beginning(id.as_bytes()),
            Self::WireGuard(indices) => {
                id.as_bytes().first_chunk().is_some_and(|index| indices.contains(u32::from_le_bytes(*index)))
            }
        }
    }

    /// What the client's datagrams carry that the kernel may steer, as it is on the wire.
    pub(super) fn current(&self) -> Option<ConnectionId> {
        match self {
            Self::None => None,
            Self::Quic(ids) => ids.current,
            // Little-endian (WireGuard section 5.4).
            Self::WireGuard(indices) => indices.current.and_then(|index| ConnectionId::new(&index.to_le_bytes())),
        }
    }

    pub(super) fn quic(&self) -> Option<&QuicIds> {
        match self {
            Self::Quic(ids) => Some(ids),
            Self::None | Self::WireGuard(_) => None,
        }
    }

    pub(super) fn quic_mut(&mut self) -> Option<&mut QuicIds> {
        match self {
            Self::Quic(ids) => Some(ids),
            Self::None | Self::WireGuard(_) => None,
        }
    }
}
