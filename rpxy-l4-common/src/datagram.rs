//! Classifies a UDP payload by what is visible in it, without keys or state: which protocol it can be, and whether it
//! belongs to a handshake.
//!
//! It decides what a *first* datagram is offered to and which datagrams of a known flow may bypass the daemon. It errs
//! towards [`DatagramClass::Unknown`]: that class costs a detour through the daemon or the default target, while a
//! wrong guess would cost the datagram.

use crate::bytes::{Bytes, Span};

/// The form bit of the first byte: set in long headers (RFC 8999 section 5.1).
pub(crate) const QUIC_LONG: u8 = 0x80;
/// The fixed bit of the first byte (RFC 9000 section 17), which negotiated peers may clear (RFC 9287).
pub(crate) const QUIC_FIXED: u8 = 0x40;
/// First byte, version and two empty connection IDs, in bytes (RFC 8999 section 5.1).
pub const QUIC_LONG_MIN_LEN: usize = 7;
/// The shortest datagram with a short header that can be valid, in bytes: a stateless reset, and with an empty
/// connection ID the sample that header protection needs (RFC 9000 section 10.3, RFC 9001 section 5.4.2).
pub const QUIC_SHORT_MIN_LEN: usize = 21;
/// The shortest datagram that a client may send an Initial packet in, in bytes (RFC 9000 section 14.1).
pub const QUIC_INITIAL_MIN_LEN: usize = 1200;
/// The longest connection ID of versions 1 and 2, in bytes (RFC 9000 section 17.2).
pub const QUIC_MAX_CID_LEN: u8 = 20;
/// QUIC version 1 (RFC 9000 section 15).
pub const QUIC_V1: u32 = 0x0000_0001;
/// QUIC version 2 (RFC 9369 section 3.1).
pub const QUIC_V2: u32 = 0x6b33_43cf;
/// The version field of a Version Negotiation packet (RFC 8999 section 6), which only servers send.
pub const QUIC_VERSION_NEGOTIATION: u32 = 0;

/// Returns whether a version of QUIC is known to exist: those of RFCs 9000 and 9369, those reserved to exercise Version
/// Negotiation (RFC 9000 section 15), drafts, and those that implementations use among themselves (IANA's registry of
/// QUIC versions). Other protocols set the form bit as well, and have other bytes there.
#[inline(always)]
#[must_use]
pub const fn quic_version_exists(version: u32) -> bool {
    matches!(version, QUIC_V1 | QUIC_V2 | QUIC_VERSION_NEGOTIATION | 0x709a_50c4)
        || version & 0x0f0f_0f0f == 0x0a0a_0a0a
        // Drafts of the IETF.
        || version >> 8 == 0x00ff_0000
        // gQUIC (Q0.., T0..), quic-go, mvfst, MsQuic, picoquic.
        || matches!(version >> 16, 0x5130 | 0x5430 | 0xabcd)
        || version >> 8 == 0x0051_474f
        || version >> 4 == 0x0fac_eb00
        || version == 0x5043_5130
}

/// Returns whether a long header with this first byte can be of this version. Versions 1 and 2 may clear the fixed bit
/// (RFC 9287); of others nothing is known but that they have it.
#[inline(always)]
const fn can_be_version(version: u32, first: u8) -> bool {
    let fixed = first & QUIC_FIXED != 0;
    (fixed || matches!(version, QUIC_V1 | QUIC_V2 | QUIC_VERSION_NEGOTIATION)) && quic_version_exists(version)
}

/// Returns whether a payload with this first byte, which has the form bit, can be of QUIC by its length and version. RTP
/// and DNS have the bit as well. `None` if it cannot be read.
#[inline(always)]
pub(crate) fn can_be_quic_long<B: Bytes>(bytes: &B, payload: Span, first: u8) -> Option<bool> {
    if payload.len < QUIC_LONG_MIN_LEN {
        return Some(false);
    }
    Some(can_be_version(u32::from_be_bytes(payload.read(bytes, 1)?), first))
}

