//! The status page: who is told what, by name, token and socket, and how a browser shows it.

use std::{
    collections::BTreeMap,
    fs,
    net::SocketAddr,
    os::unix::fs::{MetadataExt as _, OpenOptionsExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use rpxy_l4_tests::{
    daemon::{Daemon, Edit},
    hello::Hello,
    offload_mode::OffloadMode,
    owned,
    peers::{
        browser::Browser,
        server::Server,
        udp::{UdpClient, UdpServer},
    },
    socket,
    topology::{CLIENT_V4, GATEWAY_V4, Topology},
    wait,
};
use serde_json::{Value, json};

use crate::support::{PORT, at, front, reached_by, rule};

rpxy_l4_tests::offload_modes! {
    Steered {
        the_kernels_part_is_in_the_history,
    }
}

const PAGE: u16 = 9902;
const TOKEN: &str = "0123456789abcdef0123456789abcdef";
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; \
                      trusted-types 'none'";

fn config(keys: &str) -> String {
    let one = rule("secret-rule", "tls", at(7001), "server_names = [\"one.test\"]");
    format!("listen_port = {PORT}\n{keys}\ntcp_target = [\"{}\"]\n{one}", at(7000))
}

/// A file with a token, for its owner alone.
fn write_token(path: &Path, token: &str) {
    let file = fs::File::options().write(true).create(true).truncate(true).mode(0o600).open(path);
    std::io::Write::write_all(&mut file.unwrap(), format!("{token}\n").as_bytes()).unwrap();
}

/// Keys of a page that other machines get to, with the token in `path`.
fn open_to_all(path: &Path) -> String {
    format!("status_listen = \"0.0.0.0:{PAGE}\"\nstatus_token_file = \"{}\"", path.display())
}

/// The answer to a request with these fields: head and body.
fn ask(net: &Topology, to: impl Into<SocketAddr>, line: &str, fields: &str) -> (String, String) {
    let stream = socket::dial(&net.client, to);
    socket::send(&stream, format!("{line} HTTP/1.1\r\n{fields}\r\n").as_bytes());
    let (answer, _) = socket::read_to_end(&stream);
    let answer = String::from_utf8(answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    (head.to_owned(), body.to_owned())
}

#[test]
fn nothing_is_told_without_the_token_or_under_a_foreign_name() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let token = directory.path().join("token");
    write_token(&token, TOKEN);
    let keys = format!("{}\nstatus_hosts = [\"gateway.test\"]", open_to_all(&token));
    let daemon = Daemon::start(&net.gateway, &config(&keys));
    let (own, bearer) = (format!("Host: {GATEWAY_V4}:{PAGE}\r\n"), format!("Authorization: Bearer {TOKEN}\r\n"));
    for (row, line, fields, status, told) in [
        ("the page", "GET /", own.clone(), "200 OK", false),
        ("its script", "GET /status.js", own.clone(), "200 OK", false),
        ("its style", "HEAD /status.css", own.clone(), "200 OK", false),
        ("no token", "GET /status.json", own.clone(), "401 Unauthorized", false),
        (
            "another token",
            "GET /status.json",
            format!("{own}Authorization: Bearer {TOKEN}0\r\n"),
            "401 Unauthorized",
            false,
        ),
        (
            "as a password",
            "GET /status.json",
            format!("{own}Authorization: Basic {TOKEN}\r\n"),
            "401 Unauthorized",
            false,
        ),
        ("in a query", &format!("GET /status.json?token={TOKEN}"), own.clone(), "401 Unauthorized", false),
        ("the token", "GET /status.json", format!("{own}{bearer}"), "200 OK", true),
        ("the token, head only", "HEAD /status.json", format!("{own}{bearer}"), "200 OK", false),
        ("by a name of ours", "GET /status.json", format!("Host: gateway.test\r\n{bearer}"), "200 OK", true),
        (
            "by another name",
            "GET /status.json",
            format!("Host: rebound.test\r\n{bearer}"),
            "421 Misdirected Request",
            false,
        ),
        ("the page by another name", "GET /", "Host: rebound.test\r\n".to_owned(), "421 Misdirected Request", false),
        ("another name in the target", "GET http://rebound.test/", own.clone(), "421 Misdirected Request", false),
        ("no name", "GET /status.json", bearer.clone(), "421 Misdirected Request", false),
        ("two names", "GET /status.json", format!("{own}{own}{bearer}"), "421 Misdirected Request", false),
        ("a change", "POST /status.json", format!("{own}{bearer}"), "405 Method Not Allowed", false),
        ("elsewhere", "GET /etc/passwd", format!("{own}{bearer}"), "404 Not Found", false),
        ("upwards", "GET /../etc/passwd", format!("{own}{bearer}"), "404 Not Found", false),
        ("the metrics", "GET /metrics", format!("{own}{bearer}"), "404 Not Found", false),
        ("too much", "GET /status.json", format!("{own}X: {}\r\n", "x".repeat(5000)), "400 Bad Request", false),
    ] {
        let (head, body) = ask(&net, (GATEWAY_V4, PAGE), line, &fields);
        assert!(head.starts_with(&format!("HTTP/1.1 {status}\r\n")), "{row}: {head}");
        assert_eq!(body.contains("secret-rule"), told, "{row}: {body}");
        assert!(told || !body.contains(env!("CARGO_PKG_VERSION")), "{row}: not even the version: {body}");
        if status == "200 OK" {
            assert!(head.contains(&format!("\r\nContent-Security-Policy: {POLICY}\r\n")), "{row}: {head}");
            assert!(head.contains("\r\nX-Content-Type-Options: nosniff\r\n"), "{row}: {head}");
        }
        assert!(!head.contains("Set-Cookie"), "{row}: {head}");
    }
    let (_, body) = ask(&net, (GATEWAY_V4, PAGE), "GET /status.json", &format!("{own}{bearer}"));
    let told: Value = serde_json::from_str(&body).unwrap();
    assert_eq!(
        (&told["overview"]["ready"], &told["overview"]["rules"][0]["name"]),
        (&json!(true), &json!("secret-rule"))
    );
    let samples = told["history"]["samples"].as_array().unwrap();
    assert_eq!(samples[0].as_array().unwrap().len(), told["history"]["fields"].as_array().unwrap().len());
    assert!(!daemon.process().lines().iter().any(|line| line.contains(TOKEN)), "no log has the token");
}

#[test]
fn a_reload_changes_the_token_moves_the_page_and_closes_it() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let token = directory.path().join("token");
    write_token(&token, TOKEN);
    let mut daemon = Daemon::start(&net.gateway, &config(&open_to_all(&token)));
    let status = |port: u16, token: &str| {
        let fields = format!("Host: {GATEWAY_V4}\r\nAuthorization: Bearer {token}\r\n");
        ask(&net, (GATEWAY_V4, port), "GET /status.json", &fields).0.split(' ').nth(1).unwrap().to_owned()
    };
    assert_eq!((status(PAGE, TOKEN), status(PAGE, "fedcba9876543210")), ("200".to_owned(), "401".to_owned()));

    let mark = daemon.process().mark();
    write_token(&token, "fedcba9876543210");
    daemon.wait_for(mark, "configuration reloaded");
    assert_eq!((status(PAGE, "fedcba9876543210"), status(PAGE, TOKEN)), ("200".to_owned(), "401".to_owned()));

    let moved = open_to_all(&token).replace("9902", "9903");
    daemon.reload(Edit::Rename, &config(&moved));
    assert_eq!(status(9903, "fedcba9876543210"), "200");
    wait::until("the old place is closed", || (!socket::is_listening(&net.gateway, PAGE)).then_some(()));

    let said = daemon.reload_refused(Edit::Rename, &config("status_listen = \"0.0.0.0:9904\""));
    assert!(said.contains("status_listen"), "{said}");
    assert_eq!(status(9903, "fedcba9876543210"), "200", "what there was stays");

    daemon.reload(Edit::Rename, &config(""));
    wait::until("the page is closed", || (!socket::is_listening(&net.gateway, 9903)).then_some(()));
}

#[test]
fn at_a_unix_socket_it_is_for_its_owner_and_gone_with_the_daemon() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let path = directory.path().join("status.sock");
    let mut daemon = Daemon::start(&net.gateway, &config(&format!("status_listen = \"unix:{}\"", path.display())));
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let curl = |host: &str| {
        let url = format!("http://{host}/status.json");
        let output =
            Command::new("curl").args(["-s", "-w", "\n%{http_code}", "--unix-socket"]).arg(&path).arg(url).output();
        String::from_utf8(output.expect("curl").stdout).unwrap()
    };
    let told = curl("localhost");
    assert!(told.ends_with("\n200") && told.contains("secret-rule"), "{told}");
    assert!(curl("rebound.test").ends_with("\n421"));

    let elsewhere = directory.path().join("other.sock");
    daemon.reload(Edit::Rename, &config(&format!("status_listen = \"unix:{}\"", elsewhere.display())));
    assert!(elsewhere.exists());
    wait::until("the old file is gone", || (!path.exists()).then_some(()));
    daemon.stop();
    assert!(!elsewhere.exists());
}

