//! `explain` against the connection path itself: made-up configurations, states of targets, clients and first bytes, each
//! explained and then sent over the loopback interface.

use std::{
    collections::BTreeSet,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::{Duration, Instant},
};

use rpxy_l4_proto::tls::{Offer, client_hello, handshake_records};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpSocket},
    sync::{mpsc, oneshot},
    time::timeout,
};

use super::{
    super::{Shared, Snapshot, Socket, accept},
    explain,
};
use crate::{
    config,
    config::model::{Dns, Transport},
    explain::{Draw, Question, Verdict},
    limit::Bans,
    log::AccessLog,
    metrics::Metrics,
    resolve::Resolver,
    route::Targets,
};

/// Backends of the test.
const BACKENDS: usize = 5;
const PATIENCE: Duration = Duration::from_secs(20);
/// A hello of a Go client: outside for `public.example`, inside for `private.example`; and what opens it.
const ENCRYPTED: &[u8] = include_bytes!("../../../../rpxy-l4-proto/src/ech/testdata/go_hello_first.bin");
const ECH: &str = "ech_config_list = \
                   'AEH+DQA9QQAgACBA33gCXp5kB6qZDDobZiUWmF3pM58j/PDRen/3YLbEWwAEAAEAAQAOcHVibGljLmV4YW1wbGUAAA=='\n\
                   private_keys = ['iCqDaWFEAeGlFe0ajA6KD/5SKj9w7lT9bmx2tu1Od0c=']\n";

fn list(words: &[&str]) -> String {
    format!("{words:?}")
}

/// A configuration whose targets are at `ports`.
fn configuration(draw: &Draw, ports: &[u16]) -> String {
    let targets = || {
        let count = 1 + draw.below(3);
        let targets: Vec<String> = (0..count)
            .map(|index| {
                // One of them has to be neither.
                let mark =
                    if index == 0 { "" } else { draw.one(&["", ", backup = true", ", down = true", ", weight = 3"]) };
                format!("{{ address = '127.0.0.1:{}'{mark} }}", draw.one(ports))
            })
            .collect();
        format!("[{}]", targets.join(", "))
    };
    let balance = || draw.one(&["none", "source_ip", "source_socket", "random", "round_robin", "least_conn"]);
    // The port is a placeholder: the test binds the socket.
    let mut text = "listen_port = 1\ntcp_probe_timeout = '2s'\n".to_owned();
    if draw.one_in(2) {
        text += &format!("tcp_target = {}\ntcp_load_balance = '{}'\n", targets(), balance());
    }
    if draw.one_in(3) {
        text += "unmatched = 'default'\n";
    }
    if draw.one_in(4) {
        text += draw.one(&["deny = ['127.0.2.0/24']\n", "allow = ['127.0.1.0/24', '127.0.3.0/24', '192.0.2.0/24']\n"]);
    }
    if draw.one_in(6) {
        text +=
            "tcp_max_connections_per_source = 1\ntcp_new_connections_per_source = 1\ntcp_new_connections_burst = 1\n";
    }
    #[cfg(feature = "proxy-protocol")]
    if draw.one_in(4) {
        text += "tcp_trusted_proxies = ['127.0.1.0/24']\n";
        text += draw.one(&["tcp_recv_proxy_protocol = true\n", "tcp_recv_proxy_protocol = 'optional'\n"]);
    }
    for rule in 0..1 + draw.below(8) {
        let protocol = draw.one(&["tls", "tls", "tls", "http", "http", "ssh", "socks5"]);
        text += &format!(
            "[protocols.r{rule}]\nprotocol = '{protocol}'\ntarget = {}\nload_balance = '{}'\n",
            targets(),
            balance()
        );
        let names = draw.some(&["a.example", "b.example", "x.a.example", "*.example", "*.a.example"]);
        if matches!(protocol, "tls" | "http") && !names.is_empty() {
            text += &format!("server_names = {}\n", list(&names));
        }
        let alpns = draw.some(&["h2", "http/1.1"]);
        if protocol == "tls" && !alpns.is_empty() {
            text += &format!("alpns = {}\n", list(&alpns));
        }
        let from = draw.some(&["127.0.1.0/24", "127.0.0.0/16", "127.0.2.1", "192.0.2.0/24"]);
        if !from.is_empty() && draw.one_in(2) {
            text += &format!("from = {}\n", list(&from));
        }
        if protocol == "tls" && draw.one_in(2) {
            let policy = draw.one(&["allowed", "allowed", "required", "rejected"]);
            let private = draw.one(&["private.example", "*.example", "other.example"]);
            text += &format!(
                "[protocols.r{rule}.ech]\n{ECH}policy = '{policy}'\n[[protocols.r{rule}.ech.private]]\n\
                 server_names = ['{private}']\ntarget = {}\n",
                targets()
            );
        }
    }
    text
}