/// A handshake initiation, in bytes (WireGuard whitepaper section 5.4.2).
pub const WIREGUARD_INITIATION_LEN: usize = 148;
/// A handshake response, in bytes (section 5.4.3).
pub const WIREGUARD_RESPONSE_LEN: usize = 92;
/// A cookie reply, in bytes (section 5.4.7).
pub const WIREGUARD_COOKIE_LEN: usize = 64;
/// The shortest transport message, a keepalive, in bytes (section 5.4.6). Longer ones need not be padded to 16 bytes,
/// whatever the whitepaper says: not all implementations do it.
pub const WIREGUARD_TRANSPORT_MIN_LEN: usize = 32;

/// The class of a UDP payload.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DatagramClass {
    /// A QUIC long header of a version that exists ([`quic_version_exists`]), with connection IDs that fit (RFC 8999
    /// section 5.1; for versions 1 and 2 also their limit of [`QUIC_MAX_CID_LEN`]). [`QUIC_VERSION_NEGOTIATION`] is a
    /// version here, too.
    QuicLong {
        /// The version field.
        version: u32,
    },
    /// Possibly a QUIC short header: the form bit is clear, the fixed bit is set, the length suffices. Nothing more can
    /// be seen, so that this means something for known flows only, where a cleared fixed bit is legal as well.
    QuicShort,
    /// WireGuard type 1.
    WireGuardInitiation,
    /// WireGuard type 2.
    WireGuardResponse,
    /// WireGuard type 3.
    WireGuardCookie,
    /// WireGuard type 4.
    WireGuardTransport,
    /// None of these.
    Unknown,
}

impl DatagramClass {
    /// Classifies a whole UDP payload.
    #[must_use]
    pub fn of(payload: &[u8]) -> Self {
        match Datagram::read(&payload, Span { offset: 0, len: payload.len() }) {
            Some(datagram) => datagram.class,
            // All of a slice can be read.
            None => Self::Unknown,
        }
    }
}

/// The visible properties of a datagram.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Datagram {
    /// Its class.
    pub class: DatagramClass,
    /// It begins with an Initial packet of version 1 or 2 and is shorter than [`QUIC_INITIAL_MIN_LEN`]: no client may
    /// send it, and a server has to discard it (RFC 9000 section 14.1).
    pub small_initial: bool,
    /// It begins a handshake of its own: an Initial packet of version 1 or 2, or a WireGuard initiation. A session can
    /// begin with other datagrams as well, but those of a session that is under way look like them.
    pub opens: bool,
}

impl Datagram {
    /// Classifies a UDP payload within a packet. Returns `None` if it cannot be read far enough.
    #[inline(always)]
    pub fn read<B: Bytes>(bytes: &B, payload: Span) -> Option<Self> {
        if payload.len == 0 {
            return Some(DatagramClass::Unknown.into());
        }
        let [first] = payload.read(bytes, 0)?;
        if first & QUIC_LONG != 0 {
            return quic_long(bytes, payload, first);
        }
        if payload.len >= WIREGUARD_TRANSPORT_MIN_LEN {
            // The types of WireGuard, 32 bits in little-endian order or one byte and three reserved ones, have neither
            // bit of QUIC set, so that the two protocols cannot be confused.
            let class = match payload.read(bytes, 0)? {
                [1, 0, 0, 0] if payload.len == WIREGUARD_INITIATION_LEN => DatagramClass::WireGuardInitiation,
                [2, 0, 0, 0] if payload.len == WIREGUARD_RESPONSE_LEN => DatagramClass::WireGuardResponse,
                [3, 0, 0, 0] if payload.len == WIREGUARD_COOKIE_LEN => DatagramClass::WireGuardCookie,
                [4, 0, 0, 0] => DatagramClass::WireGuardTransport,
                _ => DatagramClass::Unknown,
            };
            if !matches!(class, DatagramClass::Unknown) {
                return Some(class.into());
            }
        }
        let short = first & QUIC_FIXED != 0 && payload.len >= QUIC_SHORT_MIN_LEN;
        Some(if short { DatagramClass::QuicShort } else { DatagramClass::Unknown }.into())
    }
}

