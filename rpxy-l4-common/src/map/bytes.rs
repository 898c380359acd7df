//! The types as the bytes that the kernel stores, for whoever fills the maps: byte arrays need no promise in `unsafe`.
//!
//! The layouts are those of `repr(C)` without padding.

use super::{Flow, FlowKey, Hop, Listener, Socket};

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
    Socket: |socket| [&socket.address[..], &socket.port, &[socket.family, socket.zero]];
    FlowKey: |key| [&key.source.to_bytes()[..], &key.destination.to_bytes()];
    Listener: |listener| [&listener.drop.to_ne_bytes()[..]];
    Hop: |hop| [&hop.interface.to_ne_bytes()[..], &hop.mtu.to_ne_bytes(), &hop.destination, &hop.source];
    Flow: |flow| [
        &flow.last_seen.to_ne_bytes()[..],
        &flow.packets.to_ne_bytes(),
        &flow.bytes.to_ne_bytes(),
        &flow.source.to_bytes(),
        &flow.destination.to_bytes(),
        &flow.hop.to_ne_bytes(),
        &flow.interface.to_ne_bytes(),
        &[flow.kind, flow.cid_len],
        &flow.cid,
        &flow.zero,
    ];
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
            last_seen: 1,
            packets: 2,
            bytes: 3,
            source: near,
            destination: far,
            hop: 4,
            interface: 5,
            kind: 6,
            cid_len: 7,
            cid: [8; 20],
            zero: [0; 2],
        };
        let hop = Hop { interface: 1, mtu: 1500, destination: [2; 6], source: [3; 6] };
        let key = FlowKey { source: near, destination: far };
        let (flow, hop, key) = (flow.to_bytes(), hop.to_bytes(), key.to_bytes());
        // (name, all bytes, offset, what stands there)
        let rows: [(&str, &[u8], usize, &[u8]); 15] = [
            ("last seen", &flow, offset_of!(Flow, last_seen), &1_u64.to_ne_bytes()),
            ("packets", &flow, offset_of!(Flow, packets), &2_u64.to_ne_bytes()),
            ("bytes", &flow, offset_of!(Flow, bytes), &3_u64.to_ne_bytes()),
            ("source", &flow, offset_of!(Flow, source), &[192, 0, 2, 1, 0]),
            ("source port", &flow, offset_of!(Flow, source) + offset_of!(Socket, port), &[1, 187, 4, 0]),
            ("destination", &flow, offset_of!(Flow, destination), &[0x20, 1, 0x0d, 0xb8]),
            ("destination port", &flow, offset_of!(Flow, destination) + offset_of!(Socket, port), &[0xca, 0x6c, 6, 0]),
            ("hop", &flow, offset_of!(Flow, hop), &4_u32.to_ne_bytes()),
            ("interface", &flow, offset_of!(Flow, interface), &5_u32.to_ne_bytes()),
            ("kind", &flow, offset_of!(Flow, kind), &[6, 7]),
            ("connection ID", &flow, offset_of!(Flow, cid), &[8; 20]),
            ("receiver of a key", &key, offset_of!(FlowKey, destination), &[0x20, 1]),
            ("MTU", &hop, offset_of!(Hop, mtu), &1500_u32.to_ne_bytes()),
            ("neighbour", &hop, offset_of!(Hop, destination), &[2; 6]),
            ("interface's address", &hop, offset_of!(Hop, source), &[3; 6]),
        ];
        for (name, bytes, offset, expected) in rows {
            assert_eq!(bytes.get(offset..offset + expected.len()), Some(expected), "{name}");
        }
        assert_eq!(Listener { drop: 9 }.to_bytes(), 9_u32.to_ne_bytes());
    }
}
