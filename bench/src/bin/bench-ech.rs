//! `cargo xtask bench ech`: what Encrypted Client Hello costs for each hello, on one core, without sockets.
//!
//! The hellos are those of real clients (Go over TLS, Chromium over QUIC). A hello without the extension, of the same
//! length, is the measure of the others; all kinds take turns, so that a change of the clock hits all alike.

use std::{
    hint::black_box,
    time::{Duration, Instant},
};

use anyhow::{Context as _, bail};
use clap::Parser;
use rpxy_l4_proto::{
    Probe,
    ech::{EchKey, EchKeys, FirstHello, open_first, read_pem},
    quic::{InitialProbe, InitialRewriter, Rewritten, Version, packets},
    tls::{ClientHello, HelloProbe, handshake_records},
};

const GO: &[u8] = include_bytes!("../../../rpxy-l4-proto/src/ech/testdata/go_hello_first.bin");
const CHROMIUM: [&[u8]; 2] = [
    include_bytes!("../../../rpxy-l4-proto/src/quic/testdata/chromium_d0.bin"),
    include_bytes!("../../../rpxy-l4-proto/src/quic/testdata/chromium_d1.bin"),
];
/// The key that both hellos were made for.
const KEY: &str = include_str!("../../../rpxy-l4-proto/src/ech/testdata/openssl_ech.pem");
/// Another one.
const OTHER_KEY: &str = include_str!("../../../rpxy-l4-proto/src/ech/testdata/openssl_p256.pem");

/// Measures what Encrypted Client Hello costs for each hello.
#[derive(Debug, Parser)]
#[command(version)]
struct Arguments {
    /// Turns of every kind
    #[arg(long, default_value_t = 20)]
    rounds: u32,
    /// Length of a turn in milliseconds
    #[arg(long, default_value_t = 100)]
    milliseconds: u64,
}

/// One kind of hello: its name, and one pass over it.
struct Kind {
    name: &'static str,
    pass: Box<dyn FnMut() -> anyhow::Result<()>>,
}

fn main() -> anyhow::Result<()> {
    let arguments = Arguments::parse();
    let ours: EchKeys = keys(KEY)?;
    let other: EchKeys = keys(OTHER_KEY)?;
    report("TLS", &mut tls(&ours, &other)?, &arguments)?;
    report("QUIC, a hello in two datagrams", &mut quic(&ours, &other), &arguments)
}

fn keys(text: &str) -> anyhow::Result<EchKeys> {
    let keys: Vec<EchKey> = read_pem(text)?;
    Ok(keys.into_iter().collect())
}

/// From the records of a hello to the records that the backend gets.
fn tls(ours: &EchKeys, other: &EchKeys) -> anyhow::Result<Vec<Kind>> {
    let records = |message: &[u8]| handshake_records(message, 1);
    let pass = |stream: Vec<u8>, keys: &EchKeys, expected: fn(&FirstHello) -> bool| {
        let keys = keys.clone();
        let pass = move || {
            let Probe::Match(hello) = HelloProbe::default().advance(black_box(&stream)) else { bail!("no hello") };
            let answer = open_first(&keys, &hello, || true);
            if !expected(&answer) {
                bail!("not what was to be measured: {answer:?}");
            }
            if let FirstHello::Accepted { inner, .. } = &answer {
                black_box(handshake_records(inner.message(), 1));
            }
            Ok(())
        };
        Box::new(pass) as Box<dyn FnMut() -> anyhow::Result<()>>
    };
    // Another extension type instead of ECH: as long, and of no interest.
    let at = GO.windows(2).position(|window| window == [0xfe, 0x0d]).context("the extension")?;
    let mut plain = GO.to_vec();
    plain[at + 1] = 0x0e;
    // In the client's random.
    let mut broken = GO.to_vec();
    broken[10] ^= 1;
    Ok(vec![
        Kind {
            name: "without ECH",
            pass: pass(records(&plain), ours, |answer| matches!(answer, FirstHello::NotOffered)),
        },
        Kind { name: "for another configuration, or grease", pass: pass(records(GO), other, is_rejected) },
        Kind {
            name: "accepted",
            pass: pass(records(GO), ours, |answer| matches!(answer, FirstHello::Accepted { .. })),
        },
        Kind { name: "for another key of the same number", pass: pass(records(&broken), ours, is_rejected) },
    ])
}

fn is_rejected(answer: &FirstHello) -> bool {
    matches!(answer, FirstHello::Rejected(_))
}

/// From the first datagrams to those that the backend gets.
fn quic(ours: &EchKeys, other: &EchKeys) -> Vec<Kind> {
    let hello = || -> anyhow::Result<(InitialProbe, ClientHello)> {
        let dcid = packets(CHROMIUM[0]).next().context("a packet")?.dcid;
        let mut probe = InitialProbe::new(Version::V1, dcid);
        let mut hello = None;
        for datagram in CHROMIUM {
            if let Probe::Match(found) = probe.advance(black_box(datagram)) {
                hello = Some(found);
            }
        }
        Ok((probe, hello.context("a hello")?))
    };
    let plain = move || hello().map(drop);
    let (ours, other) = (ours.clone(), other.clone());
    let grease = move || {
        let (_, hello) = hello()?;
        let answer = open_first(&other, &hello, || true);
        if is_rejected(&answer) { Ok(()) } else { bail!("{answer:?}") }
    };
    let accepted = move || {
        let (_, hello) = hello()?;
        let FirstHello::Accepted { inner, .. } = open_first(&ours, &hello, || true) else { bail!("not accepted") };
        let dcid = packets(CHROMIUM[0]).next().context("a packet")?.dcid;
        let mut rewriter = InitialRewriter::new(dcid, &hello, &inner).context("a longer hello")?;
        for datagram in CHROMIUM {
            let mut datagram = datagram.to_vec();
            if rewriter.rewrite(&mut datagram, || true) != Rewritten::Done {
                bail!("not rewritten");
            }
            black_box(datagram);
        }
        Ok(())
    };
    vec![
        Kind { name: "without a look at ECH", pass: Box::new(plain) },
        Kind { name: "for another configuration, or grease", pass: Box::new(grease) },
        Kind { name: "accepted", pass: Box::new(accepted) },
    ]
}

/// Takes turns and prints the medians.
fn report(title: &str, kinds: &mut [Kind], arguments: &Arguments) -> anyhow::Result<()> {
    let turn = Duration::from_millis(arguments.milliseconds);
    let mut rounds: Vec<Vec<f64>> = vec![Vec::new(); kinds.len()];
    for _ in 0..arguments.rounds {
        for (kind, times) in kinds.iter_mut().zip(&mut rounds) {
            let (begun, mut count) = (Instant::now(), 0_u32);
            while begun.elapsed() < turn {
                (kind.pass)()?;
                count += 1;
            }
            times.push(begun.elapsed().as_secs_f64() / f64::from(count.max(1)));
        }
    }
    print(&format!("## {title}\n\n| hello | hellos/s on one core | µs each | ÷ the first |\n|---|---:|---:|---:|"));
    let first_kind = rounds.first().cloned().unwrap_or_default();
    for (kind, times) in kinds.iter().zip(&rounds) {
        let ratio = median(times.iter().zip(&first_kind).map(|(time, first)| time / first).collect());
        let time = median(times.clone());
        print(&format!("| {} | {:.0} | {:.2} | {ratio:.2} |", kind.name, 1.0 / time, time * 1e6));
    }
    print("");
    Ok(())
}

fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

#[expect(clippy::print_stdout, reason = "the figures are what the program is for")]
fn print(line: &str) {
    println!("{line}");
}
