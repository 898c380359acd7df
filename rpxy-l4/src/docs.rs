//! Tests that hold documents to the code: the help in the README, each table of docs/metrics.md, and the reasons in
//! docs/logs.md.

use std::collections::BTreeSet;

use clap::CommandFactory as _;

use crate::{
    cli::Cli,
    metrics::{DatagramDrop, Metrics, Outcome},
};

const README: &str = include_str!("../../README.md");
const LOGS: &str = include_str!("../../docs/logs.md");
const METRICS: &str = include_str!("../../docs/metrics.md");

/// The dashboard and the alerts, which name series in their expressions.
const EXPRESSIONS: [(&str, &str); 2] = [
    ("packaging/grafana/rpxy-l4.json", include_str!("../../packaging/grafana/rpxy-l4.json")),
    ("packaging/prometheus/alerts.yml", include_str!("../../packaging/prometheus/alerts.yml")),
];
/// Metrics, with their types, that are there only with the kernel plane, or with checks.
const SOMETIMES: [(&str, &str); 6] = [
    ("rpxy_l4_kernel_packets", "counter"),
    ("rpxy_l4_kernel_flows", "gauge"),
    ("rpxy_l4_kernel_spliced", "gauge"),
    ("rpxy_l4_kernel_tcp_packets", "counter"),
    ("rpxy_l4_target_up", "gauge"),
    ("rpxy_l4_target_checks", "counter"),
];

/// The tables of docs/metrics.md that list the values of a label: heading, metric, label.
const LABELS: [(&str, &str, &str); 5] = [
    ("## Outcomes of a TCP connection", "rpxy_l4_tcp_ended_total", "outcome"),
    ("## States of a hello", "rpxy_l4_ech_hellos_total", "state"),
    ("## Ends of a UDP session", "rpxy_l4_udp_ended_total", "end"),
    ("## Reasons for dropped datagrams", "rpxy_l4_udp_dropped_total", "reason"),
    ("## Connection IDs and tunnel indices", "rpxy_l4_udp_affinity_total", "event"),
];

#[test]
fn the_readme_shows_the_help_of_the_command_line() {
    // As wide as without a terminal.
    let help = Cli::command().term_width(100).render_help().to_string();
    let blocks = README.split("```").skip(1).step_by(2).filter_map(|block| block.strip_prefix("text\n"));
    let shown = blocks.into_iter().find(|block| block.contains("Usage: rpxy-l4 ")).unwrap_or_default();
    assert_eq!(shown.trim_end(), help.trim_end(), "README.md");
}

#[test]
fn each_table_of_labels_lists_those_of_its_metric() {
    let encoded = Metrics::new().encode().unwrap();
    for (heading, metric, label) in LABELS {
        let documented: BTreeSet<&str> = first_column(METRICS, heading).collect();
        let counted: BTreeSet<&str> = encoded
            .lines()
            .filter_map(|line| line.strip_prefix(metric)?.split_once(&format!("{label}=\""))?.1.split('"').next())
            .collect();
        assert!(!counted.is_empty(), "{metric} has no {label}");
        assert_eq!(documented, counted, "docs/metrics.md, {heading}");
    }
}

#[test]
fn the_table_of_the_kernel_plane_lists_every_outcome_with_its_action() {
    let rows: BTreeSet<String> = section(METRICS, "## Outcomes of packets in the kernel plane")
        .filter_map(|line| Some(row(line)?[..2].join(" ")))
        .collect();
    let counters = rpxy_l4_common::verdict::Counter::ALL;
    let expected = counters.iter().map(|counter| format!("`{}` {}", counter.name(), counter.action().name())).collect();
    assert_eq!(rows, expected);
}

#[test]
fn the_table_of_metrics_lists_every_metric() {
    let documented: BTreeSet<&str> =
        first_column(METRICS, "# Metrics").map(|name| name.trim_end_matches("_total")).collect();
    let encoded = Metrics::new().encode().unwrap();
    let mut counted: BTreeSet<&str> =
        encoded.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split(' ').next()).collect();
    counted.extend(SOMETIMES.map(|(name, _)| name));
    assert_eq!(documented, counted);
}

#[test]
fn dashboard_and_alerts_name_series_that_there_are() {
    let encoded = Metrics::new().encode().unwrap();
    let types = encoded.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    let series: BTreeSet<String> = types
        .chain(SOMETIMES)
        .flat_map(|(name, kind)| match kind {
            "counter" => vec![format!("{name}_total")],
            "histogram" => ["bucket", "sum", "count"].map(|part| format!("{name}_{part}")).to_vec(),
            _ => vec![name.to_owned()],
        })
        .collect();
    for (file, text) in EXPRESSIONS {
        let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
        let named: BTreeSet<&str> =
            words.filter(|word| word.starts_with("rpxy_l4_") || word.starts_with("process_")).collect();
        assert!(named.len() > 5, "{file} names {named:?}");
        for name in named {
            assert!(series.contains(name), "{file}: there is no series {name}");
        }
    }
}

#[test]
fn the_text_on_refusals_of_rules_names_each() {
    let text: String = section(METRICS, "## Rules and targets").collect::<Vec<_>>().join(" ");
    for name in crate::metrics::rule_refusals() {
        assert!(text.contains(&format!("`{name}`")), "docs/metrics.md, ## Rules and targets: {name}");
    }
}

#[test]
fn the_table_of_refused_traffic_lists_every_reason() {
    let documented: BTreeSet<&str> = first_column(LOGS, "### Reasons of refusals").collect();
    assert_eq!(documented, Outcome::refusals().chain(DatagramDrop::refusals()).collect());
}

/// The names between backquotes in the first column of the tables under `heading`.
fn first_column<'a>(markdown: &'a str, heading: &'a str) -> impl Iterator<Item = &'a str> {
    section(markdown, heading).filter_map(|line| row(line)?.first()?.strip_prefix('`')?.strip_suffix('`'))
}

/// The lines under `heading`, up to the next heading.
fn section<'a>(markdown: &'a str, heading: &'a str) -> impl Iterator<Item = &'a str> {
    let below = markdown.lines().skip_while(move |line| *line != heading).skip(1);
    below.take_while(|line| !line.starts_with('#'))
}

/// The cells of a table's row whose first one is a name between backquotes.
fn row(line: &str) -> Option<Vec<&str>> {
    let cells: Vec<&str> = line.strip_prefix('|')?.split('|').map(str::trim).collect();
    cells.first()?.starts_with('`').then_some(cells)
}
