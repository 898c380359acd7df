//! Writes the first datagrams of a client: Initial packets with a ClientHello (RFC 9000 section 17.2.2).

use super::{ConnectionId, InitialKeys, MIN_INITIAL_DATAGRAM, Opened, Version, varint};

/// Bytes of the hello in one datagram, so that it stays at the least size of one.
const PIECE: usize = 1000;
const TAG: usize = 16;
const PACKET_NUMBER_LEN: usize = 4;

/// Returns the datagrams with `hello`, from the client that is known as `scid` to `dcid`, protected under the keys of that;
/// `None` if the hello is longer than an offset can tell.
#[must_use]
pub fn first_datagrams(version: Version, dcid: ConnectionId, scid: ConnectionId, hello: &[u8]) -> Option<Vec<Vec<u8>>> {
    let keys = InitialKeys::client(version, &dcid);
    let pieces = hello.chunks(PIECE).zip((0_u64..).step_by(PIECE)).zip(0_u64..);
    pieces.map(|((piece, offset), number)| datagram(version, &keys, (dcid, scid), (offset, piece), number)).collect()
}

fn datagram(
    version: Version,
    keys: &InitialKeys,
    (dcid, scid): (ConnectionId, ConnectionId),
    (offset, piece): (u64, &[u8]),
    packet_number: u64,
) -> Option<Vec<u8>> {
    const CRYPTO: u8 = 6;
    // Initial packets have another type in each version (RFC 9369 section 3.2).
    let typ = match version {
        Version::V1 => 0b00,
        Version::V2 => 0b01,
    };
    let first = 0xc0 | typ << 4 | 0b11;
    let mut payload = vec![CRYPTO];
    varint::write(offset, 4, &mut payload)?;
    varint::write(u64::try_from(piece.len()).ok()?, 2, &mut payload)?;
    payload.extend(piece);
    let mut packet = vec![first];
    packet.extend(version.wire().to_be_bytes());
    for id in [dcid, scid] {
        packet.push(u8::try_from(id.len()).ok()?);
        packet.extend(id.as_bytes());
    }
    // No token; a length of two bytes.
    packet.push(0);
    let header = packet.len() + 2;
    let padded = MIN_INITIAL_DATAGRAM.saturating_sub(header + PACKET_NUMBER_LEN + TAG);
    payload.resize(payload.len().max(padded), 0);
    let length = PACKET_NUMBER_LEN + payload.len() + TAG;
    varint::write(u64::try_from(length).ok()?, 2, &mut packet)?;
    packet.resize(header + length, 0);
    keys.seal(&mut packet, &Opened { packet_number, packet_number_len: PACKET_NUMBER_LEN, first, payload })?;
    Some(packet)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Probe, quic::InitialProbe, tls};

    #[test]
    fn what_is_written_is_read() {
        let id = |bytes: &[u8]| ConnectionId::new(bytes).unwrap();
        let long = vec![&[b'x'; 250][..]; 9];
        for version in [Version::V1, Version::V2] {
            for (case, alpn, datagrams) in [("short", vec![&b"h3"[..]], 1), ("in several datagrams", long.clone(), 3)] {
                let hello = tls::client_hello(&tls::Offer {
                    server_name: Some("a.example"),
                    alpn: &alpn,
                    random: [1; 32],
                    session_id: &[],
                    key_share: [2; 32],
                    transport_parameters: Some(&[15, 0]),
                });
                let hello = hello.unwrap();
                let written = first_datagrams(version, id(&[7; 8]), id(&[8; 8]), &hello).unwrap();
                assert_eq!(written.len(), datagrams, "{case}");
                assert!(written.iter().all(|datagram| datagram.len() >= MIN_INITIAL_DATAGRAM), "{case}");
                let mut probe = InitialProbe::new(version, id(&[7; 8]));
                let answers: Vec<_> = written.iter().map(|datagram| probe.advance(datagram)).collect();
                let (last, before) = answers.split_last().unwrap();
                assert!(before.iter().all(|answer| *answer == Probe::NeedMore), "{case}");
                let Probe::Match(read) = last else { panic!("{case}: {last:?}") };
                assert_eq!(read.message(), hello, "{case}");
            }
        }
    }
}