impl From<DatagramClass> for Datagram {
    #[inline(always)]
    fn from(class: DatagramClass) -> Self {
        Self { class, small_initial: false, opens: matches!(class, DatagramClass::WireGuardInitiation) }
    }
}

/// A long header is one when its two connection IDs fit into the payload and the version's limit.
///
/// Lengths of IDs are single bytes and what they are added to has a limit, so that the verifier can follow the sums.
#[inline(always)]
fn quic_long<B: Bytes>(bytes: &B, payload: Span, first: u8) -> Option<Datagram> {
    let unknown = Some(DatagramClass::Unknown.into());
    if payload.len < QUIC_LONG_MIN_LEN {
        return unknown;
    }
    let [v0, v1, v2, v3, dcid_len] = payload.read(bytes, 1)?;
    let version = u32::from_be_bytes([v0, v1, v2, v3]);
    let scid_at = QUIC_LONG_MIN_LEN - 1 + usize::from(dcid_len);
    if payload.len <= scid_at {
        return unknown;
    }
    let [scid_len] = payload.read(bytes, scid_at)?;
    let fits = payload.len > scid_at + usize::from(scid_len);
    let limited = matches!(version, QUIC_V1 | QUIC_V2);
    let within = !limited || (dcid_len <= QUIC_MAX_CID_LEN && scid_len <= QUIC_MAX_CID_LEN);
    if !fits || !within {
        return unknown;
    }
    if !can_be_version(version, first) {
        return unknown;
    }
    let opens = is_initial(version, first);
    Some(Datagram {
        class: DatagramClass::QuicLong { version },
        small_initial: opens && payload.len < QUIC_INITIAL_MIN_LEN,
        opens,
    })
}

