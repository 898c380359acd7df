//! Balancing of connections over several targets.

use std::net::{Ipv4Addr, TcpStream};

use rpxy_l4_tests::{
    daemon::Daemon,
    peers::server::Server,
    socket,
    topology::{BACKENDS_V4, CLIENT_V4, Topology},
    wait,
};

use crate::{
    support::targets::{self, TAGS, count, plain, with_keys},
    support::{PORT, front},
};

rpxy_l4_tests::splice_modes! {
    Unknown {
        none_takes_the_first,
        source_ip_is_stable_over_ports_reload_and_restart,
        source_socket_spreads_the_ports_of_one_client,
        random_and_round_robin_follow_the_weights,
        the_share_of_a_target_that_is_down_goes_to_all_others,
        least_conn_evens_out_what_is_open,
        a_backup_is_used_only_while_the_others_are_down,
    }
}

fn servers(net: &Topology) -> Vec<Server> {
    BACKENDS_V4.iter().zip(TAGS).map(|(ip, tag)| Server::tagged(&net.backend, (*ip, 7000), tag)).collect()
}

/// A default destination of these targets, written as TOML values.
fn config(balance: &str, targets: &[String]) -> String {
    format!(
        "listen_port = {PORT}\ntcp_load_balance = \"{balance}\"\ntcp_target_retry = \"100ms\"\ntcp_target = [{}]\n",
        targets.join(", ")
    )
}

#[track_caller]
fn visit(net: &Topology, from: Ipv4Addr) -> (TcpStream, String) {
    let stream = socket::dial_from(&net.client, from, front());
    let tag = socket::read_line(&stream).expect("a tag");
    (stream, tag)
}

fn none_takes_the_first() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    targets::none_takes_the_first(&net, &config("none", &plain()), |from| visit(&net, from).1);
}

fn source_ip_is_stable_over_ports_reload_and_restart() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let config = |keys: &str, targets: &[String]| format!("{keys}\n{}", config("source_ip", targets));
    targets::source_ip_is_stable(&net, config, "tcp_idle_timeout = \"1h\"", |from| visit(&net, from).1);
}

fn source_socket_spreads_the_ports_of_one_client() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    let _daemon = Daemon::start(&net.gateway, &config("source_socket", &plain()));
    let tags = count((0..60).map(|_| visit(&net, CLIENT_V4).1));
    assert_eq!(tags.len(), 3, "{tags:?}");
}

fn random_and_round_robin_follow_the_weights() {
    let Some(net) = Topology::or_skip() else { return };
    let _servers = servers(&net);
    targets::weights_are_followed(&net, config, || (0..200).map(|_| visit(&net, CLIENT_V4).1).collect());
}

fn the_share_of_a_target_that_is_down_goes_to_all_others() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, third] = BACKENDS_V4;
    let _one = Server::tagged(&net.backend, (first, 7000), "a");
    let _three = Server::tagged(&net.backend, (third, 7000), "c");
    for (balance, tolerance) in [("round_robin", 1), ("least_conn", 25), ("random", 25)] {
        let config = format!(
            "listen_port = {PORT}\nworkers = 1\ntcp_load_balance = \"{balance}\"\ntcp_target_retry = \"1h\"\n\
             tcp_target = [{}]\n",
            plain().join(", ")
        );
        let daemon = Daemon::builder(&config).allow(&format!("{second}:7000")).start(&net.gateway);
        wait::until("the second is known to be down", || {
            visit(&net, CLIENT_V4);
            (!daemon.lines_with("cannot be reached").is_empty()).then_some(())
        });
        let tags = count((0..60).map(|_| visit(&net, CLIENT_V4).1));
        assert!(tags["a"].abs_diff(30) <= tolerance && tags.len() == 2, "{balance}: {tags:?}");
    }
}

fn least_conn_evens_out_what_is_open() {
    let Some(net) = Topology::or_skip() else { return };
    let servers = servers(&net);
    let daemon = Daemon::start(&net.gateway, &config("least_conn", &plain()));
    let open = || servers.iter().map(Server::open).collect::<Vec<_>>();

    let held: Vec<_> = (0..9).map(|_| visit(&net, CLIENT_V4)).collect();
    assert_eq!(open(), [3, 3, 3]);
    // When the connections to one target end, the next ones go there.
    let (ended, kept): (Vec<_>, Vec<_>) = held.into_iter().partition(|(_, tag)| tag == "b");
    let mark = daemon.process().mark();
    drop(ended);
    for _ in 0..3 {
        daemon.wait_for(mark, "[finish]");
    }
    wait::until("three connections have finished", || {
        (daemon.process().lines()[mark..].iter().filter(|line| line.contains("[finish]")).count() == 3).then_some(())
    });
    let again: Vec<_> = (0..3).map(|_| visit(&net, CLIENT_V4)).collect();
    assert!(again.iter().all(|(_, tag)| tag == "b"), "{again:?}");
    drop((kept, again));
}

fn a_backup_is_used_only_while_the_others_are_down() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, third] = BACKENDS_V4;
    let _backup = Server::tagged(&net.backend, (first, 7000), "backup");
    let two = Server::tagged(&net.backend, (second, 7000), "two");
    let three = Server::tagged(&net.backend, (third, 7000), "three");
    let targets = with_keys([", backup = true", "", ""]);
    let _daemon = Daemon::builder(&config("round_robin", &targets)).allow("198.51.100.1").start(&net.gateway);
    let visits = || count((0..20).map(|_| visit(&net, CLIENT_V4).1));

    assert_eq!(visits().into_keys().collect::<Vec<_>>(), ["three", "two"]);
    drop(two);
    assert_eq!(visits().into_keys().collect::<Vec<_>>(), ["three"]);
    drop(three);
    assert_eq!(visits().into_keys().collect::<Vec<_>>(), ["backup"]);
    let _two = Server::tagged(&net.backend, (second, 7000), "two");
    wait::until("the first that is back is used again", || (visit(&net, CLIENT_V4).1 == "two").then_some(()));
}
