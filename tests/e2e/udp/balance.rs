//! Balancing of UDP sessions over several targets, also when one refuses.

use std::{collections::BTreeMap, net::Ipv4Addr};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::udp::{UdpClient, UdpServer},
    topology::{BACKENDS_V4, CLIENT_V4, Topology, client_pool},
    wait,
};

use crate::{
    support,
    support::targets::{self, TAGS, count, plain, with_keys},
    support::{PORT, front},
};

rpxy_l4_tests::offload_modes! {
    NotSteered {
        source_socket_spreads_the_ports_of_one_client_and_keeps_each,
        least_conn_evens_out_the_sessions,
    }
    Steered {
        a_name_that_moves_is_followed_by_new_sessions,
    }
    Unknown {
        none_takes_the_first,
        source_ip_is_stable_over_ports_reload_and_restart,
        random_and_round_robin_follow_the_weights,
        the_same_session_goes_to_the_next_target_when_the_first_refuses,
        a_target_that_refused_is_used_again_after_its_time,
        a_backup_is_used_only_while_the_others_are_down,
        without_a_target_that_answers_nothing_breaks,
    }
}

fn servers(net: &Topology) -> Vec<UdpServer> {
    BACKENDS_V4.iter().zip(TAGS).map(|(ip, tag)| UdpServer::echo(&net.backend, (*ip, 7000), tag)).collect()
}

/// A default destination of these targets, written as TOML values.
fn config(keys: &str, targets: &[String]) -> String {
    format!("listen_port = {PORT}\n{keys}\nudp_target = [{}]\n", targets.join(", "))
}

fn balanced(balance: &str, targets: &[String]) -> String {
    config(&format!("udp_load_balance = \"{balance}\""), targets)
}

/// A new session, and the tag of the server that it reaches.
#[track_caller]
fn visit(net: &Topology, from: Ipv4Addr) -> (UdpClient, String) {
    let client = UdpClient::bind(&net.client, (from, 0));
    let tag = client.ask_text(front(), "");
    (client, tag)
}

/// As [`visit`], when the first datagrams may be lost.
fn try_visit(net: &Topology) -> Option<String> {
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    client.try_ask(front(), b"").map(|tag| String::from_utf8(tag).unwrap())
}

fn none_takes_the_first() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    targets::none_takes_the_first(&net, &balanced("none", &plain()), |from| visit(&net, from).1);
}

fn source_ip_is_stable_over_ports_reload_and_restart() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let config = |keys: &str, targets: &[String]| format!("{keys}\n{}", balanced("source_ip", targets));
    targets::source_ip_is_stable(&net, config, "udp_idle_lifetime = 31", |from| visit(&net, from).1);
}

fn source_socket_spreads_the_ports_of_one_client_and_keeps_each() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let mut map: BTreeMap<u16, String> = BTreeMap::new();
    for round in 0..2 {
        let daemon = Daemon::start(&net.gateway, &balanced("source_socket", &plain()));
        for port in 5000..5060 {
            let client = UdpClient::bind(&net.client, (CLIENT_V4, port));
            let tag = client.ask_text(front(), "");
            assert_eq!(*map.entry(port).or_insert_with(|| tag.clone()), tag, "port {port} in round {round}");
        }
        daemon.stop();
    }
    assert_eq!(count(map.into_values()).len(), 3);
}

fn random_and_round_robin_follow_the_weights() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    targets::weights_are_followed(&net, balanced, || {
        // Kept, so that no client gets the port of an earlier one, whose session goes on.
        let visits: Vec<_> = (0..200).map(|_| visit(&net, client_pool(0))).collect();
        visits.into_iter().map(|(_, tag)| tag).collect()
    });
}

fn least_conn_evens_out_the_sessions() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let _daemon = Daemon::start(&net.gateway, &balanced("least_conn", &plain()));
    let held: Vec<_> = (0..9).map(|_| visit(&net, CLIENT_V4)).collect();
    let tags = count(held.iter().map(|(_, tag)| tag.clone()));
    assert_eq!(tags, TAGS.map(|tag| (tag.to_owned(), 3)).into_iter().collect());
}

