//! Targets by name: found, kept within the bounds of the file, refreshed, and followed when they move.

use std::{
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::{
        dns::{DnsServer, Mood},
        server::Server,
    },
    socket,
    topology::{BACKENDS_V4, BACKENDS_V6, Topology, client_pool},
    wait,
};

use crate::support::{PORT, dns as name_server, front, reached_by};

const NAME: &str = "service.test";

fn config(top: &str) -> String {
    format!("listen_port = {PORT}\n{top}\ntcp_target = [\"{NAME}:7000\"]\n")
}

fn tagged(net: &Topology) -> [Server; 2] {
    [("one", BACKENDS_V4[0]), ("two", BACKENDS_V4[1])].map(|(tag, ip)| Server::tagged(&net.backend, (ip, 7000), tag))
}

#[test]
fn a_name_that_moves_is_followed_when_its_ttl_is_over() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _servers = tagged(&net);
    dns.set(NAME, 1, &[BACKENDS_V4[0].into()]);
    let _daemon = Daemon::start(&net.gateway, &config("dns_cache_min_ttl = \"1s\""));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
    dns.set(NAME, 1, &[BACKENDS_V4[1].into()]);
    wait::until("the new address is used", || (reached_by(&net, b"x").as_deref() == Some("two")).then_some(()));
}

#[test]
fn an_answer_is_kept_no_shorter_than_the_lower_bound_and_no_longer_than_the_upper() {
    let rows = [
        // (bounds, TTL of the answer, whether the daemon asks again within some seconds)
        ("dns_cache_min_ttl = \"1h\"\ndns_cache_max_ttl = \"2h\"", 0, false),
        ("dns_cache_min_ttl = \"100ms\"\ndns_cache_max_ttl = \"1s\"", 86_400, true),
    ];
    for (bounds, ttl, asks_again) in rows {
        let Some(net) = Topology::or_skip() else { return };
        let dns = name_server(&net);
        let _servers = tagged(&net);
        dns.set(NAME, ttl, &[BACKENDS_V4[0].into()]);
        let _daemon = Daemon::start(&net.gateway, &config(bounds));
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "{bounds}");
        dns.set(NAME, ttl, &[BACKENDS_V4[1].into()]);
        if asks_again {
            wait::until("the new address is used", || (reached_by(&net, b"x").as_deref() == Some("two")).then_some(()));
        } else {
            let before = dns.questions();
            wait::pause(Duration::from_millis(1500));
            assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "{bounds}");
            assert_eq!(dns.questions(), before, "{bounds}");
        }
    }
}

#[test]
fn an_old_answer_is_used_while_a_new_one_cannot_be_had() {
    for mood in [Mood::Fail, Mood::Silent] {
        let Some(net) = Topology::or_skip() else { return };
        let dns = name_server(&net);
        let _servers = tagged(&net);
        dns.set(NAME, 1, &[BACKENDS_V4[0].into()]);
        let config = config("dns_cache_min_ttl = \"1s\"\ndns_cache_max_ttl = \"1s\"");
        let daemon = Daemon::builder(&config).allow(NAME).start(&net.gateway);
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "{mood:?}");
        dns.set_mood(mood);
        // The answer is out of date by now, and a refresh has been tried.
        wait::pause(Duration::from_millis(1100));
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "{mood:?}");
        dns.wait_for_questions(1);
        daemon.wait_for(0, &format!("cannot resolve {NAME}"));
        for _ in 0..10 {
            assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "{mood:?}");
        }
        dns.set(NAME, 1, &[BACKENDS_V4[1].into()]);
        dns.set_mood(Mood::Answer);
        wait::until("the new address is used", || (reached_by(&net, b"x").as_deref() == Some("two")).then_some(()));
    }
}

#[test]
fn a_name_unknown_at_the_start_works_as_soon_as_it_is_known() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _servers = tagged(&net);
    let mut daemon = Daemon::builder(&config("dns_cache_min_ttl = \"1s\"")).allow(NAME).start(&net.gateway);
    daemon.allow("target");
    assert_eq!(reached_by(&net, b"x"), None);
    dns.set(NAME, 1, &[BACKENDS_V4[0].into()]);
    wait::until("the name is used", || (reached_by(&net, b"x").as_deref() == Some("one")).then_some(()));
}

