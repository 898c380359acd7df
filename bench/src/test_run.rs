//! The programs by themselves: nanoseconds a packet, as the kernel tells for BPF_PROG_TEST_RUN.
//!
//! A test run that repeats hands the program what it has made of the packet. So that every repetition is a hit, the entry
//! of the flow maps to itself: addresses and ports stay, and only the TTL falls, which ends a run after
//! 254 packets. Every step of a real hit is taken, the checksums included. Nothing is sent (no live frames).

use std::{fmt::Write as _, fs, net::SocketAddr, path::Path};

use anyhow::{Context as _, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, HashMap, LpmTrie, lpm_trie::Key},
    programs::{SchedClassifier, TestRun as _, TestRunOptions, Xdp},
};
use rpxy_l4_common::mac1::{MOST_KEYS, Mac1Key};
use rpxy_l4_common::map::{Counted, Family, Flow, FlowEntry, FlowKey, Hop, Listener, Socket, drop_class, kind, name};

/// Packets of one run: from TTL 255 down to the last one that is sent on.
const REPEAT: u32 = 254;
/// Runs of which the median counts. Each waits for the kernel to tell all processors about the program.
const RUNS: usize = 41;
/// The entry points, in the order of the columns.
/// Ethernet address of this machine.
const STATION: [u8; 6] = [2, 0, 0, 0, 0, 1];
const PROGRAMS: [&str; 2] = ["rpxy_l4_xdp", "rpxy_l4_tc"];
/// `enum xdp_action` and `TC_ACT_*` of the kernel: the packet ends here.
const XDP_DROP: u32 = 1;
const TC_ACT_SHOT: u32 = 2;
/// A WireGuard handshake initiation, as far as the programs look, with a mac1 that fits no key.
const INITIATION: [u8; 148] = {
    let mut message = [0x47; 148];
    [message[0], message[1], message[2], message[3]] = [1, 0, 0, 0];
    message
};
/// A port that stands for a packet that is left alone at its Ethernet type: what a run takes without the program's work.
const NOT_IP: u16 = 0;
/// Subject of the rows.
const ROWS: &[Row] = &[
    Row { name: "hit, any datagram", from: 4000, to: 443, payload: &[0x47; 64], way: Way::Steered },
    Row { name: "hit, QUIC by connection ID", from: 4001, to: 443, payload: &[0x47; 64], way: Way::Steered },
    Row { name: "hit, WireGuard", from: 4002, to: 443, payload: &[4; 64], way: Way::Steered },
    Row { name: "hit, 1,200 bytes", from: 4000, to: 443, payload: &[0x47; 1200], way: Way::Steered },
    Row { name: "pass, neither IPv4 nor IPv6", from: NOT_IP, to: 0, payload: &[0; 64], way: Way::Passed },
    Row { name: "miss, nobody's", from: 5000, to: 80, payload: &[0x47; 64], way: Way::Passed },
    Row { name: "miss, ours", from: 5000, to: 443, payload: &[0x47; 64], way: Way::Passed },
    Row { name: "drop, by class", from: 5000, to: 444, payload: &[0x15; 64], way: Way::Dropped },
    Row { name: "drop, mac1 of none of 8 keys", from: 5000, to: 445, payload: &INITIATION, way: Way::Dropped },
    Row { name: "drop, banned", from: 5001, to: 443, payload: &[0x15; 64], way: Way::Dropped },
];

