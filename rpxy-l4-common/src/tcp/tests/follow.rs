//! What a segment means for its connection.

use super::*;
use crate::tcp::flow::{Side, seen};
use crate::tcp::follow::{Meaning, follow};

/// Numbers of the client are 1,000 (sent up to here), of the backend 50,000; each leg of the gateway adds its difference.
const TO_BACKEND: TcpFlow = differences(9_000, 0_u32.wrapping_sub(20_000));
const CLIENT: Side = side(1_000, 70_000, 6_400);
const BACKEND: Side = side(50_000, 10_000, 6_400);

const fn differences(sequence: u32, acknowledgement: u32) -> TcpFlow {
    TcpFlow { sequence, acknowledgement, ..zerocopy::transmute!([0_u8; 96]) }
}

const fn side(next: u32, acknowledged: u32, largest_window: u32) -> Side {
    Side { next, acknowledged, largest_window, scale: 7, ..zerocopy::transmute!([0_u8; 32]) }
}

/// A segment of the client.
fn segment(flags: u8, sequence: u32, acknowledgement: u32, payload: usize) -> Frame {
    Frame { flags, sequence, acknowledgement, window: 50, payload: vec![0; payload], ..Frame::v4() }
}

fn followed(frame: &Frame, client: Side, backend: Side) -> (Meaning, Side, Side) {
    followed_by(&TO_BACKEND, frame, client, backend)
}

fn followed_by(flow: &TcpFlow, frame: &Frame, mut sender: Side, peer: Side) -> (Meaning, Side, Side) {
    let meaning = with_segment(&frame.bytes(), |segment| follow(segment, flow, &mut sender, &peer));
    (meaning, sender, peer)
}

#[test]
fn a_segment_is_a_sign_of_life_only_if_its_numbers_fit() {
    use Meaning::{Alive, Nothing};
    let (ack, syn, rst) = (flag::ACK, flag::SYN, flag::RST);
    let rows = [
        ("data that is next", segment(ack, 1_000, 70_000, 10), Alive),
        ("a bare acknowledgement", segment(ack, 1_000, 70_000, 0), Alive),
        ("keepalive: the number before", segment(ack, 999, 70_000, 0), Alive),
        ("a retransmission", segment(ack, 900, 70_000, 100), Alive),
        ("the end of the window", segment(ack, 7_400, 70_000, 1), Alive),
        ("behind the window", segment(ack, 7_401, 70_000, 1), Nothing),
        ("the oldest that may come late", segment(ack, 1_000_u32.wrapping_sub(6_401), 70_000, 0), Alive),
        ("older than a window", segment(ack, 1_000_u32.wrapping_sub(6_402), 70_000, 0), Nothing),
        ("an acknowledgement from before", segment(ack, 1_000, 69_000, 0), Alive),
        ("the oldest acknowledgement", segment(ack, 1_000, 63_600, 0), Alive),
        ("an acknowledgement older than a window", segment(ack, 1_000, 63_599, 0), Nothing),
        ("acknowledges what was never sent", segment(ack, 1_000, 70_001, 0), Nothing),
        ("no acknowledgement", segment(0, 1_000, 70_000, 5), Nothing),
        ("SYN", segment(syn, 1_000, 0, 0), Nothing),
        ("SYN and ACK, left over", segment(syn | ack, 999, 70_000, 0), Nothing),
        ("RST within the window", segment(rst, 1_001, 0, 0), Nothing),
        ("RST before the window", segment(rst, 999, 0, 0), Nothing),
    ];
    for (row, frame, expected) in rows {
        let (meaning, client, backend) = followed(&frame, CLIENT, BACKEND);
        assert_eq!(meaning, expected, "{row}");
        if expected == Nothing {
            assert_eq!((client, backend), (CLIENT, BACKEND), "{row}: nothing is noted");
        }
    }
}

#[test]
fn an_exact_rst_ends_the_connection() {
    for flags in [flag::RST, flag::RST | flag::ACK] {
        let (meaning, client, backend) = followed(&segment(flags, 1_000, 0, 0), CLIENT, BACKEND);
        assert_eq!((meaning, client.seen, backend), (Meaning::Ended, seen::RST, BACKEND));
    }
}

#[test]
fn an_rst_after_data_that_is_not_acknowledged_yet_ends_the_connection() {
    let (_, client, _) = followed(&segment(flag::ACK, 1_000, 70_000, 200), CLIENT, BACKEND);
    for (row, sequence, expected) in [
        ("behind what was sent", 1_200, Meaning::Ended),
        ("behind what was acknowledged", 1_000, Meaning::Ended),
        ("between", 1_100, Meaning::Nothing),
        ("beyond", 1_201, Meaning::Nothing),
    ] {
        let (meaning, ..) = followed(&segment(flag::RST, sequence, 0, 0), client, BACKEND);
        assert_eq!(meaning, expected, "{row}");
    }
}

#[test]
fn numbers_go_forwards_only() {
    let (_, client, _) = followed(&segment(flag::ACK, 1_000, 70_000, 200), CLIENT, BACKEND);
    assert_eq!((client.next, client.acknowledged), (1_200, 70_000));
    let (_, client, _) = followed(&segment(flag::ACK, 1_000, 69_000, 20), client, BACKEND);
    assert_eq!((client.next, client.acknowledged), (1_200, 70_000), "late, and less");
    let wide = Frame { window: 60, ..segment(flag::ACK, 1_200, 70_000, 0) };
    let (_, client, _) = followed(&wide, client, BACKEND);
    assert_eq!(client.largest_window, 60 << 7);
    let (_, client, _) = followed(&segment(flag::ACK, 1_200, 70_000, 0), client, BACKEND);
    assert_eq!(client.largest_window, 60 << 7, "it had once offered more");
}

#[test]
fn the_connection_ends_when_both_fins_are_acknowledged() {
    // The client closes.
    let (meaning, client, backend) = followed(&segment(flag::ACK | flag::FIN, 1_000, 70_000, 3), CLIENT, BACKEND);
    assert_eq!((meaning, client.seen, client.end), (Meaning::Alive, seen::FIN, 1_004));
    // The backend acknowledges and closes; in its own numbers the client's end is 10,004.
    let (acknowledges, closes) = (Side { acknowledged: 10_004, ..backend }, 50_001);
    let back = differences(0_u32.wrapping_sub(TO_BACKEND.acknowledgement), 0_u32.wrapping_sub(TO_BACKEND.sequence));
    let fin = segment(flag::ACK | flag::FIN, 50_000, 10_004, 0);
    let (meaning, backend, client) = followed_by(&back, &fin, acknowledges, client);
    assert_eq!((meaning, backend.seen, backend.end), (Meaning::Alive, seen::FIN, closes));
    // The client acknowledges.
    let (meaning, client, backend) = followed(&segment(flag::ACK, 1_004, 70_001, 0), client, backend);
    assert_eq!(meaning, Meaning::Ended);
    assert_eq!((client.seen, backend.seen), (seen::FIN, seen::FIN));
}

#[test]
fn a_half_closed_connection_goes_on() {
    let (_, client, backend) = followed(&segment(flag::ACK | flag::FIN, 1_000, 70_000, 0), CLIENT, BACKEND);
    for acknowledgement in [70_000, 69_000] {
        let (meaning, after, _) = followed(&segment(flag::ACK, 1_001, acknowledgement, 0), client, backend);
        assert_eq!((meaning, after.seen), (Meaning::Alive, seen::FIN));
    }
}
