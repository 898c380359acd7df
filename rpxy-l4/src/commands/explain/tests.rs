//! What `rpxy-l4 explain --config` prints.

use clap::Parser as _;

use super::*;
use crate::{
    cli::{Cli, Command},
    config,
};

const FILE: &str = r#"
listen_port = 443
listen_ipv6 = true
tcp_max_connections = 1000
tcp_max_connections_per_source = 0
udp_max_connections = 1000
udp_target = ["192.168.0.9:53"]
deny = ["198.51.100.0/24"]

[protocols.web]
protocol = "tls"
server_names = ["www.example.com"]
target = ["192.168.0.2:443", "web.internal:443"]
send_proxy_protocol = "v1"

[protocols.wild]
protocol = "tls"
server_names = ["*.example.com"]
load_balance = "random"
target = ["192.168.0.4:443", { address = "192.168.0.5:443", weight = 3 }, { address = "192.168.0.6:443", backup = true }]

[protocols.h2]
protocol = "tls"
alpn = ["h2"]
target = ["192.168.0.7:443"]

[protocols.lan]
protocol = "tls"
from = ["10.0.0.0/8"]
target = [{ address = "192.168.0.8:443", down = true }, "192.168.0.10:443"]

[protocols.ssh]
protocol = "ssh"
max_connections = 20
target = ["192.168.0.3:22"]

[protocols.h3]
protocol = "quic"
server_names = ["www.example.com"]
target = ["192.168.0.2:443"]

[protocols.wg]
protocol = "wireguard"
public_key = "BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc="
target = ["192.168.0.11:51820"]

[protocols.wg2]
protocol = "wireguard"
target = ["192.168.0.12:51820"]

[listeners.office]
listen_port = 8443
tcp_target = ["192.168.0.13:80"]
"#;

fn arguments(line: &str) -> Result<Box<ExplainArgs>, clap::Error> {
    let cli = Cli::try_parse_from(["rpxy-l4", "explain"].into_iter().chain(line.split_whitespace()))?;
    let Some(Command::Explain(args)) = cli.command else { panic!("{line}") };
    Ok(args)
}

fn explained(line: &str) -> Result<String> {
    explained_by(FILE, line)
}

fn explained_by(file: &str, line: &str) -> Result<String> {
    let question = question(&*arguments(line)?)?;
    let explanation = supervise::explain_file(config::parse(file).unwrap().config, &question)?;
    let mut text = Vec::new();
    show(&serde_json::to_value(&explanation)?, &mut text)?;
    Ok(String::from_utf8(text)?)
}

/// The last line, which is the same each time.
#[cfg(feature = "proxy-protocol")]
const BY_THE_FILE: &str = "note               by the file alone: load, health, what is drained, bans by command and addresses of \
                           names are not known\n";

