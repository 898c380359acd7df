//! The maps of spliced TCP: entries are written, and what the programs note is read.

use std::os::fd::AsFd;

use aya::{
    Ebpf,
    maps::{Array, HashMap as KernelMap, Map, MapData, MapError, PerCpuArray, Queue},
};
use rpxy_l4_common::{
    map::FlowKey,
    tcp::{
        flow::{Notes, TcpFlow},
        name,
    },
};

use super::{FlowKeyBytes, absent_is_fine};

type TcpFlowBytes = [u8; size_of::<TcpFlow>()];
type NotesBytes = [u8; size_of::<Notes>()];

/// The maps that the daemon writes under the lock of the plane.
pub(crate) struct SpliceMaps {
    flows: KernelMap<MapData, FlowKeyBytes, TcpFlowBytes>,
    notes: Array<MapData, NotesBytes>,
    ended: Queue<MapData, u32>,
}

/// The maps that are read without it.
pub(crate) struct SpliceReaders {
    notes: Array<MapData, NotesBytes>,
    counters: PerCpuArray<MapData, u64>,
}

/// Takes the maps out of a loaded object.
pub(in crate::offload) fn take(ebpf: &mut Ebpf) -> Result<(SpliceMaps, SpliceReaders), MapError> {
    let mut map = |name: &str| ebpf.take_map(name).ok_or_else(|| MapError::InvalidName { name: name.to_owned() });
    let notes = map(name::TCP_NOTES)?;
    let Map::Array(data) = &notes else { return Err(MapError::InvalidName { name: name::TCP_NOTES.to_owned() }) };
    let second = MapData::from_fd(data.fd().as_fd().try_clone_to_owned()?)?;
    let readers =
        SpliceReaders { notes: Map::Array(second).try_into()?, counters: map(name::TCP_COUNTERS)?.try_into()? };
    let maps = SpliceMaps {
        flows: map(name::TCP_FLOWS)?.try_into()?,
        notes: notes.try_into()?,
        ended: map(name::TCP_ENDED)?.try_into()?,
    };
    Ok((maps, readers))
}

impl SpliceMaps {
    /// Writes an entry, in place of another one with the same key.
    pub(crate) fn put(&mut self, (key, flow): &(FlowKey, TcpFlow)) -> Result<(), MapError> {
        self.flows.insert(key.to_bytes(), flow.to_bytes(), 0)
    }

    /// Removes an entry, if it is there.
    pub(crate) fn remove(&mut self, key: &FlowKey) {
        if let Err(error) = absent_is_fine(self.flows.remove(&key.to_bytes())) {
            tracing::debug!("kernel plane: cannot remove a spliced connection: {error}");
        }
    }

    /// Writes what is known of a connection before the programs note anything.
    pub(crate) fn set_notes(&mut self, slot: u32, notes: &Notes) -> Result<(), MapError> {
        self.notes.set(slot, notes.to_bytes(), 0)
    }

    /// Returns the slot of a connection that has ended, one after the other.
    pub(crate) fn next_ended(&mut self) -> Option<u32> {
        self.ended.pop(0).ok()
    }

    /// Reads all entries, of an earlier daemon.
    pub(crate) fn all(&self) -> Vec<(FlowKey, TcpFlow)> {
        let entries = self.flows.iter().flatten();
        let read = entries.map(|(key, flow)| (FlowKey::from_bytes(key), TcpFlow::from_bytes(flow)));
        read.filter(|(key, flow)| flow.is_whole(key)).collect()
    }
}

impl SpliceReaders {
    /// Returns what the programs have noted in a slot.
    pub(crate) fn notes(&self, slot: u32) -> Option<Notes> {
        self.notes.get(&slot, 0).ok().map(Notes::from_bytes)
    }

    /// Returns the sum of a counter over all processors.
    pub(crate) fn counter(&self, index: u32) -> Option<u64> {
        let values = self.counters.get(&index, 0).ok()?;
        Some(values.iter().fold(0, |sum, value| sum.wrapping_add(*value)))
    }
}

impl std::fmt::Debug for SpliceMaps {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpliceMaps").finish_non_exhaustive()
    }
}

impl std::fmt::Debug for SpliceReaders {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("SpliceReaders").finish_non_exhaustive()
    }
}
