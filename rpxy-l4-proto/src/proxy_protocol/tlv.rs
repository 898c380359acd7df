//! The type-length-value fields of version 2 (section 2.2). Those that concern one hop only are taken out: padding is
//! forgotten, and of a checksum only the fact is kept, since a header that is written anew needs a new one.

use super::{DecodeError, MAX_TLVS};
use crate::reader::Reader;

/// `PP2_TYPE_CRC32C`.
pub(super) const CRC32C: u8 = 0x03;
/// `PP2_TYPE_NOOP`.
const NOOP: u8 = 0x04;
/// The bytes of type and length in front of a value.
const PREFIX: usize = 3;
/// The bytes of a whole `PP2_TYPE_CRC32C` field.
const CHECKSUM_LEN: usize = PREFIX + 4;

/// The TLVs of a version 2 header, without `PP2_TYPE_NOOP` and `PP2_TYPE_CRC32C`.
///
/// At most [`MAX_TLVS`] bytes, a checksum included; of a longer header those that fit, in their order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tlvs {
    raw: Vec<u8>,
    checksum: bool,
}

impl Tlvs {
    /// Types and values, in the order of the header. Subfields are left in the value.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        let mut reader = Reader::new(&self.raw);
        std::iter::from_fn(move || Some((reader.u8()?, reader.vec16()?)))
    }

    /// Returns whether the header carries a CRC32C (section 2.2.3), verified when it was decoded, computed when
    /// encoded.
    #[must_use]
    pub const fn checksum(&self) -> bool {
        self.checksum
    }

    /// Asks for a CRC32C in the encoded header. Returns false, and changes nothing, when there is no room for it.
    #[cfg(any(test, feature = "properties"))]
    pub(crate) fn add_checksum(&mut self) -> bool {
        if !self.checksum {
            self.checksum = self.raw.len().saturating_add(CHECKSUM_LEN) <= MAX_TLVS;
        }
        self.checksum
    }

    /// Appends a field. Gives `false` and changes nothing when [`MAX_TLVS`] would be passed, or for the two types that
    /// are not kept here.
    #[must_use]
    pub fn push(&mut self, typ: u8, value: &[u8]) -> bool {
        let added = PREFIX.saturating_add(value.len());
        let total = self.encoded_len().saturating_add(added);
        let Ok(len) = u16::try_from(value.len()) else { return false };
        if matches!(typ, NOOP | CRC32C) || total > MAX_TLVS {
            return false;
        }
        self.raw.push(typ);
        self.raw.extend_from_slice(&len.to_be_bytes());
        self.raw.extend_from_slice(value);
        true
    }

    /// The bytes these fields take in a header.
    pub(super) fn encoded_len(&self) -> usize {
        self.raw.len().saturating_add(if self.checksum { CHECKSUM_LEN } else { 0 })
    }

    /// Appends the fields, with four zero bytes where the checksum is to go; its offset in `out` comes back.
    pub(super) fn encode(&self, out: &mut Vec<u8>) -> Option<usize> {
        out.extend_from_slice(&self.raw);
        if !self.checksum {
            return None;
        }
        out.extend_from_slice(&[CRC32C, 0, 4]);
        let at = out.len();
        out.extend_from_slice(&[0; 4]);
        Some(at)
    }

    /// The fields of the whole `header` from offset `at` to its end, with the checksum verified.
    pub(super) fn decode(header: &[u8], at: usize) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(header.get(at..).unwrap_or_default());
        let mut tlvs = Self::default();
        let types = std::iter::from_fn({
            let mut fields = reader.clone();
            move || fields.u8().filter(|_| fields.vec16().is_some())
        });
        let room = MAX_TLVS.saturating_sub(if types.into_iter().any(|typ| typ == CRC32C) { CHECKSUM_LEN } else { 0 });
        while !reader.is_empty() {
            let field = reader.clone();
            let (typ, value) = reader.u8().zip(reader.vec16()).ok_or(DecodeError::Tlv)?;
            match typ {
                NOOP => {}
                CRC32C => {
                    let value: &[u8; 4] = value.try_into().map_err(|_not_four_bytes| DecodeError::Tlv)?;
                    // A second one could not cover the first: which of them counts as zero?
                    if std::mem::replace(&mut tlvs.checksum, true) {
                        return Err(DecodeError::Tlv);
                    }
                    let value_at = header.len().saturating_sub(reader.rest().len()).saturating_sub(value.len());
                    if u32::from_be_bytes(*value) != checksum(header, value_at) {
                        return Err(DecodeError::Checksum);
                    }
                }
                _ => {
                    let len = field.rest().len().saturating_sub(reader.rest().len());
                    if tlvs.raw.len().saturating_add(len) <= room {
                        tlvs.raw.extend_from_slice(field.rest().get(..len).unwrap_or_default());
                    }
                }
            }
        }
        Ok(tlvs)
    }
}

/// The CRC32C of a header, the four bytes at `at` counted as zero (section 2.2.3).
pub(super) fn checksum(header: &[u8], at: usize) -> u32 {
    let before = header.get(..at).unwrap_or_default();
    let after = header.get(at.saturating_add(4)..).unwrap_or_default();
    let crc = crc32c::crc32c(before);
    let crc = crc32c::crc32c_append(crc, &[0; 4]);
    crc32c::crc32c_append(crc, after)
}
