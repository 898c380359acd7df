//! Keys and values as the bytes that the kernel stores, for the daemon: byte arrays need no promise in `unsafe`.
//!
//! The layouts are those of `repr(C)`. The derives of zerocopy prove that there is no padding and that all bytes make a
//! value; the sizes are written out, because pinned maps outlive the daemon that made them.

use super::{Counted, Flow, FlowEntry, FlowKey, Hop, Listed, Listener, Prefix, Socket, SourceLimit};

/// Asserts size and alignment of types, and converts them to bytes and back.
macro_rules! layout {
    ($($typ:ty: $size:literal bytes, aligned to $align:literal;)+) => {$(
        const _: () = assert!(size_of::<$typ>() == $size && align_of::<$typ>() == $align);

        impl $typ {
            /// The bytes that the kernel stores.
            #[must_use]
            pub const fn to_bytes(&self) -> [u8; $size] {
                zerocopy::transmute!(*self)
            }

            /// The value that the kernel stores as these bytes.
            #[must_use]
            pub const fn from_bytes(bytes: [u8; $size]) -> Self {
                zerocopy::transmute!(bytes)
            }
        }
    )+};
}

pub(crate) use layout;

layout! {
    Socket: 20 bytes, aligned to 4;
    FlowKey: 40 bytes, aligned to 4;
    FlowEntry: 120 bytes, aligned to 8;
    Counted: 32 bytes, aligned to 8;
    Flow: 88 bytes, aligned to 8;
    Listener: 4 bytes, aligned to 4;
    Prefix: 24 bytes, aligned to 4;
    Listed: 24 bytes, aligned to 4;
    Hop: 24 bytes, aligned to 4;
    SourceLimit: 48 bytes, aligned to 8;
}

#[cfg(test)]
mod tests {
    use core::mem::offset_of;

    use super::*;
    use crate::mac1::Mac1Key;
    use crate::testing::socket;

    #[test]
    fn every_field_stands_where_the_programs_look_for_it() {
        let (near, far) = (socket("192.0.2.1:443"), socket("[2001:db8::1]:51820"));
        let flow = Flow {
            source: near,
            destination: far,
            hop: 4,
            interface: 5,
            ingress: 11,
            station: [12; 6],
            kind: 6,
            cid_len: 7,
            cid: [8; 20],
            mark: [9; 2],
            seal: 10,
        };
        let entry = FlowEntry { counted: Counted { last_seen: 1, packets: 2, bytes: 3, elsewhere: 4 }, flow };
        let hop = Hop { interface: 1, mtu: 1500, flags: 5, destination: [2; 6], source: [3; 6], seal: 4 };
        let key = FlowKey { source: near, destination: far };
        let limit = SourceLimit { interval: 1, zero: 0, window: 2, mask_v4: [3; 16], mask_v6: [4; 16] };
        let mac1 = Mac1Key { state: [1, 2, 3, 4, 5, 6, 7, 8], used: 9 };
        let (flow, entry, hop, key) = (flow.to_bytes(), entry.to_bytes(), hop.to_bytes(), key.to_bytes());
        let (limit, mac1) = (limit.to_bytes(), mac1.to_bytes());
        let (counted, rest) = (offset_of!(FlowEntry, counted), offset_of!(FlowEntry, flow));
        // (name, all bytes, offset, what stands there)
        let rows: [(&str, &[u8], usize, &[u8]); 29] = [
            ("last seen", &entry, counted + offset_of!(Counted, last_seen), &1_u64.to_ne_bytes()),
            ("packets", &entry, counted + offset_of!(Counted, packets), &2_u64.to_ne_bytes()),
            ("bytes", &entry, counted + offset_of!(Counted, bytes), &3_u64.to_ne_bytes()),
            ("elsewhere", &entry, counted + offset_of!(Counted, elsewhere), &4_u64.to_ne_bytes()),
            ("all of a flow", &entry, rest, &flow),
            ("source", &flow, offset_of!(Flow, source), &[192, 0, 2, 1, 0]),
            ("source port", &flow, offset_of!(Flow, source) + offset_of!(Socket, end), &[1, 187, 4, 0]),
            ("destination", &flow, offset_of!(Flow, destination), &[0x20, 1, 0x0d, 0xb8]),
            ("destination port", &flow, offset_of!(Flow, destination) + offset_of!(Socket, end), &[0xca, 0x6c, 6, 0]),
            ("hop", &flow, offset_of!(Flow, hop), &4_u16.to_ne_bytes()),
            ("interface", &flow, offset_of!(Flow, interface), &5_u32.to_ne_bytes()),
            ("interface of arrival", &flow, offset_of!(Flow, ingress), &11_u32.to_ne_bytes()),
            ("its address", &flow, offset_of!(Flow, station), &[12; 6]),
            ("kind", &flow, offset_of!(Flow, kind), &[6, 7]),
            ("connection ID", &flow, offset_of!(Flow, cid), &[8; 20]),
            ("mark", &flow, offset_of!(Flow, mark), &[9; 2]),
            ("seal of a flow", &flow, offset_of!(Flow, seal), &10_u64.to_ne_bytes()),
            ("receiver of a key", &key, offset_of!(FlowKey, destination), &[0x20, 1]),
            ("MTU", &hop, offset_of!(Hop, mtu), &1500_u16.to_ne_bytes()),
            ("flags of a hop", &hop, offset_of!(Hop, flags), &5_u16.to_ne_bytes()),
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
        let prefix = Prefix { bits: 40, family: 4, address: [7; 16], zero: [0; 3] };
        assert_eq!(prefix.to_bytes(), [&40_u32.to_ne_bytes()[..], &[4], &[7; 16], &[0; 3]].concat()[..]);
        assert_eq!(FlowEntry::from_bytes(entry).to_bytes(), entry);
        assert_eq!(
            Counted::from_bytes(*entry.first_chunk().unwrap()),
            Counted { last_seen: 1, packets: 2, bytes: 3, elsewhere: 4 }
        );
    }
}
