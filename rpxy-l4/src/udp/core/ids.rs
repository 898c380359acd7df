//! What tells the sessions of one client socket apart: the connection IDs of QUIC, the indices of WireGuard.

use rpxy_l4_proto::quic::ConnectionId;

use super::{decryption::Decryption, few::Few};

/// The connection IDs of a QUIC session.
#[derive(Debug)]
pub(super) struct QuicIds {
    /// The client's source connection ID, which its long headers carry from beginning to end; `None` for a connection
    /// that was found by a short header, which does not tell it.
    client: Option<ConnectionId>,
    /// The destination connection ID of the client's first packet, which the Initial keys come from.
    first: ConnectionId,
    /// What the server chose to be addressed by, in long headers.
    server: Few<ConnectionId>,
    /// What the client's short headers carry beside those, since the server has told it secretly.
    used: Few<ConnectionId>,
    /// The one that the client used last, as far as it is known; the kernel steers short headers with this one only.
    current: Option<ConnectionId>,
    /// Those that the affinity table has for this session.
    remembered: Vec<ConnectionId>,
    /// Length of the server's connection IDs in bytes, once it is known.
    len: Option<usize>,
    /// Its hello was decrypted, and its handshake is not known to be over.
    pub(super) decryption: Option<Box<Decryption>>,
}

impl QuicIds {
    pub(super) fn new(client: Option<ConnectionId>, first: ConnectionId) -> Self {
        let (server, used) = (Few::default(), Few::default());
        Self { client, first, server, used, current: None, remembered: Vec::new(), len: None, decryption: None }
    }

    /// For a connection that goes on from another address, under an ID that its server is known by.
    pub(super) fn known(client: Option<ConnectionId>, id: ConnectionId) -> Self {
        let mut ids = Self::new(client, id);
        ids.server.add(id);
        ids.current = Some(id);
        ids.len = Some(id.len());
        ids
    }

    /// The destination connection ID of the client's first packet.
    pub(super) fn first(&self) -> ConnectionId {
        self.first
    }

    pub(super) fn is_from_client(&self, source: ConnectionId) -> bool {
        self.client == Some(source)
    }

    /// Returns whether the server stated this ID in a long header.
    pub(super) fn is_stated(&self, id: &[u8]) -> bool {
        self.server.iter().any(|stated| stated.as_bytes() == id)
    }

    /// Returns whether the server is known to be addressed without an ID.
    pub(super) fn is_empty(&self) -> bool {
        self.len == Some(0)
    }

    /// Returns whether a long header with these IDs is of this connection.
    pub(super) fn owns_long(&self, destination: &[u8], source: &[u8]) -> bool {
        self.client.is_none_or(|client| client.as_bytes() == source)
            && (self.first.as_bytes() == destination || self.is_stated(destination))
    }

    /// Returns whether a short header is of this connection, as far as can be seen.
    pub(super) fn owns_short(&self, datagram: &[u8]) -> bool {
        self.of_short(datagram).is_some_and(|id| self.server.contains(id) || self.used.contains(id))
    }

    /// The destination connection ID of a short header; `None` while its length is unknown, and where it is empty.
    pub(super) fn of_short(&self, datagram: &[u8]) -> Option<ConnectionId> {
        let len = self.len.filter(|len| *len > 0)?;
        ConnectionId::new(datagram.get(1..1 + len)?)
    }

    /// IDs that lead to this session.
    pub(super) fn all(&self) -> impl Iterator<Item = ConnectionId> + '_ {
        self.server.iter().chain(self.used.iter())
    }

    /// Adds an ID from a long header of the server; returns the one that had to go.
    pub(super) fn add_stated(&mut self, id: ConnectionId) -> Option<ConnectionId> {
        self.server.add(id)
    }

    /// The server's IDs are so long, in bytes.
    pub(super) fn set_len(&mut self, len: usize) {
        self.len = Some(len);
    }

    /// Adds an ID that the client goes on to use; returns the one that had to go.
    pub(super) fn add_used(&mut self, id: ConnectionId) -> Option<ConnectionId> {
        self.used.add(id)
    }

    /// Sets the ID that the client uses; returns whether it is another one.
    pub(super) fn set_current(&mut self, id: ConnectionId) -> bool {
        self.current.replace(id) != Some(id)
    }

    /// The affinity table has taken this ID for this session.
    pub(super) fn remember(&mut self, id: ConnectionId) {
        self.remembered.push(id);
    }

    /// Returns whether the affinity table had this ID for this session, which it is to forget.
    pub(super) fn forget(&mut self, id: ConnectionId) -> bool {
        let at = self.remembered.iter().position(|remembered| *remembered == id);
        at.map(|at| self.remembered.swap_remove(at)).is_some()
    }

    /// IDs that the affinity table has for this session.
    pub(super) fn remembered(&self) -> &[ConnectionId] {
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

/// The indices of a WireGuard session that the server has chosen.
#[derive(Debug, Clone, Default)]
pub(super) struct Indices {
    /// The last few.
    server: Few<u32>,
    /// The one that the client uses, as far as it is known; the kernel steers messages with this one only.
    current: Option<u32>,
}

impl Indices {
    /// For a session that goes on from another address, under an index that its server is known by.
    pub(super) fn known(index: u32) -> Self {
        let mut indices = Self::default();
        indices.server.add(index);
        indices.current = Some(index);
        indices
    }

    pub(super) fn contains(&self, index: u32) -> bool {
        self.server.contains(index)
    }

    pub(super) fn add(&mut self, index: u32) {
        if !self.server.contains(index) {
            self.server.add(index);
        }
    }

    /// Sets the index that the client uses; returns whether it is another one.
    pub(super) fn set_current(&mut self, index: u32) -> bool {
        self.current.replace(index) != Some(index)
    }
}

impl Ids {
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
