//! The relay between real sockets on loopback: what each side sees, byte for byte and end by end.

use std::net::Ipv4Addr;

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinHandle,
};

use super::*;
use crate::net;

/// The far ends of a relayed connection, and the relay's task.
struct Rig {
    client: TcpStream,
    backend: TcpStream,
    relay: JoinHandle<(Outcome, Traffic)>,
}

async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let far = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (far, listener.accept().await.unwrap().0)
}

async fn rig(first: &[u8], header: usize, idle: Option<Duration>) -> Rig {
    limited(first, header, Limits { idle, ..Limits::default() }).await
}

async fn limited(first: &[u8], header: usize, limits: Limits) -> Rig {
    let (client, near_client) = pair().await;
    let (backend, near_backend) = pair().await;
    let preamble = Preamble { bytes: Bytes::copy_from_slice(first), header, sent: 0 };
    let relay = tokio::spawn(async move {
        let mut traffic = Traffic::default();
        let lasting = (Timer::default(), limits.into());
        let relay = Relay::new(&near_client, &near_backend, &mut traffic, preamble, lasting, (None, true));
        let Stop::End(end) = relay.await else { panic!("nothing is to be handed over") };
        match end.reset {
            Some(Side::Client) => net::reset_on_close(&near_client),
            Some(Side::Backend) => net::reset_on_close(&near_backend),
            Some(Side::Both) | None => {}
        }
        (end.outcome, traffic)
    });
    Rig { client, backend, relay }
}

/// Bytes that differ at every offset a mistake would likely confuse.
fn pattern(len: usize) -> Vec<u8> {
    (0..len).map(|n| (n ^ (n >> 8) ^ (n >> 16)).to_le_bytes()[0]).collect()
}

async fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut all = Vec::new();
    stream.read_to_end(&mut all).await.unwrap();
    all
}

#[tokio::test]
async fn the_first_bytes_come_first_and_the_header_is_not_payload() {
    let mut rig = rig(b"PROXY header\r\nhello", 14, None).await;
    rig.client.write_all(b" world").await.unwrap();
    rig.client.shutdown().await.unwrap();
    assert_eq!(read_all(&mut rig.backend).await, b"PROXY header\r\nhello world");
    rig.backend.write_all(b"bye").await.unwrap();
    rig.backend.shutdown().await.unwrap();
    assert_eq!(read_all(&mut rig.client).await, b"bye");
    let (outcome, traffic) = rig.relay.await.unwrap();
    assert_eq!((outcome, traffic.up, traffic.down), (Outcome::Closed, 11, 3));
}

#[tokio::test]
async fn half_close_is_passed_on_and_the_other_way_stays_open() {
    let mut rig = rig(b"", 0, None).await;
    rig.backend.shutdown().await.unwrap();
    assert_eq!(read_all(&mut rig.client).await, b"");
    for n in 0..100_u8 {
        rig.client.write_all(&[n]).await.unwrap();
        assert_eq!(rig.backend.read_u8().await.unwrap(), n);
    }
    drop(rig.client);
    assert_eq!(read_all(&mut rig.backend).await, b"");
    assert_eq!(rig.relay.await.unwrap().0, Outcome::Closed);
}

#[tokio::test]
async fn bulk_both_ways_at_once_arrives_whole() {
    let rig = rig(b"", 0, None).await;
    let sent = pattern(8 << 20);
    let run = |stream: TcpStream| {
        let sent = sent.clone();
        tokio::spawn(async move {
            let (mut read, mut write) = stream.into_split();
            let writer = tokio::spawn(async move {
                write.write_all(&sent).await.unwrap();
                write.shutdown().await.unwrap();
            });
            let mut got = Vec::new();
            read.read_to_end(&mut got).await.unwrap();
            writer.await.unwrap();
            got
        })
    };
    let (client, backend) = (run(rig.client), run(rig.backend));
    assert!(client.await.unwrap() == sent, "client");
    assert!(backend.await.unwrap() == sent, "backend");
    let (outcome, traffic) = rig.relay.await.unwrap();
    assert_eq!((outcome, traffic.up, traffic.down), (Outcome::Closed, sent.len() as u64, sent.len() as u64));
}

#[tokio::test]
async fn a_stream_that_turns_from_bulk_to_small_and_back_stays_whole() {
    let mut rig = rig(b"", 0, None).await;
    for round in 0..3 {
        let bulk = pattern(2 << 20);
        let (mut got, sent) = (vec![0; bulk.len()], bulk.clone());
        let (write, read) = tokio::join!(rig.client.write_all(&sent), rig.backend.read_exact(&mut got));
        write.unwrap();
        read.unwrap();
        assert!(got == bulk, "round {round}");
        for n in 0..50_u8 {
            rig.client.write_all(&[n]).await.unwrap();
            assert_eq!(rig.backend.read_u8().await.unwrap(), n, "round {round}");
        }
    }
}

