//! The table `[ebpf]`.

use std::path::Path;

use super::{BASE, accepted, refuses, warnings, warns};
use crate::config::model::{Ebpf, EbpfMode};

/// The table with this text, which begins on line 4.
fn with(text: &str) -> Ebpf {
    accepted(&format!("{BASE}[ebpf]\n{text}")).ebpf
}

#[test]
fn off_unless_asked_for() {
    for ebpf in [accepted(BASE).ebpf, with("")] {
        assert_eq!(ebpf.mode, EbpfMode::Off);
        assert!(ebpf.interfaces.is_empty());
        assert_eq!(ebpf.max_flows.get(), 65536);
        assert!(!ebpf.tcp);
        assert_eq!(ebpf.max_spliced.get(), 16384);
        assert!(!ebpf.early_drop);
        assert!(ebpf.ban.is_empty());
        assert!(!ebpf.pin);
        assert_eq!(ebpf.pin_path, Path::new("/sys/fs/bpf/rpxy-l4"));
    }
    assert_eq!(warnings(&format!("{BASE}[ebpf]")), [""; 0]);
}

#[test]
fn values() {
    let modes = [
        ("off", EbpfMode::Off),
        ("auto", EbpfMode::Auto),
        ("xdp", EbpfMode::Xdp),
        ("xdp-generic", EbpfMode::XdpGeneric),
        ("TC", EbpfMode::Tc),
    ];
    for (word, mode) in modes {
        assert_eq!(with(&format!("mode = '{word}'")).mode, mode, "{word}");
    }
    assert_eq!(with("interfaces = ['eth0', 'eth1', 'eth0']").interfaces, ["eth0", "eth1"]);
    assert_eq!(with("max_flows = 1").max_flows.get(), 1);
    assert_eq!(with("max_flows = 1048576").max_flows.get(), 1 << 20);
    assert!(with("tcp = 'auto'").tcp);
    assert!(!with("tcp = 'off'").tcp);
    assert_eq!(with("max_spliced = 1048576").max_spliced.get(), 1 << 20);
    assert!(with("early_drop = true").early_drop);
    assert!(with("pin = true").pin);
    assert_eq!(with("pin_path = '/run/bpf/a'").pin_path, Path::new("/run/bpf/a"));
    let ban = with("ban = ['192.0.2.77/24', '192.0.2.0/24', '198.51.100.1', '2001:db8::/32', '::1']").ban;
    let ban: Vec<String> = ban.iter().map(ToString::to_string).collect();
    assert_eq!(ban, ["192.0.2.0/24", "198.51.100.1/32", "2001:db8::/32", "::1/128"]);
}

#[test]
fn what_is_wrong_is_refused() {
    refuses(&[
        ("no table", "ebpf = 'auto'", "3: ebpf"),
        ("unknown mode", "[ebpf]\nmode = 'native'", "4: ebpf.mode"),
        ("switch", "[ebpf]\nmode = true", "4: ebpf.mode"),
        ("no interfaces", "[ebpf]\ninterfaces = []", "4: ebpf.interfaces"),
        ("one interface", "[ebpf]\ninterfaces = 'eth0'", "4: ebpf.interfaces"),
        ("name too long", "[ebpf]\ninterfaces = ['eth0', 'abcdefghijklmnop']", "4: ebpf.interfaces[1]"),
        ("no name", "[ebpf]\ninterfaces = ['']", "4: ebpf.interfaces[0]"),
        ("no flows", "[ebpf]\nmax_flows = 0", "4: ebpf.max_flows"),
        ("too many flows", "[ebpf]\nmax_flows = 1048577", "4: ebpf.max_flows"),
        ("tcp as a switch", "[ebpf]\ntcp = true", "4: ebpf.tcp"),
        ("none spliced", "[ebpf]\nmax_spliced = 0", "4: ebpf.max_spliced"),
        ("early_drop as a number", "[ebpf]\nearly_drop = 1", "4: ebpf.early_drop"),
        ("pin as a path", "[ebpf]\npin = '/sys/fs/bpf'", "4: ebpf.pin"),
        ("pin_path from somewhere", "[ebpf]\npin_path = 'rpxy-l4'", "4: ebpf.pin_path"),
        ("pin_path of everything", "[ebpf]\npin_path = '/'", "4: ebpf.pin_path"),
        ("name in the ban", "[ebpf]\nban = ['example.com']", "4: ebpf.ban[0]"),
        ("prefix too long", "[ebpf]\nban = ['192.0.2.0/33']", "4: ebpf.ban[0]"),
        ("one ban", "[ebpf]\nban = '192.0.2.1'", "4: ebpf.ban"),
    ]);
}

#[test]
fn what_has_no_effect_is_told() {
    warns(&[
        ("on", "[ebpf]\nmode = 'auto'\nearly_drop = true\ninterfaces = ['eth0']\nmax_flows = 5", None),
        ("interfaces, off", "[ebpf]\ninterfaces = ['eth0']", Some("4: ebpf.interfaces")),
        ("flows, off", "[ebpf]\nmax_flows = 7", Some("4: ebpf.max_flows")),
        ("early drop, off", "[ebpf]\nearly_drop = true", Some("4: ebpf.early_drop")),
        ("tcp, off", "[ebpf]\ntcp = 'auto'", Some("4: ebpf.tcp")),
        ("spliced, all on", "[ebpf]\nmode = 'tc'\ntcp = 'auto'\nmax_spliced = 7", None),
        ("spliced, tcp off", "[ebpf]\nmode = 'tc'\nmax_spliced = 7", Some("5: ebpf.max_spliced")),
        ("pin, off", "[ebpf]\npin = true", Some("4: ebpf.pin")),
        ("no early drop, off", "[ebpf]\nearly_drop = false", None),
        ("bans do without", "[ebpf]\nban = ['192.0.2.1']", None),
        ("everybody", "[ebpf]\nban = ['0.0.0.0/0']", Some("4: ebpf.ban[0]")),
        ("loopback", "[ebpf]\nmode = 'tc'\ninterfaces = ['lo']", Some("5: ebpf.interfaces[0]")),
    ]);
}
