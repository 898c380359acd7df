//! Memory of established sessions, of clients that have proved that they receive: what is remembered of them is the most.

use std::{
    net::{SocketAddr, SocketAddrV4},
    path::Path,
};

use anyhow::{Context as _, ensure};
use rpxy_l4_tests::{
    admin::Admin,
    checksum,
    hello::Hello,
    initial::{self, Initial},
    owned,
    peers::udp::{UdpClient, UdpServer},
    process::Process,
    topology::{BACKENDS_V4, CLIENT_V4, GATEWAY_V4, Topology, client_pool},
    wait,
};

use serde_json::json;

use super::{
    Plane,
    network::{NAME, raise_descriptors},
};
use crate::{procfs, rig::guarded};

/// Sessions of each kind.
const SESSIONS: u32 = 5_000;
const PORT: u16 = 443;
const BACK: u16 = 7000;

/// What the clients of sessions do.
#[derive(Debug, Clone, Copy)]
enum Kind {
    /// One question, one answer, over `udp_target`.
    Question,
    /// A QUIC hello, an answer that states a connection ID, a short header with it, and one with another ID.
    Quic,
}

/// Measures both kinds, as rows of a table.
pub(super) fn measure(daemon: &Path, planes: &[Plane], progress: &dyn Fn(&str)) -> anyhow::Result<String> {
    raise_descriptors()?;
    let mut text = format!(
        "{SESSIONS} sessions of 126 addresses, in the daemon's proportional set size; the kernel's sockets and maps are not \
         in it.\n\n| session | plane | before, MiB | with all, MiB | KiB each |\n|---|---|---:|---:|---:|\n"
    );
    for (kind, title) in [
        (Kind::Question, "one question and its answer, over `udp_target`"),
        (Kind::Quic, "QUIC: two connection IDs, a client that has shown that it receives"),
    ] {
        for plane in planes {
            let (before, with) = hold(kind, *plane, daemon)?;
            let mib = |bytes: u64| bytes as f64 / f64::from(1 << 20);
            let each = with.saturating_sub(before) as f64 / f64::from(SESSIONS) / 1024.0;
            let row = format!("| {title} | {plane:?} | {:.1} | {:.1} | {each:.2} |\n", mib(before), mib(with));
            progress(row.trim_end());
            text += &row;
        }
    }
    Ok(text)
}

/// Memory before the first session and with all of them, in bytes.
fn hold(kind: Kind, plane: Plane, daemon: &Path) -> anyhow::Result<(u64, u64)> {
    let net = Topology::new().context("network namespaces (run as root)")?;
    checksum::prepare((&net.client, "eth0"), &net.gateway, (&net.backend, "eth0"), plane.mode())?;
    let back = SocketAddr::from((BACKENDS_V4[0], BACK));
    let _server = UdpServer::start(&net.backend, back, |datagram| vec![answer(&datagram.bytes)]);
    let directory = owned::directory();
    let file = directory.path().join("config.toml");
    let (table, socket) = (plane.mode().table().unwrap_or_default(), directory.path().join("admin"));
    let config = format!(
        "admin_socket = \"{}\"\nlisten_port = {PORT}\nudp_target = [\"{back}\"]\nudp_idle_lifetime = 600\n\
         [protocols.quic]\nprotocol = \"quic\"\nidle_lifetime = 600\nserver_names = [\"{NAME}\"]\ntarget = [\"{back}\"]\n{table}",
        socket.display()
    );
    std::fs::write(&file, config).with_context(|| file.display().to_string())?;
    let mut command = guarded(&net.gateway, daemon);
    let process = Process::spawn("rpxy-l4", command.arg("--config").arg(&file).env("RUST_LOG", "warn"))?;
    let front = SocketAddrV4::new(GATEWAY_V4, PORT);
    wait::until("the daemon serves", || {
        UdpClient::bind(&net.client, (CLIENT_V4, 0)).try_ask(front, b"hello").map(drop)
    });
    let steered = || {
        let status = Admin::connect(&socket).ask(&json!({ "command": "status" })).pop().unwrap_or_default();
        status["kernel_plane"]["flows"].as_u64().unwrap_or(0)
    };
    let before = procfs::memory(process.pid())?;
    let mut held = Vec::new();
    for number in 0..SESSIONS {
        let address = client_pool(u8::try_from(number % 126)?);
        let client = UdpClient::bind(&net.client, (address, 0));
        match kind {
            Kind::Question => drop(client.ask(front, &[0x15; 100])),
            Kind::Quic => {
                let [scid, other, dcid] = [0, 1, 2].map(|which| id(number, which));
                let hello = Initial::v1(&dcid, &scid).datagrams(&Hello::to(NAME)).remove(0);
                client.ask(front, &hello);
                client.ask(front, &initial::short_header(&stated(&scid)));
                client.ask(front, &initial::short_header(&other));
            }
        }
        held.push(client);
    }
    let with = procfs::memory(process.pid())?;
    let expected = if plane == Plane::Userspace { 0 } else { u64::from(SESSIONS) };
    ensure!(steered() >= expected, "the kernel has {} of {expected}", steered());
    Ok((before, with))
}

/// The server's answer: to a hello a long header that states an ID, to anything else the same.
fn answer(datagram: &[u8]) -> Vec<u8> {
    match datagram {
        [first, _, _, _, _, dcid, rest @ ..] if first & 0x80 != 0 => {
            let scid = rest.get(usize::from(*dcid) + 1..).and_then(|rest| rest.get(..8)).unwrap_or_default();
            initial::from_server(scid, &stated(scid))
        }
        _ => datagram.to_vec(),
    }
}

/// The ID that the server states to a client that has chosen `scid`.
fn stated(scid: &[u8]) -> Vec<u8> {
    scid.iter().map(|byte| byte ^ 0x3c).collect()
}

/// IDs of a session, as if chosen at random: its client's, one that the server gives encrypted, the first destination.
fn id(number: u32, which: u8) -> Vec<u8> {
    // The finaliser of splitmix64.
    let mut word = (u64::from(number) << 2 | u64::from(which)).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    word = (word ^ word >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    word = (word ^ word >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    word.to_be_bytes().to_vec()
}