#[test]
fn members_of_the_admin_group_see_it_at_a_unix_socket_from_a_reload_on() {
    const GROUP: u32 = 41_234;
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    fs::set_permissions(directory.path(), fs::Permissions::from_mode(0o755)).unwrap();
    let path = directory.path().join("status.sock");
    let keys = format!("status_listen = \"unix:{}\"", path.display());
    let mut daemon = Daemon::start(&net.gateway, &config(&keys));
    let made = fs::metadata(&path).unwrap().ino();
    // Neither root nor the daemon's user.
    let sees = |group: u32| {
        let mut command = Command::new("setpriv");
        command.args([
            "--reuid",
            "65534",
            "--regid",
            &group.to_string(),
            "--clear-groups",
            "curl",
            "-s",
            "--unix-socket",
        ]);
        let output = command.arg(&path).arg("http://localhost/status.json").output().expect("setpriv, curl");
        String::from_utf8(output.stdout).unwrap().contains("secret-rule")
    };
    assert!(!sees(GROUP), "it is for nobody else yet");
    daemon.reload(Edit::Rename, &config(&format!("{keys}\nadmin_group = {GROUP}")));
    let file = fs::metadata(&path).unwrap();
    assert_eq!((file.permissions().mode() & 0o777, file.gid(), file.ino()), (0o660, GROUP, made), "the same socket");
    assert!(sees(GROUP));
    assert!(!sees(GROUP + 1), "another group");
    // Somebody has opened the file to all: the daemon looks at who comes.
    fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
    assert!(!sees(GROUP + 1), "through an open file");
    daemon.reload(Edit::Rename, &config(&keys));
    assert!(!sees(GROUP), "no more");
}