#[test]
fn all_addresses_of_a_name_are_tried() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let living: IpAddr = BACKENDS_V4[1].into();
    let _server = Server::tagged(&net.backend, (living, 7000), "living");
    // The first refuse: nobody listens there.
    dns.set(NAME, 60, &[BACKENDS_V4[0].into(), BACKENDS_V6[0].into(), BACKENDS_V6[1].into(), living]);
    let daemon = Daemon::start(&net.gateway, &config(""));
    for _ in 0..5 {
        assert_eq!(reached_by(&net, b"x").as_deref(), Some("living"));
    }
    let destinations = daemon.lines_with("[start]");
    assert!(destinations.iter().all(|line| line.ends_with("-> 198.51.100.11:7000")), "{destinations:#?}");
}

#[test]
fn hosts_file_names_need_no_server() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = Server::tagged(&net.backend, (BACKENDS_V4[0], 7000), "one");
    std::fs::write(net.gateway.etc().join("hosts"), format!("127.0.0.1 localhost\n{} {NAME}\n", BACKENDS_V4[0]))
        .unwrap();
    let _daemon = Daemon::start(&net.gateway, &config(""));
    let stream = socket::dial(&net.client, front());
    assert_eq!(socket::read_line(&stream).as_deref(), Some("one"));
}

#[test]
fn clients_keep_their_address_of_a_name_whatever_the_order_of_the_answer() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _servers: Vec<_> =
        BACKENDS_V4.iter().map(|ip| Server::tagged(&net.backend, (*ip, 7000), &ip.to_string())).collect();
    let mut addresses = BACKENDS_V4.map(IpAddr::from);
    dns.set(NAME, 1, &addresses);
    let bounds = "dns_cache_min_ttl = \"1s\"\ntcp_load_balance = \"source_ip\"";
    let _daemon = Daemon::start(&net.gateway, &config(bounds));
    let map = || -> Vec<_> {
        (0..30).map(|n| socket::read_line(&socket::dial_from(&net.client, client_pool(n), front()))).collect()
    };
    let before = map();
    assert!(BACKENDS_V4.iter().all(|ip| before.contains(&Some(ip.to_string()))), "{before:?}");
    for _ in 0..2 {
        addresses.rotate_left(1);
        dns.set(NAME, 1, &addresses);
        // Two families to ask for, and the answers must be in force: so the second refresh from now.
        dns.wait_for_questions(4);
        assert_eq!(map(), before);
    }
}

#[test]
fn a_server_that_is_silent_about_one_family_does_not_hold_up_the_other() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _servers = tagged(&net);
    dns.set_mood(Mood::SilentOnV6);
    dns.set(NAME, 60, &[BACKENDS_V4[0].into()]);
    let _daemon = Daemon::start(&net.gateway, &config(""));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"));
}

#[test]
fn a_name_is_asked_for_again_when_its_address_refuses() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _two = Server::tagged(&net.backend, (BACKENDS_V4[1], 7000), "two");
    dns.set(NAME, 600, &[BACKENDS_V4[0].into()]);
    let mut daemon = Daemon::builder(&config("tcp_target_retry = \"100ms\"")).allow(NAME).start(&net.gateway);
    daemon.allow("target");
    assert_eq!(reached_by(&net, b"x"), None);
    dns.set(NAME, 600, &[BACKENDS_V4[1].into()]);
    wait::until("the new address is used", || (reached_by(&net, b"x").as_deref() == Some("two")).then_some(()));
}

#[test]
fn names_that_are_no_host_names_by_the_book_resolve() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _servers = tagged(&net);
    std::fs::write(net.gateway.etc().join("hosts"), format!("{} my_app\n", BACKENDS_V4[0])).unwrap();
    for (name, address, tag) in [
        ("my_app", None, "one"),
        ("my_svc.test", Some(BACKENDS_V4[1]), "two"),
        ("-a.test", Some(BACKENDS_V4[0]), "one"),
    ] {
        if let Some(address) = address {
            dns.set(name, 60, &[address.into()]);
        }
        let config = format!("listen_port = {PORT}\ntcp_target = [\"{name}:7000\"]\n");
        let _daemon = Daemon::start(&net.gateway, &config);
        assert_eq!(reached_by(&net, b"x").as_deref(), Some(tag), "{name}");
    }
}

/// Has the gateway ask `servers` in this order, with more lines of resolv.conf(5).
fn resolv_conf(net: &Topology, servers: &[Ipv4Addr], more: &str) {
    let servers: String = servers.iter().map(|server| format!("nameserver {server}\n")).collect();
    std::fs::write(net.gateway.etc().join("resolv.conf"), servers + more).unwrap();
}

