//! The handshake between two sockets, with the hellos of a Go client and made-up answers.

use rpxy_l4_proto::{
    ech::{EchKeys, FirstHello, open_first},
    tls::HelloProbe,
};
use tokio::{io::AsyncReadExt as _, net::TcpListener};

use super::*;
use crate::{config::ech::from_base64, net};

const FIRST: &[u8] = include_bytes!("../../../../rpxy-l4-proto/src/ech/testdata/go_hello_first.bin");
const SECOND: &[u8] = include_bytes!("../../../../rpxy-l4-proto/src/ech/testdata/go_hello_second.bin");

/// Random of a HelloRetryRequest (RFC 8446 section 4.1.3).
const RETRY: [u8; 32] = [
    0xcf, 0x21, 0xad, 0x74, 0xe5, 0x9a, 0x61, 0x11, 0xbe, 0x1d, 0x8c, 0x02, 0x1e, 0x65, 0xb8, 0x91, 0xc2, 0xa2, 0x11,
    0x16, 0x7a, 0xbb, 0x8c, 0x5e, 0x07, 0x9e, 0x09, 0xe2, 0xc8, 0xa8, 0x33, 0x9c,
];

fn keys() -> EchKeys {
    let list = "AEH+DQA9QQAgACBA33gCXp5kB6qZDDobZiUWmF3pM58j/PDRen/3YLbEWwAEAAEAAQAOcHVibGljLmV4YW1wbGUAAA==";
    from_base64(list, &["iCqDaWFEAeGlFe0ajA6KD/5SKj9w7lT9bmx2tu1Od0c="]).unwrap()
}

fn record(typ: u8, body: &[u8]) -> Vec<u8> {
    [&[typ, 3, 3][..], &u16::try_from(body.len()).unwrap().to_be_bytes(), body].concat()
}

/// A ServerHello, or with that random a HelloRetryRequest, and what a server sends behind it.
fn server_flight(random: [u8; 32]) -> Vec<u8> {
    let body = [&[3, 3][..], &random, &[0, 0x13, 1, 0, 0, 6, 0, 43, 0, 2, 3, 4]].concat();
    let length = u32::try_from(body.len()).unwrap().to_be_bytes();
    [record(22, &[&[2], &length[1..], &body].concat()), record(20, &[1])].concat()
}

/// Both ends of a connection.
async fn pair() -> (TcpStream, TcpStream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let near = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    (near, listener.accept().await.unwrap().0)
}

/// A handshake under way: the client's and the backend's ends, and how it ends.
struct Run {
    client: TcpStream,
    backend: TcpStream,
    ended: tokio::task::JoinHandle<(Result<(), Refusal>, Traffic)>,
    /// Bytes that the backend gets for the first hello.
    inner: Vec<u8>,
}

/// Nothing is too long.
const PATIENT: Patience = Patience { idle: None, stall: None };

/// Begins with the first hello and what the client sent `behind` it in the same breath.
async fn run(behind: &[u8], patience: Patience) -> Run {
    let received = [handshake_records(FIRST, 1), behind.to_vec()].concat();
    let mut probe = HelloProbe::default();
    let Probe::Match(outer) = probe.advance(&received) else { panic!("no hello") };
    let FirstHello::Accepted { inner, context } = open_first(&keys(), &outer, || true) else { panic!("not accepted") };
    let mut first = BytesMut::from(received.as_slice());
    let handshake = Handshake::begin(context, &inner, probe.end().unwrap(), &mut first);
    let ((client, mut near), (mut far, backend)) = (pair().await, pair().await);
    let expected = first.to_vec();
    let ended = tokio::spawn(async move {
        let (mut traffic, mut timer) = (Traffic::default(), Timer::default());
        let preamble = Preamble { bytes: first.freeze(), ..Preamble::default() };
        let result = handshake.run(&mut near, &mut far, &mut traffic, preamble, (&mut timer, patience)).await;
        (result, traffic)
    });
    Run { client, backend, ended, inner: expected }
}

async fn expect(stream: &mut TcpStream, bytes: &[u8], what: &str) {
    let mut got = vec![0; bytes.len()];
    stream.read_exact(&mut got).await.expect(what);
    assert!(got == bytes, "{what}: other bytes");
}

#[tokio::test]
async fn a_server_hello_ends_it_and_everything_passes() {
    let early = [record(20, &[1]), record(23, &[5; 700])].concat();
    let mut run = run(&early, PATIENT).await;
    expect(&mut run.backend, &[run.inner.clone(), early.clone()].concat(), "hello and early data").await;
    let more = record(23, &[6; 90]);
    run.client.write_all(&more).await.unwrap();
    expect(&mut run.backend, &more, "more early data, before any answer").await;
    let flight = server_flight([7; 32]);
    run.backend.write_all(&flight).await.unwrap();
    expect(&mut run.client, &flight, "the answer").await;
    let (result, traffic) = run.ended.await.unwrap();
    let up = run.inner.len() + early.len() + more.len();
    assert_eq!((result, traffic.up, traffic.down), (Ok(()), count(up), count(flight.len())));
}

