//! The client by quiche.

use std::{
    net::{SocketAddr, UdpSocket},
    time::{Duration, Instant},
};

use quiche::{Config, Connection, ConnectionId, Header, PROTOCOL_VERSION, RecvInfo};
use rpxy_l4_tests::{OrFail as _, peers::udp, process::PATIENCE, topology::Host};

use super::{Answer, ROUNDS, Step, WHO};

/// The longest datagram, in bytes.
const DATAGRAM: usize = 1350;
/// The longest wait for a datagram before timers are looked at.
const TICK: Duration = Duration::from_millis(5);
/// Length of the client's connection IDs, in bytes.
const CID: usize = 12;
/// Connection IDs that a server may give.
const IDS: u64 = 4;

pub(super) fn run(host: &Host, to: SocketAddr, names: &[&str]) -> Vec<Answer> {
    let mut client = Client::connect(host, to, names);
    let mut answers = client.ask(Step::Connected);
    client.change_ids();
    answers.extend(client.ask(Step::NewIds));
    client.change_port();
    answers.extend(client.ask(Step::Moved));
    while client.connections.len() > 1 {
        client.close_first();
        client.change_port();
        answers.extend(client.ask(Step::Fewer));
    }
    client.close_first();
    answers
}

struct Client<'a> {
    host: &'a Host,
    to: SocketAddr,
    socket: UdpSocket,
    /// The address that the library is told, whatever port the socket has.
    local: SocketAddr,
    connections: Vec<(String, Connection)>,
    /// Number of questions on each connection so far.
    asked: u64,
}

impl<'a> Client<'a> {
    fn connect(host: &'a Host, to: SocketAddr, names: &[&str]) -> Self {
        let socket = open(host, to);
        let local = socket.local_addr().or_fail("local address");
        let mut config = config().or_fail("configuration");
        let connections = names.iter().zip(1_u8..).map(|(name, number)| {
            let scid = [number; CID];
            let connection = quiche::connect(Some(name), &ConnectionId::from_ref(&scid), local, to, &mut config);
            ((*name).to_owned(), connection.or_fail(name))
        });
        let mut client = Self { host, to, local, connections: connections.collect(), asked: 0, socket };
        client.until("the handshakes are complete", Connection::is_established);
        client
    }

    /// Serves all connections until each of them is `ready`.
    fn until(&mut self, what: &str, ready: impl Fn(&Connection) -> bool) {
        let deadline = Instant::now() + PATIENCE;
        while !self.connections.iter().all(|(_, connection)| ready(connection)) {
            assert!(Instant::now() < deadline, "waited too long until {what}");
            self.serve();
        }
    }

    /// Sends what there is to send, and takes one datagram if one comes soon.
    fn serve(&mut self) {
        self.flush();
        let mut buffer = [0; 2048];
        if let Ok((length, from)) = self.socket.recv_from(&mut buffer) {
            let datagram = &mut buffer[..length];
            let Ok(header) = Header::from_slice(datagram, CID) else { return };
            let is_for = |connection: &Connection| connection.source_ids().any(|id| *id == header.dcid);
            if let Some((_, connection)) = self.connections.iter_mut().find(|(_, connection)| is_for(connection)) {
                let _refused = connection.recv(datagram, RecvInfo { from, to: self.local });
            }
        }
        for (name, connection) in &mut self.connections {
            if connection.timeout().is_some_and(|left| left.is_zero()) {
                connection.on_timeout();
            }
            assert!(!connection.is_closed(), "{name}: {:?}", connection.peer_error());
        }
    }

    fn flush(&mut self) {
        let mut out = [0; DATAGRAM];
        for (_, connection) in &mut self.connections {
            while let Ok((length, _)) = connection.send(&mut out) {
                let _unreachable = self.socket.send_to(&out[..length], self.to);
            }
        }
    }

    fn ask(&mut self, step: Step) -> Vec<Answer> {
        let mut answers = Vec::new();
        for _ in 0..ROUNDS {
            // Those of the client, bidirectional (RFC 9000 section 2.1).
            let stream = self.asked * 4;
            self.asked += 1;
            for index in 0..self.connections.len() {
                let (name, connection) = &mut self.connections[index];
                let name = name.clone();
                connection.stream_send(stream, &WHO, true).or_fail("question");
                let answer = self.answer(index, stream).or_fail(format_args!("{name} answers ({step:?})"));
                answers.push(Answer::read(step, &name, &answer));
            }
        }
        answers
    }

    /// The whole of a stream; `None` when it does not come.
    fn answer(&mut self, index: usize, stream: u64) -> Option<Vec<u8>> {
        let deadline = Instant::now() + PATIENCE;
        let (mut answer, mut buffer) = (Vec::new(), [0; 1024]);
        while Instant::now() < deadline {
            self.serve();
            while let Ok((length, end)) = self.connections[index].1.stream_recv(stream, &mut buffer) {
                answer.extend_from_slice(&buffer[..length]);
                if end {
                    return Some(answer);
                }
            }
        }
        None
    }

    fn change_ids(&mut self) {
        self.until("all servers have given IDs", |connection| connection.available_dcids() > 0);
        for (name, connection) in &mut self.connections {
            let present = connection.destination_id().into_owned();
            // Retiring the one in use makes the library go on with the next. Servers number them from 0.
            connection.retire_dcid(0).or_fail(&name);
            assert_ne!(connection.destination_id(), present, "{name}");
        }
    }

    fn change_port(&mut self) {
        self.socket = open(self.host, self.to);
    }

    fn close_first(&mut self) {
        let _closed = self.connections[0].1.close(true, 0, b"");
        self.flush();
        self.connections.remove(0);
    }
}

fn open(host: &Host, to: SocketAddr) -> UdpSocket {
    let socket = udp::bind(host, udp::unspecified(to)).or_fail("socket");
    socket.set_read_timeout(Some(TICK)).or_fail("read timeout");
    socket
}

fn config() -> quiche::Result<Config> {
    let mut config = Config::new(PROTOCOL_VERSION)?;
    config.verify_peer(false);
    config.set_application_protos(&[b"h3"])?;
    config.set_active_connection_id_limit(IDS);
    config.set_max_idle_timeout(60_000);
    config.set_initial_max_data(1 << 20);
    config.set_initial_max_stream_data_bidi_local(1 << 16);
    config.set_initial_max_stream_data_bidi_remote(1 << 16);
    config.set_initial_max_streams_bidi(8);
    Ok(config)
}