#[test]
fn names_are_completed_by_the_search_list() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _servers = tagged(&net);
    let _six = Server::tagged(&net.backend, (BACKENDS_V6[0], 7000), "six");
    let [one, two] = [BACKENDS_V4[0], BACKENDS_V4[1]].map(IpAddr::from);
    dns.set("svc.b.test", 60, &[one]);
    dns.set("svc.x", 60, &[one]);
    dns.set("svc.x.a.test", 60, &[two]);
    dns.set("six.a.test", 60, &[BACKENDS_V6[0].into()]);
    dns.set("six.b.test", 60, &[one]);
    let search = "search a.test b.test\n";
    for (row, conf, name, tag) in [
        ("the second of the list", search.to_owned(), "svc", "one"),
        ("dots enough", search.to_owned(), "svc.x", "one"),
        ("ndots", format!("{search}options ndots:2\n"), "svc.x", "two"),
        ("a dot at the end", format!("{search}options ndots:2\n"), "svc.x.", "one"),
        ("domain", "domain b.test\n".to_owned(), "svc", "one"),
        ("families of one name", search.to_owned(), "six", "six"),
    ] {
        resolv_conf(&net, &BACKENDS_V4[..1], &conf);
        let config = format!("listen_port = {PORT}\ntcp_target = [\"{name}:7000\"]\n");
        let _daemon = Daemon::start(&net.gateway, &config);
        assert_eq!(reached_by(&net, b"x").as_deref(), Some(tag), "{row}");
    }
}

#[test]
fn the_next_name_server_is_asked_when_the_first_fails_and_only_then() {
    let Some(net) = Topology::or_skip() else { return };
    let first = DnsServer::start(&net.backend, BACKENDS_V4[0]);
    let second = DnsServer::start(&net.backend, BACKENDS_V4[1]);
    resolv_conf(&net, &BACKENDS_V4[..2], "");
    let _servers = tagged(&net);
    second.set(NAME, 60, &[BACKENDS_V4[1].into()]);
    for (mood, reached) in [(Mood::Silent, Some("two")), (Mood::Fail, Some("two")), (Mood::Answer, None)] {
        first.set_mood(mood);
        let mut daemon = Daemon::builder(&config("")).allow(NAME).start(&net.gateway);
        daemon.allow("target");
        assert_eq!(reached_by(&net, b"x").as_deref(), reached, "{mood:?}");
    }
    first.set(NAME, 60, &[BACKENDS_V4[0].into()]);
    let _daemon = Daemon::start(&net.gateway, &config(""));
    let before = second.questions();
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("one"), "the first one's word counts");
    assert_eq!(second.questions(), before);
}

#[test]
fn an_answer_that_fits_no_datagram_is_asked_for_over_tcp() {
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    let _servers = tagged(&net);
    let many = (1..=500_u16).map(|n| IpAddr::from([198, 18, n.to_be_bytes()[0], n.to_be_bytes()[1]]));
    dns.set(NAME, 60, &std::iter::once(BACKENDS_V4[1].into()).chain(many).collect::<Vec<_>>());
    let _daemon = Daemon::start(&net.gateway, &config(""));
    assert_eq!(reached_by(&net, b"x").as_deref(), Some("two"));
}

#[test]
fn thousands_of_names_without_an_answer_take_few_descriptors_and_lines() {
    const NAMES: usize = 4000;
    let Some(net) = Topology::or_skip() else { return };
    let dns = name_server(&net);
    dns.set_mood(Mood::Silent);
    let _servers = tagged(&net);
    std::fs::write(net.gateway.etc().join("hosts"), format!("{} known.test\n", BACKENDS_V4[0])).unwrap();
    let mut config = format!("listen_port = {PORT}\ntcp_target = [\"known.test:7000\"]\n");
    for index in 0..NAMES {
        config += &format!(
            "[protocols.\"r{index}\"]\nprotocol = \"tls\"\nserver_names = [\"s{index}.test\"]\n\
             target = [\"n{index}.test:7000\"]\n"
        );
    }
    let daemon = Daemon::builder(&config).allow("cannot resolve").start(&net.gateway);
    let mut most = 0;
    let asked = dns.questions();
    wait::until("names have failed", || {
        most = most.max(daemon.open_files());
        (!daemon.lines_with("cannot resolve").is_empty() && dns.questions() >= asked + 40).then_some(())
    });
    assert!(most < 200, "{most} open files");
    assert_eq!(daemon.lines_with("cannot resolve").len(), 1, "one line for all that fail within a minute");
    // A name of the hosts file is looked up in its turn.
    wait::until("another name resolves", || reached_by(&net, &[0]).filter(|tag| tag == "one"));
}
