//! The real clients. Each attempt is of a new client: another port, another handshake.

use std::time::{Duration, Instant};

use rpxy_l4_tests::{
    peers::{quic::QuicClient, udp::UdpClient},
    topology::CLIENT_V4,
    wait::pause,
};

use super::network::{NAME, Network};

/// A client that is not served after this long is not served: twice what WireGuard waits before it tries again.
const PATIENCE: Duration = Duration::from_secs(11);
/// Time between two attempts of one kind.
const PACE: Duration = Duration::from_millis(20);
/// The same of WireGuard, whose servers take one handshake of a client in 20 ms and wireguard-go's clocks tick every 17 ms.
const HANDSHAKE_PACE: Duration = Duration::from_millis(60);
/// A query for the address of example.com (RFC 1035 section 4.1).
const QUERY: &[u8] = b"\x12\x34\x01\x00\x00\x01\x00\x00\x00\x00\x00\x00\x07example\x03com\x00\x00\x01\x00\x01";
/// A resolver asks again after this long.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What became of the clients of one kind.
#[derive(Debug, Default)]
pub(super) struct Clients {
    attempts: usize,
    /// Of those that were served.
    latencies: Vec<Duration>,
}

impl Clients {
    /// Served of all, median and 99th percentile, as columns of the report.
    pub(super) fn columns(&self) -> String {
        if self.attempts == 0 {
            return " - | - | - |".to_owned();
        }
        let mut sorted = self.latencies.clone();
        sorted.sort_unstable();
        let quantile = |of_hundred: usize| {
            let index = (sorted.len() * of_hundred).div_ceil(100).saturating_sub(1);
            sorted.get(index).map_or("-".to_owned(), |latency| format!("{:.1}", latency.as_secs_f64() * 1000.0))
        };
        format!(" {} of {} | {} | {} |", sorted.len(), self.attempts, quantile(50), quantile(99))
    }

    /// Makes attempts until `window` is over. One returns whether its client was served.
    fn come(window: Duration, pace: Duration, mut attempt: impl FnMut() -> bool) -> Self {
        let mut clients = Self::default();
        let end = Instant::now() + window;
        while Instant::now() < end {
            let begin = Instant::now();
            clients.attempts += 1;
            if attempt() {
                clients.latencies.push(begin.elapsed());
            }
            pause(pace);
        }
        clients
    }
}

/// QUIC clients by quinn: until the server has answered a question.
pub(super) fn quic(network: &Network, window: Duration) -> Clients {
    let client = QuicClient::new(network.client(), (CLIENT_V4, 0), network.certificate());
    Clients::come(window, PACE, || {
        client.rebind((CLIENT_V4, 0));
        let connection = client.try_connect_within(PATIENCE, network.front(), NAME, &["h3"]);
        connection.and_then(|connection| connection.try_ask(PATIENCE)).is_ok()
    })
}

/// WireGuard clients by wireguard-go: until a ping has come back. That includes to start `wg` and `ping`.
pub(super) fn wireguard(network: &Network, window: Duration) -> Clients {
    Clients::come(window, HANDSHAKE_PACE, || network.tunnel_anew(PATIENCE))
}

/// DNS clients: until the answer, with one more query after a second.
pub(super) fn dns(network: &Network, window: Duration) -> Clients {
    let Some(to) = network.dns() else { return Clients::default() };
    Clients::come(window, PACE, || {
        let client = UdpClient::bind(network.client(), (CLIENT_V4, 0));
        (0..2).any(|_| {
            client.send(to, QUERY);
            client.receive_within(ASK_AGAIN).is_some()
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_tell_how_many_were_served_and_when() {
        let mut clients = Clients { attempts: 101, latencies: (1..=100).rev().map(Duration::from_millis).collect() };
        assert_eq!(clients.columns(), " 100 of 101 | 50.0 | 99.0 |");
        clients.latencies.clear();
        assert_eq!(clients.columns(), " 0 of 101 | - | - |");
        assert_eq!(Clients::default().columns(), " - | - | - |");
    }
}
