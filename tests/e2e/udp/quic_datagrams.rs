//! QUIC datagram by datagram: what a browser sends in every order, hellos that never end, versions that nobody
//! knows, and junk.

use rpxy_l4_tests::{
    background::alongside,
    daemon::Daemon,
    hello::Hello,
    initial::{self, Initial},
    peers::{
        programs::Certificate,
        quic::{QuicClient, QuicServer},
        udp::{UdpClient, UdpServer},
    },
    process::PATIENCE,
    topology::{CLIENT_V4, Topology, client_pool},
    wait,
};

use crate::support::{PORT, at, front, rule, udp_to};

rpxy_l4_tests::offload_modes! {
    Steered {
        a_flood_of_hellos_without_end_costs_little_and_stops_nobody,
        other_protocols_beside_a_connection_without_ids_go_to_the_default_target,
    }
    NotSteered {
        the_backend_gets_what_a_browser_sent_in_the_order_in_which_it_was_sent,
        a_hello_without_its_end_reaches_nobody,
        what_is_certainly_quic_never_reaches_the_default_target,
        hellos_of_both_versions_are_read_in_pieces_of_any_order,
        a_reused_client_port_reaches_the_server_of_its_new_name,
        what_cannot_be_read_goes_where_its_key_says,
    }
    Unknown {
        mutated_datagrams_end_neither_the_daemon_nor_what_it_serves,
    }
}

/// The first datagrams of Chromium 156 to `public.example`: the hello is in the first two, or in the first and the two
/// retransmissions that follow.
const CHROMIUM: [&[u8]; 4] = [
    include_bytes!("../../data/chromium-d0.bin"),
    include_bytes!("../../data/chromium-d1.bin"),
    include_bytes!("../../data/chromium-d2.bin"),
    include_bytes!("../../data/chromium-d3.bin"),
];

fn client(net: &Topology) -> UdpClient {
    UdpClient::bind(&net.client, (CLIENT_V4, 0))
}

/// The rule of the name `one.test` at port 7001.
fn one() -> String {
    rule("one", "quic", at(7001), "server_names = [\"one.test\"]")
}

fn hello(name: &str, number: u8) -> Vec<u8> {
    Initial::v1(&[number; 8], &[number; 4]).datagrams(&Hello::to(name)).remove(0)
}

fn permutations(items: &[usize]) -> Vec<Vec<usize>> {
    if items.is_empty() {
        return vec![Vec::new()];
    }
    let mut all = Vec::new();
    for (n, first) in items.iter().enumerate() {
        let rest = [&items[..n], &items[n + 1..]].concat();
        all.extend(permutations(&rest).into_iter().map(|rest| [vec![*first], rest].concat()));
    }
    all
}

fn the_backend_gets_what_a_browser_sent_in_the_order_in_which_it_was_sent() {
    let Some(net) = Topology::or_skip() else { return };
    let public = UdpServer::recorder(&net.backend, at(7000));
    let other = UdpServer::recorder(&net.backend, at(7001));
    let config = format!("listen_port = {PORT}\n")
        + &rule("public", "quic", at(7000), "server_names = [\"public.example\"]")
        + &rule("other", "quic", at(7001), "");
    let _daemon = Daemon::start(&net.gateway, &config);

    let mut orders = vec![vec![0, 1], vec![1, 0], vec![0, 0, 1], vec![0, 2, 3], vec![1, 1, 1, 0]];
    for order in permutations(&[0, 1, 2, 3]) {
        for (position, again) in order.clone().into_iter().enumerate() {
            // Once more at once, and once more at the end.
            let mut doubled = order.clone();
            doubled.insert(position, again);
            orders.push(doubled);
            orders.push([order.clone(), vec![again]].concat());
        }
        orders.push(order);
    }
    for order in orders {
        let client = client(&net);
        for n in &order {
            client.send(front(), CHROMIUM[*n]);
        }
        let received = public.wait_for(order.len());
        assert!(received.iter().all(|datagram| datagram.source == received[0].source), "{order:?}: two sessions");
        let received: Vec<_> =
            received.iter().map(|datagram| CHROMIUM.iter().position(|sent| *sent == datagram.bytes)).collect();
        assert_eq!(received, order.iter().map(|n| Some(*n)).collect::<Vec<_>>());
        public.take();
    }
    assert!(other.received().is_empty());
}

