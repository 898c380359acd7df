//! Spliced TCP: connections in and out of the kernel, and their numbers.

use std::{net::SocketAddr, os::fd::OwnedFd, time::Duration};

use rpxy_l4_common::tcp::{
    counter::TcpCounter,
    flow::{Notes, seen},
};

use super::{
    Kernel,
    spliced::{nanoseconds, now, usage},
    state::State,
    steer::by_addresses,
};
use crate::offload::{
    api::NotSteered,
    maps,
    routes::{RoutePair, SpliceLink},
    splice::{LegNumbers, NotSpliced, Pair, Place, Probe, Splice, SplicedUsage, SynShape, Tell, sides},
};

impl State {
    /// Returns what packets of a pair pass by, if they may be spliced.
    pub(super) fn splice_link(&mut self, pair: &RoutePair) -> Result<SpliceLink, NotSpliced> {
        let known = self.splice.as_ref().and_then(|splice| splice.table.known_link(pair));
        if let Some(link) = known {
            return Ok(link);
        }
        let route = self.route(pair).map_err(|reason| match reason {
            NotSteered::Loopback => NotSpliced::Local,
            NotSteered::Off
            | NotSteered::Family
            | NotSteered::Address
            | NotSteered::NoRoute
            | NotSteered::Full
            | NotSteered::Interface
            | NotSteered::Failed => NotSpliced::NoRoute,
        })?;
        self.link_of(route.interface).ok_or(NotSpliced::NoRoute)
    }

    /// Returns an interface with both programs.
    pub(super) fn link_of(&self, interface: u32) -> Option<SpliceLink> {
        let splice = self.splice.as_ref()?;
        let station = self.table.links().find(|link| link.index == interface)?.mac;
        splice.table.is_attached(interface).then_some(SpliceLink { interface, station })
    }
}

impl Kernel {
    /// Returns true if TCP can be spliced at all.
    pub(crate) fn splices(&self) -> bool {
        self.inner.splice.is_some()
    }

    /// Returns the number of spliced connections, and how many there can be.
    pub(crate) fn spliced(&self) -> (usize, u32) {
        self.inner.state().splice.as_ref().map_or((0, 0), |splice| (splice.table.live(), splice.table.slots()))
    }

    /// Returns the TCP packets of all interfaces since the start, by outcome.
    pub(crate) fn tcp_counters(&self) -> Vec<(TcpCounter, u64)> {
        let Some(readers) = &self.inner.splice else { return Vec::new() };
        let counted = |counter: &TcpCounter| Some((*counter, readers.counter(counter.index())?));
        TcpCounter::ALL.iter().filter_map(counted).collect()
    }
}

impl Splice for Kernel {
    fn reserve(&self, pair: &Pair, syn: Option<SynShape>) -> Result<Place, NotSpliced> {
        let addresses = [pair.client, pair.local, pair.upstream, pair.backend].map(|end| end.ip().to_canonical());
        match by_addresses(&addresses) {
            None => {}
            Some(NotSteered::Family) => return Err(NotSpliced::Family),
            Some(_) => return Err(NotSpliced::Local),
        }
        let [client, local, upstream, backend] = addresses;
        let state = &mut *self.inner.state();
        if state.splice.is_none() {
            return Err(NotSpliced::Off);
        }
        let links = [
            state.splice_link(&RoutePair { source: local, destination: client })?,
            state.splice_link(&RoutePair { source: upstream, destination: backend })?,
        ];
        let Some(splice) = &mut state.splice else { return Err(NotSpliced::Off) };
        if let Some(ended) = splice.table.in_the_way(pair).or_else(|| splice.table.gives_way()) {
            splice.remove(ended);
            splice.gone.push(ended);
        }
        let place = splice.table.reserve(pair, links)?;
        // What was noted of an earlier connection there would be taken for this one's.
        let mut written = splice.maps.set_notes(place.slot, &Notes::default());
        if let Some(entry) = syn.and_then(|syn| splice.table.connect(place, syn)) {
            written = written.and_then(|()| splice.maps.put(&entry));
        }
        written.map(|()| place).map_err(|error| {
            splice.remove(place);
            refused(&error)
        })
    }

