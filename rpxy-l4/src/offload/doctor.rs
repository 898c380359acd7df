//! The report of `rpxy-l4 doctor`: which features of the kernel plane this machine supports, and what to change.

use std::{
    fs,
    io::{self, Write},
};

use aya::programs::{SchedClassifier, TcAttachType};

use super::{
    loader::{self, Machine, Pinned},
    routes::{Event, Link, Netlink},
};
use crate::config::model::{Config, Ebpf, EbpfMode, PIN_PATH};

/// Writes the report. Without a configuration it covers the interfaces that `auto` would find.
///
/// # Errors
///
/// Those of `out`.
pub(crate) fn doctor(out: &mut impl Write, config: Option<&Config>) -> io::Result<()> {
    let machine = Machine::read();
    let mut advice = Vec::new();
    about_machine(out, &machine, &mut advice)?;
    let found = default_settings();
    let settings = config.map_or(&found, |config| &config.ebpf);
    if config.is_some() && settings.mode == EbpfMode::Off {
        advice.push("ebpf.mode is \"off\" in the configuration: set it to \"auto\"".to_owned());
    }
    match loader::look(&settings.pin_path) {
        None => writeln!(out, "pinned: nothing in {}", settings.pin_path.display())?,
        Some(Pinned { links, in_use }) => {
            let user = if in_use { "used by a daemon" } else { "used by no daemon" };
            writeln!(out, "pinned: programs on {links} interfaces in {}, {user}", settings.pin_path.display())?;
            if !in_use {
                advice.push(format!(
                    "flows of an earlier daemon are still steered: start the daemon again, or end them by `rpxy-l4 unpin --path {}`",
                    settings.pin_path.display()
                ));
            }
        }
    }
    match Netlink::open().and_then(|mut netlink| netlink.state()) {
        Ok(network) => about_interfaces(out, settings, network, &machine, &mut advice)?,
        Err(error) => writeln!(out, "interfaces: cannot be read: {error}")?,
    }
    let spliced = match (settings.tcp, settings.mode) {
        (true, EbpfMode::Auto | EbpfMode::Xdp | EbpfMode::XdpGeneric | EbpfMode::Tc) => {
            "handed to the kernel where it pays"
        }
        (true, EbpfMode::Off) | (false, _) => "relayed (ebpf.tcp is off)",
    };
    writeln!(out, "TCP connections: {spliced}")?;
    if settings.tcp && settings.pin && machine.is_older_than((6, 6)) {
        advice.push("ebpf.pin keeps spliced TCP connections from Linux 6.6 on only".to_owned());
    }
    if advice.is_empty() {
        writeln!(out, "nothing to change")
    } else {
        writeln!(out, "to change:")?;
        advice.iter().try_for_each(|line| writeln!(out, "  - {line}"))
    }
}

const NO_BTF: &str = "use a kernel with CONFIG_DEBUG_INFO_BTF: without it TC leaves buffers of several datagrams (GSO, GRO) to the daemon";

fn default_settings() -> Ebpf {
    Ebpf {
        mode: EbpfMode::Auto,
        interfaces: Vec::new(),
        max_flows: std::num::NonZeroU32::MIN,
        tcp: false,
        max_spliced: std::num::NonZeroU32::MIN,
        early_drop: false,
        ban: Vec::new(),
        pin: false,
        pin_path: PIN_PATH.into(),
    }
}

fn about_machine(out: &mut impl Write, machine: &Machine, advice: &mut Vec<String>) -> io::Result<()> {
    writeln!(out, "kernel: {}", machine.release)?;
    if machine.is_older_than((5, 15)) {
        advice.push("use Linux 5.15 or newer".to_owned());
    }
    let object = loader::object();
    match object {
        Some(object) => writeln!(out, "eBPF object: built in, {} bytes", object.len())?,
        None => {
            writeln!(out, "eBPF object: missing")?;
            advice.push("build with the eBPF object: `cargo xtask build-ebpf`, then `cargo build`".to_owned());
        }
    }
    let missing = machine.missing();
    let capabilities = if missing.is_empty() { "enough".to_owned() } else { format!("missing {}", missing.join(", ")) };
    writeln!(out, "capabilities: {capabilities}")?;
    writeln!(
        out,
        "user namespace: {}",
        if machine.user_namespace { "separate (unprivileged container)" } else { "initial" }
    )?;
    let lockdown = machine.lockdown.as_deref().unwrap_or("none");
    writeln!(out, "lockdown: {lockdown}")?;
    writeln!(out, "BTF: {}", if machine.btf { "present" } else { "missing" })?;
    if !machine.btf {
        advice.push(NO_BTF.to_owned());
    }
    writeln!(out, "seccomp: {}", if machine.seccomp { "filters system calls" } else { "off" })?;
    let jit = match machine.jit {
        Some(true) => "on",
        Some(false) => "off",
        None => "not readable",
    };
    writeln!(out, "JIT: {jit}")?;
    if machine.jit == Some(false) {
        advice.push("compile programs: sysctl net.core.bpf_jit_enable=1".to_owned());
    }
    if !missing.is_empty() || machine.user_namespace || lockdown == "confidentiality" {
        let refusal = machine.refusal();
        advice.push(format!("{}: {}", refusal.what, refusal.remedy));
    }
    Ok(())
}

