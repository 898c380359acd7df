//! Bytes between client and backend: content, order, ends, and idleness.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, TcpStream},
    thread,
    time::{Duration, Instant},
};

use rpxy_l4_tests::{
    daemon::Daemon,
    flow::Flow,
    peers::server::{Recorder, Server},
    socket::{self, End},
    topology::Topology,
    wait,
};

use crate::support::{PORT, at, front};

rpxy_l4_tests::splice_modes! {
    Steered {
        small_exchanges_and_bulk_take_turns_on_one_connection,
        a_reset_by_the_backend_reaches_the_client,
        an_idle_connection_is_closed_and_a_busy_one_is_not,
    }
    Unknown {
        the_end_of_the_request_reaches_the_backend_and_the_answer_still_comes,
        the_end_of_the_answer_reaches_the_client_and_the_request_goes_on,
        sixty_four_mebibytes_both_ways_at_once,
        a_reader_that_pauses_holds_the_writer_back_and_loses_nothing,
        an_answer_longer_than_all_buffers_arrives_whole_though_its_server_is_gone,
        an_early_answer_is_not_lost_to_the_rest_of_the_request,
    }
}

fn config(top: &str) -> String {
    format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n{top}", at(7000))
}

fn the_end_of_the_request_reaches_the_backend_and_the_answer_still_comes() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::start(&net.backend, at(7000), |mut stream, _| {
        let mut request = Vec::new();
        stream.read_to_end(&mut request).unwrap();
        stream.write_all(format!("{} bytes, and {}", request.len(), "x".repeat(100_000)).as_bytes()).unwrap();
    });
    let _daemon = Daemon::start(&net.gateway, &config(""));
    for length in [0, 1, 200_000] {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, &vec![7; length]);
        socket::finish(&stream);
        let (answer, end) = socket::read_to_end(&stream);
        assert_eq!(answer, format!("{length} bytes, and {}", "x".repeat(100_000)).into_bytes());
        assert_eq!(end, End::Closed);
    }
}

fn the_end_of_the_answer_reaches_the_client_and_the_request_goes_on() {
    let Some(net) = Topology::or_skip() else { return };
    let (sender, received) = std::sync::mpsc::channel();
    let _server = Server::start(&net.backend, at(7000), move |mut stream, _| {
        stream.write_all(b"that is all").unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).unwrap();
        sender.send(rest).unwrap();
    });
    let _daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    assert_eq!(socket::read_to_end(&stream), (b"that is all".to_vec(), End::Closed));
    socket::send(&stream, &[9; 300_000]);
    socket::finish(&stream);
    assert_eq!(received.recv_timeout(rpxy_l4_tests::process::PATIENCE).unwrap(), [9; 300_000]);
}

fn sixty_four_mebibytes_both_ways_at_once() {
    let Some(net) = Topology::or_skip() else { return };
    let up = Flow { seed: 1, length: 64 << 20 };
    let down = Flow { seed: 2, length: 64 << 20 };
    let (sender, verdict) = std::sync::mpsc::channel();
    let _server = Server::start(&net.backend, at(7000), move |stream, _| {
        let verified = thread::scope(|scope| {
            scope.spawn(|| down.write(stream).unwrap());
            up.verify(stream)
        });
        sender.send(verified).unwrap();
    });
    let _daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    thread::scope(|scope| {
        scope.spawn(|| up.write(&stream).unwrap());
        down.verify(&stream).unwrap();
    });
    verdict.recv_timeout(rpxy_l4_tests::process::PATIENCE).unwrap().unwrap();
    socket::finish(&stream);
    assert_eq!(socket::read_to_end(&stream), (vec![], End::Closed));
}

fn small_exchanges_and_bulk_take_turns_on_one_connection() {
    // The relay moves small messages and bulk by different means; neither change may lose or reorder a byte.
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::echo(&net.backend, at(7000));
    let _daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    for round in 0..4 {
        for length in 1..200_u8 {
            let message = vec![length; usize::from(length)];
            socket::send(&stream, &message);
            assert_eq!(socket::read_exactly(&stream, message.len()), message);
        }
        let bulk = Flow { seed: round, length: 5_000_000 + round };
        thread::scope(|scope| {
            scope.spawn(|| bulk.write(&stream).unwrap());
            bulk.verify(&stream).unwrap();
        });
    }
    socket::finish(&stream);
    assert_eq!(socket::read_to_end(&stream), (vec![], End::Closed));
}

fn a_reader_that_pauses_holds_the_writer_back_and_loses_nothing() {
    let Some(net) = Topology::or_skip() else { return };
    let flow = Flow { seed: 3, length: 48 << 20 };
    let _server = Server::start(&net.backend, at(7000), move |stream, _| {
        // Ends when the test does, if not before.
        let _ended = flow.write(stream);
    });
    let daemon = Daemon::start(&net.gateway, &config(""));
    let before = daemon.resident();
    let stream = socket::dial(&net.client, front());
    wait::pause(Duration::from_millis(500));
    let grown = daemon.resident().saturating_sub(before);
    assert!(grown < 16 << 20, "the daemon holds {grown} bytes for a client that does not read");
    flow.verify(&stream).unwrap();
}