/// The first answer has been drawn.
const DRAWN: &str = "return document.documentElement.dataset.told >= 1";

#[test]
fn a_browser_shows_names_of_strangers_as_text_and_asks_nobody_else() {
    let Some(net) = Topology::or_skip() else { return };
    let directory = owned::directory();
    let token = directory.path().join("token");
    write_token(&token, TOKEN);
    let _server = Server::tagged(&net.backend, at(7000), "served");
    let odd_rule = "<b>\\u202Eelur</b>";
    let odd = rule(odd_rule, "http", at(7000), "server_names = [\"one.test\"]");
    let _daemon = Daemon::start(&net.gateway, &format!("{}{odd}", config(&open_to_all(&token))));

    let longest = "x".repeat(255);
    let names =
        ["<img/src=x/onerror=document.title='owned'>", "\"></td><script>document.title='owned'</script>", &longest];
    for name in names {
        let stream = socket::dial(&net.client, front());
        socket::send(&stream, &Hello::to(name).bytes());
        socket::read_to_end(&stream);
    }
    assert_eq!(reached_by(&net, b"hello\r\n").as_deref(), Some("served"));

    let browser = Browser::start(&net.client);
    browser.become_phone(390, "light");
    browser.open(&format!("http://{GATEWAY_V4}:{PAGE}/"));
    browser.wait_for("the token is asked for", "return !document.getElementById('login').hidden");
    assert_eq!(browser.run("return document.getElementById('all').hidden"), json!(true));
    let tell = |token: &str| {
        let script = format!(
            "document.getElementById('token').value = '{token}'; document.querySelector('#login button').click();"
        );
        browser.run(&script);
    };
    tell("0000000000000000");
    browser.wait_for("the wrong token is refused", "return document.getElementById('wrong').textContent !== ''");
    tell(TOKEN);
    browser.wait_for("the page is drawn", DRAWN);

    let shown = browser.wait_for(
        "all names are shown",
        "const cells = [...document.querySelectorAll('#latest td.foreign')].map((cell) => cell.textContent);
         return cells.length >= 3 && cells;",
    );
    // The access log, too, shows no more than DNS can carry.
    for name in names.map(|name| &name[..name.len().min(253)]) {
        assert!(shown.as_array().unwrap().contains(&json!(name)), "{name} in {shown}");
    }
    let rules = browser.run("return [...document.querySelectorAll('#rules tbody th')].map((cell) => cell.textContent)");
    assert!(rules.as_array().unwrap().contains(&json!("<b>\\u{202e}elur</b>")), "{rules}");
    let made = browser.run(
        "return { images: document.images.length, scripts: document.scripts.length, bold: document.querySelectorAll('b').length }",
    );
    assert_eq!(made, json!({ "images": 1, "scripts": 1, "bold": 0 }), "no name has become an element");
    assert_eq!(browser.run("return document.title"), json!(format!("rpxy-l4 {GATEWAY_V4}:{PAGE}")));

    let asked =
        browser.run("return performance.getEntriesByType('resource').map((entry) => new URL(entry.name).origin)");
    let asked = asked.as_array().unwrap();
    assert!(
        asked.len() > 5 && asked.iter().all(|origin| *origin == json!(format!("http://{GATEWAY_V4}:{PAGE}"))),
        "{asked:?}"
    );
    let kept = browser.run("return [document.cookie, localStorage.length, sessionStorage.length]");
    assert_eq!(kept, json!(["", 0, 0]), "the token is not kept");
    // The two answers 401 are what it tells of.
    let errors: Vec<String> = browser.errors().into_iter().filter(|error| !error.contains("401")).collect();
    assert_eq!(errors, [""; 0]);
}