fn a_hello_without_its_end_reaches_nobody() {
    let Some(net) = Topology::or_skip() else { return };
    let default = UdpServer::recorder(&net.backend, at(7000));
    let server = UdpServer::recorder(&net.backend, at(7001));
    let any = rule("any", "quic", at(7001), "");
    let daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), "unmatched = \"default\"") + &any));
    let long = Initial::v1(&[7; 8], &[7; 4]).datagrams(&Hello::to("one.test").padding(2500));
    let begun: [(&str, &[&[u8]]); 4] = [
        ("the second half of a browser's", &[CHROMIUM[1]]),
        ("one retransmission", &[CHROMIUM[2], CHROMIUM[2]]),
        ("the first of three", &[&long[0]]),
        ("the last two of three", &[&long[2], &long[1]]),
    ];
    for ((name, datagrams), number) in begun.into_iter().zip(10..) {
        let client = client(&net);
        for datagram in datagrams {
            client.send(front(), datagram);
        }
        // What comes after it from the same socket is served.
        let complete = hello("one.test", number);
        client.send(front(), &complete);
        server.wait_for(1);
        let received = server.take();
        assert!(received.iter().all(|datagram| datagram.bytes == complete), "{name}");
    }
    assert!(default.received().is_empty());
    wait::until("every session is in the log", || (daemon.lines_with("[start]").len() == begun.len()).then_some(()));
}

fn what_is_certainly_quic_never_reaches_the_default_target() {
    let Some(net) = Topology::or_skip() else { return };
    let default = UdpServer::echo(&net.backend, at(7000), "");
    let unnamed = UdpServer::recorder(&net.backend, at(7002));
    let any = rule("any", "quic", at(7002), "");
    for (rules, reached) in [(one(), false), (one() + &any, true)] {
        let _daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), "") + &rules));
        let initial = |number: u8| Initial::v1(&[number; 8], &[number; 4]);
        let no_hello = initial(1).datagram(0, &[(0, &[2, 0, 0, 1, 0])]);
        let too_long = initial(2).datagram(0, &[(0, &[1, 1, 0, 0])]);
        for datagram in [&no_hello, &too_long] {
            client(&net).send(front(), datagram);
            if reached {
                assert_eq!(unnamed.wait_for(1)[0].bytes, *datagram);
                unnamed.take();
            }
            let other = client(&net);
            assert_eq!(other.ask(front(), b"something else"), b"something else");
            assert_eq!(default.take().len(), 1, "nothing but that");
        }
    }
}

fn other_protocols_beside_a_connection_without_ids_go_to_the_default_target() {
    let Some(net) = Topology::or_skip() else { return };
    let default = UdpServer::recorder(&net.backend, at(7000));
    let quic = UdpServer::start(&net.backend, at(7001), |datagram| match datagram.bytes.as_slice() {
        [0x80..=0xff, ..] => vec![initial::from_server(&[1; 4], &[])],
        short => vec![short.to_vec()],
    });
    let _daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), "") + &one()));
    let client = client(&net);
    assert_eq!(client.ask(front(), &hello("one.test", 1))[0] & 0x80, 0x80);
    let data = initial::short_header(&[]);
    for _ in 0..10 {
        assert_eq!(client.ask(front(), &data), data);
    }
    let stun = [&[0, 1, 0, 8, 0x21, 0x12, 0xa4, 0x42][..], &[7; 20]].concat();
    let dtls = [&[22, 0xfe, 0xfd][..], &[0; 60]].concat();
    for other in [&stun, &dtls] {
        client.send(front(), other);
        assert_eq!(default.wait_for(1)[0].bytes, *other);
        default.take();
        assert_eq!(client.ask(front(), &data), data, "the connection goes on");
    }
    assert!(quic.payloads().iter().all(|payload| *payload != stun && *payload != dtls));
}

fn hellos_of_both_versions_are_read_in_pieces_of_any_order() {
    let Some(net) = Topology::or_skip() else { return };
    let server = UdpServer::recorder(&net.backend, at(7001));
    let other = UdpServer::recorder(&net.backend, at(7000));
    let _daemon = Daemon::start(&net.gateway, &(udp_to(at(7000), "") + &one()));
    for (initial, number) in
        [Initial::v1(&[1; 8], &[]), Initial::v1(&[2; 20], &[3; 20]), Initial::v2(&[4; 9], &[5])].into_iter().zip(0..)
    {
        let message = Hello::to("one.test").padding(700).message();
        let (start, rest) = message.split_at(100);
        let (middle, end) = rest.split_at(400);
        let pieces: [(usize, &[u8]); 3] = [(500, end), (0, start), (100, middle)];
        // All in one packet, one in each of three, and with overlaps and repetitions.
        for (name, packets) in [
            ("one packet", vec![pieces.to_vec()]),
            ("three packets", pieces.iter().map(|piece| vec![*piece]).collect()),
            ("overlapping", vec![vec![(50, &message[50..600])], vec![pieces[1], pieces[1]], vec![pieces[0]]]),
        ] {
            let client = client(&net);
            let sent: Vec<_> = packets.iter().zip(0..).map(|(frames, n)| initial.datagram(n, frames)).collect();
            sent.iter().for_each(|datagram| client.send(front(), datagram));
            server.wait_for(sent.len());
            let received: Vec<_> = server.take().into_iter().map(|datagram| datagram.bytes).collect();
            assert!(received == sent, "initial {number}, {name}");
        }
    }
    assert!(other.received().is_empty());
}

