//! The proof that an entry that was read is one entry, and the one that was asked for.
//!
//! A hash map of the kernel uses the element of a deleted or replaced entry again at once, for any other key, while a
//! program on another processor may still read it: preallocated elements go to a free list and come back from it
//! without a grace period of RCU (`pcpu_freelist_push()`, `extra_elems` in `kernel/bpf/hashtab.c`), and since Linux 6.1
//! those of `BPF_F_NO_PREALLOC` as well (`bpf_mem_cache_free()`). The reader then has the value of another flow, or
//! half of each, and would send one client what belongs to another.
//!
//! Next hops are slots of an array, which the daemon overwrites piece by piece and reuses for other hops.
//!
//! So every value carries a sum over its key and over all that decides where a packet goes. A program copies the value
//! first and believes the copy only if the sum is right. That asks nothing of the order in which the kernel writes, and
//! nothing of whoever writes; it costs a multiplication for each word, and no wait of the daemon for programs to end.
//! Other fields can be torn: a connection ID decides if a packet is steered, not where it goes, and counts may go to
//! the element's next flow.

use crate::map::{Flow, FlowKey, Hop, HopKey, Socket};
use crate::tcp::flow::TcpFlow;

/// The sum of nothing, so that an element of zeros is not an entry.
const START: u64 = 0x7270_7879_2d6c_3421;

/// Numbers of 31 bits, one for each word (splitmix64): two neighbours are added to theirs and multiplied, as NH does it
/// (RFC 4418 section 5.2). A word that differs changes the product, whatever the other one is.
const ADDED: [u64; 32] = {
    let mut numbers = [0; 32];
    let mut state = START;
    let mut index = 0;
    while index < numbers.len() {
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        #[expect(clippy::indexing_slicing, reason = "within the array, or the program would not compile")]
        let number = &mut numbers[index];
        *number = (z ^ (z >> 31)) >> 33 | 1;
        index += 1;
    }
    numbers
};

/// The product of two words with their numbers in [`ADDED`], which become constants.
macro_rules! product {
    ($first:expr, $second:expr, $index:expr) => {{
        const PAIR: (u64, u64) = (ADDED[$index], ADDED[$index + 1]);
        ($first as u64 + PAIR.0).wrapping_mul($second as u64 + PAIR.1)
    }};
}

/// Both ends of a packet, before or after the rewrite: five products from an index on.
macro_rules! products {
    ($source:expr, $destination:expr, $index:expr) => {{
        let [a, b, c, d, e] = words($source);
        let [f, g, h, i, j] = words($destination);
        product!(a, b, $index)
            .wrapping_add(product!(c, d, $index + 2))
            .wrapping_add(product!(e, f, $index + 4))
            .wrapping_add(product!(g, h, $index + 6))
            .wrapping_add(product!(i, j, $index + 8))
    }};
}

impl Flow {
    /// Returns the sum for this entry under `key`.
    #[inline(always)]
    #[must_use]
    pub const fn seal_for(&self, key: &FlowKey) -> u64 {
        let [a, b, c, d, e, f] = self.station;
        let [hop_0, hop_1] = self.hop.to_ne_bytes();
        let kind = u32::from_ne_bytes([self.kind, self.cid_len, 0, 0]);
        START
            .wrapping_add(products!(&key.source, &key.destination, 0))
            .wrapping_add(products!(&self.source, &self.destination, 10))
            .wrapping_add(product!(self.interface, self.ingress, 20))
            .wrapping_add(product!(u32::from_ne_bytes([a, b, c, d]), u32::from_ne_bytes([e, f, hop_0, hop_1]), 22))
            .wrapping_add(product!(kind, 0_u32, 24))
    }

    /// Returns this entry as it is stored under `key`.
    #[must_use]
    pub const fn sealed(self, key: &FlowKey) -> Self {
        Self { seal: self.seal_for(key), ..self }
    }

    /// Returns true if this is an entry that was stored under `key`.
    #[inline(always)]
    #[must_use]
    pub const fn is_whole(&self, key: &FlowKey) -> bool {
        self.seal == self.seal_for(key)
    }
}

