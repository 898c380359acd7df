//! The last words to a TLS client before its connection ends: one alert in front of any key.

use rpxy_l4_proto::tls::fatal_alert;
use tokio::net::TcpStream;

use super::scratch;

/// `unrecognized_name` (RFC 6066 section 3).
pub(super) const UNRECOGNIZED_NAME: u8 = 112;
/// Reads of what a client has sent beyond its hello. More than that is a client that does not listen.
const READS: usize = 8;

/// Tells the client why the handshake ends. It is not waited for: what does not fit the socket's buffer is not sent.
pub(super) fn send(client: &TcpStream, description: u8) {
    // Bytes that nobody has read would turn the end into a reset, which destroys an alert on its way.
    for _ in 0..READS {
        let read = scratch::with(|buffer| client.try_read(buffer));
        if !matches!(read, Ok(1..)) {
            break;
        }
    }
    // Seven bytes in front of everything else: only a dead connection has no room for them.
    client.try_write(&fatal_alert(description)).ok();
}
