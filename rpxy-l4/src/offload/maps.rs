//! The maps, with their types. Reading flows needs no lock; writing is for whoever holds this value.

use std::{
    collections::{HashMap, HashSet},
    fmt,
    net::IpAddr,
    os::fd::AsFd,
};

use aya::{
    Ebpf,
    maps::{Array, HashMap as KernelMap, LpmTrie, Map, MapData, MapError, PerCpuArray, lpm_trie::Key},
};
use ipnet::IpNet;
use rpxy_l4_common::{
    mac1::{MOST_KEYS, Mac1Key},
    map::{Counted, FlowEntry, FlowKey, Hop, Listener, Socket, name},
};

use super::{
    encode::{
        self, FlowBytes, FlowKeyBytes, HopBytes, ListenerBytes, Mac1KeyBytes, NetworkBytes, SocketBytes,
        SourceLimitBytes,
    },
    guards::Guards,
    table::Update,
};

/// Maps that are filled.
pub(super) struct Maps {
    flows: KernelMap<MapData, FlowKeyBytes, FlowBytes>,
    /// The same, to be pinned.
    pub(super) flows_data: MapData,
    hops: Array<MapData, HopBytes>,
    listeners: KernelMap<MapData, SocketBytes, ListenerBytes>,
    local: KernelMap<MapData, [u8; 16], u8>,
    banned: LpmTrie<MapData, NetworkBytes, u8>,
    mac1_keys: Array<MapData, Mac1KeyBytes>,
    source_limit: Array<MapData, SourceLimitBytes>,
    lease: Array<MapData, u64>,
    /// What flows have counted that are out for now.
    parked: HashMap<FlowKey, Counted>,
    /// What the maps hold.
    has_listeners: HashMap<Socket, u32>,
    has_local: HashSet<[u8; 16]>,
    has_banned: HashSet<IpNet>,
    has_guards: Guards,
}

/// Maps that are read while others write.
pub(super) struct Readers {
    flows: KernelMap<MapData, FlowKeyBytes, FlowBytes>,
    counters: PerCpuArray<MapData, u64>,
}

/// The maps of a loaded object.
pub(super) fn take(ebpf: &mut Ebpf) -> Result<(Maps, Readers), MapError> {
    let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
    let flows = map(name::FLOWS)?;
    let flows_data = again(&flows)?;
    let readers =
        Readers { flows: Map::HashMap(again(&flows)?).try_into()?, counters: map(name::COUNTERS)?.try_into()? };
    let maps = Maps {
        flows: flows.try_into()?,
        flows_data,
        hops: map(name::HOPS)?.try_into()?,
        listeners: map(name::LISTENERS)?.try_into()?,
        local: map(name::LOCAL)?.try_into()?,
        banned: map(name::BANNED)?.try_into()?,
        mac1_keys: map(name::MAC1_KEYS)?.try_into()?,
        source_limit: map(name::SOURCE_LIMIT)?.try_into()?,
        lease: map(name::LEASE)?.try_into()?,
        parked: HashMap::new(),
        has_listeners: HashMap::new(),
        has_local: HashSet::new(),
        has_banned: HashSet::new(),
        has_guards: Guards::default(),
    };
    Ok((maps, readers))
}

/// A second handle of a hash map.
fn again(map: &Map) -> Result<MapData, MapError> {
    let Map::HashMap(data) = map else { return Err(MapError::InvalidName { name: format!("{map:?}") }) };
    MapData::from_fd(data.fd().as_fd().try_clone_to_owned()?)
}

impl Maps {
    /// Makes changes, in order; stops at the first that the kernel refuses.
    pub(super) fn apply(&mut self, updates: &[Update]) -> Result<(), MapError> {
        updates.iter().try_for_each(|update| self.apply_one(update))
    }

    /// Makes changes as far as the kernel takes them.
    pub(super) fn apply_all(&mut self, updates: &[Update]) {
        for update in updates {
            if let Err(error) = self.apply_one(update) {
                tracing::debug!("kernel plane: {update:?}: {error}");
            }
        }
    }