impl TcpFlow {
    /// Returns the sum for this entry under `key`: over everything, since each field decides what a packet becomes.
    #[inline(always)]
    #[must_use]
    pub const fn seal_for(&self, key: &FlowKey) -> u64 {
        let [a, b, c, d, e, f] = self.station;
        let rest = u32::from_ne_bytes([e, f, self.state, self.window_shift.cast_unsigned()]);
        let [mark_0, mark_1] = self.mark;
        let side = u32::from_ne_bytes([self.side, self.may, mark_0, mark_1]);
        let ([a_0, a_1], [p_0, p_1]) = (self.address_change.to_ne_bytes(), self.port_change.to_ne_bytes());
        let changes = u32::from_ne_bytes([a_0, a_1, p_0, p_1]);
        START
            .wrapping_add(products!(&key.source, &key.destination, 0))
            .wrapping_add(products!(&self.source, &self.destination, 10))
            .wrapping_add(product!(self.interface, self.ingress, 20))
            .wrapping_add(product!(u32::from_ne_bytes([a, b, c, d]), rest, 22))
            .wrapping_add(product!(self.sequence, self.acknowledgement, 24))
            .wrapping_add(product!(self.timestamp, self.echo, 26))
            .wrapping_add(product!(self.slot, side, 28))
            .wrapping_add(product!(self.promised, changes, 30))
    }

    /// Returns this entry with that sum.
    #[must_use]
    pub(crate) const fn sealed(self, key: &FlowKey) -> Self {
        Self { seal: self.seal_for(key), ..self }
    }

    /// Returns true if this is an entry that was stored under `key`.
    #[inline(always)]
    #[must_use]
    pub const fn is_whole(&self, key: &FlowKey) -> bool {
        self.seal == self.seal_for(key)
    }
}

impl Hop {
    /// Returns the sum for this entry under `key`.
    #[inline(always)]
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "its halves are laid over each other")]
    pub const fn seal_for(&self, key: HopKey) -> u32 {
        let [a, b, c, d, e, f] = self.destination;
        let [g, h, i, j, k, l] = self.source;
        let ([m, n], [o, p]) = (self.mtu.to_ne_bytes(), self.flags.to_ne_bytes());
        let sum = START
            .wrapping_add(product!(key, self.interface, 0))
            .wrapping_add(product!(u32::from_ne_bytes([m, n, o, p]), u32::from_ne_bytes([a, b, c, d]), 2))
            .wrapping_add(product!(u32::from_ne_bytes([e, f, g, h]), u32::from_ne_bytes([i, j, k, l]), 4));
        (sum ^ (sum >> 32)) as u32
    }

    /// Returns this entry as it is stored under `key`.
    #[must_use]
    pub const fn sealed(self, key: HopKey) -> Self {
        Self { seal: self.seal_for(key), ..self }
    }

    /// Returns true if this is an entry that was stored under `key`.
    #[inline(always)]
    #[must_use]
    pub const fn is_whole(&self, key: HopKey) -> bool {
        self.seal == self.seal_for(key)
    }
}