#[tokio::test]
async fn a_reset_is_passed_on_as_a_reset() {
    for (case, client_breaks, expected) in
        [("client", true, Outcome::ClientReset), ("backend", false, Outcome::BackendReset)]
    {
        let rig = rig(b"", 0, None).await;
        let (breaks, mut sees) = if client_breaks { (rig.client, rig.backend) } else { (rig.backend, rig.client) };
        net::reset_on_close(&breaks);
        drop(breaks);
        let error = sees.read_u8().await.unwrap_err();
        assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset, "{case}");
        assert_eq!(rig.relay.await.unwrap().0, expected, "{case}");
    }
}

#[tokio::test]
async fn an_answer_reaches_the_client_although_the_backend_left_without_reading_all() {
    let Rig { mut client, mut backend, relay } = rig(b"", 0, None).await;
    client.write_all(b"start").await.unwrap();
    let mut start = [0; 5];
    backend.read_exact(&mut start).await.unwrap();
    backend.write_all(b"too large").await.unwrap();
    // An orderly end; what still comes is answered by resets.
    drop(backend);
    let uploading = tokio::spawn(async move {
        let (mut read, mut write) = client.split();
        let mut answer = vec![0; 9];
        let (_, read) = tokio::join!(async { while write.write_all(&[0; 4096]).await.is_ok() {} }, async {
            let result = read.read_exact(&mut answer).await.map(|_| ());
            result.map(|()| answer)
        });
        read
    });
    assert_eq!(uploading.await.unwrap().unwrap(), b"too large");
    assert!(matches!(relay.await.unwrap().0, Outcome::Closed | Outcome::ClientReset | Outcome::BackendReset));
}

#[tokio::test]
async fn a_backend_reset_is_never_taken_for_an_end_whichever_side_meets_it_first() {
    for round in 0..30 {
        let Rig { mut client, mut backend, relay } = rig(b"", 0, None).await;
        backend.write_all(b"half an answer").await.unwrap();
        let mut got = [0; 14];
        client.read_exact(&mut got).await.unwrap();
        // The relay writes to the backend while its reset arrives.
        client.write_all(b"more").await.unwrap();
        net::reset_on_close(&backend);
        drop(backend);
        drop(client.write_all(&[0; 4096]).await);
        assert_eq!(relay.await.unwrap().0, Outcome::BackendReset, "round {round}");
    }
}

#[tokio::test]
async fn a_client_that_uploads_before_it_reads_is_not_left_hanging() {
    let Rig { client, mut backend, relay } = rig(b"", 0, None).await;
    // Past the event of growing up, which polls everything once more and would hide a lost wake-up.
    tokio::task::yield_now().await;
    tokio::time::pause();
    tokio::time::advance(Duration::from_secs(6)).await;
    tokio::task::yield_now().await;
    tokio::time::resume();
    let (mut read, mut write) = client.into_split();
    let upload = tokio::spawn(async move {
        // Fails or not: what counts is that it ends.
        drop(write.write_all(&vec![7; 32 << 20]).await);
        write
    });
    // Nobody reads, so both directions fill up and stand still.
    let answer = pattern(32 << 20);
    let stalled = tokio::time::timeout(Duration::from_millis(300), backend.write_all(&answer)).await;
    assert!(stalled.is_err(), "32 MiB do not fit into socket buffers");
    net::reset_on_close(&backend);
    drop(backend);
    let write = tokio::time::timeout(Duration::from_secs(30), upload).await.expect("the upload hangs").unwrap();
    let mut got = Vec::new();
    drop(read.read_to_end(&mut got).await);
    assert!(answer.starts_with(&got), "what came is the beginning of the answer");
    drop(write);
    relay.await.unwrap();
}

#[tokio::test]
async fn nothing_behind_an_urgent_byte_is_lost() {
    for bulk_before in [0, 3 << 20] {
        let mut rig = rig(b"", 0, None).await;
        let (before, after) = (pattern(bulk_before), pattern(3 << 20));
        let expected = [before.clone(), after.clone()].concat();
        let reader = tokio::spawn(async move { read_all(&mut rig.backend).await });
        rig.client.write_all(&before).await.unwrap();
        rig.client.writable().await.unwrap();
        socket2::SockRef::from(&rig.client).send_out_of_band(b"!").unwrap();
        rig.client.write_all(&after).await.unwrap();
        rig.client.shutdown().await.unwrap();
        let got = reader.await.unwrap();
        assert!(got == expected, "{bulk_before} bytes before: got {} of {}", got.len(), expected.len());
    }
}

#[tokio::test]
async fn a_silent_connection_ends_after_the_idle_limit_and_only_then() {
    let limit = Duration::from_millis(50);
    let rig = rig(b"", 0, Some(limit)).await;
    assert_eq!(rig.relay.await.unwrap().0, Outcome::Idle);
}

