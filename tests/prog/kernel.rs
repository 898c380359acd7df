//! Loads the object and runs its programs on packets.

use std::env;
use std::path::{Path, PathBuf};

use aya::maps::lpm_trie::Key;
use aya::maps::{Array, HashMap, LpmTrie, MapData, PerCpuArray};
use aya::programs::{ProgramError, SchedClassifier, TestRun, TestRunOptions, Xdp};
use aya::{Ebpf, EbpfLoader, Pod, VerifierLogLevel};
use rpxy_l4_common::map::{FlowKey, Hop, HopKey, name};
use rpxy_l4_common::tcp;
use rpxy_l4_common::verdict::Counter;
use rpxy_l4_tests::privilege;

use crate::maps::{self, Maps};

/// Name the objects that are not where `cargo xtask build-ebpf` puts them.
const OBJECT_VARIABLE: &str = "RPXY_L4_TESTS_OBJECT";
const LOG_OBJECT_VARIABLE: &str = "RPXY_L4_TESTS_LOG_OBJECT";
/// Room for what a program could make of a packet.
const ROOM: usize = 256;

/// A test run did not like what it was given.
const EINVAL: i32 = 22;
/// Where `gso_size` stands in `struct __sk_buff`, and where what is given of it ends.
const GSO_SIZE: usize = 176;
const CONTEXT_LEN: usize = GSO_SIZE + 4;

/// The entry points for TCP: what arrives, and what this machine sends itself.
pub(crate) const TCP_IN: &str = "rpxy_l4_tcp_in";
pub(crate) const TCP_OUT: &str = "rpxy_l4_tcp_out";

/// The entry points for UDP.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Program {
    Xdp,
    Tc,
    /// TC for kernels without BTF.
    TcOne,
}

/// What a program did, whichever of the two it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Action {
    Pass,
    Drop,
    /// Out of the interface that the packet came by.
    Back,
    /// Out of another one.
    Redirect,
}

/// What came out.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Outcome {
    pub(crate) action: Action,
    pub(crate) packet: Vec<u8>,
    pub(crate) counter: Counter,
}

/// The loaded object, with maps of its own.
pub(crate) struct Kernel(Ebpf);

impl Kernel {
    /// Loads both programs, or says that the calling test is skipped.
    pub(crate) fn or_skip() -> Option<Self> {
        Self::load_or_skip(&object(OBJECT_VARIABLE, "bpf"), "cargo xtask build-ebpf")
    }

    /// The same with the object that logs.
    pub(crate) fn that_logs_or_skip() -> Option<Self> {
        Self::load_or_skip(&object(LOG_OBJECT_VARIABLE, "bpf-log"), "cargo xtask build-ebpf --log")
    }

    fn load_or_skip(object: &Path, remedy: &str) -> Option<Self> {
        if let Some(missing) = privilege::missing_for_programs() {
            privilege::skip(&format!("{missing}; run as root to load eBPF programs"));
            return None;
        }
        if !object.exists() {
            privilege::skip(&format!("{} is missing; run `{remedy}`", object.display()));
            return None;
        }
        Some(Self::load(&std::fs::read(object).unwrap()))
    }

    fn load(object: &[u8]) -> Self {
        let mut loader = EbpfLoader::new();
        // As small as it gets: every test has its own.
        for map in [name::FLOWS, name::LISTENERS, name::LOCAL, name::BANNED, name::ACCESS, name::HOPS, name::SOURCES] {
            loader.map_max_entries(map, 256);
        }
        for map in [tcp::name::TCP_FLOWS, tcp::name::TCP_NOTES] {
            loader.map_max_entries(map, 16);
        }
        // What the daemon gets is the same without; the log of a program that passes would be long.
        loader.verifier_log_level(VerifierLogLevel::STATS);
        let mut ebpf = loader.load(object).unwrap();
        let xdp: &mut Xdp = ebpf.program_mut(Program::Xdp.name()).unwrap().try_into().unwrap();
        xdp.load().unwrap();
        for classifier in [Program::Tc.name(), Program::TcOne.name(), TCP_IN, TCP_OUT] {
            let classifier: &mut SchedClassifier = ebpf.program_mut(classifier).unwrap().try_into().unwrap();
            classifier.load().unwrap();
        }
        Self(ebpf)
    }

    /// Instructions that the verifier walked through.
    pub(crate) fn verified(&self, program: &str) -> u32 {
        self.0.program(program).unwrap().info().unwrap().verified_instruction_count().unwrap_or(0)
    }

