//! The crate ppp as a second opinion, in both directions: it reads what is written here, and what it writes is read
//! here. It does not know checksums, and takes what stands in a header without addresses for addresses, not for TLVs.

use ppp::{
    HeaderResult, v1,
    v2::{self, Builder, Command, Protocol},
};
use proptest::prelude::*;

use super::{
    round_trip::{encoded, headers},
    *,
};

type Fields = Vec<(u8, Vec<u8>)>;

/// Addresses and TLVs as ppp reads them, in our types; `None` if it refuses, and no TLVs where it does not look.
fn theirs(bytes: &[u8]) -> Option<(Addresses, Option<Fields>)> {
    match HeaderResult::parse(bytes) {
        HeaderResult::V1(header) => match header.ok()?.addresses {
            v1::Addresses::Unknown => Some((Addresses::Unknown, None)),
            v1::Addresses::Tcp4(a) => {
                let source = (a.source_address, a.source_port).into();
                let destination = (a.destination_address, a.destination_port).into();
                Some((Addresses::Stream { source, destination }, None))
            }
            v1::Addresses::Tcp6(a) => {
                let source = (a.source_address, a.source_port).into();
                let destination = (a.destination_address, a.destination_port).into();
                Some((Addresses::Stream { source, destination }, None))
            }
        },
        HeaderResult::V2(header) => {
            let header = header.ok()?;
            if header.command == Command::Local {
                return Some((Addresses::Local, None));
            }
            let pair: Option<(SocketAddr, SocketAddr)> = match header.addresses {
                v2::Addresses::IPv4(a) => {
                    Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
                }
                v2::Addresses::IPv6(a) => {
                    Some(((a.source_address, a.source_port).into(), (a.destination_address, a.destination_port).into()))
                }
                v2::Addresses::Unspecified | v2::Addresses::Unix(_) => None,
            };
            let addresses = match (pair, header.protocol) {
                (Some((source, destination)), Protocol::Stream) => Addresses::Stream { source, destination },
                (Some((source, destination)), Protocol::Datagram) => Addresses::Datagram { source, destination },
                (Some(_) | None, _) => Addresses::Unknown,
            };
            let tlvs = header.tlvs().map(|tlv| tlv.map(|tlv| (tlv.kind, tlv.value.to_vec())));
            let looks = header.addresses.address_family() != v2::AddressFamily::Unspecified;
            Some((addresses, if looks { Some(tlvs.collect::<Result<_, _>>().ok()?) } else { None }))
        }
    }
}

fn owned(tlvs: &Tlvs) -> Fields {
    tlvs.iter().map(|(typ, value)| (typ, value.to_vec())).collect()
}

/// Asserts that ppp reads the same out of `bytes`, where it looks.
fn assert_read_alike(bytes: &[u8], header: &Header) -> Result<(), TestCaseError> {
    let Some((addresses, fields)) = theirs(bytes) else { panic!("refused by ppp") };
    prop_assert_eq!(addresses, header.addresses);
    if let Some(fields) = fields {
        prop_assert_eq!(fields.iter().any(|(typ, _)| *typ == 3), header.tlvs.checksum());
        // ppp hands on checksum and padding like any other field.
        let kept: Fields = fields.into_iter().filter(|(typ, _)| ![3, 4].contains(typ)).collect();
        prop_assert_eq!(kept, owned(&header.tlvs));
    }
    Ok(())
}

proptest! {
    #[test]
    fn ppp_reads_what_is_written_here(header in headers()) {
        assert_read_alike(&encoded(&header), &header)?;
    }

    #[test]
    fn what_ppp_writes_is_read_here(expected in headers()) {
        let (protocol, pair) = match expected.addresses {
            Addresses::Stream { source, destination } => (Protocol::Stream, Some((source, destination))),
            Addresses::Datagram { source, destination } => (Protocol::Datagram, Some((source, destination))),
            Addresses::Local | Addresses::Unknown => (Protocol::Unspecified, None),
        };
        let addresses = pair.map_or(v2::Addresses::Unspecified, Into::into);
        let mut builder = Builder::with_addresses(v2::Version::Two | Command::Proxy, protocol, addresses);
        for (typ, value) in expected.tlvs.iter() {
            builder = builder.write_tlv(typ, value).unwrap();
        }
        let found = header(&builder.build().unwrap());
        prop_assert_eq!((found.addresses, owned(&found.tlvs)), (expected.addresses, owned(&expected.tlvs)));
        prop_assert!(!found.tlvs.checksum());
    }

    #[test]
    fn what_is_read_here_ppp_reads_alike(mut bytes in headers().prop_map(|header| encoded(&header)), at in any::<proptest::sample::Index>(), byte in any::<u8>()) {
        let index = at.index(bytes.len());
        bytes[index] = byte;
        if let Decoded::Complete { header, len } = checked(&bytes) {
            assert_read_alike(&bytes[..len], &header)?;
        }
    }

    #[test]
    fn lines_read_here_are_read_by_ppp_alike(line in "PROXY (TCP4 [0-9]{1,3}\\.0\\.2\\.1 192\\.0\\.2\\.2|TCP6 [0-9a-f:]{2,9} ::1) [0-9]{1,6} [0-9]{1,6}\r\n") {
        let ours = match checked(line.as_bytes()) {
            Decoded::Complete { header, .. } => Some((header.addresses, None)),
            Decoded::NeedMore | Decoded::Invalid(_) => None,
        };
        prop_assert_eq!(ours, theirs(line.as_bytes()));
    }
}
