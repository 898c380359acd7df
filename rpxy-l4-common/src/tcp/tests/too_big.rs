//! What routers say about packets that are too big, against the messages that should come out.

use super::decide::{BACKEND, CLIENT, FRONT, Maps, NEAR, ROUTED};
use super::translate::Memory;
use super::*;
use crate::tcp::counter::TcpCounter;
use crate::tcp::flow::state;
use crate::tcp::too_big::{find, translate};

/// A message from a router at `router` to `to`, about the first bytes of a segment.
fn message(router: &Socket, to: &Socket, ttl: u8, quoted: &Frame, bytes_quoted: usize) -> Vec<u8> {
    let v4 = to.family() == 4;
    let body: Vec<u8> = quoted.bytes()[14..].iter().copied().take(bytes_quoted).collect();
    let kind = if v4 { [3, 4] } else { [2, 0] };
    let mut icmp = [&kind[..], &[0, 0, 0, 0, 5, 0x78], &body].concat();
    let address = |socket: &Socket| socket.address[..if v4 { 4 } else { 16 }].to_vec();
    let len = u16::try_from(icmp.len()).unwrap();
    let pseudo = if v4 {
        vec![]
    } else {
        [address(router), address(to), vec![0, 0], len.to_be_bytes().to_vec(), vec![0, 0, 0, 58]].concat()
    };
    let sum = internet_checksum(&[pseudo, icmp.clone()].concat());
    icmp[2..4].copy_from_slice(&sum.to_be_bytes());
    let mut frame = [STATION, [2, 0, 0, 0, 0, 2]].concat();
    if v4 {
        frame.extend([8, 0]);
        let mut header = vec![0x45, 0xc0];
        header.extend((20 + len).to_be_bytes());
        header.extend([0x12, 0x34, 0x40, 0, ttl, 1, 0, 0]);
        header.extend([address(router), address(to)].concat());
        let sum = internet_checksum(&header);
        header[10..12].copy_from_slice(&sum.to_be_bytes());
        frame.extend(header);
    } else {
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
        frame.extend(len.to_be_bytes());
        frame.extend([58, ttl]);
        frame.extend([address(router), address(to)].concat());
    }
    frame.extend(icmp);
    frame
}

fn told(maps: &Maps, frame: &[u8]) -> Result<Vec<u8>, Option<TcpCounter>> {
    let key = &mut FlowKey::default();
    let found = find(maps, &frame, ROUTED, key)?;
    let mut leaves = Memory(frame.to_vec());
    let change = translate(&mut leaves, &found, &found.flow).unwrap();
    let at = found.l4 + 2;
    let checksum = u16::from_be_bytes([frame[at], frame[at + 1]]);
    leaves.0[at..at + 2].copy_from_slice(&change.applied(checksum).to_be_bytes());
    Ok(leaves.0)
}

#[test]
fn the_sender_is_told_with_its_own_addresses_and_numbers() {
    // What the daemon's machine sent to the client came from the backend.
    for (ends, router) in [
        ([CLIENT, FRONT, NEAR, BACKEND], "192.0.2.254:0"),
        (["[2001:db8::1]:40000", "[2001:db8:1::7]:443", "[fd00::9]:50001", "[fd00::5]:8443"], "[2001:db8::ff]:0"),
    ] {
        let [client, front, near, backend] = ends;
        let maps = Maps::between(ends, |flow| (flow.sequence, flow.acknowledgement) = (7, 0x8765_4321));
        let quoted = Frame { sequence: 5_000, ttl: 9, payload: vec![1; 32], ..Frame::new(front, client) };
        let original = Frame { sequence: 5_000_u32.wrapping_add(0x8765_4321), ..Frame { ..quoted.clone() } };
        let original = Frame { source: socket(backend), destination: socket(near), ..original };
        for bytes_quoted in [quoted.ip_header_len() + 8, quoted.ip_header_len() + 52] {
            let frame = message(&socket(router), &socket(front), 60, &quoted, bytes_quoted);
            let out = told(&maps, &frame).unwrap();
            // The checksum of the quoted segment is of no use to anybody, and stays.
            let mut expected = message(&socket(near), &socket(backend), 59, &original, bytes_quoted);
            let check = 14 + original.ip_header_len() + 8 + original.ip_header_len() + 16;
            if bytes_quoted > original.ip_header_len() + 18 {
                expected[check..check + 2].copy_from_slice(&frame[check..check + 2]);
                let icmp = 14 + original.ip_header_len();
                expected[icmp + 2..icmp + 4].copy_from_slice(&out[icmp + 2..icmp + 4]);
                assert_eq!(sum_of(&out, icmp), sum_of(&frame, icmp), "{client}");
            }
            assert_eq!(out, expected, "{client}, {bytes_quoted}");
        }
    }
}

/// The sum over ICMP with its pseudo-header, where there is one: 0 for a message that is right.
fn sum_of(frame: &[u8], icmp: usize) -> u16 {
    let body = &frame[icmp..];
    if icmp == 34 {
        return internet_checksum(body);
    }
    let len = u16::try_from(body.len()).unwrap();
    internet_checksum(&[&frame[22..54], &[0, 0], &len.to_be_bytes(), &[0, 0, 0, 58], body].concat())
}

#[test]
fn what_is_not_about_a_spliced_connection_goes_to_the_stack() {
    let quoted = Frame { sequence: 5_000, payload: vec![1; 32], ..Frame::new(FRONT, CLIENT) };
    let router = socket("192.0.2.254:0");
    let good = |ttl| message(&router, &socket(FRONT), ttl, &quoted, 28);
    let changed = |at: usize, byte: u8| {
        let mut frame = good(60);
        frame[at] = byte;
        frame
    };
    let live = || Maps::in_state(state::LIVE);
    let rows = [
        ("one that is", live(), good(60), None),
        ("no entry", Maps::default(), good(60), Some(None)),
        ("not handed over", Maps::in_state(state::BLOCKED), good(60), Some(None)),
        ("cut within the numbers", live(), good(60)[..14 + 20 + 8 + 20 + 7].to_vec(), Some(None)),
        ("another protocol", live(), changed(14 + 20 + 8 + 9, 17), Some(None)),
        ("options in the quoted header", live(), changed(14 + 20 + 8, 0x46), Some(None)),
        ("a later fragment", live(), changed(14 + 20 + 8 + 7, 1), Some(None)),
        ("told to somebody else", live(), changed(14 + 19, 8), Some(None)),
        ("a tag before the header", live(), changed(12, 0x81), Some(None)),
        ("TTL 1", live(), good(1), Some(Some(TcpCounter::Ttl))),
        ("another interface", Maps::with(|flow| flow.ingress = 9), good(60), Some(Some(TcpCounter::OtherInterface))),
    ];
    for (row, maps, frame, expected) in rows {
        assert_eq!(told(&maps, &frame).err(), expected, "{row}");
    }
}
