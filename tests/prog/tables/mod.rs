//! The tables, one for each thing that a program looks at.

mod drops;
mod fields;
mod gates;
mod headers;
mod lengths;
mod senders;
mod vlan;
mod ways;

use std::collections::BTreeSet;

use rpxy_l4_common::verdict::Counter;

use crate::rows::{Expected, Row};

/// Outcomes of a kernel without memory, which no test run brings about. When they are told is tested on the host, with
/// `rpxy_l4_ebpf::write`.
const OUT_OF_REACH: [Counter; 2] = [Counter::Refused, Counter::Broken];
/// Outcomes that take other maps: `seal` and `guards` have their rows.
const ELSEWHERE: [Counter; 4] =
    [Counter::EntryChanged, Counter::DroppedWireGuardMac1, Counter::DroppedSourceLimited, Counter::Lapsed];

/// Rows whose packets are written out, as against those cut at every byte.
const FEWEST: usize = 120;

#[test]
fn every_outcome_has_a_row() {
    let rows: Vec<Row> =
        [drops::rows(), fields::rows(), gates::rows(), headers::rows(), senders::rows(), vlan::rows(), ways::rows()]
            .into_iter()
            .flatten()
            .collect();
    let names: BTreeSet<&str> = rows.iter().map(|row| row.name.as_str()).collect();
    assert_eq!(names.len(), rows.len(), "two rows have one name");
    println!("{} rows", rows.len());
    assert!(rows.len() >= FEWEST, "{} rows", rows.len());

    let expected = rows.iter().flat_map(|row| [&row.xdp, &row.tc]).flatten();
    let reached: BTreeSet<Counter> = expected
        .map(|expected| match expected {
            Expected::Pass(counter) | Expected::Drop(counter) => *counter,
            Expected::Steer(_) | Expected::Back(_) => Counter::Steered,
        })
        .collect();
    let missing: Vec<_> = Counter::ALL.iter().filter(|counter| !reached.contains(counter)).collect();
    assert_eq!(missing, OUT_OF_REACH.iter().chain(&ELSEWHERE).collect::<Vec<_>>());
}

/// The start of a payload, then zeros up to a length.
fn padded(start: &[u8], len: usize) -> Vec<u8> {
    let mut payload = start.to_vec();
    payload.resize(len, 0);
    payload
}
