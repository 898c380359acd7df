//! The kernel plane.

use std::{
    num::NonZeroU32,
    path::{Path, PathBuf},
};

use ipnet::IpNet;

use super::{
    listen::{is_interface, without_duplicates},
    network::network,
};
use crate::config::{
    file::{Field, Table},
    keys::Scope,
    model::{Ebpf, EbpfMode, PIN_PATH},
    report::{Report, quote},
};

const MAX_FLOWS: u32 = 65_536;
/// Two entries a session, with what the kernel adds: some 400 MB.
const MOST_FLOWS: u32 = 1 << 20;

const MAX_SPLICED: u32 = 16_384;
const TCP: &[(&str, bool)] = &[("off", false), ("auto", true)];

const MODES: &[(&str, EbpfMode)] = &[
    ("off", EbpfMode::Off),
    ("auto", EbpfMode::Auto),
    ("xdp", EbpfMode::Xdp),
    ("xdp-generic", EbpfMode::XdpGeneric),
    ("tc", EbpfMode::Tc),
];

pub(super) fn ebpf(report: &mut Report<'_>, root: &Table<'_>) -> Ebpf {
    let table = root.field("ebpf").and_then(|field| field.table(report, Scope::Ebpf));
    let field = |key| table.as_ref().and_then(|table| table.field(key));
    let ebpf = Ebpf {
        mode: field("mode").and_then(|field| field.word(report, MODES)).unwrap_or_default(),
        interfaces: field("interfaces").map(|field| interfaces(report, &field)).unwrap_or_default(),
        max_flows: field("max_flows")
            .and_then(|field| field.integer(report, 1..=MOST_FLOWS))
            .and_then(NonZeroU32::new)
            .unwrap_or(const { NonZeroU32::new(MAX_FLOWS).unwrap() }),
        tcp: field("tcp").and_then(|field| field.word(report, TCP)).unwrap_or_default(),
        max_spliced: field("max_spliced")
            .and_then(|field| field.integer(report, 1..=MOST_FLOWS))
            .and_then(NonZeroU32::new)
            .unwrap_or(const { NonZeroU32::new(MAX_SPLICED).unwrap() }),
        early_drop: field("early_drop").and_then(|field| field.boolean(report)).unwrap_or_default(),
        // The list holds for the daemon, too, so that it has a place at the top; this one is older.
        ban: without_duplicates(
            [root.field("ban"), field("ban")].into_iter().flatten().flat_map(|field| ban(report, &field)).collect(),
        ),
        pin: field("pin").and_then(|field| field.boolean(report)).unwrap_or_default(),
        pin_path: field("pin_path")
            .and_then(|field| pin_path(report, &field))
            .unwrap_or_else(|| PathBuf::from(PIN_PATH)),
    };
    if ebpf.mode == EbpfMode::Off {
        let idle = ["interfaces", "max_flows"].into_iter().chain(ebpf.early_drop.then_some("early_drop"));
        let idle = idle.chain(ebpf.pin.then_some("pin")).chain(ebpf.tcp.then_some("tcp"));
        for field in idle.filter_map(field) {
            report.warn_with(&field.position, "has no effect, because ebpf.mode is \"off\"", "try mode = \"auto\"");
        }
    }
    if (ebpf.mode == EbpfMode::Off || !ebpf.tcp)
        && let Some(field) = field("max_spliced")
    {
        report.warn_with(&field.position, "has no effect, because ebpf.tcp is \"off\"", "try tcp = \"auto\"");
    }
    ebpf
}

fn pin_path(report: &mut Report<'_>, field: &Field<'_>) -> Option<PathBuf> {
    let path = Path::new(field.string(report)?);
    if !path.is_absolute() || path.parent().is_none() {
        report.error_with(&field.position, "must be the absolute path of a directory", "try \"/sys/fs/bpf/rpxy-l4\"");
    }
    Some(path.to_owned())
}

fn interfaces(report: &mut Report<'_>, field: &Field<'_>) -> Vec<String> {
    if field.is_empty_array() {
        report.error_with(&field.position, "must not be empty", "without the key, interfaces are found");
    }
    let mut names = Vec::new();
    for (position, name) in field.strings(report).unwrap_or_default() {
        if !is_interface(name) {
            report.error(&position, format!("{} is not an interface name", quote(name)));
        } else if name == "lo" {
            report.warn(&position, "has no effect: traffic within this machine is not steered");
        }
        names.push(name.to_owned());
    }
    without_duplicates(names)
}

fn ban(report: &mut Report<'_>, field: &Field<'_>) -> Vec<IpNet> {
    let mut networks = Vec::new();
    for (position, text) in field.strings(report).unwrap_or_default() {
        let Some(network) = network(report, &position, text) else { continue };
        if network.prefix_len() == 0 {
            report.warn(&position, "bans every address");
        }
        networks.push(network);
    }
    networks
}