struct Row {
    name: &'static str,
    from: u16,
    to: u16,
    payload: &'static [u8],
    way: Way,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Way {
    Steered,
    Passed,
    Dropped,
}

/// A family: the client, a banned client, and this machine.
const NETS: [(&str, &str, &str, &str); 2] = [
    ("IPv4", "192.0.2.10", "198.18.0.1", "203.0.113.1"),
    ("IPv6", "2001:db8:1::10", "2001:db8:bad::1", "2001:db8:1::1"),
];

/// Measures both programs; a section of the report.
///
/// # Errors
///
/// When the object cannot be loaded, or a packet does not go the way that is measured.
pub fn report(object: &Path) -> anyhow::Result<String> {
    let bytes = fs::read(object).with_context(|| object.display().to_string())?;
    let mut ebpf = EbpfLoader::new().load(&bytes)?;
    let xdp: &mut Xdp = ebpf.program_mut(PROGRAMS[0]).context("no XDP program")?.try_into()?;
    xdp.load()?;
    let tc: &mut SchedClassifier = ebpf.program_mut(PROGRAMS[1]).context("no TC program")?.try_into()?;
    tc.load()?;
    fill(&mut ebpf)?;
    let mut text = format!(
        "\n## Programs by themselves\n\nNanoseconds a packet by BPF_PROG_TEST_RUN, the median (and the lowest) of {RUNS} runs \
         of {REPEAT} packets each. Nothing is sent; the entry of a hit maps to itself, so that each of the packets is \
         rewritten whole.\n\n| packet | XDP, IPv4 | XDP, IPv6 | TC, IPv4 | TC, IPv6 |\n|---|---:|---:|---:|---:|\n"
    );
    let times = measure(&ebpf)?;
    for (row, times) in ROWS.iter().zip(times.chunks(PROGRAMS.len() * NETS.len())) {
        write!(text, "| {} |", row.name)?;
        for times in times {
            write!(text, " {} ({}) |", times[RUNS / 2], times[0])?;
        }
        text.push('\n');
    }
    Ok(text)
}

/// Sorted times of all columns of all rows. Each has one run before any has the next, so that what disturbs the machine
/// for a while disturbs all of them.
fn measure(ebpf: &Ebpf) -> anyhow::Result<Vec<Vec<u128>>> {
    let mut cells = Vec::new();
    for row in ROWS {
        for program in PROGRAMS {
            for net in NETS {
                cells.push((program, row, row.packet(net)?));
            }
        }
    }
    let mut times = vec![Vec::with_capacity(RUNS); cells.len()];
    for _ in 0..RUNS {
        for ((program, row, packet), times) in cells.iter().zip(&mut times) {
            times.push(run(ebpf, program, packet, row)?);
        }
    }
    times.iter_mut().for_each(|times| times.sort_unstable());
    Ok(times)
}

/// One run; nanoseconds a packet.
fn run(ebpf: &Ebpf, name: &str, packet: &[u8], row: &Row) -> anyhow::Result<u128> {
    let program = ebpf.program(name).context("no program")?;
    let mut out = vec![0; packet.len() + 256];
    let options =
        TestRunOptions { data_in: Some(packet), data_out: Some(&mut out), repeat: REPEAT, ..TestRunOptions::default() };
    let result = if name == PROGRAMS[0] {
        <&Xdp>::try_from(program)?.test_run(options)?
    } else {
        <&SchedClassifier>::try_from(program)?.test_run(options)?
    };
    // The last packet of a run of hits has one hop left.
    let ttl = if packet[14] >> 4 == 4 { 14 + 8 } else { 14 + 7 };
    let left = if row.way == Way::Steered { 1 } else { 255 };
    let drop = if name == PROGRAMS[0] { XDP_DROP } else { TC_ACT_SHOT };
    let dropped = result.return_value == drop;
    ensure!(dropped == (row.way == Way::Dropped), "{name}, {}: returned {}", row.name, result.return_value);
    ensure!(out[ttl] == left, "{name}, {}: TTL {} where {left} was expected", row.name, out[ttl]);
    Ok(result.duration.as_nanos())
}

fn fill(ebpf: &mut Ebpf) -> anyhow::Result<()> {
    let mut hops: Array<_, [u8; size_of::<Hop>()]> = ebpf.map_mut(name::HOPS).context("no map")?.try_into()?;
    // XDP gets its own packet again, as if the neighbour were this machine.
    let hop = Hop { interface: 1, mtu: 1500, destination: STATION, source: STATION, ..Hop::default() };
    hops.set(1, hop.sealed(1).to_bytes(), 0)?;
    let mut keys: Array<_, [u8; size_of::<Mac1Key>()]> = ebpf.map_mut(name::MAC1_KEYS).context("no map")?.try_into()?;
    for (index, byte) in (0..).zip(1..).take(MOST_KEYS) {
        keys.set(index, Mac1Key::new(&[byte; 32]).to_bytes(), 0)?;
    }
    for (_, client, banned, ours) in NETS {
        for (from, kind, cid_len) in
            [(4000, 0, 0), (4001, kind::NO_QUIC_LONG, 8), (4002, kind::ONLY_WIREGUARD_TRANSPORT, 0)]
        {
            let key = FlowKey { source: socket(client, from)?, destination: socket(ours, 443)? };
            let FlowKey { source, destination } = key;
            // By the loopback interface, in and out.
            let way = Flow { hop: 1, interface: 1, ingress: 1, station: STATION, ..Flow::default() };
            let flow = Flow { source, destination, kind, cid_len, cid: [0x47; 20], ..way };
            let entry = FlowEntry { counted: Counted::default(), flow: flow.sealed(&key) };
            let mut flows: HashMap<_, [u8; size_of::<FlowKey>()], [u8; size_of::<FlowEntry>()]> =
                ebpf.map_mut(name::FLOWS).context("no map")?.try_into()?;
            flows.insert(key.to_bytes(), entry.to_bytes(), 0)?;
        }
        let mut listeners: HashMap<_, [u8; size_of::<Socket>()], [u8; size_of::<Listener>()]> =
            ebpf.map_mut(name::LISTENERS).context("no map")?.try_into()?;
        listeners.insert(socket(ours, 443)?.to_bytes(), Listener { drop: 0 }.to_bytes(), 0)?;
        listeners.insert(socket(ours, 444)?.to_bytes(), Listener { drop: drop_class::UNKNOWN }.to_bytes(), 0)?;
        listeners.insert(socket(ours, 445)?.to_bytes(), Listener { drop: drop_class::WIREGUARD_MAC1 }.to_bytes(), 0)?;
        let mut trie: LpmTrie<_, [u8; 20], u8> = ebpf.map_mut(name::BANNED).context("no map")?.try_into()?;
        let banned = socket(banned, 0)?;
        let mut network = [0; 20];
        network[0] = banned.family();
        network[1..17].copy_from_slice(&banned.address);
        trie.insert(&Key::new(if banned.family() == 4 { 8 + 32 } else { 8 + 128 }, network), 1, 0)?;
    }
    Ok(())
}

fn socket(address: &str, port: u16) -> anyhow::Result<Socket> {
    let address: SocketAddr = SocketAddr::new(address.parse()?, port);
    let mut field = [0; 16];
    let family = match address.ip() {
        std::net::IpAddr::V4(ip) => {
            field[..4].copy_from_slice(&ip.octets());
            Family::V4
        }
        std::net::IpAddr::V6(ip) => {
            field = ip.octets();
            Family::V6
        }
    };
    Ok(Socket::new(field, port.to_be_bytes(), family))
}

impl Row {
    /// The packet. Its checksums are wrong and stay so: nobody looks at them here.
    fn packet(&self, (_, client, banned, ours): (&str, &str, &str, &str)) -> anyhow::Result<Vec<u8>> {
        let from = socket(if self.from == 5001 { banned } else { client }, self.from)?;
        let to = socket(ours, self.to)?;
        let len = u16::try_from(8 + self.payload.len())?;
        let mut packet = [STATION, [2, 0, 0, 0, 0, 2]].concat();
        if from.family() == 4 {
            packet.extend([0x08, 0x00, 0x45, 0]);
            packet.extend((20 + len).to_be_bytes());
            packet.extend([0, 0, 0x40, 0, 255, 17, 0x12, 0x34]);
            packet.extend(&from.address[..4]);
            packet.extend(&to.address[..4]);
        } else {
            packet.extend([0x86, 0xdd, 0x60, 0, 0, 0]);
            packet.extend(len.to_be_bytes());
            packet.extend([17, 255]);
            packet.extend(from.address);
            packet.extend(to.address);
        }
        packet.extend(from.port());
        packet.extend(to.port());
        packet.extend(len.to_be_bytes());
        packet.extend([0x56, 0x78]);
        packet.extend(self.payload);
        if self.from == NOT_IP {
            packet[12..14].copy_from_slice(&[0x08, 0x06]);
        }
        Ok(packet)
    }
}
