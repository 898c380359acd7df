//! A ClientHello in every shape that a network can give it; the backend must receive the very same bytes.

use std::{collections::HashSet, net::TcpStream, sync::mpsc};

use rpxy_l4_tests::{
    daemon::Daemon,
    hello::{self, Hello},
    peers::{
        programs,
        server::{Recorder, Server},
    },
    process::{PATIENCE, Process},
    socket::{self, End},
    topology::{GATEWAY_V4, Topology},
};

use crate::support::{PORT, at, front, rule};

const NAME: &str = "one.test";

/// A recording backend for `NAME`, and a daemon that sends nothing else anywhere.
fn start(net: &Topology) -> (Recorder, Daemon) {
    let recorder = Recorder::start(&net.backend, at(443));
    let keys = format!("server_names = [\"{NAME}\"]");
    let config = format!("listen_port = {PORT}\ntcp_probe_timeout = \"1h\"\n{}", rule("name", "tls", at(443), &keys));
    (recorder, Daemon::start(&net.gateway, &config))
}

/// Sends each stream's parts to the daemon. All streams get their first part before any gets its second, so that the
/// daemon has had the time to read every part by itself.
fn send_in_parts(net: &Topology, streams: &[Vec<&[u8]>]) -> Vec<TcpStream> {
    let open: Vec<_> = streams.iter().map(|_| socket::dial(&net.client, front())).collect();
    let rounds = streams.iter().map(Vec::len).max().unwrap_or(0);
    for round in 0..rounds {
        for (stream, parts) in open.iter().zip(streams) {
            if let Some(part) = parts.get(round) {
                socket::send(stream, part);
            }
        }
    }
    for stream in &open {
        socket::finish(stream);
    }
    open
}

/// Asserts that the backend receives exactly `expected`, in any order.
fn assert_received(recorder: &Recorder, expected: impl IntoIterator<Item = Vec<u8>>) {
    let mut expected: HashSet<Vec<u8>> = expected.into_iter().collect();
    while !expected.is_empty() {
        let record = recorder.next();
        assert_eq!(record.end, End::Closed);
        assert!(
            expected.remove(&record.bytes),
            "the backend received {} bytes that nobody sent; {} streams are still to come",
            record.bytes.len(),
            expected.len()
        );
    }
}

/// Returns the first bytes of `openssl s_client`.
fn captured_from_openssl(net: &Topology) -> Vec<u8> {
    let (sender, captured) = mpsc::channel();
    let _server = Server::start(&net.gateway, (GATEWAY_V4, 4433), move |stream, _| {
        let mut bytes = socket::read_exactly(stream, 5);
        let length = u16::from_be_bytes([bytes[3], bytes[4]]);
        bytes.extend(socket::read_exactly(stream, usize::from(length)));
        sender.send(bytes).unwrap();
    });
    let mut command = net.client.command("openssl");
    command.args(["s_client", "-connect", &format!("{GATEWAY_V4}:4433"), "-servername", NAME, "-alpn", "h2,http/1.1"]);
    let mut client = Process::spawn("openssl s_client", &mut command).unwrap();
    let bytes = captured.recv_timeout(PATIENCE).unwrap();
    client.wait().unwrap();
    bytes
}

#[test]
fn cut_at_every_byte_into_two_segments() {
    let Some(net) = Topology::or_skip() else { return };
    let hello = captured_from_openssl(&net);
    assert!(hello.len() > 200, "openssl's hello has only {} bytes", hello.len());
    let (recorder, _daemon) = start(&net);

    // What follows the hello tells the streams apart.
    let whole: Vec<Vec<u8>> =
        (1..hello.len()).map(|cut| [&hello, format!("cut at {cut}").as_bytes()].concat()).collect();
    let parts: Vec<Vec<&[u8]>> = whole.iter().zip(1..).map(|(bytes, cut)| vec![&bytes[..cut], &bytes[cut..]]).collect();
    let _open = send_in_parts(&net, &parts);
    assert_received(&recorder, whole);
}