#[tokio::test]
async fn a_second_hello_is_decrypted_behind_early_data() {
    let early = record(23, &[5; 300]);
    let mut run = run(&early, PATIENT).await;
    expect(&mut run.backend, &[run.inner.clone(), early].concat(), "hello and early data").await;
    let flight = server_flight(RETRY);
    for byte in &flight {
        run.backend.write_all(&[*byte]).await.unwrap();
    }
    expect(&mut run.client, &flight, "the request").await;
    let (change, late) = (record(20, &[1]), record(23, &[6; 40]));
    let stream = [change.clone(), late.clone(), handshake_records(SECOND, 3), record(23, &[8; 9])].concat();
    for piece in stream.chunks(101) {
        run.client.write_all(piece).await.unwrap();
    }
    expect(&mut run.backend, &[change, late].concat(), "what came before the second hello").await;
    let mut header = [0; 5];
    run.backend.read_exact(&mut header).await.unwrap();
    assert_eq!((header[0], u16::from_be_bytes([header[3], header[4]])), (22, 294), "the inner hello's record");
    let mut inner = vec![0; 294];
    run.backend.read_exact(&mut inner).await.unwrap();
    assert!(inner.windows(15).any(|window| window == b"private.example"));
    assert_eq!(run.ended.await.unwrap().0, Ok(()));
}

#[tokio::test]
async fn what_is_no_second_hello() {
    let mut changed = SECOND.to_vec();
    changed[10] ^= 1;
    let rows = [
        ("one that does not open", handshake_records(&changed, 3), 51),
        ("the first one again", handshake_records(FIRST, 3), 47),
        ("another handshake message", record(22, &[11, 0, 0, 1, 0]), 10),
        ("something else", b"GET / HTTP/1.1\r\n".to_vec(), 10),
    ];
    for (name, stream, alert) in rows {
        let mut run = run(&[], PATIENT).await;
        expect(&mut run.backend, &run.inner, name).await;
        let flight = server_flight(RETRY);
        run.backend.write_all(&flight).await.unwrap();
        expect(&mut run.client, &flight, name).await;
        run.client.write_all(&stream).await.unwrap();
        assert_eq!(
            run.ended.await.unwrap().0,
            Err(Refusal { outcome: Outcome::EchInvalid, alert: Some(alert) }),
            "{name}"
        );
        let mut passed_on = Vec::new();
        run.backend.read_to_end(&mut passed_on).await.unwrap();
        assert_eq!(passed_on, [0; 0], "{name}: nothing reaches the backend");
    }
}

#[tokio::test]
async fn a_backend_that_answers_otherwise() {
    let handshake_before_answer = record(22, &[11, 0, 0, 1, 0]);
    for (name, answer) in [
        ("an alert", record(21, &[2, 40])),
        ("no TLS", b"HTTP/1.1 400 Bad Request\r\n\r\n".to_vec()),
        ("a server hello", server_flight([9; 32])),
    ] {
        let mut run = run(&handshake_before_answer, PATIENT).await;
        expect(&mut run.backend, &run.inner, name).await;
        run.backend.write_all(&answer).await.unwrap();
        expect(&mut run.client, &answer, name).await;
        expect(&mut run.backend, &handshake_before_answer, "what was held back").await;
        assert_eq!(run.ended.await.unwrap().0, Ok(()), "{name}");
    }
}

#[tokio::test]
async fn an_end_is_left_to_the_relay() {
    let mut from_client = run(&[], PATIENT).await;
    expect(&mut from_client.backend, &from_client.inner, "hello").await;
    from_client.client.shutdown().await.unwrap();
    assert_eq!(from_client.ended.await.unwrap().0, Ok(()), "of the client");

    let mut from_backend = run(&record(22, &[11]), PATIENT).await;
    expect(&mut from_backend.backend, &from_backend.inner, "hello").await;
    from_backend.backend.shutdown().await.unwrap();
    expect(&mut from_backend.backend, &record(22, &[11]), "what was held back").await;
    assert_eq!(from_backend.ended.await.unwrap().0, Ok(()), "of the backend");
}

#[tokio::test]
async fn a_second_hello_that_breaks_off_stays_here() {
    let mut run = run(&[], PATIENT).await;
    expect(&mut run.backend, &run.inner, "hello").await;
    let flight = server_flight(RETRY);
    run.backend.write_all(&flight).await.unwrap();
    expect(&mut run.client, &flight, "the request").await;
    run.client.write_all(&handshake_records(SECOND, 3)[..200]).await.unwrap();
    run.client.shutdown().await.unwrap();
    assert_eq!(run.ended.await.unwrap().0, Ok(()), "the relay passes the end on");
    let mut got = Vec::new();
    run.backend.read_to_end(&mut got).await.unwrap();
    assert!(got.is_empty(), "{got:?}");
}

#[tokio::test(start_paused = true)]
async fn silence_ends_it_where_idle_connections_are_ended() {
    let mut run = run(&[], Patience { idle: Some(Duration::from_secs(5)), ..PATIENT }).await;
    expect(&mut run.backend, &run.inner, "hello").await;
    assert_eq!(run.ended.await.unwrap().0, Err(Outcome::Idle.into()));
}

#[tokio::test(start_paused = true)]
async fn a_side_that_takes_nothing_ends_it() {
    let mut run = run(&[], Patience { stall: Some(Duration::from_secs(5)), ..PATIENT }).await;
    expect(&mut run.backend, &run.inner, "hello").await;
    // The client is asked for a second hello, and does not read.
    let flood = tokio::spawn(async move {
        let _over = run.backend.write_all(&server_flight(RETRY)).await;
        while run.backend.write_all(&[0; 1 << 14]).await.is_ok() {}
    });
    assert_eq!(run.ended.await.unwrap().0, Err(Outcome::Stalled.into()));
    flood.abort();
    drop(run.client);
}

#[tokio::test]
async fn a_client_that_is_gone_is_noticed_while_nothing_is_read_from_it() {
    // A handshake message is held back until the backend has answered.
    let mut run = run(&record(22, &[11, 0, 0, 1, 0]), PATIENT).await;
    expect(&mut run.backend, &run.inner, "hello").await;
    net::reset_on_close(&run.client);
    drop(run.client);
    assert_eq!(run.ended.await.unwrap().0, Err(Outcome::ClientReset.into()));
}
