//! WireGuard messages by their wire image ([`parse`]). No key enters here.
//!
//! It errs towards "not WireGuard": types, lengths and, unless told otherwise, reserved bytes must be right. A datagram
//! that passes is not authentic.

#[cfg(test)]
mod tests;

/// A handshake initiation, in bytes (WireGuard whitepaper section 5.4.2).
pub const INITIATION_LEN: usize = 148;
/// A handshake response, in bytes (section 5.4.3).
pub const RESPONSE_LEN: usize = 92;
/// A cookie reply, in bytes (section 5.4.7).
pub const COOKIE_REPLY_LEN: usize = 64;
/// The shortest transport message, a keepalive, in bytes (section 5.4.6).
pub const TRANSPORT_MIN_LEN: usize = 32;

/// Accepted values of the three reserved bytes behind the type of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default)]
pub enum Reserved {
    /// Zero, as the whitepaper has it.
    #[default]
    Zero,
    /// Any: Cloudflare WARP puts a client's identity there.
    Any,
}

/// A message, by what it shows in clear. Indices are as the sender's memory has them, so little-endian on the wire.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Message {
    /// Type 1.
    Initiation {
        /// The index that the sender chose for itself.
        sender: u32,
    },
    /// Type 2.
    Response {
        /// The index that the sender chose for itself.
        sender: u32,
        /// The index that the receiver chose in its initiation.
        receiver: u32,
    },
    /// Type 3.
    CookieReply {
        /// The index that the receiver chose in the message that this one answers.
        receiver: u32,
    },
    /// Type 4.
    Transport {
        /// The index that the receiver chose in the handshake.
        receiver: u32,
    },
}

/// Reads a whole UDP payload; `None` if it is no WireGuard message.
///
/// Transport messages need not be a multiple of 16 bytes long, whatever the whitepaper says: not all implementations
/// pad.
#[must_use]
pub fn parse(datagram: &[u8], reserved: Reserved) -> Option<Message> {
    let (&[typ, ref between @ ..], rest) = datagram.split_first_chunk::<4>()?;
    if reserved == Reserved::Zero && between != &[0; 3] {
        return None;
    }
    let (&first, rest) = rest.split_first_chunk()?;
    let first = u32::from_le_bytes(first);
    match (typ, datagram.len()) {
        (1, INITIATION_LEN) => Some(Message::Initiation { sender: first }),
        (2, RESPONSE_LEN) => {
            let receiver = u32::from_le_bytes(*rest.first_chunk()?);
            Some(Message::Response { sender: first, receiver })
        }
        (3, COOKIE_REPLY_LEN) => Some(Message::CookieReply { receiver: first }),
        (4, TRANSPORT_MIN_LEN..) => Some(Message::Transport { receiver: first }),
        _ => None,
    }
}