#[test]
fn a_phone_shows_it_without_scrolling_sideways_and_in_the_dark() {
    let Some(net) = Topology::or_skip() else { return };
    let rules: String = (0..40)
        .map(|n| rule(&format!("tenant-{n:02}"), "ssh", at(7000), &format!("from = [\"10.0.{n}.0/24\"]")))
        .collect();
    let keys = format!("status_listen = \"127.0.0.1:{PAGE}\"");
    let mut daemon = Daemon::start(&net.gateway, &format!("{}{rules}", config(&keys)));
    let browser = Browser::start(&net.gateway);
    let light = "return getComputedStyle(document.body).backgroundColor.match(/\\d+/g).every((part) => part > 200)";
    for (scheme, is_light) in [("light", true), ("dark", false)] {
        browser.become_phone(390, scheme);
        browser.open(&format!("http://localhost:{PAGE}/"));
        browser.wait_for("the page is drawn", DRAWN);
        assert_eq!(browser.run("return document.documentElement.scrollWidth"), json!(390), "{scheme}");
        assert_eq!(browser.run(light), json!(is_light), "{scheme}");
    }
    let heads = "return [...document.querySelectorAll('th')].every((head) => ['col', 'row'].includes(head.scope))";
    assert_eq!(browser.run(heads), json!(true), "each head says what it is of");

    let rows = "return document.querySelectorAll('#rules tbody tr').length";
    assert_eq!(browser.run(rows), json!(25), "a long table begins short");
    browser.run("document.querySelector('#rules button.more').click()");
    assert_eq!(browser.run(rows), json!(42));
    browser.run(
        "const filter = document.querySelector('#rules input');
         filter.value = 'TENANT-3';
         filter.dispatchEvent(new Event('input'));",
    );
    assert_eq!(browser.run(rows), json!(10));
    browser.run("document.querySelector('#rules thead button').click()");
    let first = "return document.querySelector('#rules tbody th').textContent";
    assert_eq!(browser.run(first), json!("tenant-30"), "ordered by name");
    browser.run("document.querySelector('#rules thead button').click()");
    assert_eq!(browser.run(first), json!("tenant-39"), "and the other way");

    // A row that stays is the same element: what somebody reads does not jump.
    browser.run("window.before = document.querySelector('#rules tbody tr')");
    let told = browser.run("return Number(document.documentElement.dataset.told)").as_u64().unwrap();
    browser.wait_for("the next answer", &format!("return document.documentElement.dataset.told > {told}"));
    assert_eq!(browser.run("return window.before === document.querySelector('#rules tbody tr')"), json!(true));

    daemon.reload_refused(Edit::Rename, "listen_port = 0");
    browser.wait_for(
        "the refused reload is told",
        "return document.querySelector('#attention').textContent.includes('reload was refused')
             && document.querySelector('#problems').textContent.includes('listen_port')",
    );
    daemon.stop();
    browser.wait_for("the end is told", "return !document.getElementById('lost').hidden");
    assert_eq!(browser.run("return document.getElementById('all').hidden"), json!(false), "what was known stays");
}

