//! The host and the kernel must agree: any bytes, over the same maps, give the same action, the same counter and the
//! same packet in the code as the host compiles it and in the programs as the verifier lets them in.
//!
//! What the tables say about single packets is thereby true of the code that the fuzz targets and the properties of
//! `rpxy-l4-common` run on.

mod cases;
mod host;

use std::collections::BTreeSet;
use std::collections::hash_map::RandomState;
use std::env;
use std::fs;
use std::hash::{BuildHasher as _, Hasher as _};
use std::path::Path;

use proptest::test_runner::{Config, RngSeed, TestCaseError, TestRunner};
use rpxy_l4_common::map::FlowKey;
use rpxy_l4_common::packet::{Link, parse};
use rpxy_l4_common::verdict::Counter;

use crate::fixture::{Net, V4, V6};
use crate::kernel::{Kernel, Outcome, Program};
use crate::maps::Maps;
use cases::Case;
use host::Host;

/// Repeats a run that failed.
const SEED_VARIABLE: &str = "RPXY_L4_TESTS_SEED";
/// Packets that are made up, each for both programs.
const CASES: u32 = 4096;
/// Outcomes that so many packets reach at the least, or they would prove little.
const FEWEST_OUTCOMES: usize = 30;

#[test]
fn host_and_kernel_agree_on_any_bytes() {
    let Some(mut kernel) = Kernel::or_skip() else { return };
    let base = crate::fixture::maps();
    kernel.fill(&base);
    let seed = env::var(SEED_VARIABLE)
        .map_or_else(|_| RandomState::new().build_hasher().finish(), |seed| seed.parse().unwrap());
    let config =
        Config { cases: CASES, rng_seed: RngSeed::Fixed(seed), failure_persistence: None, ..Config::default() };
    let (kernel, reached) = (std::cell::RefCell::new(kernel), std::cell::RefCell::new(BTreeSet::new()));
    let result = TestRunner::new(config).run(&cases::cases(), |case| {
        let outcomes = compare(&mut kernel.borrow_mut(), &base, &case);
        reached.borrow_mut().extend(outcomes.map_err(TestCaseError::fail)?);
        Ok(())
    });
    if let Err(error) = result {
        panic!("repeat with {SEED_VARIABLE}={seed}\n{error}");
    }
    let reached = reached.into_inner();
    println!("{CASES} packets of seed {seed} reached {} of {} outcomes", reached.len(), Counter::COUNT);
    assert!(reached.len() >= FEWEST_OUTCOMES && reached.contains(&Counter::Steered), "only {reached:?}");
}

#[test]
fn host_and_kernel_agree_on_the_corpus() {
    for kernel in [Kernel::or_skip(), Kernel::that_logs_or_skip()].into_iter().flatten() {
        agree_on_the_corpus(kernel);
    }
}

fn agree_on_the_corpus(mut kernel: Kernel) {
    let base = crate::fixture::maps();
    kernel.fill(&base);
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/packet");
    let mut compared = 0;
    for entry in fs::read_dir(corpus).unwrap() {
        let path = entry.unwrap().path();
        let packet = fs::read(&path).unwrap();
        if !(cases::SHORTEST..=cases::LONGEST).contains(&packet.len()) {
            continue;
        }
        let mut key = FlowKey::default();
        let parsed = parse(&packet.as_slice(), Link::Ethernet, &mut key).is_ok();
        let net: Net = if key.source.family() == 6 { V6 } else { V4 };
        let flows = (0..16).map(|kind| Some(net.flow_of_kind(kind)));
        for flow in [None].into_iter().chain(flows) {
            for bits in [0, u32::MAX] {
                let case =
                    Case { key: parsed.then_some(key), packet: packet.clone(), flow, bits: Some(bits), segment: 0 };
                if let Err(difference) = compare(&mut kernel, &base, &case) {
                    panic!("{}: {difference}", path.display());
                }
                compared += 1;
            }
        }
    }
    assert!(compared > 0, "no corpus");
}

/// Runs a packet on both sides and in both programs; the outcomes, or how they differ.
fn compare(kernel: &mut Kernel, base: &Maps, case: &Case) -> Result<Vec<Counter>, String> {
    let mut extra = Maps::default();
    if let Some(key) = case.key {
        extra.flows.extend(case.flow.map(|flow| (key, flow)));
        extra.listeners.extend(case.bits.map(|bits| (key.destination, bits)));
    }
    kernel.fill(&extra);
    let host = Host::new(base, &extra);
    let mut outcomes = Vec::new();
    let mut differences = Vec::new();
    for program in Program::ALL {
        let segment = if program == Program::Tc { case.segment } else { 0 };
        let expected: Outcome = host.run(program, &case.packet, segment);
        match kernel.try_run(program, &case.packet, segment.into()) {
            Some(outcome) if outcome == expected => outcomes.push(outcome.counter),
            Some(outcome) => differences.push(format!("{program:?}\nhost:   {expected:02x?}\nkernel: {outcome:02x?}")),
            None if program == Program::Tc && lacks_ip_header(&case.packet) => {}
            None => differences.push(format!("{program:?}: not taken by the test run")),
        }
    }
    kernel.empty(&extra, base);
    if differences.is_empty() { Ok(outcomes) } else { Err(differences.join("\n")) }
}

/// Newer test runs of TC do not take such packets, as the network stack does not: see `tables::lengths`.
fn lacks_ip_header(packet: &[u8]) -> bool {
    let header = match packet[12..14] {
        [0x08, 0x00] => 20,
        [0x86, 0xdd] => 40,
        _ => 0,
    };
    packet.len() < 14 + header
}