fn hello(name: Option<&str>, alpn: &[&[u8]]) -> Vec<u8> {
    let (random, key_share) = ([1; 32], [2; 32]);
    let offer = Offer { server_name: name, alpn, random, session_id: &[], key_share, transport_parameters: None };
    handshake_records(&client_hello(&offer).unwrap(), 1)
}

fn first_bytes(draw: &Draw) -> Vec<u8> {
    let name =
        draw.one(&["a.example", "b.example", "x.a.example", "y.x.a.example", "c.example", "example", "A.Example."]);
    let mut damaged = ENCRYPTED.to_vec();
    if let Some(last) = damaged.last_mut() {
        *last ^= 1;
    }
    let bytes = match draw.below(11) {
        0 | 1 => hello(Some(name), &[]),
        2 => hello(Some(name), draw.one(&[&[&b"h2"[..]] as &[&[u8]], &[b"http/1.1", b"h2"], &[b"h3"]])),
        3 => hello(None, draw.one(&[&[] as &[&[u8]], &[&b"h2"[..]]])),
        4 => format!("GET / HTTP/1.1\r\nHost: {name}\r\n\r\n").into_bytes(),
        5 => draw.one(&[&b"GET / HTTP/1.0\r\n\r\n"[..], b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"]).to_vec(),
        6 => b"SSH-2.0-x\r\n".to_vec(),
        7 => vec![5, 1, 0],
        8 | 9 => handshake_records(draw.one(&[ENCRYPTED, ENCRYPTED, &damaged]), 1),
        _ => draw.one(&[&b"EHLO x\r\n"[..], &[22, 3, 1, 0, 4, 1, 1, 0, 0], &[0; 40]]).to_vec(),
    };
    let cut = if draw.one_in(6) { 1 + draw.below(bytes.len()) } else { bytes.len() };
    let header: &[u8] = if draw.one_in(8) {
        draw.one(&[&b"PROXY TCP4 192.0.2.7 192.0.2.1 5 443\r\n"[..], b"PROXY UNKNOWN\r\n", b"PROXY TCP4 nobody\r\n"])
    } else {
        &[]
    };
    [header, &bytes[..cut]].concat()
}

/// Servers that tell when somebody comes, and hang up.
async fn backends() -> (Vec<u16>, mpsc::UnboundedReceiver<u16>) {
    let (told, come) = mpsc::unbounded_channel();
    let mut ports = Vec::new();
    for _ in 0..BACKENDS {
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (port, told) = (socket.local_addr().unwrap().port(), told.clone());
        ports.push(port);
        tokio::spawn(async move {
            while let Ok((stream, _)) = socket.accept().await {
                told.send(port).unwrap();
                drop(stream);
            }
        });
    }
    (ports, come)
}

/// What became of a connection: the backend that it reached, or the outcome that was counted.
async fn send(from: IpAddr, to: SocketAddr, bytes: &[u8]) {
    let socket = TcpSocket::new_v4().unwrap();
    socket.bind(SocketAddr::new(from, 0)).unwrap();
    let mut stream = timeout(PATIENCE, socket.connect(to)).await.unwrap().unwrap();
    // Whoever is turned away early may be reset.
    if stream.write_all(bytes).await.is_ok() {
        drop(stream.shutdown().await);
    }
    let mut rest = Vec::new();
    drop(timeout(PATIENCE, stream.read_to_end(&mut rest)).await.expect("an end"));
}

fn outcomes(metrics: &Metrics) -> Vec<(String, u64)> {
    let text = metrics.encode().unwrap();
    let counted = text.lines().filter_map(|line| {
        let rest = line.strip_prefix("rpxy_l4_tcp_ended_total{outcome=\"")?;
        let (outcome, count) = rest.split_once("\"} ")?;
        Some((outcome.to_owned(), count.parse().unwrap()))
    });
    counted.collect()
}

fn ended(before: &[(String, u64)], after: &[(String, u64)]) -> Option<String> {
    after
        .iter()
        .find(|(outcome, count)| !before.contains(&(outcome.clone(), *count)))
        .map(|(outcome, _)| outcome.clone())
}

#[tokio::test]
async fn an_explanation_is_what_becomes_of_the_connection() {
    let (ports, mut come) = backends().await;
    let (mut gone, mut refused, mut uncertain) = (0, 0, 0);
    let mut states = BTreeSet::new();
    for seed in 0..80 {
        let draw = Draw::new(seed);
        let text = configuration(&draw, &ports);
        let Ok(loaded) = config::parse(&text) else { panic!("seed {seed}: {text}") };
        let config = loaded.config;
        if !config.top.serves(Transport::Tcp) {
            continue;
        }
        let (metrics, started) = (Metrics::new(), Instant::now());
        let bans = Arc::new(Bans::default());
        bans.set_configured(&["127.0.4.0/24".parse().unwrap()]);
        let shared = Arc::new(Shared::new(bans, Arc::clone(&metrics), AccessLog::nowhere(), started));
        shared.divide_descriptors(0, 1);
        let dns = Dns { min_ttl: Duration::from_secs(1), max_ttl: Duration::from_secs(1) };
        let resolver = Resolver::new(tokio::runtime::Handle::current(), dns, Arc::clone(&metrics));
        let targets = Targets::new(metrics.tcp_accounts());
        let socket = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let at = socket.local_addr().unwrap();
        let snapshot = Snapshot::new(&config, &[(at.into(), "default")], &shared, &targets, &resolver);
        drop(shared.replace(snapshot));
        let (stop, stopped) = oneshot::channel::<()>();
        let stopped = async move { drop(stopped.await) };
        tokio::spawn(accept(Arc::new(Socket::Tcp(socket)), at.into(), Arc::clone(&shared), stopped));
        for case in 0..12 {
            for (_, health) in targets.list() {
                match draw.below(8) {
                    0 => drop(health.administrative().drain(shared.uptime(tokio::time::Instant::now()))),
                    1 => drop(health.failed(shared.uptime(tokio::time::Instant::now()), Duration::from_secs(3600))),
                    2 => drop((health.administrative().up(), health.reached())),
                    _ => {}
                }
            }
            let from: IpAddr =
                draw.one(&["127.0.0.1", "127.0.1.1", "127.0.2.1", "127.0.3.1", "127.0.4.1"]).parse().unwrap();
            let bytes = first_bytes(&draw);
            let question = Question {
                transport: Transport::Tcp,
                listener: None,
                from: SocketAddr::new(from, 0),
                first: vec![bytes.clone()],
                rule: None,
                limit: 100,
            };
            let snapshot = shared.snapshot.load_full();
            let explained = explain(&shared, &snapshot, &config.top, &question, ("daemon", false, false)).unwrap();
            let about = format!("seed {seed}, case {case}: {bytes:?} from {from}: {explained:#?}\n{text}");
            let before = outcomes(&metrics);
            // Asking leaves no trace.
            let again = explain(&shared, &snapshot, &config.top, &question, ("daemon", false, false)).unwrap();
            assert_eq!(again.verdict, explained.verdict, "{about}");
            // A client of a load balancer comes by that.
            if explained.notes.iter().any(|note| note.contains("named by a PROXY header")) {
                let header = format!("PROXY TCP4 {from} 192.0.2.1 5 443\r\n").into_bytes();
                send([127, 0, 1, 1].into(), at, &[header, bytes].concat()).await;
            } else {
                send(from, at, &bytes).await;
            }
            let ended = timeout(PATIENCE, async {
                loop {
                    match ended(&before, &outcomes(&metrics)) {
                        Some(outcome) => break outcome,
                        None => tokio::task::yield_now().await,
                    }
                }
            });
            let ended = ended.await.expect("it is counted");
            let reached = come.try_recv().ok();
            match &explained.verdict {
                Verdict::Goes { rule, to } => {
                    let port = reached.unwrap_or_else(|| panic!("{ended}, {about}"));
                    assert!(to.contains(&format!("127.0.0.1:{port}").into()), "{port}, {about}");
                    assert_eq!(explained.chosen.as_ref().map(|chosen| &chosen.rule), Some(rule), "{about}");
                    gone += 1;
                    uncertain += usize::from(to.len() > 1);
                }
                Verdict::Refused { reason, .. } => {
                    assert_eq!((&*ended, reached), (*reason, None), "{about}");
                    refused += 1;
                }
                Verdict::Answered { .. } | Verdict::Waits { .. } => panic!("{about}"),
            }
            states.extend(explained.recognised.ech);
            // Each rule has its say, once.
            let of_transport = config.top.rules.len();
            let chosen = usize::from(explained.chosen.as_ref().is_some_and(|chosen| chosen.rule.is_some()));
            assert_eq!(explained.others.len() + chosen, of_transport, "{about}");
            assert!(explained.others.iter().all(|other| other.why != "undecided"), "{about}");
        }
        drop(stop);
    }
    // What is answered by chance is rarer without PROXY headers.
    for state in ["accepted", "not_offered", "switched_off", "undecryptable"] {
        assert!(states.contains(state), "{state}: {states:?}");
    }
    assert!(gone > 150 && refused > 100 && uncertain > 10, "{gone} {refused} {uncertain}");
}
