//! Connections whose one side is gone, half-closed or does not read.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    sync::{Mutex, mpsc},
    time::Duration,
};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::server::Server,
    socket::{self, End},
    topology::Topology,
    wait,
};

use crate::support::{PORT, at, front};

rpxy_l4_tests::splice_modes! {
    Steered {
        a_reset_is_seen_in_every_state_of_the_connection,
        half_closed_connections_come_to_an_end,
    }
    Unknown {
        readers_that_do_not_read_come_to_an_end,
    }
}

fn config(top: &str) -> String {
    format!("listen_port = {PORT}\naccess_log_format = \"json\"\n{top}\ntcp_target = [\"{}\"]\n", at(7000))
}

/// A backend that hands each connection over, to be used as the test likes.
fn backend(net: &Topology) -> (Server, mpsc::Receiver<TcpStream>) {
    let (sender, accepted) = mpsc::channel();
    let sender = Mutex::new(sender);
    let server = Server::start(&net.backend, at(7000), move |stream, _| {
        // Given back when the test is over.
        let _over = sender.lock().unwrap().send(stream.try_clone().unwrap());
    });
    (server, accepted)
}

fn next(accepted: &mpsc::Receiver<TcpStream>) -> TcpStream {
    accepted.recv_timeout(rpxy_l4_tests::process::PATIENCE).unwrap()
}

/// Writes until nothing more fits on the way.
fn fill(mut stream: &TcpStream) {
    stream.set_write_timeout(Some(Duration::from_millis(500))).unwrap();
    while stream.write_all(&[0; 65536]).is_ok() {}
}

fn a_reset_is_seen_in_every_state_of_the_connection() {
    let Some(net) = Topology::or_skip() else { return };
    let (_server, accepted) = backend(&net);
    let daemon = Daemon::start(&net.gateway, &config(""));
    let before = daemon.open_files();
    for (row, client_breaks, ends_before, other_is_full) in [
        ("the client, after its end", true, true, false),
        ("the client, whose backend does not read", true, false, true),
        ("the backend, after its end", false, true, false),
        ("the backend, whose client does not read", false, false, true),
    ] {
        let client = socket::dial(&net.client, front());
        socket::send(&client, b"hello");
        let backend = next(&accepted);
        socket::read_exactly(&backend, 5);
        let (breaks, sees) = if client_breaks { (client, backend) } else { (backend, client) };
        if ends_before {
            breaks.shutdown(Shutdown::Write).unwrap();
            assert_eq!((&sees).read(&mut [0]).unwrap(), 0, "{row}");
        }
        if other_is_full {
            fill(&breaks);
        }
        let mark = daemon.process().mark();
        socket::reset(breaks);
        let reason = if client_breaks { "client_reset" } else { "backend_reset" };
        daemon.wait_for(mark, reason);
        let told = wait::until(row, || match socket::read_to_end(&sees) {
            (_, End::Reset) => Some(true),
            // The end that had been told before; the reset shows in writing.
            (_, End::Closed) => (&sees).write_all(b"late").is_err().then_some(true),
        });
        assert!(told, "{row}");
    }
    daemon.wait_for_open_files(before);
}

fn half_closed_connections_come_to_an_end() {
    let Some(net) = Topology::or_skip() else { return };
    let (_server, accepted) = backend(&net);
    let keys = "tcp_half_closed_timeout = \"600ms\"\ntcp_backend_closed_timeout = \"300ms\"";
    let daemon = Daemon::start(&net.gateway, &config(keys));
    let before = daemon.open_files();
    for client_ends in [true, false] {
        let mark = daemon.process().mark();
        let mut held = Vec::new();
        for _ in 0..20 {
            let client = socket::dial(&net.client, front());
            socket::send(&client, b"hello");
            let backend = next(&accepted);
            socket::finish(if client_ends { &client } else { &backend });
            held.push((client, backend));
        }
        daemon.wait_for(mark, "half_closed");
        daemon.wait_for_open_files(before);
        drop(held);
    }
}

fn readers_that_do_not_read_come_to_an_end() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::start(&net.backend, at(7000), |mut stream, _| while stream.write_all(&[0; 65536]).is_ok() {});
    let daemon = Daemon::start(&net.gateway, &config("tcp_stall_timeout = \"800ms\""));
    let before = daemon.open_files();
    let mark = daemon.process().mark();
    let held: Vec<_> = (0..20).map(|_| socket::dial(&net.client, front())).collect();
    daemon.wait_for(mark, "stalled");
    daemon.wait_for_open_files(before);
    drop(held);
}
