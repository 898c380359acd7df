//! The BPF maps: [`Maps`] writes them, [`Readers`] reads counters without a lock.

mod encode;
mod splice;
mod update;

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

use self::encode::{HopBytes, ListenerBytes, Mac1KeyBytes, NetworkBytes, SocketBytes, SourceLimitBytes};
use super::policy::{Access, Guards};

pub(super) use self::{
    encode::{FlowBytes, FlowKeyBytes, ip, read_flow, socket, socket_address},
    splice::{SpliceMaps, SpliceReaders, take as take_splice},
    update::Update,
};

/// The maps that the daemon writes, and what it has written.
pub(super) struct Maps {
    flows: KernelMap<MapData, FlowKeyBytes, FlowBytes>,
    /// A second handle of the flows, for pinning.
    pub(super) flows_data: MapData,
    hops: Array<MapData, HopBytes>,
    listeners: KernelMap<MapData, SocketBytes, ListenerBytes>,
    local: KernelMap<MapData, [u8; 16], u8>,
    banned: LpmTrie<MapData, NetworkBytes, u8>,
    access: LpmTrie<MapData, NetworkBytes, u8>,
    mac1_keys: Array<MapData, Mac1KeyBytes>,
    source_limit: Array<MapData, SourceLimitBytes>,
    lease: Array<MapData, u64>,
    /// Counters of parked flows.
    parked: HashMap<FlowKey, Counted>,
    has_listeners: HashMap<Socket, u32>,
    has_local: HashSet<[u8; 16]>,
    has_banned: HashSet<IpNet>,
    has_access: HashMap<(u16, IpNet), u8>,
    access_lists: Access,
    has_guards: Guards,
}

/// The maps that are read while [`Maps`] writes.
pub(super) struct Readers {
    flows: KernelMap<MapData, FlowKeyBytes, FlowBytes>,
    counters: PerCpuArray<MapData, u64>,
}

/// Takes the maps out of a loaded object.
pub(super) fn take(ebpf: &mut Ebpf) -> Result<(Maps, Readers), MapError> {
    let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
    let flows = map(name::FLOWS)?;
    let flows_data = second_handle(&flows)?;
    let readers =
        Readers { flows: Map::HashMap(second_handle(&flows)?).try_into()?, counters: map(name::COUNTERS)?.try_into()? };
    let maps = Maps {
        flows: flows.try_into()?,
        flows_data,
        hops: map(name::HOPS)?.try_into()?,
        listeners: map(name::LISTENERS)?.try_into()?,
        local: map(name::LOCAL)?.try_into()?,
        banned: map(name::BANNED)?.try_into()?,
        access: map(name::ACCESS)?.try_into()?,
        mac1_keys: map(name::MAC1_KEYS)?.try_into()?,
        source_limit: map(name::SOURCE_LIMIT)?.try_into()?,
        lease: map(name::LEASE)?.try_into()?,
        parked: HashMap::new(),
        has_listeners: HashMap::new(),
        has_local: HashSet::new(),
        has_banned: HashSet::new(),
        has_access: HashMap::new(),
        access_lists: Access::default(),
        has_guards: Guards::default(),
    };
    Ok((maps, readers))
}

fn second_handle(map: &Map) -> Result<MapData, MapError> {
    let Map::HashMap(data) = map else { return Err(MapError::InvalidName { name: format!("{map:?}") }) };
    MapData::from_fd(data.fd().as_fd().try_clone_to_owned()?)
}

impl Maps {
    /// Applies updates in order and stops at the first that the kernel refuses.
    pub(super) fn apply(&mut self, updates: &[Update]) -> Result<(), MapError> {
        updates.iter().try_for_each(|update| self.apply_one(update))
    }

    /// Applies all updates that the kernel takes.
    pub(super) fn apply_all(&mut self, updates: &[Update]) {
        for update in updates {
            if let Err(error) = self.apply_one(update) {
                tracing::debug!("kernel plane: {update:?}: {error}");
            }
        }
    }

    fn apply_one(&mut self, update: &Update) -> Result<(), MapError> {
        match update {
            Update::Hop(key, hop) => self.hops.set((*key).into(), hop.sealed(*key).to_bytes(), 0),
            Update::NoHop(key) => self.hops.set((*key).into(), Hop::default().to_bytes(), 0),
            Update::NoFlow(key) => {
                self.parked.remove(key);
                absent_is_fine(self.flows.remove(&key.to_bytes()))
            }
            Update::Park(key) => {
                let bytes = key.to_bytes();
                if let Ok(entry) = self.flows.get(&bytes, 0) {
                    self.parked.insert(*key, FlowEntry::from_bytes(entry).counted);
                }
                absent_is_fine(self.flows.remove(&bytes))
            }
            Update::Flow(key, flow) => {
                let bytes = key.to_bytes();
                // Packets counted between the read and the write are lost: a few, when a connection ID or a route changes.
                let present = self.flows.get(&bytes, 0).ok().map(|entry| FlowEntry::from_bytes(entry).counted);
                let counted = self.parked.remove(key).or(present).unwrap_or_default();
                self.flows.insert(bytes, FlowEntry { counted, flow: flow.sealed(key) }.to_bytes(), 0)
            }
        }
    }

