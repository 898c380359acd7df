//! `rpxy-l4 top` and the overview that it shows: a person at a terminal, and a script.

use std::{fs, os::unix::fs::PermissionsExt as _, process::Command};

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{self, Daemon},
    hello::Hello,
    peers::{
        programs,
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket::{self, End},
    terminal::Terminal,
    topology::{CLIENT_V4, Topology},
    wait,
};
use serde_json::{Value, json};

use crate::support::{
    admin::{Scratch, say},
    at, front, rule,
};

/// A name that nobody serves.
const UNKNOWN: &str = "<b>'unknown'\\.test";

fn config(scratch: &Scratch, keys: &str) -> String {
    let web = rule("web", "tls", at(7001), "server_names = [\"web.test\"]");
    format!("{}{web}", scratch.config(keys))
}

fn overview(scratch: &Scratch) -> Value {
    let mut lines = Admin::connect(&scratch.socket()).ask(&json!({ "command": "overview" }));
    assert_eq!(lines.len(), 1, "{lines:?}");
    lines.remove(0)
}

/// Starts `top` in a terminal of this size.
fn top(scratch: &Scratch, (width, height): (u16, u16), variables: &[(&str, &str)], before: &str) -> Terminal {
    let terminal = Terminal::open(width, height, variables);
    let (binary, socket) = (daemon::binary().display().to_string(), scratch.socket().display().to_string());
    terminal.type_line(&format!("{before} {binary} top --interval 200ms --socket {socket}"));
    terminal.wait_for("1 Overview");
    terminal
}

/// Returns whether anything on the screen has a colour: 30 to 38, or 40 to 48 behind it, of SGR (ECMA-48 section
/// 8.3.117). 39 and 49 are none.
fn is_coloured(terminal: &Terminal) -> bool {
    let screen = terminal.coloured_screen();
    let parameters = screen.split("\u{1b}[").skip(1).filter_map(|part| part.split_once('m'));
    parameters
        .into_iter()
        .flat_map(|(codes, _)| codes.split(';'))
        .any(|code| matches!(code.parse(), Ok(30..=38 | 40..=48)))
}

#[test]
fn the_overview_counts_what_happens() {
    let Some(net) = Topology::or_skip() else { return };
    let _web = Server::tagged(&net.backend, at(7001), "served");
    let _default = Server::echo(&net.backend, at(7000));
    let _udp = UdpServer::echo(&net.backend, at(7000), "");
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &config(&scratch, "access_log_refused = \"off\""));
    let served = socket::dial(&net.client, front());
    socket::send(&served, &Hello::to("web.test").bytes());
    assert_eq!(socket::read_line(&served).as_deref(), Some("served"));
    let refused = socket::dial(&net.client, front());
    socket::send(&refused, &Hello::to(UNKNOWN).bytes());
    socket::read_to_end(&refused);
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    client.ask(front(), b"hello");

    let told = wait::until("the refused one and the answer are counted", || {
        let counted = |told: &Value| told["tcp"]["refused"] == json!({ "unmatched": 1 });
        Some(overview(&scratch)).filter(|told| counted(told) && told["udp"]["datagrams_down"] == 1)
    });
    assert_eq!(
        (&told["ready"], &told["not_ready"], &told["config"]["state"]),
        (&json!(true), &Value::Null, &json!("in_effect"))
    );
    assert_eq!(
        (&told["tcp"]["accepted"], &told["tcp"]["active"], &told["udp"]["active"]),
        (&json!(2), &json!(1), &json!(1))
    );
    assert_eq!(
        (&told["listeners"][0]["connections"]["started"], &told["listeners"][0]["name"]),
        (&json!(2), &json!("default"))
    );
    let names: Vec<_> = told["rules"].as_array().unwrap().iter().map(|rule| &rule["name"]).collect();
    assert_eq!(names, ["web", "tcp_target", "udp_target"]);
    let web = &told["rules"][0];
    assert_eq!(
        (&web["active"], &web["started"], &web["protocol"], &web["listeners"]),
        (&json!(1), &json!(1), &json!("tls"), &json!(["default"]))
    );
    let target = &told["targets"][0];
    assert_eq!(
        (&target["target"], &target["state"], &target["connect"]["count"]),
        (&json!(at(7001)), &json!("up"), &json!(1))
    );
    // Kept although the log has no such lines.
    let kept = &told["refused"][0];
    assert_eq!(
        (&kept["reason"], &kept["server_name"], &kept["proto"]),
        (&json!("unmatched"), &json!(UNKNOWN), &json!("tcp:tls"))
    );
    assert!(told["process"]["open_files"].as_u64() > Some(5), "{}", told["process"]);
    assert_eq!(told["kernel_plane"]["not_steered"], json!({ "off": 1 }));
    let later = overview(&scratch);
    assert!(later["uptime_ms"].as_u64() >= told["uptime_ms"].as_u64() && later["pid"] == told["pid"]);
}