#[cfg(feature = "proxy-protocol")]
#[test]
fn explanations_by_a_file() {
    for (line, expected) in [
        (
            "--from 203.0.113.7:50000 --sni www.example.com --alpn h2,http/1.1",
            "TCP from 203.0.113.7:50000 to listener default (0.0.0.0:443, [::]:443): 262 bytes
goes to 192.168.0.2:443 by rule web

recognised         tls, server name www.example.com, ALPN h2, http/1.1
ban                not banned
access list        allows it
source             no limit
connections        0 of 1000
rule's connections 0, no limit of its own
rule               web: server name www.example.com
other rules        wild  would match, but web says more of the server name
                   h2    would match, but web says more of the server name
                   lan   takes clients in 10.0.0.0/8 only
                   ssh   is for ssh
balance            none: the first in the file that can be reached
targets             1  192.168.0.2:443   up
                    2  web.internal:443  up, not resolved yet
PROXY header       v1, PROXY TCP4 203.0.113.7 0.0.0.0 50000 443
plane              userspace: TCP is relayed by the daemon
note               the destination in the PROXY header is the address that the client used
",
        ),
        (
            "--sni x.example.com",
            "TCP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): 242 bytes
goes to one of 192.168.0.4:443, 192.168.0.5:443 by rule wild

recognised         tls, server name x.example.com
ban                not banned
access list        allows it
source             no limit
connections        0 of 1000
rule's connections 0, no limit of its own
rule               wild: server name *.example.com
other rules        web  takes server name www.example.com only
                   h2   takes ALPN h2 only
                   lan  takes clients in 10.0.0.0/8 only
                   ssh  is for ssh
balance            random: at random, by weight: one of the 2 that are first
targets             1  192.168.0.4:443  up
                    1  192.168.0.5:443  up, weight 3
                    3  192.168.0.6:443  up, backup
PROXY header       none
plane              userspace: TCP is relayed by the daemon
",
        ),
        (
            "--sni example.com --from 10.1.2.3",
            "TCP from 10.1.2.3 to listener default (0.0.0.0:443, [::]:443): 240 bytes
goes to 192.168.0.10:443 by rule lan

recognised         tls, server name example.com
ban                not banned
access list        allows it
source             no limit
connections        0 of 1000
rule's connections 0, no limit of its own
rule               lan: a client in 10.0.0.0/8
other rules        web   takes server name www.example.com only
                   wild  takes server name *.example.com only
                   h2    takes ALPN h2 only
                   ssh   is for ssh
balance            none: the first in the file that can be reached
targets             1  192.168.0.10:443  up
                    -  192.168.0.8:443   off: down = true in the file
PROXY header       none
plane              userspace: TCP is relayed by the daemon
",
        ),
        (
            "--protocol ssh --from 198.51.100.7",
            "TCP from 198.51.100.7 to listener default (0.0.0.0:443, [::]:443): 25 bytes
is refused (denied): 198.51.100.0/24 is in deny

recognised         ssh
ban                not banned
access list        refused (denied): 198.51.100.0/24 is in deny
source             no limit
connections        0 of 1000
rule's connections 0 of 20, its max_connections
rule               ssh: any ssh
other rules        web   is for tls
                   wild  is for tls
                   h2    is for tls
                   lan   is for tls
balance            none: the first in the file that can be reached
targets             1  192.168.0.3:22  up
PROXY header       none
plane              userspace: TCP is relayed by the daemon
",
        ),
        (
            "",
            "TCP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): no byte
is refused (not_recognised): the client says nothing, and there is no tcp_target

recognised         nothing, no byte
ban                not banned
access list        allows it
source             no limit
connections        0 of 1000
rule               none
other rules        web   is for tls
                   wild  is for tls
                   h2    is for tls
                   lan   is for tls
                   ssh   is for ssh
PROXY header       none
plane              userspace: TCP is relayed by the daemon
note               more bytes could still change the answer: it is what becomes of these after 3s without more
",
        ),
        (
            "--udp --sni www.example.com",
            "UDP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): 1200 bytes
goes to 192.168.0.2:443 by rule h3

recognised         quic, server name www.example.com
ban                not banned
access list        allows it
sessions           0 of 1000
rule               h3: server name www.example.com
other rules        wg   is for wireguard
                   wg2  is for wireguard
balance            none: the first in the file that can be reached
targets             1  192.168.0.2:443  up
plane              userspace: there is no kernel plane: ebpf.mode is \"off\" (off)
",
        ),
        (
            "--udp --sni other.example --alpn h3",
            "UDP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): 1200 bytes
is refused (unmatched): no rule for quic fits, and unmatched is \"drop\"

recognised         quic, server name other.example, ALPN h3
ban                not banned
access list        allows it
rule               none
other rules        h3   takes server name www.example.com only
                   wg   is for wireguard
                   wg2  is for wireguard
plane              userspace: there is no kernel plane: ebpf.mode is \"off\" (off)
",
        ),
        (
            "--public-key BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
            "UDP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): 148 bytes
goes to 192.168.0.11:51820 by rule wg

recognised         wireguard, a handshake initiation
ban                not banned
access list        allows it
sessions           0 of 1000
rule               wg: its public key
other rules        wg2  would match, but wg has the public key
                   h3   is for quic
balance            none: the first in the file that can be reached
targets             1  192.168.0.11:51820  up
plane              userspace: there is no kernel plane: ebpf.mode is \"off\" (off)
",
        ),
        (
            "--protocol wireguard --rule wg",
            "UDP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): 148 bytes
goes to 192.168.0.12:51820 by rule wg2

recognised         wireguard, a handshake initiation
ban                not banned
access list        allows it
sessions           0 of 1000
rule               wg2: any wireguard
other rules        wg  is for another public key
balance            none: the first in the file that can be reached
targets             1  192.168.0.12:51820  up
plane              userspace: there is no kernel plane: ebpf.mode is \"off\" (off)
",
        ),
        (
            "--udp",
            "UDP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): no byte
goes to 192.168.0.9:53, the default target

recognised         nothing, none of the protocols that have a rule here
ban                not banned
access list        allows it
sessions           0 of 1000
rule               none, so the default target: it is not recognised
other rules        h3   is for quic
                   wg   is for wireguard
                   wg2  is for wireguard
balance            none: the first in the file that can be reached
targets             1  192.168.0.9:53  up
plane              userspace: there is no kernel plane: ebpf.mode is \"off\" (off)
",
        ),
        (
            "--listener office --sni a.example",
            "TCP from 203.0.113.1 to listener office (0.0.0.0:8443, [::]:8443): 238 bytes
goes to 192.168.0.13:80, the default target

recognised         nothing, not looked at: there is only tcp_target
ban                not banned
access list        allows it
source             no limit
connections        0 of 1000
rule's connections 0, no limit of its own
rule               none, so the default target: there is only tcp_target
balance            none: the first in the file that can be reached
targets             1  192.168.0.13:80  up
PROXY header       none
plane              userspace: TCP is relayed by the daemon
",
        ),
        (
            "--sni www.example.com --limit 1",
            "TCP from 203.0.113.1 to listener default (0.0.0.0:443, [::]:443): 244 bytes
goes to 192.168.0.2:443 by rule web

recognised         tls, server name www.example.com
ban                not banned
access list        allows it
source             no limit
connections        0 of 1000
rule's connections 0, no limit of its own
rule               web: server name www.example.com
other rules        wild  would match, but web says more of the server name
                   more: 1 (alpn), 1 (from), 1 (protocol); see --rule and --limit
balance            none: the first in the file that can be reached
targets             1  192.168.0.2:443   up
                    2  web.internal:443  up, not resolved yet
PROXY header       v1, PROXY TCP4 203.0.113.1 0.0.0.0 0 443
plane              userspace: TCP is relayed by the daemon
note               the destination in the PROXY header is the address that the client used
",
        ),
    ] {
        let text = explained(line).unwrap();
        assert_eq!(text, format!("{expected}{BY_THE_FILE}"), "{line}");
    }
}