    /// Sets the time from which on TC programs do nothing, in nanoseconds of CLOCK_MONOTONIC.
    pub(super) fn set_lease(&mut self, end: u64) -> Result<(), MapError> {
        self.lease.set(0, end, 0)
    }

    /// Returns the counters of a parked flow.
    pub(super) fn parked(&self, key: &FlowKey) -> Option<Counted> {
        self.parked.get(key).copied()
    }

    /// Replaces the listening sockets of the daemon, each with the classes to drop.
    pub(super) fn set_listeners(&mut self, wanted: HashMap<Socket, u32>) -> Result<(), MapError> {
        for gone in self.has_listeners.keys().filter(|socket| !wanted.contains_key(socket)) {
            absent_is_fine(self.listeners.remove(&gone.to_bytes()))?;
        }
        for (socket, drop) in &wanted {
            self.listeners.insert(socket.to_bytes(), Listener { drop: *drop }.to_bytes(), 0)?;
        }
        self.has_listeners = wanted;
        Ok(())
    }

    /// Replaces the addresses of this machine.
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

    /// Replaces what handshakes are judged by. The kernel writes values piece by piece, so no listener may use them until
    /// they are complete.
    pub(super) fn set_guards(&mut self, wanted: &Guards) -> Result<(), MapError> {
        if *wanted == self.has_guards {
            return Ok(());
        }
        let without: HashMap<Socket, u32> =
            self.has_listeners.iter().map(|(socket, drop)| (*socket, drop & !Guards::BITS)).collect();
        self.set_listeners(without)?;
        self.has_guards = Guards::default();
        let unused = std::iter::repeat(Mac1Key::default());
        for (index, key) in (0..).zip(wanted.keys.iter().copied().chain(unused).take(MOST_KEYS)) {
            self.mac1_keys.set(index, key.to_bytes(), 0)?;
        }
        self.source_limit.set(0, wanted.limit.to_bytes(), 0)?;
        self.has_guards = wanted.clone();
        Ok(())
    }

    /// Replaces the networks whose datagrams to the daemon are dropped.
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

    /// Adds one of these networks, or takes it out.
    pub(super) fn set_ban(&mut self, network: IpNet, banned: bool) -> Result<(), MapError> {
        match banned {
            true if self.has_banned.insert(network) => self.banned.insert(&network_key(network), 1, 0),
            false if self.has_banned.remove(&network) => absent_is_fine(self.banned.remove(&network_key(network))),
            true | false => Ok(()),
        }
    }
}

impl Maps {
    /// The access lists that listeners may use.
    pub(super) fn access(&self) -> &Access {
        &self.access_lists
    }

    /// Writes access lists beside those of before, which listeners still have. Then listeners can be given the new ones, and
    /// those of before [can go](Self::forget_access).
    pub(super) fn add_access(&mut self, access: &Access) -> Result<(), MapError> {
        for ((list, network), value) in access.entries() {
            if self.has_access.get(&(list, network)) != Some(&value) {
                self.access.insert(&access_key(list, network), value, 0)?;
                self.has_access.insert((list, network), value);
            }
        }
        Ok(())
    }

    /// Removes all access lists but these.
    pub(super) fn forget_access(&mut self, all_but: Access) -> Result<(), MapError> {
        let wanted = all_but.entries();
        let gone: Vec<_> = self.has_access.keys().filter(|entry| !wanted.contains_key(entry)).copied().collect();
        for (list, network) in gone {
            absent_is_fine(self.access.remove(&access_key(list, network)))?;
            self.has_access.remove(&(list, network));
        }
        self.access_lists = all_but;
        Ok(())
    }
}

fn access_key(list: u16, network: IpNet) -> Key<NetworkBytes> {
    let (bits, bytes) = encode::listed(list, network);
    Key::new(bits, bytes)
}

fn network_key(network: IpNet) -> Key<NetworkBytes> {
    let (bits, bytes) = encode::network(network);
    Key::new(bits, bytes)
}

/// Returns true if the kernel refused an entry for lack of room.
pub(super) fn is_full(error: &MapError) -> bool {
    matches!(
        error,
        MapError::SyscallError(error)
            if matches!(error.io_error.raw_os_error(), Some(libc::E2BIG | libc::ENOMEM))
    )
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
    /// Returns the counters of a flow in the kernel.
    pub(super) fn counted(&self, key: &FlowKey) -> Option<Counted> {
        let entry = self.flows.get(&key.to_bytes(), 0).ok()?;
        Some(FlowEntry::from_bytes(entry).counted)
    }

    /// Returns the sum of a counter over all processors.
    pub(super) fn counter(&self, index: u32) -> Option<u64> {
        let values = self.counters.get(&index, 0).ok()?;
        Some(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }
}