#[test]
fn in_records_of_every_size() {
    let Some(net) = Topology::or_skip() else { return };
    let message = hello::from_records(&captured_from_openssl(&net));
    let (recorder, _daemon) = start(&net);

    let streams: Vec<Vec<u8>> = (1..=message.len())
        .map(|size| [hello::into_records(&message, size), format!("records of {size}").into_bytes()].concat())
        .collect();
    let parts: Vec<Vec<&[u8]>> = streams.iter().map(|bytes| vec![bytes.as_slice()]).collect();
    let _open = send_in_parts(&net, &parts);
    assert_received(&recorder, streams);
}

#[test]
fn longer_than_a_segment_or_a_record_and_with_something_behind() {
    let Some(net) = Topology::or_skip() else { return };
    let (recorder, _daemon) = start(&net);

    let change_cipher_spec: &[u8] = &[20, 3, 3, 0, 1, 1];
    let early_data: &[u8] = &[&[23, 3, 3, 0, 64][..], &[0xee; 64]].concat();
    let hello = Hello::to(NAME).alpns(&["h2"]);
    let rows: Vec<Vec<u8>> = vec![
        [hello.bytes().as_slice(), b"plain"].concat(),
        hello.clone().padding(1400).bytes(),
        hello.clone().padding(3000).bytes(),
        hello.clone().padding(3000).records(1000),
        hello.clone().padding(15_000).bytes(),
        hello.clone().padding(15_000).records(200),
        [hello.bytes().as_slice(), change_cipher_spec].concat(),
        [hello.bytes().as_slice(), early_data].concat(),
        [hello.bytes().as_slice(), change_cipher_spec, early_data].concat(),
        [hello.bytes().as_slice(), change_cipher_spec, early_data, &[0x55; 40_000]].concat(),
    ];
    // Each once in one piece, and once torn where the hello ends or in the middle of a long one.
    let whole: Vec<Vec<&[u8]>> = rows.iter().map(|bytes| vec![bytes.as_slice()]).collect();
    let _open = send_in_parts(&net, &whole);
    assert_received(&recorder, rows.clone());
    let torn: Vec<Vec<&[u8]>> = rows
        .iter()
        .map(|bytes| {
            let (head, tail) = bytes.split_at(hello.bytes().len());
            vec![head, tail]
        })
        .collect();
    let _open = send_in_parts(&net, &torn);
    assert_received(&recorder, rows);
}

#[test]
fn one_byte_at_a_time() {
    let Some(net) = Topology::or_skip() else { return };
    let (recorder, _daemon) = start(&net);
    let bytes = Hello::to(NAME).bytes();
    let stream = socket::dial(&net.client, front());
    for byte in &bytes {
        socket::send(&stream, &[*byte]);
        // The pace of a slow sender: every byte is a read of its own at the daemon.
        rpxy_l4_tests::wait::pause(std::time::Duration::from_millis(2));
    }
    socket::finish(&stream);
    assert_received(&recorder, [bytes]);
}

#[test]
fn a_retried_handshake_passes_unchanged() {
    // A HelloRetryRequest makes the client send a second hello on the same connection.
    let Some(net) = Topology::or_skip() else { return };
    let certificate = programs::Certificate::new(&[NAME]);
    let _server = programs::openssl_server(&net.backend, at(443), &certificate, &["-groups", "P-384"]);
    let keys = format!("server_names = [\"{NAME}\"]");
    let _daemon =
        Daemon::start(&net.gateway, &format!("listen_port = {PORT}\n{}", rule("name", "tls", at(443), &keys)));
    let mut command = programs::curl(&net.client);
    command.args(["--curves", "X25519:P-384", "--resolve", &format!("{NAME}:{PORT}:{GATEWAY_V4}")]);
    command.arg("--cacert").arg(certificate.file()).arg(format!("https://{NAME}:{PORT}/"));
    let page = programs::text(&mut command);
    assert!(page.contains("s_server -www"), "{page}");
}