#[test]
fn one_look_is_for_scripts() {
    let Some(net) = Topology::or_skip() else { return };
    let _default = Server::echo(&net.backend, at(7000));
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &config(&scratch, ""));
    let connection = socket::dial(&net.client, front());
    socket::send(&connection, b"x");
    socket::read_exactly(&connection, 1);

    let (code, lines) = say(&net, &scratch, &["top", "--once", "--json", "--interval", "200ms"]);
    assert_eq!((code, lines.len()), (Some(0), 1), "{lines:#?}");
    let file = scratch.named("look.json");
    fs::write(&file, &lines[0]).unwrap();
    let query = ".rates.interval_s >= 0.2 and .rates.rules[1].name == \"tcp_target\" and .overview.tcp.active == 1";
    assert_eq!(programs::text(Command::new("jq").args(["-e", query]).arg(&file)), "true", "{}", lines[0]);

    let (code, lines) = say(&net, &scratch, &["top", "--once", "--interval", "200ms"]);
    assert_eq!(code, Some(0), "{lines:#?}");
    for text in
        ["ready; rates over 0.", "TCP 1 of 1024 open", "Attention      nothing", "tcp_target", &at(7000).to_string()]
    {
        assert!(lines.iter().any(|line| line.contains(text)), "{text} is missing: {lines:#?}");
    }
    for (row, arguments, expected) in
        [("no terminal", &["top"] as &[&str], "no terminal"), ("JSON without an end", &["top", "--json"], "--once")]
    {
        let (code, lines) = say(&net, &scratch, arguments);
        assert_eq!(code, Some(1), "{row}");
        assert!(lines.iter().any(|line| line.contains(expected)), "{row}: {lines:#?}");
    }
}

#[test]
fn an_operator_looks_and_changes_what_was_asked_for_alone() {
    let Some(net) = Topology::or_skip() else { return };
    let server = Server::echo(&net.backend, at(7000));
    let scratch = Scratch::new();
    // Its name would clear the screen of whoever shows it as it is.
    let hostile = rule("x\\u001b[2J\\u202ey", "ssh", at(7002), "");
    let _daemon = Daemon::start(&net.gateway, &format!("{}{hostile}", config(&scratch, "")));
    let connection = socket::dial(&net.client, front());
    socket::send(&connection, b"x");
    server.wait_for_open(1);
    let refused = socket::dial(&net.client, front());
    socket::send(&refused, &Hello::to(UNKNOWN).bytes());
    socket::read_to_end(&refused);

    let terminal = top(&scratch, (120, 24), &[("LC_ALL", "C.UTF-8")], "");
    let screen = terminal.wait_for("READY");
    assert!(screen.contains("Attention      nothing"), "{screen}");
    assert!(is_coloured(&terminal), "{}", terminal.coloured_screen());
    terminal.type_text("6");
    let screen = terminal.wait_for(UNKNOWN);
    assert!(screen.contains("unmatched"), "{screen}");
    terminal.type_text("2");
    terminal.wait_for("x\\u{1b}[2J\\u{202e");

    let target = at(7000).to_string();
    let state = || {
        let targets = Admin::connect(&scratch.socket()).ask(&json!({ "command": "targets" }));
        targets.into_iter().find(|line| line["target"] == target.as_str() && line["transport"] == "tcp").unwrap()["state"].clone()
    };
    terminal.type_text(&format!("3/{}", at(7000)));
    terminal.press("Enter");
    terminal.wait_for("with \"");
    terminal.type_text("d");
    let question = terminal.wait_for("yes, do it");
    assert!(
        question.contains(&format!("Drain {target} (tcp)?")) && question.contains("The one that it has goes on"),
        "{question}"
    );
    terminal.type_text("n");
    terminal.wait_for("nothing was changed");
    assert_eq!(state(), "up");
    terminal.type_text("dy");
    terminal.wait_for(&format!("{target} (tcp) is drained"));
    assert_eq!(state(), "drained");
    terminal.wait_for("by command");
    terminal.type_text("uy");
    terminal.wait_for(&format!("{target} (tcp) is in service"));
    assert_eq!(state(), "up");

    let client = connection.local_addr().unwrap();
    terminal.type_text("4");
    terminal.wait_for(&client.to_string());
    terminal.type_text("b");
    terminal.wait_for(&format!("Ban {CLIENT_V4}/32?"));
    terminal.type_text("y");
    terminal.wait_for("is banned");
    let bans = Admin::connect(&scratch.socket()).ask(&json!({ "command": "bans" }));
    assert_eq!(bans, [json!({ "network": format!("{CLIENT_V4}/32"), "banned": true, "source": "command" })]);
    terminal.type_text("x");
    terminal.wait_for(&format!("of {client}"));
    terminal.type_text("y");
    terminal.wait_for("is closed");
    assert!(matches!(socket::read_to_end(&connection).1, End::Reset));
    terminal.type_text("q");
    terminal.wait_for("shell>");
}