fn the_same_session_goes_to_the_next_target_when_the_first_refuses() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let second_server = UdpServer::echo(&net.backend, (second, 7000), "b");
    let config = config("udp_target_retry = \"1h\"", &plain()[..2]);
    let daemon = Daemon::builder(&config).allow(&format!("{first}:7000 cannot be reached")).start(&net.gateway);

    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    let answer = wait::until("a datagram of the session is answered", || client.try_ask(front(), b"x"));
    assert_eq!(answer, b"bx");
    daemon.wait_for(0, "cannot be reached");
    // Those that follow are not sent to the first any more, although it is there again.
    let first_server = UdpServer::echo(&net.backend, (first, 7000), "a");
    for n in 0..10 {
        assert_eq!(visit(&net, client_pool(n)).1, "b");
    }
    assert!(first_server.received().is_empty());
    assert!(second_server.received().len() >= 11);
    assert_eq!(daemon.lines_with("WARN").len(), 1);
}

fn a_target_that_refused_is_used_again_after_its_time() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let _second = UdpServer::echo(&net.backend, (second, 7000), "b");
    let config = config("udp_target_retry = \"1s\"", &plain()[..2]);
    let _daemon = Daemon::builder(&config).allow(&format!("{first}:7000 cannot be reached")).start(&net.gateway);
    wait::until("the second takes over", || try_visit(&net).filter(|tag| tag == "b"));
    let _first = UdpServer::echo(&net.backend, (first, 7000), "a");
    wait::until("the first is used again", || try_visit(&net).filter(|tag| tag == "a"));
}

fn a_backup_is_used_only_while_the_others_are_down() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, third] = BACKENDS_V4;
    let _backup = UdpServer::echo(&net.backend, (first, 7000), "backup");
    let two = UdpServer::echo(&net.backend, (second, 7000), "two");
    let three = UdpServer::echo(&net.backend, (third, 7000), "three");
    let targets = with_keys([", backup = true", "", ""]);
    let config = config("udp_load_balance = \"round_robin\"\nudp_target_retry = \"1s\"", &targets);
    let _daemon = Daemon::builder(&config).allow("198.51.100.1").start(&net.gateway);
    let visits = || count((0..20).map(|_| visit(&net, CLIENT_V4).1));

    assert_eq!(visits().into_keys().collect::<Vec<_>>(), ["three", "two"]);
    drop((two, three));
    wait::until("the backup is used", || try_visit(&net).filter(|tag| tag == "backup"));
    let _two = UdpServer::echo(&net.backend, (second, 7000), "two");
    wait::until("the first that is back is used again", || try_visit(&net).filter(|tag| tag == "two"));
}

fn without_a_target_that_answers_nothing_breaks() {
    let Some(net) = Topology::or_skip() else { return };
    let targets = [plain(), vec!["\"nowhere.test:7000\"".to_owned()]].concat();
    let mut daemon = Daemon::builder(&config("udp_target_retry = \"100ms\"", &targets))
        .allow("cannot be reached")
        .allow("target")
        .start(&net.gateway);
    daemon.allow("nowhere.test");
    for _ in 0..5 {
        assert_eq!(try_visit(&net), None);
    }
    let _servers = servers(&net);
    wait::until("they are used as soon as they are there", || try_visit(&net));
}

fn a_name_that_moves_is_followed_by_new_sessions() {
    const NAME: &str = "service.test";
    let Some(net) = Topology::or_skip() else { return };
    let dns = support::dns(&net);
    let _servers = servers(&net);
    dns.set(NAME, 1, &[BACKENDS_V4[0].into()]);
    let config = config("dns_cache_min_ttl = \"1s\"", &[format!("\"{NAME}:7000\"")]);
    let _daemon = Daemon::start(&net.gateway, &config);
    let (old, tag) = visit(&net, CLIENT_V4);
    assert_eq!(tag, "a");
    dns.set(NAME, 1, &[BACKENDS_V4[1].into()]);
    wait::until("the new address is used", || (visit(&net, CLIENT_V4).1 == "b").then_some(()));
    // It is taken back from the kernel once, to see whether its backend still answers there.
    for _ in 0..10 {
        assert_eq!(old.ask_text(front(), ""), "a", "a session that is answered stays where it is");
    }
}