    fn block(&self, place: Place) -> Result<(), NotSpliced> {
        let state = &mut *self.inner.state();
        let Some(splice) = &mut state.splice else { return Err(NotSpliced::Off) };
        let Some(entries) = splice.table.silence(place) else { return Err(NotSpliced::Failed) };
        entries.iter().try_for_each(|entry| splice.maps.put(entry)).map_err(|error| {
            for (key, _) in &entries {
                splice.maps.remove(key);
            }
            refused(&error)
        })
    }

    fn probes(&self, place: Place) -> [Option<Probe>; 2] {
        let there = self.inner.state().splice.as_ref().is_some_and(|splice| splice.table.get(place).is_some());
        let notes = self.inner.splice.as_ref().filter(|_| there).and_then(|readers| readers.notes(place.slot));
        let Some(notes) = notes else { return [None; 2] };
        notes.sides.map(|side| (side.seen & seen::PROBE != 0).then_some(Probe { clock: side.clock, echo: side.echo }))
    }

    fn live(&self, place: Place, legs: &[LegNumbers; 2]) -> Result<(), NotSpliced> {
        let state = &mut *self.inner.state();
        let Some(splice) = &mut state.splice else { return Err(NotSpliced::Off) };
        let now = now();
        let mut notes = Notes { last_seen: now, sides: sides(legs), ..Notes::default() };
        if let (Some(connection), [client, backend]) = (splice.table.get(place), &mut notes.sides) {
            let seconds = |limit: Duration| u32::try_from(limit.as_secs()).unwrap_or(u32::MAX);
            client.idle = seconds(connection.silence.idle);
            backend.idle = seconds(connection.silence.backend_ended);
        }
        let Some(entries) = splice.table.go_live(place, legs, now) else { return Err(NotSpliced::Failed) };
        let written = splice.maps.set_notes(place.slot, &notes);
        let written = written.and_then(|()| entries.iter().try_for_each(|entry| splice.maps.put(entry)));
        if let Err(error) = written {
            splice.table.undo_live(place);
            for entry in splice.table.silence(place).into_iter().flatten() {
                splice.put(&entry);
            }
            return Err(refused(&error));
        }
        if let Some(connection) = splice.table.get(place) {
            let due = now.saturating_add(nanoseconds(connection.silence.idle.min(connection.silence.look_again())));
            splice.due.insert((due, place.slot), place);
        }
        Ok(())
    }

    fn held_sent(&self, place: Place) {
        let state = &mut *self.inner.state();
        let Some(splice) = &mut state.splice else { return };
        if let Some(entry) = splice.table.held_sent(place) {
            splice.put(&entry);
        }
    }

    fn uses(&self, upstream: SocketAddr, backend: SocketAddr) -> bool {
        self.inner.state().splice.as_ref().is_some_and(|splice| splice.table.uses(upstream, backend))
    }

    fn park(&self, place: Place, socket: OwnedFd) {
        let state = &mut *self.inner.state();
        if let Some(splice) = &mut state.splice
            && splice.table.get(place).is_some()
        {
            splice.parked.insert(place, socket);
        }
    }

    fn release(&self, place: Place) {
        let state = &mut *self.inner.state();
        if let Some(splice) = &mut state.splice
            && splice.table.get(place).is_some_and(|connection| !connection.is_live())
        {
            splice.remove(place);
        }
    }

    fn usage(&self, place: Place) -> Option<SplicedUsage> {
        let since = {
            let state = self.inner.state();
            let connection = state.splice.as_ref()?.table.get(place)?;
            (connection.is_live() && !connection.told).then_some(connection.since)?
        };
        let notes = self.inner.splice.as_ref()?.notes(place.slot)?;
        Some(usage(&notes, since, now()))
    }

    fn close(&self, place: Place) {
        // The connections of a daemon that ends go on without it.
        if self.inner.keeps_spliced() {
            return;
        }
        if let Some(splice) = &mut self.inner.state().splice
            && splice.table.get(place).is_some_and(|connection| connection.is_live() && !connection.told)
        {
            splice.closing.insert(place);
        }
    }

    fn tell(&self, tell: Tell) {
        drop(self.inner.tell.set(tell));
    }
}

/// Why an entry is not in the kernel.
fn refused(error: &aya::maps::MapError) -> NotSpliced {
    if maps::is_full(error) {
        return NotSpliced::Full;
    }
    tracing::debug!("kernel plane: cannot splice: {error}");
    NotSpliced::Failed
}