#[test]
fn the_plane_of_tcp_is_told_with_what_splicing_waits_for() {
    let file = "listen_port = 443\ntcp_target = 'a:1'\n[protocols.shell]\nprotocol = 'ssh'\ntarget = 'a:22'\n\
                [protocols.web]\nprotocol = 'http'\ntarget = 'a:80'\nsplice = 'off'\n[ebpf]\nmode = 'auto'\n";
    let on = "tcp = 'auto'\n";
    for (row, keys, line, expected) in [
        ("without the key", "", "--tcp --protocol ssh", ""),
        ("a protocol that lasts", on, "--tcp --protocol ssh", ": until the client's first bytes; then by the kernel"),
        ("another one", on, "--tcp --protocol tls", ": until it has lasted for some exchanges or is idle; then"),
        ("a rule that says no", on, "--tcp --host a.example", ": splice is \"off\""),
    ] {
        let text = explained_by(&format!("{file}{keys}"), line).unwrap();
        let plane = text.lines().find_map(|line| line.strip_prefix("plane")).unwrap().trim();
        let expected = format!("userspace: TCP is relayed by the daemon{expected}");
        assert!(plane == expected || (!keys.is_empty() && plane.starts_with(&expected)), "{row}: {plane}");
    }
}

#[test]
fn mistakes_are_told_with_a_way_out() {
    for (line, expected) in [
        ("--listener nowhere", "there is no listener nowhere (the file has default, office)"),
        ("--udp --listener office", "listener office does not serve UDP (UDP is served by default)"),
        ("--sni x --protocol ssh", "--sni is not for ssh"),
        ("--sni x --protocol quic --tcp", "quic is a protocol of UDP: leave out --tcp"),
        ("--hex /nonexistent/file", "cannot read /nonexistent/file"),
        ("--hex /dev/zero", "cannot read /dev/zero"),
    ] {
        assert_eq!(explained(line).unwrap_err().to_string(), expected, "{line}");
    }
    for line in [
        "--public-key abc",
        "--tcp --public-key BwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwcHBwc=",
        "--from nobody",
        "--host a --sni b",
        "--hex f --sni b",
        "--config f --socket s",
        "--tcp --udp",
        "--limit 0",
    ] {
        assert!(arguments(line).is_err(), "{line}");
    }
    let absent = arguments("--socket /nonexistent/admin.sock").unwrap();
    let error = run(&absent, &mut Vec::new()).unwrap_err().to_string();
    assert!(error.contains("--config asks a file instead"), "{error}");
}

#[test]
fn captured_bytes_are_taken_for_what_they_are() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (case, option, bytes, expected) in [
        ("SSH", "--tcp", b"SSH-2.0-x\r\n".as_slice(), "recognised         ssh\n"),
        ("half a record", "--tcp", &[22, 3, 1, 2, 0, 1], "recognised         tls, a hello that cannot be read"),
        (
            "a stray",
            "--udp",
            &[&[4, 0, 0, 0][..], &[9; 60]].concat(),
            "recognised         wireguard, a message of a tunnel",
        ),
    ] {
        let hex: Vec<String> = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(file.path(), hex.join(" ")).unwrap();
        let text = explained(&format!("{option} --hex {}", file.path().display())).unwrap();
        assert!(text.contains(expected), "{case}: {text}");
    }
}
