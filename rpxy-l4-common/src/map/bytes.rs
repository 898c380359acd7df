//! The types as the bytes that the kernel stores, for whoever fills the maps: byte arrays need no promise in `unsafe`.
//!
//! The layouts are those of `repr(C)` without padding.

use super::{Counted, Flow, FlowEntry, FlowKey, Hop, Listener, Socket, SourceLimit};
use crate::mac1::Mac1Key;

macro_rules! bytes {
    ($($typ:ty: |$value:ident| $parts:expr;)+) => {
        $(impl $typ {
            /// As the kernel stores it.
            #[must_use]
            pub fn to_bytes(&self) -> [u8; size_of::<Self>()] {
                let $value = self;
                concat(&$parts)
            }
        })+
    };
}

bytes! {
    Socket: |socket| [&socket.address[..], &socket.end.to_ne_bytes()];
    FlowKey: |key| [&key.source.to_bytes()[..], &key.destination.to_bytes()];
    Listener: |listener| [&listener.drop.to_ne_bytes()[..]];
    Hop: |hop| [
        &hop.interface.to_ne_bytes()[..],
        &hop.mtu.to_ne_bytes(),
        &hop.destination,
        &hop.source,
        &hop.seal.to_ne_bytes(),
    ];
    Counted: |counted| [
        &counted.last_seen.to_ne_bytes()[..],
        &counted.packets.to_ne_bytes(),
        &counted.bytes.to_ne_bytes(),
    ];
    Flow: |flow| [
        &flow.source.to_bytes()[..],
        &flow.destination.to_bytes(),
        &flow.hop.to_ne_bytes(),
        &flow.interface.to_ne_bytes(),
        &[flow.kind, flow.cid_len],
        &flow.cid,
        &flow.mark,
        &flow.seal.to_ne_bytes(),
    ];
    FlowEntry: |entry| [&entry.counted.to_bytes()[..], &entry.flow.to_bytes()];
    SourceLimit: |limit| [
        &limit.interval.to_ne_bytes()[..],
        &limit.zero.to_ne_bytes(),
        &limit.window.to_ne_bytes(),
        &limit.mask_v4,
        &limit.mask_v6,
    ];
    Mac1Key: |key| [concat::<32>(&key.state.each_ref().map(|word| word.to_ne_bytes()).each_ref().map(|b| &b[..])).as_slice(), &key.used.to_ne_bytes()];
}

/// The parts one after another. They add up to `N`: every type above is made of its fields.
fn concat<const N: usize>(parts: &[&[u8]]) -> [u8; N] {
    let mut bytes = [0; N];
    let flat = parts.iter().flat_map(|part| part.iter());
    debug_assert_eq!(flat.clone().count(), N);
    bytes.iter_mut().zip(flat).for_each(|(byte, from)| *byte = *from);
    bytes
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::testing::socket;

    #[test]
    fn every_field_stands_where_the_programs_look_for_it() {
        let (near, far) = (socket("192.0.2.1:443"), socket("[2001:db8::1]:51820"));
        let flow = Flow {
            source: near,
            destination: far,
            hop: 4,
            interface: 5,
            kind: 6,
            cid_len: 7,
            cid: [8; 20],
            mark: [9; 2],
            seal: 10,
        };
        let entry = FlowEntry { counted: Counted { last_seen: 1, packets: 2, bytes: 3 }, flow };
        let hop = Hop { interface: 1, mtu: 1500, destination: [2; 6], source: [3; 6], seal: 4 };
        let key = FlowKey { source: near, destination: far };
        let limit = SourceLimit { interval: 1, zero: 0, window: 2, mask_v4: [3; 16], mask_v6: [4; 16] };
        let mac1 = Mac1Key { state: [1, 2, 3, 4, 5, 6, 7, 8], used: 9 };
        let (flow, entry, hop, key) = (flow.to_bytes(), entry.to_bytes(), hop.to_bytes(), key.to_bytes());
        let (limit, mac1) = (limit.to_bytes(), mac1.to_bytes());
        let (counted, rest) = (offset_of!(FlowEntry, counted), offset_of!(FlowEntry, flow));
        // (name, all bytes, offset, what stands there)
        let rows: [(&str, &[u8], usize, &[u8]); 25] = [
            ("last seen", &entry, counted + offset_of!(Counted, last_seen), &1_u64.to_ne_bytes()),
            ("packets", &entry, counted + offset_of!(Counted, packets), &2_u64.to_ne_bytes()),
            ("bytes", &entry, counted + offset_of!(Counted, bytes), &3_u64.to_ne_bytes()),
            ("all of a flow", &entry, rest, &flow),
            ("source", &flow, offset_of!(Flow, source), &[192, 0, 2, 1, 0]),
            ("source port", &flow, offset_of!(Flow, source) + offset_of!(Socket, end), &[1, 187, 4, 0]),
            ("destination", &flow, offset_of!(Flow, destination), &[0x20, 1, 0x0d, 0xb8]),
            ("destination port", &flow, offset_of!(Flow, destination) + offset_of!(Socket, end), &[0xca, 0x6c, 6, 0]),
            ("hop", &flow, offset_of!(Flow, hop), &4_u32.to_ne_bytes()),
            ("interface", &flow, offset_of!(Flow, interface), &5_u32.to_ne_bytes()),
            ("kind", &flow, offset_of!(Flow, kind), &[6, 7]),
            ("connection ID", &flow, offset_of!(Flow, cid), &[8; 20]),
            ("mark", &flow, offset_of!(Flow, mark), &[9; 2]),
            ("seal of a flow", &flow, offset_of!(Flow, seal), &10_u64.to_ne_bytes()),
            ("receiver of a key", &key, offset_of!(FlowKey, destination), &[0x20, 1]),
            ("MTU", &hop, offset_of!(Hop, mtu), &1500_u32.to_ne_bytes()),
            ("neighbour", &hop, offset_of!(Hop, destination), &[2; 6]),
            ("interface's address", &hop, offset_of!(Hop, source), &[3; 6]),
            ("seal of a hop", &hop, offset_of!(Hop, seal), &4_u32.to_ne_bytes()),
            ("interval", &limit, offset_of!(SourceLimit, interval), &1_u32.to_ne_bytes()),
            ("window", &limit, offset_of!(SourceLimit, window), &2_u64.to_ne_bytes()),
            ("mask", &limit, offset_of!(SourceLimit, mask_v4), &[3; 16]),
            ("mask of IPv6", &limit, offset_of!(SourceLimit, mask_v6), &[4; 16]),
            ("last word of a state", &mac1, offset_of!(Mac1Key, state) + 28, &8_u32.to_ne_bytes()),
            ("used", &mac1, offset_of!(Mac1Key, used), &9_u32.to_ne_bytes()),
        ];
        for (name, bytes, offset, expected) in rows {
            assert_eq!(bytes.get(offset..offset + expected.len()), Some(expected), "{name}");
        }
        assert_eq!(Listener { drop: 9 }.to_bytes(), 9_u32.to_ne_bytes());
    }
}