fn a_reused_client_port_reaches_the_server_of_its_new_name() {
    let Some(net) = Topology::or_skip() else { return };
    let one_server = UdpServer::recorder(&net.backend, at(7001));
    let two_server = UdpServer::recorder(&net.backend, at(7002));
    let two = rule("two", "quic", at(7002), "server_names = [\"two.test\"]");
    let daemon = Daemon::start(&net.gateway, &(format!("listen_port = {PORT}\n") + &one() + &two));
    // Browsers choose no connection ID of their own; quinn does.
    for (name, scids) in
        [("with source connection IDs", [vec![1; 5], vec![2; 5]]), ("without", [Vec::new(), Vec::new()])]
    {
        let client = client(&net);
        let [first, second] = [("one.test", 1), ("two.test", 2)].map(|(server_name, number)| {
            let initial = Initial::v1(&[number; 8], &scids[usize::from(number) - 1]);
            initial.datagrams(&Hello::to(server_name)).remove(0)
        });
        client.send(front(), &first);
        assert!(one_server.wait_for(1)[0].bytes == first, "{name}");
        client.send(front(), &second);
        assert!(two_server.wait_for(1)[0].bytes == second, "{name}");
        for port in [7001, 7002] {
            daemon.wait_for(0, &format!("[start] udp:quic: {} -> {}", client.address(), at(port)));
        }
        assert_eq!((one_server.take().len(), two_server.take().len()), (1, 1), "{name}");
    }
}

fn what_cannot_be_read_goes_where_its_key_says() {
    let Some(net) = Topology::or_skip() else { return };
    let default = UdpServer::recorder(&net.backend, at(7000));
    let one_server = UdpServer::recorder(&net.backend, at(7001));
    let any_server = UdpServer::recorder(&net.backend, at(7002));
    let any = rule("any", "quic", at(7002), "");
    let unknown = initial::unknown_version(0x1a2a_3a4a, &[1; 8], &[2; 8]);
    let short = initial::short_header(&[9; 8]);
    let zero_rtt = initial::zero_rtt(&[1; 8], &[2; 8]);
    // Rows: keys, rules, datagram, port that it reaches.
    let rows: [(&str, &str, &[u8], Option<u16>); 12] = [
        ("", "", &unknown, Some(7000)),
        ("", "one", &unknown, Some(7000)),
        ("", "one any", &unknown, Some(7002)),
        ("quic_unknown_version = \"default\"", "one any", &unknown, Some(7002)),
        ("quic_unknown_version = \"drop\"", "one any", &unknown, None),
        ("", "", &short, Some(7000)),
        ("", "one any", &short, Some(7000)),
        ("orphan = \"drop\"", "one", &short, None),
        ("orphan = \"default\"", "one any", &short, Some(7000)),
        ("", "", &zero_rtt, Some(7000)),
        ("", "one any", &zero_rtt, None),
        ("orphan = \"drop\"", "one", &zero_rtt, None),
    ];
    for (keys, rules, datagram, reached) in rows {
        let mut config = udp_to(at(7000), keys);
        for (name, text) in [("one", one()), ("any", any.clone())] {
            config += if rules.contains(name) { &text } else { "" };
        }
        let daemon = Daemon::start(&net.gateway, &config);
        let row = format!("{keys}, rules {rules:?}, {:02x?}", datagram[0]);
        let client = client(&net);
        client.send(front(), datagram);
        // The same socket then says something that is sure to arrive, behind what was sent before.
        let last = hello("one.test", 8);
        client.send(front(), &last);
        let (server, last_server) =
            if rules.contains("one") { (&one_server, Some(7001)) } else { (&default, Some(7000)) };
        server.wait_for(1 + usize::from(reached == last_server));
        let mut seen = Vec::new();
        for (server, port) in [(&default, 7000), (&one_server, 7001), (&any_server, 7002)] {
            if reached == Some(port) {
                server.wait_for(1);
            }
            seen.extend(server.take().into_iter().map(|datagram| (datagram.bytes, Some(port))));
        }
        let mut expected = vec![(last, last_server)];
        expected.extend(reached.map(|port| (datagram.to_vec(), Some(port))));
        seen.sort();
        expected.sort();
        assert!(seen == expected, "{row}: {:?}", seen.iter().map(|(bytes, port)| (bytes[0], port)).collect::<Vec<_>>());
        // Dropped without a word: the kit looks for warnings.
        daemon.stop();
    }
}

