//! Several gateways with the same file behind a router that spreads flows over them (ECMP), when one of them goes.

use std::{collections::BTreeSet, net::Ipv4Addr, thread, time::Duration};

use rpxy_l4_tests::{
    daemon::Daemon,
    flow::Flow,
    peers::{
        programs::Certificate,
        quic::{Identity, QuicClient, QuicServer, telling},
    },
    topology::{BACKENDS_V4, CLIENT_V4, Fleet, GATEWAYS, Host, SERVICE_V4, client_pool},
    wait,
};

use crate::support::PORT;

rpxy_l4_tests::offload_modes! {
    Steered {
        a_transfer_goes_on_over_another_gateway_by_the_address_of_its_client,
        a_transfer_goes_on_over_another_gateway_by_an_id_that_tells_its_server,
    }
}

const NAME: &str = "one.test";
/// Bytes of each transfer.
const BYTES: u64 = 10_000_000;
/// Bytes of a transfer after which its gateway is taken away.
const BEGUN: u64 = 1_000_000;

fn server_id(n: usize) -> [u8; 8] {
    [0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, u8::try_from(n).unwrap()]
}

fn a_transfer_goes_on_over_another_gateway_by_the_address_of_its_client() {
    let targets: Vec<_> = BACKENDS_V4.iter().map(|ip| format!("\"{ip}:7000\"")).collect();
    let config = format!(
        "listen_port = {PORT}\norphan = \"balance\"\n[protocols.any]\nprotocol = \"quic\"\nload_balance = \"source_ip\"\n\
         target = [{}]\n",
        targets.join(", ")
    );
    transfers_go_on(&config, false, |_, host, ip, certificate| {
        QuicServer::start(host, (ip, 7000), &ip.to_string(), certificate, &["h3"])
    });
}

fn a_transfer_goes_on_over_another_gateway_by_an_id_that_tells_its_server() {
    let target = |(n, ip): (usize, &Ipv4Addr)| {
        let id: String = server_id(n).iter().map(|byte| format!("{byte:02x}")).collect();
        format!("{{ address = \"{ip}:7000\", quic_server_id = \"{id}\" }}")
    };
    let targets: Vec<_> = BACKENDS_V4.iter().enumerate().map(target).collect();
    // Strays have no place, so nothing else leads to a target.
    let config = format!(
        "listen_port = {PORT}\norphan = \"drop\"\n[protocols.any]\nprotocol = \"quic\"\nload_balance = \"source_ip\"\n\
         target = [{}]\n",
        targets.join(", ")
    );
    transfers_go_on(&config, true, |n, host, ip, certificate| {
        QuicServer::start_with(host, (ip, 7000), &ip.to_string(), certificate, &["h3"], telling(server_id(n)))
    });
}

/// Number of the gateway that a server sees a client behind.
fn gateway_of(identity: &Identity) -> usize {
    let seen = identity.client.rsplit_once(':').unwrap().0.parse::<Ipv4Addr>().unwrap();
    (0..GATEWAYS).find(|n| Fleet::inside(*n) == seen).unwrap()
}

/// Takes away gateways under transfers in both directions, of clients at several addresses. With `migrates`, clients then
/// change their addresses and connection IDs at once.
fn transfers_go_on(config: &str, migrates: bool, server: impl Fn(usize, &Host, Ipv4Addr, &Certificate) -> QuicServer) {
    let Some(net) = Fleet::or_skip() else { return };
    let certificate = Certificate::new(&[NAME]);
    let servers: Vec<_> =
        BACKENDS_V4.iter().enumerate().map(|(n, ip)| server(n, &net.backend, *ip, &certificate)).collect();
    let _daemons = net.gateways.each_ref().map(|gateway| Daemon::start(gateway, config));
    // A client that only listens would never learn that its way is gone.
    let clients = [CLIENT_V4, client_pool(0), client_pool(1), client_pool(2)]
        .map(|ip| QuicClient::new(&net.client, (ip, 0), &certificate).keep_alive(Duration::from_millis(50)));
    let connections = clients.each_ref().map(|client| client.connect((SERVICE_V4, PORT).into(), NAME, &["h3"]));
    let tags = connections.each_ref().map(|connection| connection.ask().tag);
    assert_ne!(tags.iter().collect::<BTreeSet<_>>().len(), 1, "{tags:?}: several servers");

    for direction in ["down", "up"] {
        let gone = gateway_of(&connections[0].ask());
        let before = net.carried_by(gone).unwrap();
        thread::scope(|scope| {
            let transfers = connections.each_ref().map(|connection| {
                let flow = Flow { seed: 1, length: BYTES };
                scope.spawn(
                    move || if direction == "down" { connection.download(flow) } else { connection.upload(flow) },
                )
            });
            wait::until("a transfer has begun", || (net.carried_by(gone).unwrap() > before + BEGUN).then_some(()));
            net.take_away(gone).unwrap();
            for transfer in transfers {
                transfer.join().unwrap().unwrap();
            }
        });
        let identities = connections.each_ref().map(|connection| connection.ask());
        assert_ne!(gateway_of(&identities[0]), gone, "{direction}");
        assert_eq!(identities.map(|identity| identity.tag), tags, "{direction}");
    }
    if migrates {
        for ((client, connection), n) in clients.iter().zip(&connections).zip(10..) {
            client.rebind((client_pool(n), 0));
            connection.download(Flow { seed: 3, length: BYTES / 10 }).unwrap();
        }
        assert_eq!(connections.each_ref().map(|connection| connection.ask().tag), tags);
    }
    let accepted: usize = servers.iter().map(QuicServer::accepted).sum();
    assert_eq!(accepted, clients.len(), "no connection was made anew");
}