    fn apply_one(&mut self, update: &Update) -> Result<(), MapError> {
        match update {
            Update::Hop(key, hop) => self.hops.set(*key, hop.sealed(*key).to_bytes(), 0),
            Update::NoHop(key) => self.hops.set(*key, Hop::default().to_bytes(), 0),
            Update::NoFlow(key) => {
                self.parked.remove(key);
                absent_is_fine(self.flows.remove(&key.to_bytes()))
            }
            Update::Park(key) => {
                let bytes = key.to_bytes();
                if let Ok(entry) = self.flows.get(&bytes, 0) {
                    self.parked.insert(*key, encode::counted(&entry));
                }
                absent_is_fine(self.flows.remove(&bytes))
            }
            Update::Flow(key, flow) => {
                let bytes = key.to_bytes();
                // What is counted in between is lost: a few packets, when a connection ID or a route changes.
                let present = self.flows.get(&bytes, 0).ok().map(|entry| encode::counted(&entry));
                let before = self.parked.remove(key).or(present).unwrap_or_default();
                self.flows.insert(bytes, FlowEntry { counted: before, flow: flow.sealed(key) }.to_bytes(), 0)
            }
        }
    }

    /// From `end` on, nanoseconds of CLOCK_MONOTONIC, a program of TC that nobody has detached does nothing.
    pub(super) fn set_lease(&mut self, end: u64) -> Result<(), MapError> {
        self.lease.set(0, end, 0)
    }

    /// What a flow has counted that is out for now.
    pub(super) fn parked(&self, key: &FlowKey) -> Option<Counted> {
        self.parked.get(key).copied()
    }

    /// Listening sockets of the daemon, each with the classes to drop.
    pub(super) fn set_listeners(&mut self, wanted: HashMap<Socket, u32>) -> Result<(), MapError> {
        for gone in self.has_listeners.keys().filter(|socket| !wanted.contains_key(socket)) {
            absent_is_fine(self.listeners.remove(&gone.to_bytes()))?;
        }
        for (socket, drop) in &wanted {
            let value = Listener { drop: *drop }.to_bytes();
            self.listeners.insert(socket.to_bytes(), value, 0)?;
        }
        self.has_listeners = wanted;
        Ok(())
    }

    /// Addresses of this machine.
    pub(super) fn set_local(&mut self, addresses: impl Iterator<Item = IpAddr>) -> Result<(), MapError> {
        let wanted: HashSet<[u8; 16]> = addresses.map(encode::address).collect();
        for gone in self.has_local.difference(&wanted) {
            absent_is_fine(self.local.remove(gone))?;
        }
        for new in wanted.difference(&self.has_local) {
            self.local.insert(new, 1, 0)?;
        }
        self.has_local = wanted;
        Ok(())
    }

    /// What the beginnings of sessions are judged by. The kernel replaces the values piece by piece: as long as they are
    /// not whole, no listener may ask for them.
    pub(super) fn set_guards(&mut self, wanted: &Guards) -> Result<(), MapError> {
        if *wanted == self.has_guards {
            return Ok(());
        }
        let trusting: HashMap<Socket, u32> =
            self.has_listeners.iter().map(|(socket, drop)| (*socket, drop & !self.has_guards.bits())).collect();
        self.set_listeners(trusting)?;
        self.has_guards = Guards::default();
        let unused = std::iter::repeat(Mac1Key::default());
        for (index, key) in (0..).zip(wanted.keys.iter().copied().chain(unused).take(MOST_KEYS)) {
            self.mac1_keys.set(index, key.to_bytes(), 0)?;
        }
        self.source_limit.set(0, wanted.limit.to_bytes(), 0)?;
        self.has_guards = wanted.clone();
        Ok(())
    }

    /// Networks whose datagrams to the daemon are dropped.
    pub(super) fn set_banned(&mut self, wanted: HashSet<IpNet>) -> Result<(), MapError> {
        for gone in self.has_banned.difference(&wanted) {
            absent_is_fine(self.banned.remove(&network_key(*gone)))?;
        }
        for new in wanted.difference(&self.has_banned) {
            self.banned.insert(&network_key(*new), 1, 0)?;
        }
        self.has_banned = wanted;
        Ok(())
    }
}

fn network_key(network: IpNet) -> Key<NetworkBytes> {
    let (bits, bytes) = encode::network(network);
    Key::new(bits, bytes)
}

fn absent_is_fine(result: Result<(), MapError>) -> Result<(), MapError> {
    match result {
        Err(MapError::KeyNotFound) => Ok(()),
        Err(MapError::SyscallError(error)) if error.io_error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

impl fmt::Debug for Maps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Maps").finish_non_exhaustive()
    }
}

impl fmt::Debug for Readers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Readers").finish_non_exhaustive()
    }
}

impl Readers {
    /// What the programs have counted for an entry.
    pub(super) fn counted(&self, key: &FlowKey) -> Option<Counted> {
        let bytes = self.flows.get(&key.to_bytes(), 0).ok()?;
        Some(encode::counted(&bytes))
    }

    /// A counter, over all processors.
    pub(super) fn counter(&self, index: u32) -> Option<u64> {
        let values = self.counters.get(&index, 0).ok()?;
        Some(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }
}