    /// The object, for who reads its log.
    pub(crate) fn object(&mut self) -> &mut Ebpf {
        &mut self.0
    }

    /// A number of the log's state.
    pub(crate) fn log_state(&mut self, index: u32) -> u64 {
        self.array::<u64>(name::LOG_STATE).get(&index, 0).unwrap()
    }

    /// Puts a number into the log's state.
    pub(crate) fn set_log_state(&mut self, index: u32, number: u64) {
        self.array::<u64>(name::LOG_STATE).set(index, number, 0).unwrap();
    }

    /// Puts entries into the maps.
    pub(crate) fn fill(&mut self, entries: &Maps) {
        for (key, flow) in &entries.flows {
            self.put(name::FLOWS, key.to_bytes(), maps::entry(flow.sealed(key)).to_bytes());
        }
        for (key, hop) in &entries.hops {
            self.set_hop(*key, &hop.sealed(*key));
        }
        for (socket, drop) in &entries.listeners {
            self.put(name::LISTENERS, socket.to_bytes(), drop.to_ne_bytes());
        }
        for address in &entries.local {
            self.put(name::LOCAL, maps::field(*address), [1u8]);
        }
        for (index, key) in (0..).zip(&entries.mac1_keys) {
            self.array::<[u8; 36]>(name::MAC1_KEYS).set(index, key.to_bytes(), 0).unwrap();
        }
        if let Some(limit) = &entries.source_limit {
            self.array::<[u8; 48]>(name::SOURCE_LIMIT).set(0, limit.to_bytes(), 0).unwrap();
        }
        for (network, len) in &entries.banned {
            let map = self.0.map_mut(name::BANNED).unwrap();
            let mut trie: LpmTrie<&mut MapData, [u8; 20], u8> = map.try_into().unwrap();
            let (bits, bytes) = maps::banned_bytes(*network, *len);
            trie.insert(&Key::new(bits, bytes), 1, 0).unwrap();
        }
        for (list, network, len, value) in &entries.listed {
            let map = self.0.map_mut(name::ACCESS).unwrap();
            let mut trie: LpmTrie<&mut MapData, [u8; 20], u8> = map.try_into().unwrap();
            let (bits, bytes) = maps::listed_bytes(*list, *network, *len);
            trie.insert(&Key::new(bits, bytes), *value, 0).unwrap();
        }
    }

    /// Puts a next hop into its place.
    pub(crate) fn set_hop(&mut self, key: HopKey, hop: &Hop) {
        self.array::<[u8; 24]>(name::HOPS).set(key.into(), hop.to_bytes(), 0).unwrap();
    }

    /// Puts the end of the lease, in nanoseconds of CLOCK_MONOTONIC.
    pub(crate) fn set_lease(&mut self, end: u64) {
        self.array::<u64>(name::LEASE).set(0, end, 0).unwrap();
    }

    /// Takes flows and listeners out of the maps again, and puts back what they have replaced.
    pub(crate) fn empty(&mut self, entries: &Maps, base: &Maps) {
        for (key, _) in &entries.flows {
            self.hash::<[u8; 40], [u8; 120]>(name::FLOWS).remove(&key.to_bytes()).unwrap();
            if let Some((key, flow)) = base.flows.iter().find(|(replaced, _)| replaced == key) {
                self.put(name::FLOWS, key.to_bytes(), maps::entry(flow.sealed(key)).to_bytes());
            }
        }
        for (socket, _) in &entries.listeners {
            self.hash::<[u8; 20], [u8; 4]>(name::LISTENERS).remove(&socket.to_bytes()).unwrap();
            if let Some((socket, drop)) = base.listeners.iter().find(|(replaced, _)| replaced == socket) {
                self.put(name::LISTENERS, socket.to_bytes(), drop.to_ne_bytes());
            }
        }
    }

    /// Runs a program on a packet that comes in by the loopback interface. TC gets it as a buffer of several datagrams
    /// where `segment`, the payload bytes of one, is not 0.
    pub(crate) fn run(&self, program: Program, packet: &[u8], segment: u32) -> Outcome {
        self.try_run(program, packet, segment).expect("a test run takes the packet")
    }