#[test]
fn the_terminal_is_as_before_however_it_ends() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &config(&scratch, ""));
    let id = scratch.named("top.pid");
    // The shell writes its own number, and becomes the program.
    let before = format!("sh -c 'echo $$ > {}; exec \"$@\"' -", id.display());
    for (row, end) in [("q", "q"), ("Ctrl-C", "C-c"), ("SIGTERM", "TERM"), ("SIGHUP", "HUP")] {
        let terminal = top(&scratch, (80, 24), &[("NO_COLOR", "1"), ("LC_ALL", "C")], &before);
        terminal.wait_for("READY");
        assert!(terminal.is_taken(), "{row}");
        assert!(!is_coloured(&terminal), "{row}: {}", terminal.coloured_screen());
        assert!(terminal.screen().is_ascii(), "{row}: a locale without UTF-8");
        match row {
            "SIGTERM" | "SIGHUP" => {
                let id = fs::read_to_string(&id).unwrap();
                programs::output(Command::new("kill").args([&format!("-{end}"), id.trim()]));
            }
            _ => terminal.press(end),
        }
        terminal.wait_for("shell>");
        wait::until(&format!("{row}: the shell reads again"), || (terminal.command() == "sh").then_some(()));
        assert!(!terminal.is_taken(), "{row}");
        terminal.type_line("stty -a | grep -q ' -icanon'; echo raw-$?");
        wait::until(&format!("{row}: the shell tells the state of its terminal"), || {
            let screen = terminal.screen();
            assert!(!screen.contains("raw-0"), "{row}: {screen}");
            screen.contains("raw-1").then_some(())
        });
    }
}

#[test]
fn a_daemon_that_goes_is_waited_for_and_every_size_will_do() {
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let first = Daemon::start(&net.gateway, &config(&scratch, ""));
    let terminal = top(&scratch, (80, 24), &[], "");
    terminal.wait_for(&format!("pid {} ", first.process().pid()));
    for (width, height) in [(40, 10), (20, 5), (200, 60), (80, 24)] {
        terminal.resize(width, height);
        terminal.wait_for(if width < 40 { "is needed" } else { "pid" });
    }
    first.stop();
    let screen = terminal.wait_for("LOST");
    assert!(screen.contains("trying again"), "{screen}");
    let second = Daemon::start(&net.gateway, &config(&scratch, ""));
    terminal.wait_for(&format!("pid {} ", second.process().pid()));
    terminal.wait_for("READY");
}

#[test]
fn members_of_the_group_look_and_are_told_that_they_may_no_more() {
    const GROUP: u32 = 41_235;
    let Some(net) = Topology::or_skip() else { return };
    let scratch = Scratch::new();
    let _daemon = Daemon::start(&net.gateway, &config(&scratch, &format!("admin_group = {GROUP}")));
    fs::set_permissions(scratch.directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    // Where another user can run it.
    let binary = scratch.named("rpxy-l4");
    fs::copy(daemon::binary(), &binary).unwrap();
    let terminal = Terminal::open(80, 24, &[]);
    let as_member = format!("setpriv --reuid=65534 --regid={GROUP} --clear-groups");
    terminal.type_line(&format!("{as_member} {} top --socket {}", binary.display(), scratch.socket().display()));
    terminal.wait_for("read only");
    terminal.type_text("3d");
    let screen = terminal.wait_for("you may only look");
    assert!(!screen.contains("d drain"), "{screen}");
    terminal.type_text("q");
    terminal.wait_for("shell>");
}
