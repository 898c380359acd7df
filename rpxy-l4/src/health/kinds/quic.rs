//! A QUIC packet of a version that does not exist, which a server answers with the versions that it has (RFC 9000 section
//! 6.1). It costs the server no state, and needs no keys.

use rpxy_l4_proto::quic::LongHeader;

use super::Judgement;
use crate::route::Random;

/// Size of the datagram: servers answer no smaller one (RFC 9000 section 14.1).
const SIZE: usize = 1200;
/// Length of our connection IDs, in bytes; a client's destination ID has 8 or more (RFC 9000 section 7.2).
const ID: usize = 8;
const ID_LENGTH: u8 = 8;

/// How the answer is recognised: by the connection IDs of the question, the other way round.
#[derive(Debug)]
pub(super) struct VersionNegotiation {
    dcid: [u8; ID],
    scid: [u8; ID],
}

/// A packet of a version that is reserved for this (RFC 9000 section 15: `0x?a?a?a?a`), and the answer to it.
pub(super) fn question(random: &Random) -> (Vec<u8>, VersionNegotiation) {
    const LONG: u8 = 0xc0;
    let [a, b, c, d, first, ..] = random.next().to_be_bytes();
    let version = [a, b, c, d].map(|byte| byte & 0xf0 | 0x0a);
    let (dcid, scid) = (random.next().to_be_bytes(), random.next().to_be_bytes());
    let mut packet = vec![LONG | first & 0x3f];
    packet.extend(version);
    for id in [dcid, scid] {
        packet.push(ID_LENGTH);
        packet.extend(id);
    }
    packet.resize(SIZE, 0);
    (packet, VersionNegotiation { dcid, scid })
}

impl VersionNegotiation {
    /// Passes for Version Negotiation that answers the question (RFC 9000 section 17.2.1). Anything else may be meant for
    /// an earlier user of the port.
    pub(super) fn arrived(&self, datagram: &[u8]) -> Judgement {
        const VERSION: usize = 4;
        let Some(header) = LongHeader::parse(datagram) else { return Judgement::NeedMore };
        let ours = header.version == 0 && header.dcid == self.scid && header.scid == self.dcid;
        let versions = datagram.len().saturating_sub(1 + VERSION + 2 * (1 + ID));
        if !ours {
            return Judgement::NeedMore;
        }
        if versions == 0 || !versions.is_multiple_of(VERSION) {
            return Judgement::Failed("Version Negotiation without versions".to_owned());
        }
        Judgement::Passed
    }
}