fn about_interfaces(
    out: &mut impl Write,
    settings: &Ebpf,
    network: Vec<Event>,
    machine: &Machine,
    advice: &mut Vec<String>,
) -> io::Result<()> {
    let links = loader::wanted(settings, network);
    for name in loader::missing(settings, &links) {
        advice.push(format!("ebpf.interfaces: {name} does not exist or is down"));
    }
    if links.is_empty() {
        writeln!(out, "interfaces: none")?;
        advice.push("bring an interface with an address up, or name it in ebpf.interfaces".to_owned());
        return Ok(());
    }
    for link in &links {
        writeln!(out, "interface {}: {}", link.name, describe(link, machine))?;
        if link.has_xdp && matches!(settings.mode, EbpfMode::Xdp | EbpfMode::XdpGeneric) {
            advice.push(format!("{}: it has another XDP program, so TC is used", link.name));
        }
    }
    let first = loader::candidates(EbpfMode::Auto, &links).first();
    writeln!(out, "auto uses: {}", first.map_or("nothing", |hook| hook.name()))
}

/// Describes the driver of a link, its support of XDP, and programs that are attached already.
fn describe(link: &Link, machine: &Machine) -> String {
    let device = format!("/sys/class/net/{}/device/driver", link.name);
    let driver = fs::read_link(device).ok().and_then(|path| Some(path.file_name()?.to_string_lossy().into_owned()));
    let driver = driver.or_else(|| link.kind.clone()).unwrap_or_else(|| "unknown".to_owned());
    let xdp = match (link.ethernet, link.has_xdp) {
        (false, _) => "no Ethernet: neither XDP nor TC",
        (true, true) => "XDP in use by another program",
        (true, false) if loader::prefers_native_xdp(link) => "native XDP if the driver supports it",
        (true, false) => "XDP only when asked for (virtual device)",
    };
    let mut text = format!("driver {driver}, MTU {}, {xdp}, {}", link.mtu, reverse_path(&link.name));
    if !machine.is_older_than((6, 6))
        && let Ok((_, programs)) = SchedClassifier::query_tcx(&link.name, TcAttachType::Ingress)
        && !programs.is_empty()
    {
        let names: Vec<&str> = programs.iter().map(|program| program.name_as_str().unwrap_or("?")).collect();
        text.push_str(&format!(", TC programs before ours: {}", names.join(", ")));
    }
    text
}

/// Describes what becomes of packets that arrive by another interface than the route to their sender leaves by, and so
/// are not steered: the greater of two settings holds (`ip-sysctl.rst`).
fn reverse_path(interface: &str) -> &'static str {
    let setting = |name: &str| -> Option<u8> {
        let text = fs::read_to_string(format!("/proc/sys/net/ipv4/conf/{name}/rp_filter")).ok()?;
        text.trim().parse().ok()
    };
    match setting("all").max(setting(interface)) {
        Some(1) => "packets on asymmetric routes are refused (rp_filter = 1)",
        Some(_) => "packets on asymmetric routes go to the daemon",
        None => "rp_filter not readable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reports_without_rights_and_without_configuration() {
        let mut out = Vec::new();
        doctor(&mut out, None).unwrap();
        let text = String::from_utf8(out).unwrap();
        for start in [
            "kernel: ",
            "pinned: ",
            "eBPF object: ",
            "capabilities: ",
            "lockdown: ",
            "JIT: ",
            "interface",
            "TCP connections: ",
        ] {
            assert!(text.lines().any(|line| line.starts_with(start)), "{start}:\n{text}");
        }
    }

    #[test]
    fn advises_to_switch_on() {
        let config = crate::config::parse("listen_port = 1\nudp_target = ['192.0.2.1:1']").unwrap().config;
        let mut out = Vec::new();
        doctor(&mut out, Some(&config)).unwrap();
        let text = String::from_utf8(out).unwrap();
        assert!(text.contains("ebpf.mode is \"off\"") && text.contains("TCP connections: relayed"), "{text}");
    }

    #[test]
    fn says_what_becomes_of_tcp() {
        for (row, keys, expected) in [
            ("off", "mode = 'tc'", "TCP connections: relayed"),
            ("on", "mode = 'tc'\ntcp = 'auto'", "TCP connections: handed to the kernel"),
            ("on, without programs", "tcp = 'auto'", "TCP connections: relayed"),
        ] {
            let text = format!("listen_port = 1\nudp_target = ['192.0.2.1:1']\n[ebpf]\n{keys}");
            let config = crate::config::parse(&text).unwrap().config;
            let mut out = Vec::new();
            doctor(&mut out, Some(&config)).unwrap();
            assert!(String::from_utf8(out).unwrap().contains(expected), "{row}");
        }
    }
}
