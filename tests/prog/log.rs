//! The object that logs decides as the other one, and tells what it decided.

use std::sync::{Arc, Mutex};
use std::time::Instant;

use aya_log::EbpfLogger;
use log::{Level, Log, Metadata, Record};
use rpxy_l4_common::map::log_state;

use crate::fixture::{NETS, V4, address, from, maps, to};
use crate::kernel::{Kernel, Program};

/// Messages as they were read, with their levels.
#[derive(Clone, Default)]
struct Told(Arc<Mutex<Vec<(Level, String)>>>);

impl Log for Told {
    fn enabled(&self, _: &Metadata<'_>) -> bool {
        true
    }

    fn log(&self, record: &Record<'_>) {
        self.0.lock().unwrap().push((record.level(), record.args().to_string().trim_end().to_owned()));
    }

    fn flush(&self) {}
}

impl Told {
    fn by(kernel: &mut Kernel) -> (Self, EbpfLogger<Self>) {
        let told = Self::default();
        let ring = EbpfLogger::init_with_logger(kernel.object(), told.clone()).unwrap();
        (told, ring)
    }

    fn take(&self) -> Vec<(Level, String)> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }
}

#[test]
fn every_verdict_is_told_with_flow_and_reason() {
    let Some(mut kernel) = Kernel::that_logs_or_skip() else { return };
    kernel.fill(&maps());
    let (told, mut ring) = Told::by(&mut kernel);
    // (client's port, our port, level, verdict)
    let rows = [
        (from::OPEN, to::OURS, Level::Trace, "steered"),
        (from::STRANGER, to::OURS, Level::Debug, "pass no_flow"),
        (from::STRANGER, to::CLOSED, Level::Debug, "drop dropped_quic_short"),
        (from::LOST, to::OURS, Level::Trace, "steered"),
        (from::STRANGER, to::FOREIGN, Level::Trace, "pass foreign"),
    ];
    for net in NETS {
        for (program, name) in [(Program::Xdp, "xdp"), (Program::Tc, "tc"), (Program::TcOne, "tc")] {
            for (source, destination, mut level, mut verdict) in rows {
                if (source, program) == (from::LOST, Program::Xdp) {
                    (level, verdict) = (Level::Debug, "pass no_hop");
                }
                kernel.run(program, &net.packet(source, destination, &[0x47; 30]).bytes(), 0);
                ring.flush();
                let flow = format!("{} -> {}", address(net.client, source), address(net.ours, destination));
                assert_eq!(told.take(), [(level, format!("{flow} {name} {verdict}"))], "{}", net.name);
            }
            let mut icmp = net.packet(from::OPEN, to::OURS, &[0; 30]).bytes();
            icmp[if net.name == V4.name { 23 } else { 20 }] = if net.name == V4.name { 1 } else { 58 };
            kernel.run(program, &icmp, 0);
            ring.flush();
            let expected = (Level::Trace, format!("{name} pass icmp"));
            assert_eq!(told.take(), [expected], "{}: of no flow, after one of a flow", net.name);
        }
    }
}

#[test]
fn a_flood_is_told_in_part_and_counted_whole() {
    const FLOOD: u64 = 2000;
    let Some(mut kernel) = Kernel::that_logs_or_skip() else { return };
    kernel.fill(&maps());
    let (told, mut ring) = Told::by(&mut kernel);
    let packet = V4.packet(from::STRANGER, to::OURS, &[0x47; 30]).bytes();
    let begun = Instant::now();
    for _ in 0..FLOOD {
        kernel.run(Program::Xdp, &packet, 0);
        ring.flush();
    }
    let window = u128::from(log_state::WINDOW) + begun.elapsed().as_nanos();
    let told = told.take().len();
    assert!(told as u128 <= window / u128::from(log_state::INTERVAL), "{told} messages in {window} ns");
    assert!(told as u64 >= log_state::WINDOW / u64::from(log_state::INTERVAL), "only {told} messages");
    assert_eq!(kernel.log_state(log_state::MESSAGES), FLOOD);
}

#[test]
fn nobody_reads_and_packets_go_on() {
    let Some(mut kernel) = Kernel::that_logs_or_skip() else { return };
    kernel.fill(&maps());
    let packet = V4.packet(from::STRANGER, to::OURS, &[0x47; 30]).bytes();
    // More than the ring takes: each message has 256 bytes or more.
    for _ in 0..600 {
        // The bucket is always full.
        kernel.set_log_state(log_state::DUE, 0);
        kernel.run(Program::Tc, &packet, 0);
    }
    let (told, mut ring) = Told::by(&mut kernel);
    ring.flush();
    let told = told.take().len();
    assert!((200..600).contains(&told), "{told} messages");
    assert_eq!(kernel.log_state(log_state::MESSAGES), 600);
}