/// The packet type of an Initial (RFC 9000 section 17.2.2, RFC 9369 section 3.2).
#[inline(always)]
const fn is_initial(version: u32, first: u8) -> bool {
    let packet_type = (first >> 4) & 3;
    match version {
        QUIC_V1 => packet_type == 0,
        QUIC_V2 => packet_type == 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use std::{vec, vec::Vec};

    use proptest::{collection, prelude::*};

    use super::*;
    use DatagramClass::{
        QuicLong, QuicShort, Unknown, WireGuardCookie, WireGuardInitiation, WireGuardResponse, WireGuardTransport,
    };

    /// The first four bytes, then zeros up to a length.
    fn padded(start: [u8; 4], len: usize) -> Vec<u8> {
        let mut payload = start.to_vec();
        payload.resize(len, 0);
        payload
    }

    fn long(version: u32, dcid_len: u8, scid_len: u8, tail: usize) -> Vec<u8> {
        let mut payload = vec![0xc0];
        payload.extend(version.to_be_bytes());
        payload.push(dcid_len);
        payload.resize(payload.len() + usize::from(dcid_len), 0xdd);
        payload.push(scid_len);
        payload.resize(payload.len() + usize::from(scid_len) + tail, 0x55);
        payload
    }

    #[test]
    fn wireguard_is_told_by_type_length_and_reserved_bytes() {
        let rows = [
            ("initiation", padded([1, 0, 0, 0], 148), WireGuardInitiation),
            ("initiation, a byte short", padded([1, 0, 0, 0], 147), Unknown),
            ("initiation, a byte long", padded([1, 0, 0, 0], 149), Unknown),
            ("response", padded([2, 0, 0, 0], 92), WireGuardResponse),
            ("response, a byte short", padded([2, 0, 0, 0], 91), Unknown),
            ("response, a byte long", padded([2, 0, 0, 0], 93), Unknown),
            ("cookie reply", padded([3, 0, 0, 0], 64), WireGuardCookie),
            ("cookie reply, a byte short", padded([3, 0, 0, 0], 63), Unknown),
            ("cookie reply, a byte long", padded([3, 0, 0, 0], 65), Unknown),
            ("keepalive", padded([4, 0, 0, 0], 32), WireGuardTransport),
            ("keepalive, a byte short", padded([4, 0, 0, 0], 31), Unknown),
            ("transport without padding", padded([4, 0, 0, 0], 116), WireGuardTransport),
            ("a large transport", padded([4, 0, 0, 0], 65_507), WireGuardTransport),
            ("type 0", padded([0, 0, 0, 0], 148), Unknown),
            ("type 5", padded([5, 0, 0, 0], 148), Unknown),
            ("reserved byte 1", padded([1, 1, 0, 0], 148), Unknown),
            ("reserved byte 2", padded([4, 0, 1, 0], 148), Unknown),
            ("reserved byte 3", padded([4, 0, 0, 1], 148), Unknown),
        ];
        for (row, payload, class) in rows {
            assert_eq!(DatagramClass::of(&payload), class, "{row}");
        }
    }

    #[test]
    fn quic_long_headers_hold_their_connection_ids() {
        let cut = |mut payload: Vec<u8>| {
            payload.pop();
            payload
        };
        let rows = [
            ("the shortest", long(QUIC_V1, 0, 0, 0), QuicLong { version: QUIC_V1 }),
            ("six bytes", cut(long(QUIC_V1, 0, 0, 0)), Unknown),
            ("Initial", long(QUIC_V1, 8, 0, 1185), QuicLong { version: QUIC_V1 }),
            ("version 2", long(QUIC_V2, 20, 20, 0), QuicLong { version: QUIC_V2 }),
            ("version 1, DCID of 21 bytes", long(QUIC_V1, 21, 0, 100), Unknown),
            ("version 1, SCID of 21 bytes", long(QUIC_V1, 0, 21, 100), Unknown),
            ("version 2, DCID of 21 bytes", long(QUIC_V2, 21, 0, 100), Unknown),
            ("unknown version, IDs of 255 bytes", long(0x1a2a_3a4a, 255, 255, 0), QuicLong { version: 0x1a2a_3a4a }),
            ("version negotiation", long(0, 8, 8, 8), QuicLong { version: QUIC_VERSION_NEGOTIATION }),
            ("SCID cut", cut(long(QUIC_V1, 8, 8, 0)), Unknown),
            ("SCID length missing", cut(long(QUIC_V1, 8, 0, 0)), Unknown),
            ("DCID cut", vec![0xc0, 0, 0, 0, 1, 8, 1, 2, 3], Unknown),
            ("no version", vec![0xc0, 0, 0, 0], Unknown),
        ];
        for (row, payload, class) in rows {
            assert_eq!(DatagramClass::of(&payload), class, "{row}");
            let mut clear = payload;
            clear[0] = 0x80;
            let may_clear = matches!(class, QuicLong { version: QUIC_V1 | QUIC_V2 | QUIC_VERSION_NEGOTIATION });
            let class = if may_clear { class } else { Unknown };
            assert_eq!(DatagramClass::of(&clear), class, "{row}, fixed bit clear");
        }
    }

    #[test]
    fn the_version_tells_quic_from_what_has_the_form_bit_as_well() {
        let start = |bytes: &[u8]| {
            let mut payload = bytes.to_vec();
            payload.resize(172, 0);
            payload
        };
        // (name, payload, it can be QUIC)
        let rows = [
            ("version 1", start(&[0xc0, 0, 0, 0, 1]), true),
            ("version 1, fixed bit clear", start(&[0x80, 0, 0, 0, 1]), true),
            ("version 2", start(&[0xd0, 0x6b, 0x33, 0x43, 0xcf]), true),
            ("negotiation", start(&[0x80, 0, 0, 0, 0]), true),
            ("reserved to exercise negotiation", start(&[0xc0, 0x1a, 0x2a, 0x3a, 0x4a]), true),
            ("the same, fixed bit clear", start(&[0x80, 0x1a, 0x2a, 0x3a, 0x4a]), false),
            ("draft 29", start(&[0xc0, 0xff, 0, 0, 29]), true),
            ("a version that nobody has", start(&[0xc0, 0, 0, 0, 9]), false),
            ("six bytes", vec![0xc0, 0, 0, 0, 1, 0], false),
            ("RTP, PCMU", start(&[0x80, 0, 0x12, 0x34, 0x56, 0x78, 0x9a]), false),
            ("RTP, a dynamic type with its marker", start(&[0x90, 0xe0, 0x12, 0x34, 0x56]), false),
            ("RTCP", start(&[0x80, 0xc8, 0, 6, 1, 2]), false),
            ("DNS query, ID 0x8abc", start(&[0x8a, 0xbc, 1, 0, 0, 1]), false),
            ("DNS query, ID 0xffff", start(&[0xff, 0xff, 1, 0, 0, 1]), false),
            ("DNS query, ID 0xc000", start(&[0xc0, 0, 1, 0, 0, 1]), false),
            ("DNS answer, ID 0xc00a", start(&[0xc0, 0x0a, 0x81, 0x80, 0, 1]), false),
        ];
        for (row, payload, expected) in rows {
            let span = Span { offset: 0, len: payload.len() };
            assert_eq!(can_be_quic_long(&payload.as_slice(), span, payload[0]), Some(expected), "{row}");
            if !expected {
                assert_eq!(DatagramClass::of(&payload), Unknown, "{row}");
            }
        }
        let cut = Span { offset: 0, len: 172 };
        assert_eq!(can_be_quic_long(&[0x80, 0, 0].as_slice(), cut, 0x80), None);
    }

    #[test]
    fn quic_short_headers_have_the_fixed_bit_and_a_length() {
        let rows = [
            ("21 bytes", padded([0x40, 0, 0, 0], 21), QuicShort),
            ("20 bytes", padded([0x40, 0, 0, 0], 20), Unknown),
            ("all bits but the form", padded([0x7f, 0xff, 0, 0], 1200), QuicShort),
            ("fixed bit clear", padded([0x3f, 0, 0, 0], 1200), Unknown),
            ("DNS query", padded([0x12, 0x34, 1, 0], 40), Unknown),
            ("nothing", vec![], Unknown),
        ];
        for (row, payload, class) in rows {
            assert_eq!(DatagramClass::of(&payload), class, "{row}");
        }
    }

    #[test]
    fn an_initial_is_small_below_1200_bytes() {
        let long = |first: u8, version: u32, len: usize| {
            let mut payload = long(version, 8, 0, 0);
            payload[0] = first;
            payload.resize(len, 0);
            payload
        };
        let rows = [
            ("version 1, 1199 bytes", long(0xc0, QUIC_V1, 1199), true),
            ("version 1, 1200 bytes", long(0xc0, QUIC_V1, 1200), false),
            ("version 1, type bits alone", long(0x80, QUIC_V1, 100), true),
            ("version 1, 0-RTT", long(0xd0, QUIC_V1, 100), false),
            ("version 1, Handshake", long(0xe0, QUIC_V1, 100), false),
            ("version 1, Retry", long(0xf0, QUIC_V1, 100), false),
            ("version 2, 1199 bytes", long(0xd0, QUIC_V2, 1199), true),
            ("version 2, 1200 bytes", long(0xd0, QUIC_V2, 1200), false),
            ("version 2, Retry", long(0xc0, QUIC_V2, 100), false),
            ("another version", long(0xc0, 0x1a2a_3a4a, 100), false),
            ("no long header", padded([0x40, 0, 0, 0], 100), false),
            ("connection ID cut", vec![0xc0, 0, 0, 0, 1, 8, 0], false),
        ];
        for (row, payload, small) in rows {
            let datagram = Datagram::read(&payload.as_slice(), Span { offset: 0, len: payload.len() });
            assert_eq!(datagram.map(|datagram| datagram.small_initial), Some(small), "{row}");
        }
    }

    #[test]
    fn a_payload_that_cannot_be_read_has_no_class() {
        let rows = [
            ("nothing of it", vec![], 40),
            ("WireGuard's type cut", vec![1, 0, 0], 148),
            ("version cut", vec![0xc0, 0, 0, 0, 1], 1200),
            ("second length missing", vec![0xc0, 0, 0, 0, 1, 2, 1, 1], 1200),
        ];
        for (row, readable, len) in rows {
            assert_eq!(Datagram::read(&readable.as_slice(), Span { offset: 0, len }), None, "{row}");
        }
    }

    /// The same by slice patterns, which the kernel's verifier does not follow.
    fn by_slices(payload: &[u8]) -> DatagramClass {
        let long = || {
            let (version, rest) = payload.get(1..)?.split_first_chunk()?;
            let version = u32::from_be_bytes(*version);
            let (&dcid_len, rest) = rest.split_first()?;
            let (&scid_len, rest) = rest.get(usize::from(dcid_len)..)?.split_first()?;
            let limited = matches!(version, QUIC_V1 | QUIC_V2);
            let within = !limited || (dcid_len <= 20 && scid_len <= 20);
            let fixed = limited || version == 0 || payload[0] & 0x40 != 0;
            let exists = fixed && quic_version_exists(version);
            (rest.len() >= usize::from(scid_len) && within && exists).then_some(QuicLong { version })
        };
        match payload {
            [first, ..] if first & 0x80 != 0 => long().unwrap_or(Unknown),
            [1, 0, 0, 0, ..] if payload.len() == 148 => WireGuardInitiation,
            [2, 0, 0, 0, ..] if payload.len() == 92 => WireGuardResponse,
            [3, 0, 0, 0, ..] if payload.len() == 64 => WireGuardCookie,
            [4, 0, 0, 0, ..] if payload.len() >= 32 => WireGuardTransport,
            [first, ..] if first & 0x40 != 0 && payload.len() >= 21 => QuicShort,
            _ => Unknown,
        }
    }

    proptest! {
        #[test]
        fn a_class_does_not_depend_on_how_the_bytes_are_read(
            first in any::<u8>(),
            version in prop_oneof![Just(QUIC_V1), Just(QUIC_V2), any::<u32>(), Just(0), Just(0x0a1a_2a3a), Just(0xff00_001d)],
            ids in prop_oneof![Just([8, 8]), [0..22_u8, 0..22_u8], any::<[u8; 2]>()],
            tail in 0..3_usize,
            start in proptest::option::of([0..6_u8, 0..2_u8, 0..2_u8, 0..2_u8]),
            len in prop_oneof![Just(148), Just(92), Just(64), Just(32), Just(21), 0..160_usize, Just(1500)],
            before in collection::vec(any::<u8>(), 0..4),
        ) {
            let mut payload = long(version, ids[0], ids[1], tail);
            payload[0] = first;
            for payload in [padded(start.unwrap_or([first; 4]), len), payload.clone(), payload[..payload.len().min(len)].to_vec()] {
                let expected = by_slices(&payload);
                prop_assert_eq!(DatagramClass::of(&payload), expected);
                let packet = [&before[..], &payload, &[0xff; 9]].concat();
                let within = Datagram::read(&packet.as_slice(), Span { offset: before.len(), len: payload.len() });
                prop_assert_eq!(within.map(|datagram| datagram.class), Some(expected));
            }
        }
    }
}