fn the_kernels_part_is_in_the_history() {
    let Some(net) = Topology::or_skip() else { return };
    let _server = UdpServer::echo(&net.backend, at(7000), "");
    let directory = owned::directory();
    let token = directory.path().join("token");
    write_token(&token, TOKEN);
    let keys = format!("listen_port = {PORT}\n{}\nudp_target = [\"{}\"]", open_to_all(&token), at(7000));
    let _daemon = Daemon::start(&net.gateway, &keys);
    let client = UdpClient::bind(&net.client, (CLIENT_V4, 0));
    for _ in 0..10 {
        assert_eq!(client.ask_text(front(), "x"), "x");
    }
    let fields = format!("Host: {GATEWAY_V4}\r\nAuthorization: Bearer {TOKEN}\r\n");
    let last = wait::until("a sample has the session", || {
        let (_, body) = ask(&net, (GATEWAY_V4, PAGE), "GET /status.json", &fields);
        let told: Value = serde_json::from_str(&body).unwrap();
        let names = told["history"]["fields"].as_array().unwrap().iter().map(|name| name.as_str().unwrap().to_owned());
        let values = told["history"]["samples"].as_array().unwrap().last().unwrap().as_array().unwrap();
        let last: BTreeMap<String, u64> = names.zip(values.iter().map(|value| value.as_u64().unwrap())).collect();
        (last["sessions"] == 1 && last["bytes_down"] == 10).then_some(last)
    });
    assert_eq!(last["bytes_up"], 10);
    // Each of ten questions and their answers went one way or the other; both may see what the kernel passed on first.
    assert!(last["relayed"] > 0 && last["relayed"] + last["steered"] >= 20, "{last:?}");
    let is_steered = OffloadMode::current().is_some_and(|mode| mode != OffloadMode::Off);
    assert_eq!(last["steered"] > 0, is_steered, "{last:?}");
}