#[tokio::test]
async fn a_slow_reader_holds_no_more_than_a_buffer_and_gets_all() {
    let mut rig = rig(b"", 0, None).await;
    let sent = pattern(4 << 20);
    let to_send = sent.clone();
    let writer = tokio::spawn(async move {
        rig.client.write_all(&to_send).await.unwrap();
        rig.client.shutdown().await.unwrap();
        rig.client
    });
    let mut got = Vec::new();
    let mut chunk = [0; 777];
    loop {
        match rig.backend.read(&mut chunk).await.unwrap() {
            0 => break,
            n => got.extend_from_slice(&chunk[..n]),
        }
        tokio::task::yield_now().await;
    }
    assert!(got == sent);
    drop((writer.await.unwrap(), rig.backend));
}

/// Fills all buffers from `stream` on; returns once nothing more fits.
async fn fill(stream: &mut TcpStream) {
    let chunk = vec![0; 1 << 20];
    while tokio::time::timeout(Duration::from_millis(100), stream.write_all(&chunk)).await.is_ok() {}
}

#[tokio::test]
async fn a_reset_is_seen_in_every_state_and_told_to_the_other_side() {
    for (row, client_breaks, ends_before, other_is_full) in [
        ("the client, after its end", true, true, false),
        ("the client, whose backend does not read", true, false, true),
        ("the backend, after its end", false, true, false),
        ("the backend, whose client does not read", false, false, true),
    ] {
        let Rig { client, backend, relay } = rig(b"", 0, None).await;
        let (mut breaks, mut sees) = if client_breaks { (client, backend) } else { (backend, client) };
        breaks.write_all(b"hello").await.unwrap();
        let mut hello = [0; 5];
        sees.read_exact(&mut hello).await.unwrap();
        if ends_before {
            breaks.shutdown().await.unwrap();
            assert_eq!(sees.read(&mut hello).await.unwrap(), 0, "{row}");
        }
        if other_is_full {
            fill(&mut breaks).await;
        }
        net::reset_on_close(&breaks);
        drop(breaks);
        let expected = if client_breaks { Outcome::ClientReset } else { Outcome::BackendReset };
        assert_eq!(relay.await.unwrap().0, expected, "{row}");
        // Past what was on its way, if anything.
        let mut rest = Vec::new();
        let error = sees.read_to_end(&mut rest).await.err().or(sees.take_error().unwrap()).map(|error| error.kind());
        let told = sees.write_all(b"late").await.is_err();
        assert!(error == Some(std::io::ErrorKind::ConnectionReset) || told, "{row}: {error:?}");
    }
}

#[tokio::test]
async fn an_answer_goes_on_to_a_slow_client_after_its_backend_was_reset() {
    let Rig { mut client, mut backend, relay } = rig(b"", 0, None).await;
    let answer = pattern(3 << 20);
    backend.write_all(&answer).await.unwrap();
    // All of it is out of the backend's hands.
    while net::undelivered(&backend) > 0 {
        tokio::task::yield_now().await;
    }
    net::reset_on_close(&backend);
    drop(backend);
    let reader = tokio::spawn(async move {
        let mut got = Vec::new();
        let end = client.read_to_end(&mut got).await;
        (got, end)
    });
    let (outcome, traffic) = relay.await.unwrap();
    assert_eq!((outcome, traffic.down), (Outcome::BackendReset, answer.len() as u64));
    // The rig does not wait for the delivery of the last bytes, as connections do.
    let (got, end) = reader.await.unwrap();
    assert!(answer.starts_with(&got));
    assert_eq!(end.unwrap_err().kind(), std::io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_half_closed_connection_ends_after_its_own_time() {
    let (short, long) = (Some(Duration::from_millis(50)), Some(Duration::from_secs(3600)));
    for (row, client_ends, half_closed, backend_closed) in
        [("the client has ended", true, short, long), ("the backend has ended", false, long, short)]
    {
        let mut rig = limited(b"", 0, Limits { half_closed, backend_closed, ..Limits::default() }).await;
        let ends = if client_ends { &mut rig.client } else { &mut rig.backend };
        ends.shutdown().await.unwrap();
        assert_eq!(rig.relay.await.unwrap().0, Outcome::HalfClosed, "{row}");
    }
}

#[tokio::test]
async fn a_reader_that_does_not_read_ends_the_connection_and_a_slow_one_does_not() {
    let stall = Duration::from_millis(200);
    for (row, client_reads) in [("the client does not read", true), ("the backend does not read", false)] {
        let rig = limited(b"", 0, Limits { stall: Some(stall), ..Limits::default() }).await;
        let (mut writes, mut reads) = if client_reads { (rig.backend, rig.client) } else { (rig.client, rig.backend) };
        let writer = tokio::spawn(async move { while writes.write_all(&[0; 65536]).await.is_ok() {} });
        // Slower than the wake-ups of a full socket buffer, but never still for the time of a stall.
        let mut chunk = vec![0; 100_000];
        for _ in 0..20 {
            reads.read_exact(&mut chunk).await.unwrap();
            tokio::time::sleep(stall / 8).await;
        }
        assert!(!rig.relay.is_finished(), "{row}: it was read from");
        assert_eq!(rig.relay.await.unwrap().0, Outcome::Stalled, "{row}");
        writer.await.unwrap();
    }
}
