//! The state of spliced TCP under the lock of the plane.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    os::fd::OwnedFd,
    time::Duration,
};

use rpxy_l4_common::tcp::flow::Notes;
use rustix::time::{ClockId, clock_gettime};

use crate::{
    net::repair,
    offload::{
        maps::{self, SpliceMaps},
        routes::{Entry, Spliced},
        splice::{Place, Side, SplicedUsage},
    },
};

/// What the programs have noted, for readers without the lock.
pub(super) use crate::offload::maps::SpliceReaders as Readers;

/// State under the lock of the plane.
#[derive(Debug)]
pub(super) struct SpliceState {
    pub(super) table: Spliced,
    pub(super) maps: SpliceMaps,
    /// The backend's socket of each connection, which keeps the port.
    pub(super) parked: HashMap<Place, OwnedFd>,
    /// Places to look at, by the time at which it is worth it, in nanoseconds of CLOCK_MONOTONIC.
    pub(super) due: BTreeMap<(u64, u32), Place>,
    /// Places to reset.
    pub(super) closing: HashSet<Place>,
    /// Places whose connections gave way to another one of the same client's.
    pub(super) gone: Vec<Place>,
}

impl SpliceState {
    pub(super) fn new(slots: u32, maps: SpliceMaps) -> Self {
        Self {
            table: Spliced::new(slots),
            maps,
            parked: HashMap::new(),
            due: BTreeMap::new(),
            closing: HashSet::new(),
            gone: Vec::new(),
        }
    }

    /// Changes an entry that is there. Should the kernel refuse it, the one of before stays.
    pub(super) fn put(&mut self, entry: &Entry) {
        if let Err(error) = self.maps.put(entry) {
            tracing::debug!("kernel plane: cannot change a spliced connection: {error}");
        }
    }

    /// Takes all of a connection out of the kernel.
    pub(super) fn remove(&mut self, place: Place) {
        let Some(keys) = self.table.remove(place) else { return };
        for key in &keys {
            self.maps.remove(key);
        }
        drop(self.parked.remove(&place));
        self.closing.remove(&place);
    }
}

impl SpliceState {
    /// Takes over what an earlier daemon left, and removes what did not come to be forwarded. Returns how many go on.
    pub(super) fn inherit(&mut self, readers: &Readers) -> usize {
        let entries = self.maps.all();
        let (places, others) = self.table.inherit(&entries);
        for key in &others {
            self.maps.remove(key);
        }
        for place in &places {
            let [idle, backend_ended] =
                readers.notes(place.slot).map_or([u32::MAX; 2], |notes| notes.sides.map(|side| side.idle));
            let Some(connection) = self.table.get_mut(*place) else { continue };
            connection.silence.idle = Duration::from_secs(idle.into());
            connection.silence.backend_ended = Duration::from_secs(backend_ended.into());
            self.due.insert((0, place.slot), *place);
            let [local, peer] = connection.ends(Side::Backend).map(|end| maps::socket_address(&end));
            let (Some(local), Some(peer)) = (local, peer) else { continue };
            match repair::parked(local, peer) {
                Ok(socket) => drop(self.parked.insert(*place, socket)),
                Err(error) => tracing::debug!("kernel plane: cannot keep {local} towards {peer}: {error}"),
            }
        }
        places.len()
    }
}

/// Returns the time of CLOCK_MONOTONIC in nanoseconds.
pub(super) fn now() -> u64 {
    let now: Duration = clock_gettime(ClockId::Monotonic).try_into().unwrap_or_default();
    u64::try_from(now.as_nanos()).unwrap_or(u64::MAX)
}

/// A duration in nanoseconds.
pub(super) fn nanoseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

/// Sums up what the programs have noted of a connection that is live since `since`.
pub(super) fn usage(notes: &Notes, since: u64, now: u64) -> SplicedUsage {
    let [up, down] = notes.counted;
    SplicedUsage {
        packets: up.packets + down.packets,
        bytes_up: up.bytes,
        bytes_down: down.bytes,
        idle: Duration::from_nanos(now.saturating_sub(notes.last_seen.max(since))),
        ended: notes.ended != 0,
    }
}