fn a_flood_of_hellos_without_end_costs_little_and_stops_nobody() {
    const SOURCES: u16 = 10_000;
    const GROWTH: u64 = 64 << 20;
    let Some(net) = Topology::or_skip() else { return };
    let certificate = Certificate::new(&["one.test"]);
    let _server = QuicServer::start(&net.backend, at(7001), "one", &certificate, &["h3"]);
    let daemon = Daemon::start(&net.gateway, &(format!("listen_port = {PORT}\n") + &one()));
    let quic = QuicClient::new(&net.client, (CLIENT_V4, 0), &certificate);
    assert_eq!(quic.connect(front(), "one.test", &["h3"]).ask().tag, "one");
    let before = daemon.resident();
    let message = Hello::to("one.test").padding(4000).message();
    let mut sources = (0..SOURCES).cycle();
    let flood = || {
        let source = sources.next().unwrap();
        let [high, low] = source.to_be_bytes();
        let initial = Initial::v1(&[1, 2, 3, 4, 5, 6, high, low], &[high, low]);
        // The start, and a piece far behind it: what is between never comes.
        let address = client_pool(u8::try_from(source % 126).unwrap());
        let client = UdpClient::bind(&net.client, (address, 1024 + source));
        client.send(front(), &initial.datagram(0, &[(0, &message[..500])]));
        client.send(front(), &initial.datagram(1, &[(3000, &message[3000..3500])]));
    };
    // The daemon may be so busy that hellos of clients are lost as well, and it takes them several attempts.
    let connect = || {
        let attempt = || quic.try_connect_within(PATIENCE / 6, front(), "one.test", &["h3"]).ok();
        assert_eq!(wait::until("a client is served in the flood", attempt).ask().tag, "one");
    };
    alongside(vec![Box::new(flood)], |progress| {
        connect();
        while progress[0].done() < usize::from(SOURCES) {
            connect();
        }
    });
    let after = daemon.resident();
    assert!(after < before + GROWTH, "{before} bytes before the flood, {after} after it");
    connect();
    assert!(daemon.lines_with("[start]").iter().all(|line| line.contains(&quic.address().to_string())));
}

fn mutated_datagrams_end_neither_the_daemon_nor_what_it_serves() {
    const CLIENTS: u64 = 40;
    const EACH: usize = 100;
    let Some(net) = Topology::or_skip() else { return };
    let _default = UdpServer::echo(&net.backend, at(7000), "");
    let server = UdpServer::recorder(&net.backend, at(7001));
    let config = udp_to(at(7000), "") + &rule("any", "quic", at(7001), "") + &rule("wg", "wireguard", at(7001), "");
    let daemon = Daemon::start(&net.gateway, &config);
    let wireguard: &[u8] = include_bytes!("../../data/wireguard-initiation.bin");
    let zero_rtt = initial::zero_rtt(&[1; 8], &[2; 8]);
    let origins = [CHROMIUM[0], CHROMIUM[1], wireguard, &zero_rtt];
    // Seeds are fixed: what fails once fails again.
    for seed in 1..=CLIENTS {
        let mut word = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        let mut random = |below: usize| {
            // xorshift64 (Marsaglia 2003)
            word ^= word << 13;
            word ^= word >> 7;
            word ^= word << 17;
            usize::try_from(word >> 33).unwrap() % below
        };
        let client = client(&net);
        for _ in 0..EACH {
            let mut datagram = origins[random(origins.len())].to_vec();
            // Mostly in the headers, where the parsers are.
            for _ in 0..random(4) {
                let below = if random(2) == 0 { 40 } else { datagram.len() };
                let position = random(below);
                datagram[position] = u8::try_from(random(256)).unwrap();
            }
            if random(3) == 0 {
                datagram.truncate(random(datagram.len() + 1));
            }
            client.send(front(), &datagram);
        }
    }
    let client = client(&net);
    let whole = hello("one.test", 1);
    wait::until("a hello arrives as before", || {
        // The queue of the daemon's socket may be full of what went before.
        client.send(front(), &whole);
        server.payloads().contains(&whole).then_some(())
    });
    assert!(daemon.resident() < 200 << 20, "{} bytes resident", daemon.resident());
}
