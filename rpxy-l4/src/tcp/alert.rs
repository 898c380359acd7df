//! The last words to a TLS client before its connection ends: one alert in front of any key.

use std::time::Duration;

use rpxy_l4_proto::tls::fatal_alert;
use tokio::{
    io::AsyncWriteExt as _,
    net::TcpStream,
    time::{Instant, timeout_at},
};

use super::scratch;
use crate::metrics::Outcome;

/// `unrecognized_name` (RFC 6066 section 3).
pub(super) const UNRECOGNIZED_NAME: u8 = 112;
/// Longest wait for the client to close after the alert.
const LINGER: Duration = Duration::from_secs(2);
/// Bytes that a client may send meanwhile: early data, as much as servers commonly take. More than that is a client that
/// does not listen.
const EARLY_DATA: usize = 64 << 10;

/// The end of a connection before it has a backend.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Refusal {
    pub(super) outcome: Outcome,
    /// The description of the alert that the client is sent.
    pub(super) alert: Option<u8>,
}

impl From<Outcome> for Refusal {
    fn from(outcome: Outcome) -> Self {
        Self { outcome, alert: None }
    }
}

/// Tells the client why the handshake ends, and waits a little until it has closed: bytes that arrive unread would turn the
/// end into a reset, which destroys an alert on its way.
pub(super) async fn send(client: &mut TcpStream, description: u8) {
    // Seven bytes in front of everything else: only a dead connection has no room for them.
    if client.try_write(&fatal_alert(description)).is_err() || client.shutdown().await.is_err() {
        return;
    }
    let until = Instant::now() + LINGER;
    let mut left = EARLY_DATA;
    while left > 0 && matches!(timeout_at(until, client.readable()).await, Ok(Ok(()))) {
        match scratch::with(|buffer| client.try_read(buffer)) {
            Ok(0) => return,
            Ok(n) => left = left.saturating_sub(n),
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {}
            Err(_reset) => return,
        }
    }
}