    /// The same; nothing when a test run does not take such a packet.
    pub(crate) fn try_run(&self, program: Program, packet: &[u8], segment: u32) -> Option<Outcome> {
        let before = self.counters();
        let (action, packet) = self.raw_run(program.name(), packet, segment)?;
        let counted: Vec<Counter> = Counter::ALL
            .iter()
            .zip(before.iter().zip(self.counters()))
            .flat_map(|(counter, (before, after))| (*before..after).map(|_| *counter))
            .collect();
        let [counter] = counted[..] else { panic!("not one outcome, but {counted:?}") };
        Some(Outcome { action: program.action(action), packet, counter })
    }

    /// Runs a program on a packet. Returns what it returned, and the packet; nothing when a test run does not take it.
    pub(crate) fn raw_run(&self, program: &str, packet: &[u8], segment: u32) -> Option<(u32, Vec<u8>)> {
        let mut out = vec![0; packet.len() + ROOM];
        let mut context = [0; CONTEXT_LEN];
        context[GSO_SIZE..].copy_from_slice(&segment.to_ne_bytes());
        let options = TestRunOptions {
            data_in: Some(packet),
            data_out: Some(&mut out),
            ctx_in: (segment != 0).then_some(&context),
            ..TestRunOptions::default()
        };
        let loaded = self.0.program(program).unwrap();
        let result = if let aya::programs::Program::Xdp(xdp) = loaded {
            xdp.test_run(options)
        } else {
            let classifier: &SchedClassifier = loaded.try_into().unwrap();
            classifier.test_run(options)
        };
        let result = match result {
            Ok(result) => result,
            Err(ProgramError::SyscallError(error)) if error.io_error.raw_os_error() == Some(EINVAL) => return None,
            Err(error) => panic!("{program}: {error}"),
        };
        out.truncate(result.data_size_out.try_into().unwrap());
        Some((result.return_value, out))
    }

    /// What was accounted in a flow: last seen, packets, bytes, packets that came another way.
    pub(crate) fn account(&mut self, key: &FlowKey) -> [u64; 4] {
        maps::account(&self.hash(name::FLOWS).get(&key.to_bytes(), 0).unwrap())
    }

    /// Puts an entry into a hash map as it is.
    pub(crate) fn put<K: Pod, V: Pod>(&mut self, name: &str, key: K, value: V) {
        self.hash::<K, V>(name).insert(key, value, 0).unwrap();
    }

    pub(crate) fn array<V: Pod>(&mut self, name: &str) -> Array<&mut MapData, V> {
        self.0.map_mut(name).unwrap().try_into().unwrap()
    }

    pub(crate) fn hash<K: Pod, V: Pod>(&mut self, name: &str) -> HashMap<&mut MapData, K, V> {
        self.0.map_mut(name).unwrap().try_into().unwrap()
    }

    /// The numbers of a map of counters, summed up over the processors.
    pub(crate) fn sums(&self, name: &str, count: u32) -> Vec<u64> {
        let counters: PerCpuArray<&MapData, u64> = self.0.map(name).unwrap().try_into().unwrap();
        (0..count).map(|index| counters.get(&index, 0).unwrap().iter().sum()).collect()
    }

    /// All counters, summed up over the processors.
    fn counters(&self) -> Vec<u64> {
        self.sums(name::COUNTERS, Counter::COUNT)
    }
}

impl Program {
    /// Those that decide about every packet.
    pub(crate) const ALL: [Self; 2] = [Self::Xdp, Self::Tc];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Xdp => "rpxy_l4_xdp",
            Self::Tc => "rpxy_l4_tc",
            Self::TcOne => "rpxy_l4_tc_one",
        }
    }

    /// Numbers of `enum xdp_action` and of `TC_ACT_*`.
    fn action(self, number: u32) -> Action {
        match (self, number) {
            (Self::Xdp, 1) | (Self::Tc | Self::TcOne, 2) => Action::Drop,
            (Self::Xdp, 2) | (Self::Tc | Self::TcOne, 0) => Action::Pass,
            (Self::Xdp, 3) => Action::Back,
            (Self::Xdp, 4) | (Self::Tc | Self::TcOne, 7) => Action::Redirect,
            (Self::Xdp | Self::Tc | Self::TcOne, number) => panic!("{self:?} returned {number}"),
        }
    }
}

/// Where an object is, below the target directory unless a variable names it.
fn object(variable: &str, directory: &str) -> PathBuf {
    if let Some(path) = env::var_os(variable) {
        return path.into();
    }
    // Tests are in target/<profile>/deps.
    let test = env::current_exe().unwrap();
    test.ancestors().nth(3).unwrap_or(Path::new(".")).join(directory).join("rpxy-l4.o")
}
