//! Programs that people use, through a relayed and through a spliced connection.

use std::{
    fs,
    io::{BufRead as _, BufReader, Write as _},
    process::Stdio,
    time::Duration,
};

use rpxy_l4_tests::{
    peers::{
        postgres::Postgres,
        programs::{self, Certificate, SshServer},
        server::Server,
    },
    random::Random,
    socket,
    topology::Topology,
    wait::pause,
};

use super::mode::{Mode, Service, both_modes};

both_modes! {
    a_shell_session_takes_turns_and_carries_bulk,
    a_database_answers_in_small_and_in_large,
    a_download_over_tls_is_whole,
    a_connection_that_was_upgraded_carries_messages_both_ways,
}

const SERVICE: Service = Service(7000);

fn a_shell_session_takes_turns_and_carries_bulk(mode: Mode) {
    let Some(net) = Topology::or_skip() else { return };
    let server = SshServer::start(&net.backend, SERVICE.back(false));
    let _daemon = mode.start(&net, &[SERVICE]);
    let mut turns = server.client(&net.client, SERVICE.front(false), "cat");
    let mut child = turns.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
    let (mut input, output) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
    let mut output = BufReader::new(output);
    for turn in 0..300 {
        let (line, mut answer) = (format!("turn {turn}\n"), String::new());
        input.write_all(line.as_bytes()).unwrap();
        output.read_line(&mut answer).unwrap();
        assert_eq!(answer, line);
    }
    drop(input);
    assert!(child.wait().unwrap().success());

    let numbers = "seq 1 1500000 | sha256sum";
    let here = programs::text(net.client.command("sh").args(["-c", numbers]));
    let bulk = programs::output(&mut server.client(&net.client, SERVICE.front(false), "seq 1 1500000"));
    assert_eq!(bulk.len(), 10_888_896);
    let there = programs::text(&mut server.client(&net.client, SERVICE.front(false), numbers));
    assert_eq!(here, there);
}

fn a_database_answers_in_small_and_in_large(mode: Mode) {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Postgres::start(&net.backend, SERVICE.back(false));
    let _daemon = mode.start(&net, &[SERVICE]);
    let ask = |query: &str| programs::text(&mut Postgres::client(&net.client, SERVICE.front(false), query));
    assert_eq!(ask("select 6 * 7"), "42");
    let rows = ask("select n, repeat('x', 100) from generate_series(1, 50000) n");
    assert_eq!(rows.lines().count(), 50_000);
    assert!(rows.lines().enumerate().all(|(n, line)| line == format!("{}|{}", n + 1, "x".repeat(100))));
    let long = "y".repeat(100_000);
    assert_eq!(ask(&format!("select length('{long}')")), "100000");
}

fn a_download_over_tls_is_whole(mode: Mode) {
    const LENGTH: usize = 30_000_000;
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&["files.test"]);
    let (port, address) = (SERVICE.0, SERVICE.back(false));
    let (file, key) = (certificate.file(), certificate.key());
    let http = format!(
        "server {{ listen {address} ssl; ssl_certificate {}; ssl_certificate_key {}; location / {{ root DIR; }} }}",
        file.display(),
        key.display()
    );
    let server = programs::nginx(&net.backend, &http, "", &[port]);
    let mut random = Random::new(9);
    let content: Vec<u8> = std::iter::repeat_with(|| random.bits().to_be_bytes()).take(LENGTH / 8).flatten().collect();
    fs::write(server.directory().join("file"), &content).unwrap();
    let _daemon = mode.start(&net, &[SERVICE]);
    let front = SERVICE.front(false);
    let mut client = programs::curl(&net.client);
    client.args(["--cacert", &file.display().to_string(), "--resolve"]);
    client.arg(format!("files.test:{}:{}", front.port(), front.ip()));
    client.arg(format!("https://files.test:{}/file", front.port()));
    assert!(programs::output(&mut client) == content, "the file has changed on the way");
}

fn a_connection_that_was_upgraded_carries_messages_both_ways(mode: Mode) {
    const REQUEST: &[u8] =
        b"GET /chat HTTP/1.1\r\nHost: chat.test\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const ANSWER: &[u8] = b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n";
    const NEWS: &[u8] = b"news, which nobody has asked for";
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::start(&net.backend, SERVICE.back(false), |stream, _| {
        assert_eq!(socket::read_exactly(stream, REQUEST.len()), REQUEST);
        socket::send(stream, ANSWER);
        for turn in 0..500_usize {
            // Messages of any size, and now and then one by itself after a silence.
            let message = socket::read_exactly(stream, 1 + turn * 7 % 1000);
            socket::send(stream, &message);
            if turn % 50 == 0 {
                pause(Duration::from_millis(60));
                socket::send(stream, NEWS);
            }
        }
    });
    let _daemon = mode.start(&net, &[SERVICE]);
    let stream = socket::dial(&net.client, SERVICE.front(false));
    socket::send(&stream, REQUEST);
    assert_eq!(socket::read_exactly(&stream, ANSWER.len()), ANSWER);
    for turn in 0..500_usize {
        let message = vec![u8::try_from(turn % 256).unwrap(); 1 + turn * 7 % 1000];
        socket::send(&stream, &message);
        assert_eq!(socket::read_exactly(&stream, message.len()), message, "turn {turn}");
        if turn % 50 == 0 {
            assert_eq!(socket::read_exactly(&stream, NEWS.len()), NEWS, "turn {turn}");
        }
    }
    assert_eq!(socket::read_to_end(&stream).0, b"");
}