#[inline(always)]
const fn words(socket: &Socket) -> [u32; 5] {
    let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = socket.address;
    [
        u32::from_ne_bytes([a, b, c, d]),
        u32::from_ne_bytes([e, f, g, h]),
        u32::from_ne_bytes([i, j, k, l]),
        u32::from_ne_bytes([m, n, o, p]),
        socket.end,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{flow, socket};

    fn entry(port: u16) -> (FlowKey, Flow) {
        let key = FlowKey { source: socket(&std::format!("192.0.2.7:{port}")), destination: socket("192.0.2.1:443") };
        let to = flow(&std::format!("10.0.0.1:{}", port ^ 0x5555), "10.0.0.2:443");
        let flow = Flow { hop: 3, interface: 2, ingress: 7, station: [2; 6], kind: 1, cid_len: 8, ..to };
        (key, flow.sealed(&key))
    }

    #[test]
    fn an_entry_is_whole_under_its_own_key_only() {
        let ((key, flow), (other_key, other)) = (entry(1000), entry(1001));
        assert!(flow.is_whole(&key) && other.is_whole(&other_key));
        assert!(!flow.is_whole(&other_key) && !other.is_whole(&key), "the element has another flow by now");
        assert!(!Flow::default().is_whole(&FlowKey::default()), "an element of zeros");
        let hop = Hop { interface: 1, mtu: 1500, destination: [2; 6], source: [3; 6], ..Hop::default() }.sealed(9);
        assert!(hop.is_whole(9) && !hop.is_whole(8) && !Hop::default().is_whole(0));
    }

    /// A reader may find each field as it was before or as it is after.
    #[test]
    fn a_mixture_of_two_entries_is_not_whole() {
        let ((key, old), (_, new)) = (entry(1000), entry(1001));
        // A replaced entry of the same key, and one of another key.
        let station = [9; 6];
        let moved =
            Flow { hop: 4, interface: 5, ingress: 6, station, kind: 2, destination: socket("10.0.0.3:53"), ..old };
        let moved = moved.sealed(&key);
        for (name, other) in [("another flow", new), ("the same flow", moved)] {
            for fields in 1..255_u32 {
                let pick = |bit: u32| fields >> bit & 1 == 1;
                let mixed = Flow {
                    source: if pick(0) { other.source } else { old.source },
                    destination: if pick(1) { other.destination } else { old.destination },
                    hop: if pick(2) { other.hop } else { old.hop },
                    interface: if pick(3) { other.interface } else { old.interface },
                    kind: if pick(4) { other.kind } else { old.kind },
                    seal: if pick(5) { other.seal } else { old.seal },
                    ingress: if pick(6) { other.ingress } else { old.ingress },
                    station: if pick(7) { other.station } else { old.station },
                    ..old
                };
                let same = |one: &Flow| {
                    let way = |flow: &Flow| (flow.hop, flow.interface, flow.ingress, flow.station, flow.kind);
                    let all = |flow: &Flow| (flow.source, flow.destination, way(flow));
                    all(&mixed) == all(one)
                };
                assert!(!mixed.is_whole(&key) || same(&old) || same(&moved), "{name}: {fields:#b}");
            }
        }
    }

    #[test]
    fn every_word_counts() {
        let (key, flow) = entry(1000);
        for bit in 0..160 {
            let flip = |socket: &Socket| {
                let mut changed = *socket;
                match bit / 8 {
                    byte @ 0..16 => changed.address[byte] ^= 1 << (bit % 8),
                    _ => changed.end ^= 1 << (bit - 128),
                }
                changed
            };
            assert!(!Flow { source: flip(&flow.source), ..flow }.is_whole(&key), "source, bit {bit}");
            assert!(!Flow { destination: flip(&flow.destination), ..flow }.is_whole(&key), "destination, bit {bit}");
            assert!(!flow.is_whole(&FlowKey { source: flip(&key.source), ..key }), "key's source, bit {bit}");
            assert!(!flow.is_whole(&FlowKey { destination: flip(&key.destination), ..key }), "key's end, bit {bit}");
        }
        assert!(!Flow { ingress: 8, ..flow }.is_whole(&key) && !Flow { hop: 4, ..flow }.is_whole(&key));
        let hop = Hop { interface: 1, mtu: 1500, destination: [2; 6], source: [3; 6], ..Hop::default() }.sealed(9);
        for byte in 0..6 {
            let flip = |mac: [u8; 6]| core::array::from_fn(|at| if at == byte { mac[at] ^ 0x80 } else { mac[at] });
            assert!(!Flow { station: flip(flow.station), ..flow }.is_whole(&key), "interface of arrival, byte {byte}");
            assert!(!Hop { destination: flip(hop.destination), ..hop }.is_whole(9), "neighbour, byte {byte}");
            assert!(!Hop { source: flip(hop.source), ..hop }.is_whole(9), "station, byte {byte}");
        }
        assert!(!Hop { flags: 1, ..hop }.is_whole(9));
        assert!(!Hop { interface: 2, ..hop }.is_whole(9) && !Hop { mtu: 1501, ..hop }.is_whole(9));
    }
}
