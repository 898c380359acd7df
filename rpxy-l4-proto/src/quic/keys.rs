//! Opens and seals Initial packets (RFC 9001 section 5, RFC 9369 section 3.3). A packet that does not open under a
//! flow's keys is not a packet of that flow; it is not told why.

use aes::{
    Aes128,
    cipher::{BlockCipherEncrypt as _, KeyInit as _},
};
use aes_gcm::{Aes128Gcm, aead::AeadInOut as _};

use super::{ConnectionId, LongPacket, LongType, Version, key_schedule::Schedule, packet::packets, packet_number};

/// The authentication tag of AES-128-GCM, in bytes.
const TAG: usize = 16;
/// The sample that header protection takes, in bytes (RFC 9001 section 5.4.2).
const SAMPLE: usize = 16;
/// Offset of the sample from the start of the packet number, whatever the length of that is.
const SAMPLE_AT: usize = 4;
/// The bits of a long header's first byte that are protected (RFC 9001 section 5.4.1).
const PROTECTED: u8 = 0x0f;

/// The keys of one direction's Initial packets.
///
/// Both ends derive them from the Destination Connection ID of the client's first Initial packet, and keep them when
/// that ID changes with the server's answer; only a Retry brings new ones (RFC 9001 section 5.2).
#[derive(Clone)]
pub struct InitialKeys {
    version: Version,
    key: Aes128Gcm,
    iv: [u8; 12],
    hp: Aes128,
}

/// An Initial packet without its protection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Opened {
    /// The full packet number, below 2^62.
    pub packet_number: u64,
    /// Number of bytes of it that the packet carries: 1 to 4.
    pub packet_number_len: usize,
    /// The first byte of the header, unprotected. Its reserved bits, 0x0c, are authentic but unchecked.
    pub first: u8,
    /// The frames; see [`frames`](super::frames).
    pub payload: Vec<u8>,
}

impl InitialKeys {
    /// Of packets that the client sends.
    #[must_use]
    pub fn client(version: Version, dcid: &ConnectionId) -> Self {
        Self::derive(version, dcid, b"client in")
    }

    /// Of packets that the server sends, from the same connection ID of the client's.
    #[cfg(test)]
    pub fn server(version: Version, dcid: &ConnectionId) -> Self {
        Self::derive(version, dcid, b"server in")
    }

    fn derive(version: Version, dcid: &ConnectionId, side: &[u8]) -> Self {
        let Schedule { key, iv, hp } = Schedule::new(version, dcid, side);
        Self { version, key: Aes128Gcm::new(&key.into()), iv, hp: Aes128::new(&hp.into()) }
    }

    /// Removes the protection of an Initial packet; `None` if these keys do not protect it.
    ///
    /// `largest` is the largest packet number that was opened in this direction of the connection.
    #[must_use]
    pub fn open(&self, packet: &LongPacket<'_>, largest: Option<u64>) -> Option<Opened> {
        if packet.typ != LongType::Initial || packet.version != self.version {
            return None;
        }
        let (header, protected) = packet.bytes.split_at_checked(packet.packet_number_at)?;
        let mask = self.mask(protected)?;
        let first = header.first()? ^ mask.first()? & PROTECTED;
        let packet_number_len = packet_number_len(first);
        let (number, ciphertext) = protected.split_at_checked(packet_number_len)?;
        let number: Vec<u8> = xor(number, mask.get(1..)?);
        let packet_number = packet_number::reconstruct(largest, &number);
        let associated = [&[first], header.get(1..)?, &number].concat();
        let (ciphertext, tag) = ciphertext.split_last_chunk::<TAG>()?;
        let mut payload = ciphertext.to_vec();
        self.key
            .decrypt_inout_detached(
                &self.nonce(packet_number).into(),
                &associated,
                payload.as_mut_slice().into(),
                tag.into(),
            )
            .ok()?;
        Some(Opened { packet_number, packet_number_len, first, payload })
    }

    /// Writes a packet again, with the payload of `opened`: the inverse of [`open`](Self::open).
    ///
    /// `packet` holds a whole Initial packet, such as [`LongPacket::range`] gives it. Its header stays, but for the low
    /// bits of the first byte and for the packet number, which are those of `opened`; all behind is overwritten.
    /// `None`, and nothing is written, when the payload does not fill the packet exactly, or when it is too short to be
    /// protected: packet number and payload together take 4 bytes or more (RFC 9001 section 5.4.2).
    #[must_use]
    pub fn seal(&self, packet: &mut [u8], opened: &Opened) -> Option<()> {
        let read =
            packets(packet).next().filter(|read| read.typ == LongType::Initial && read.version == self.version)?;
        if read.bytes.len() != packet.len() || opened.packet_number_len != packet_number_len(opened.first) {
            return None;
        }
        let number_at = read.packet_number_at;
        let payload_at = number_at.checked_add(opened.packet_number_len)?;
        let tag_at = payload_at.checked_add(opened.payload.len())?;
        if tag_at.checked_add(TAG)? != packet.len() {
            return None;
        }
        let first = packet.first()? & !PROTECTED | opened.first & PROTECTED;
        let number = opened.packet_number.to_be_bytes();
        let number = number.get(number.len().checked_sub(opened.packet_number_len)?..)?;
        let associated = [&[first], packet.get(1..number_at)?, number].concat();
        let mut payload = opened.payload.clone();
        let nonce = self.nonce(opened.packet_number).into();
        let tag = self.key.encrypt_inout_detached(&nonce, &associated, payload.as_mut_slice().into()).ok()?;
        let protected = [number, &payload, tag.as_slice()].concat();
        let mask = self.mask(&protected)?;
        packet.get_mut(number_at..)?.copy_from_slice(&protected);
        *packet.first_mut()? = first ^ mask.first()? & PROTECTED;
        packet.get_mut(number_at..payload_at)?.copy_from_slice(&xor(number, mask.get(1..)?));
        Some(())
    }

    /// The mask of header protection from what follows the header: packet number, payload and tag (RFC 9001 section
    /// 5.4.3). `None` when that is shorter than the sample needs.
    fn mask(&self, protected: &[u8]) -> Option<[u8; SAMPLE]> {
        let mut block = (*protected.get(SAMPLE_AT..)?.first_chunk::<SAMPLE>()?).into();
        self.hp.encrypt_block(&mut block);
        Some(block.into())
    }

    /// RFC 9001 section 5.3: the packet number, right-aligned, on the IV.
    fn nonce(&self, packet_number: u64) -> [u8; 12] {
        let mut nonce = self.iv;
        for (byte, number) in nonce.iter_mut().skip(4).zip(packet_number.to_be_bytes()) {
            *byte ^= number;
        }
        nonce
    }
}

/// Keys are not secret here, but do not help in a log either.
impl std::fmt::Debug for InitialKeys {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("InitialKeys").field("version", &self.version).finish_non_exhaustive()
    }
}

/// RFC 9000 section 17.2: one less than the length, in the two lowest bits.
fn packet_number_len(first: u8) -> usize {
    usize::from(first & 3).saturating_add(1)
}

fn xor(bytes: &[u8], mask: &[u8]) -> Vec<u8> {
    bytes.iter().zip(mask).map(|(byte, mask)| byte ^ mask).collect()
}
