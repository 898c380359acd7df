//! What tells the sessions of one client socket apart: the connection IDs of QUIC, the indices of WireGuard.

use rpxy_l4_proto::quic::ConnectionId;

use super::decryption::Decryption;

/// IDs of either kind that are remembered for a session: Retry, handshake and later ones of the server; the last that
/// the client went on to use.
const MOST: usize = 4;

/// A few values, the latest last; a further one displaces the oldest.
#[derive(Debug, Clone)]
pub(super) struct Few<T>(Vec<T>);

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Copy + PartialEq> Few<T> {
    pub(super) fn contains(&self, value: T) -> bool {
        self.0.contains(&value)
    }

    /// Adds `value` and returns the one that had to go.
    pub(super) fn add(&mut self, value: T) -> Option<T> {
        let displaced = if self.0.len() < MOST { None } else { Some(self.0.remove(0)) };
        if self.0.capacity() == self.0.len() {
            // Most sessions stay with one or two.
            self.0.reserve_exact(1);
        }
        self.0.push(value);
        displaced
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = T> + '_ {
        self.0.iter().copied()
    }
}

/// The connection IDs of a QUIC session.
#[derive(Debug)]
pub(super) struct QuicIds {
    /// The client's source connection ID, which its long headers carry from beginning to end; `None` for a connection
    /// that was found by a short header, which does not tell it.
    pub(super) client: Option<ConnectionId>,
    /// The destination connection ID of the client's first packet, which the Initial keys come from.
    pub(super) first: ConnectionId,
    /// What the server chose to be addressed by, in long headers.
    pub(super) server: Few<ConnectionId>,
    /// What the client's short headers carry beside those, since the server has told it secretly.
    pub(super) used: Few<ConnectionId>,
    /// The one that the client used last, as far as it is known; the kernel steers short headers with this one only.
    pub(super) current: Option<ConnectionId>,
    /// Those that the affinity table holds for this session.
    pub(super) held: Vec<ConnectionId>,
    /// Length of the server's connection IDs in bytes, once it is known.
    pub(super) len: Option<usize>,
    /// Its hello was decrypted, and its handshake is not known to be over.
    pub(super) decryption: Option<Box<Decryption>>,
}

impl QuicIds {
    pub(super) fn new(client: Option<ConnectionId>, first: ConnectionId) -> Self {
        let (server, used) = (Few::default(), Few::default());
        Self { client, first, server, used, current: None, held: Vec::new(), len: None, decryption: None }
    }

    /// For a connection that goes on from another address, under an ID that its server is known by.
    pub(super) fn known(client: Option<ConnectionId>, id: ConnectionId) -> Self {
        let mut ids = Self::new(client, id);
        ids.server.add(id);
        ids.current = Some(id);
        ids.len = Some(id.len());
        ids
    }

    /// Whether a long header with these IDs is of this connection.
    pub(super) fn owns_long(&self, destination: &[u8], source: &[u8]) -> bool {
        self.client.is_none_or(|client| client.as_bytes() == source)
            && (self.first.as_bytes() == destination || self.server.iter().any(|id| id.as_bytes() == destination))
    }

    /// Whether a short header is of this connection, as far as can be seen.
    pub(super) fn owns_short(&self, datagram: &[u8]) -> bool {
        self.of_short(datagram).is_some_and(|id| self.server.contains(id) || self.used.contains(id))
    }

    /// The destination connection ID of a short header; `None` while its length is unknown, and where it is empty.
    pub(super) fn of_short(&self, datagram: &[u8]) -> Option<ConnectionId> {
        let len = self.len.filter(|len| *len > 0)?;
        ConnectionId::new(datagram.get(1..1 + len)?)
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
    pub(super) server: Few<u32>,
    /// The one that the client uses, as far as it is known; the kernel steers messages with this one only.
    pub(super) current: Option<u32>,
}

impl Indices {
    /// For a session that goes on from another address, under an index that its server is known by.
    pub(super) fn known(index: u32) -> Self {
        let mut indices = Self::default();
        indices.server.add(index);
        indices.current = Some(index);
        indices
    }
}

impl Ids {
    /// The decryption under way.
    pub(super) fn decryption(&self) -> Option<&Decryption> {
        self.quic()?.decryption.as_deref()
    }

    /// The same, to be gone on with.
    pub(super) fn decryption_mut(&mut self) -> Option<&mut Decryption> {
        match self {
            Self::Quic(ids) => ids.decryption.as_deref_mut(),
            Self::None | Self::WireGuard(_) => None,
        }
    }

    /// Gives up the decryption under way, and tells how many datagrams waited in it.
    pub(super) fn end_decryption(&mut self) -> usize {
        let waiting = self.waiting();
        if let Self::Quic(ids) = self {
            ids.decryption = None;
        }
        waiting
    }

    /// How many datagrams wait in the decryption under way.
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
}
