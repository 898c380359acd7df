//! Frames that an Initial packet may have, and the end of each.

use super::*;
use Frame::{Ack, ConnectionClose, Crypto, Padding, Ping};

#[test]
fn the_frames_of_initial_packets_are_read() {
    let rows: [(&str, Vec<u8>, Vec<Frame<'_>>); 15] = [
        ("nothing", hex(""), vec![]),
        ("PADDING", hex("00"), vec![Padding]),
        ("a run of PADDING is one", hex("00 00 00 01 00"), vec![Padding, Ping, Padding]),
        ("PING", hex("01 01"), vec![Ping, Ping]),
        ("ACK", hex("02 05 00 00 05 01"), vec![Ack, Ping]),
        ("ACK with ranges", hex("02 0a 4001 02 01 01 02 00 00 01"), vec![Ack, Ping]),
        ("ACK with ECN counts", hex("03 05 00 00 00 01 4002 80000003 01"), vec![Ack, Ping]),
        ("CRYPTO", hex("06 02 03 616263"), vec![Crypto { offset: 2, data: b"abc" }]),
        ("CRYPTO, long integers", hex("06 80000002 4003 616263"), vec![Crypto { offset: 2, data: b"abc" }]),
        ("CRYPTO without data", hex("06 02 00 01"), vec![Crypto { offset: 2, data: b"" }, Ping]),
        (
            "CRYPTO up to the largest offset",
            hex("06 fffffffffffffffe 01 61"),
            vec![Crypto { offset: (1 << 62) - 2, data: b"a" }],
        ),
        ("CONNECTION_CLOSE", hex("1c 0a 06 02 6869 01"), vec![ConnectionClose, Ping]),
        ("CONNECTION_CLOSE, a frame type of 8 bytes", hex("1c 0a c000000000000006 00"), vec![ConnectionClose]),
        (
            "PADDING between",
            hex("06 00 01 61 00 00 06 01 01 62"),
            vec![Crypto { offset: 0, data: b"a" }, Padding, Crypto { offset: 1, data: b"b" }],
        ),
        ("ACK of packet number 0 in the lowest range", hex("02 03 00 01 00 00 01"), vec![Ack]),
    ];
    for (row, payload, expected) in rows {
        assert_eq!(frames(&payload).collect::<Result<Vec<_>, _>>(), Ok(expected), "{row}");
    }
}

#[test]
fn a_malformed_frame_ends_the_list() {
    let rows = [
        ("CRYPTO cut", "06 00 02 61"),
        ("CRYPTO with a length of 2^62", "06 00 ffffffffffffffff"),
        ("CRYPTO behind the largest offset", "06 ffffffffffffffff 01 61"),
        ("CRYPTO without length", "06 00"),
        ("ACK cut", "02 05 00 00"),
        ("ACK, ranges cut", "02 0a 00 02 00 00 00"),
        ("ACK with 2^62 ranges", "02 0a 00 ffffffffffffffff 00"),
        ("ACK, first range below 0", "02 05 00 00 06"),
        ("ACK, gap below 0", "02 05 00 01 05 00 00"),
        ("ACK, range below 0", "02 05 00 01 02 00 02"),
        ("ECN counts cut", "03 05 00 00 00 01 02"),
        ("CONNECTION_CLOSE cut", "1c 0a 06 02 68"),
        ("CONNECTION_CLOSE of an application", "1d 0a 00"),
        ("RESET_STREAM", "04 00 00 00"),
        ("NEW_TOKEN", "07 01 00"),
        ("STREAM", "08 00"),
        ("MAX_DATA", "10 00"),
        ("PATH_CHALLENGE", "1a 0000000000000000"),
        ("HANDSHAKE_DONE", "1e"),
        ("DATAGRAM", "30"),
        ("CRYPTO with a type longer than needed", "4006 00 01 61"),
        ("an unknown type", "21"),
    ];
    for (row, payload) in rows {
        let payload = [hex("01"), hex(payload)].concat();
        let mut found = frames(&payload);
        assert_eq!(found.next(), Some(Ok(Ping)), "{row}");
        assert_eq!(found.next(), Some(Err(Malformed)), "{row}");
        assert_eq!((found.next(), found.position()), (None, payload.len()), "{row}");
    }
}

#[test]
fn every_type_but_six_is_malformed() {
    let allowed = [0x00, 0x01, 0x02, 0x03, 0x06, 0x1c];
    for typ in 0..=u8::MAX {
        let payload = [vec![typ], vec![0; 16]].concat();
        assert_eq!(frames(&payload).next() != Some(Err(Malformed)), allowed.contains(&typ), "{typ:#04x}");
    }
}

#[test]
fn the_position_tells_where_each_frame_is() {
    let payload = hex("00 00 06 00 02 6162 01 02 05 00 00 05");
    let mut found = frames(&payload);
    let mut starts = Vec::new();
    loop {
        starts.push(found.position());
        if found.next().is_none() {
            break;
        }
    }
    assert_eq!(starts, [0, 2, 7, 8, payload.len()]);
}