// The port of a spliced connection rests, and a socket keeps it.
#[test]
fn a_reset_ends_the_other_side() {
    let Some(net) = Topology::or_skip() else { return };
    let recorder = Recorder::start(&net.backend, at(7000));
    let daemon = Daemon::start(&net.gateway, &config(""));
    let before = daemon.open_files();
    for _ in 0..50 {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, b"begun");
        recorder.server().wait_for_open(1);
        socket::reset(stream);
        let record = recorder.next();
        assert!(b"begun".starts_with(&record.bytes), "{record:?}");
        assert_eq!(record.end, End::Reset, "the backend must not take a broken request for a whole one");
        recorder.server().wait_for_open(0);
    }
    daemon.wait_for_open_files(before);
}

fn a_reset_by_the_backend_reaches_the_client() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::start(&net.backend, at(7000), |stream, _| {
        socket::read_exactly(stream, 5);
        socket::reset(stream.try_clone().unwrap());
    });
    let _daemon = Daemon::start(&net.gateway, &config(""));
    for _ in 0..20 {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, b"begun");
        assert_eq!(socket::read_to_end(&stream), (vec![], End::Reset));
    }
}

fn an_answer_longer_than_all_buffers_arrives_whole_though_its_server_is_gone() {
    let Some(net) = Topology::or_skip() else { return };
    let flow = Flow { seed: 4, length: 24 << 20 };
    let server = Server::start(&net.backend, at(7000), move |stream, _| flow.write(stream).unwrap());
    let _daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    flow.verify(&stream).unwrap();
    server.wait_for_open(0);
    assert_eq!(socket::read_to_end(&stream), (vec![], End::Closed));
}

fn an_early_answer_is_not_lost_to_the_rest_of_the_request() {
    // A server may refuse an upload and leave without reading it.
    let Some(net) = Topology::or_skip() else { return };
    let answer = Flow { seed: 5, length: 400_000 };
    let backend = net.backend.clone();
    let server = Server::start(&net.backend, at(7000), move |stream, _| {
        answer.write(stream).unwrap();
        stream.shutdown(Shutdown::Write).unwrap();
        // Closing with unread bytes throws away what has not left.
        socket::wait_until_acknowledged(&backend, stream);
    });
    let _daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    thread::scope(|scope| {
        scope.spawn(|| {
            // Ends with an error when the proxy closes, which is right.
            let _cut_short = (&stream).write_all(&vec![1; 16 << 20]);
        });
        // A client that first sends, then reads.
        server.wait_for_accepted(1);
        server.wait_for_open(0);
        answer.verify(&stream).unwrap();
        // A reset may already have closed both directions.
        let _closed = stream.shutdown(Shutdown::Both);
    });
}

/// Idle timeout of [`an_idle_connection_is_closed_and_a_busy_one_is_not`].
const IDLE: Duration = Duration::from_secs(1);

/// Exchanges bytes on a new connection for two idle timeouts. Returns `None` when the machine paused for so long that
/// the connection may rightly be closed as idle.
fn stays_busy(net: &Topology) -> Option<TcpStream> {
    let stream = socket::dial(&net.client, front());
    for _ in 0..20 {
        let begun = Instant::now();
        wait::pause(IDLE / 10);
        let answered = (&stream).write_all(b"\0").and_then(|()| (&stream).read_exact(&mut [0]));
        if begun.elapsed() > IDLE / 2 {
            return None;
        }
        answered.expect("a busy connection stays open");
    }
    Some(stream)
}

fn an_idle_connection_is_closed_and_a_busy_one_is_not() {
    let Some(net) = Topology::or_skip() else { return };
    // Sends nothing, and keeps its side open after the client has finished.
    let (release, hold) = std::sync::mpsc::channel::<()>();
    let hold = std::sync::Mutex::new(hold);
    let _silent = Server::start(&net.backend, at(7001), move |_, _| {
        let _released = hold.lock().unwrap().recv();
    });
    let server = Server::echo(&net.backend, at(7000));
    let with_silent = crate::support::rule("silent", "ssh", at(7001), "");
    let _daemon = Daemon::start(&net.gateway, &config(&format!("tcp_idle_timeout = \"1s\"{with_silent}")));

    let idle = socket::dial(&net.client, front());
    socket::send(&idle, b"\0");
    assert_eq!(socket::read_exactly(&idle, 1), b"\0");
    let half_closed = socket::dial(&net.client, front());
    socket::send(&half_closed, b"SSH-2.0-x\r\n");
    socket::finish(&half_closed);
    let _busy = wait::until("the machine runs without a pause", || stays_busy(&net));
    for stream in [&idle, &half_closed] {
        assert_eq!(socket::read_to_end(stream).0, b"");
    }
    server.wait_for_open(1);
    drop(release);
}
