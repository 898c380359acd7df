//! Every protocol with the programs that people use, all on one port at the same time.

use std::{
    fs,
    process::{Command, Stdio},
    thread,
};

use rpxy_l4_tests::{
    daemon::Daemon,
    owned,
    peers::{
        programs::{self, Certificate, SshServer, curl},
        server::Server,
        socks5,
    },
    socket,
    topology::{BACKENDS_V4, GATEWAY_V4, Topology},
};

use crate::support::{PORT, at, front, rule};

#[test]
fn all_protocols_share_one_port() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, third] = BACKENDS_V4;

    let web_certificate = Certificate::new(&["web.test"]);
    let openssl_certificate = Certificate::new(&["openssl.test"]);
    let (key, file) = (web_certificate.key(), web_certificate.file());
    // HAProxy takes HTTP/1 and HTTP/2 with prior knowledge on the same clear-text port, nginx does not.
    let _web = programs::haproxy(
        &net.backend,
        &format!(
            "frontend web\n  bind {first}:80\n  mode http\n  timeout http-request 10s\n  \
             http-request return status 200 content-type text/plain lf-string \"clear %[req.ver]\""
        ),
        &[80],
    );
    let _tls = programs::nginx(
        &net.backend,
        &format!(
            "server {{ listen {second}:443 ssl http2; server_name web.test; ssl_protocols TLSv1.2 TLSv1.3;\n\
             ssl_certificate {}; ssl_certificate_key {};\n\
             location / {{ return 200 \"secret $server_protocol $ssl_protocol\"; }} }}",
            file.display(),
            key.display()
        ),
        "",
        &[443],
    );
    let _openssl = programs::openssl_server(&net.backend, (third, 4433), &openssl_certificate, &[]);
    let ssh = SshServer::start(&net.backend, (third, 22));
    let _socks = socks5::start(&net.backend, (third, 1080));
    let _other = Server::tagged(&net.backend, at(9000), "other");

    let mut config = format!("listen_port = {PORT}\ntcp_target = [\"{}\"]\n", at(9000));
    config += &rule("clear", "http", (first, 80).into(), "");
    config += &rule("secret", "tls", (second, 443).into(), "server_names = [\"web.test\"]");
    config += &rule("openssl", "tls", (third, 4433).into(), "server_names = [\"openssl.test\"]");
    config += &rule("shell", "ssh", (third, 22).into(), "");
    config += &rule("socks", "socks5", (third, 1080).into(), "");
    let daemon = Daemon::start(&net.gateway, &config);

    let at_gateway = |name: &str| format!("{name}:{PORT}:{GATEWAY_V4}");
    let clear = format!("http://{GATEWAY_V4}:{PORT}/");
    let net = &net;
    thread::scope(|scope| {
        scope.spawn(|| {
            assert_eq!(programs::text(curl(&net.client).arg(&clear)), "clear 1.1");
        });
        scope.spawn(|| {
            assert_eq!(programs::text(curl(&net.client).arg("--http2-prior-knowledge").arg(&clear)), "clear 2.0");
        });
        for (version, tls, expected) in [
            ("--http1.1", "1.3", "secret HTTP/1.1 TLSv1.3"),
            ("--http2", "1.3", "secret HTTP/2.0 TLSv1.3"),
            ("--http2", "1.2", "secret HTTP/2.0 TLSv1.2"),
        ] {
            let (resolve, file) = (at_gateway("web.test"), &file);
            scope.spawn(move || {
                let mut command = curl(&net.client);
                command.args([version, "--tls-max", tls, "--resolve", &resolve, "--cacert"]).arg(file);
                command.arg("https://web.test:443/");
                assert_eq!(programs::text(&mut command), expected);
            });
        }
        scope.spawn(|| {
            let mut command = net.client.command("sh");
            let script = "printf 'GET / HTTP/1.0\\r\\n\\r\\n' | openssl s_client -connect \"$0\" -servername openssl.test \
                          -CAfile \"$1\" -verify_return_error -quiet -ign_eof";
            command.arg("-c").arg(script).arg(front().to_string()).arg(openssl_certificate.file());
            let page = programs::text(&mut command);
            assert!(page.contains("s_server -www"), "{page}");
        });
        scope.spawn(|| {
            assert_eq!(programs::text(&mut ssh.client(&net.client, front(), "echo over there")), "over there");
        });
        scope.spawn(|| {
            let mebibyte: Vec<u8> =
                (0..1_u32 << 18).flat_map(|word| word.wrapping_mul(2_654_435_761).to_be_bytes()).collect();
            let returned = through(ssh.client(&net.client, front(), "cat"), &mebibyte);
            assert!(returned == mebibyte, "1 MiB through ssh came back changed ({} bytes)", returned.len());
        });
        scope.spawn(|| {
            let mut command = curl(&net.client);
            command.args(["--socks5", &front().to_string(), &format!("http://{first}/")]);
            assert_eq!(programs::text(&mut command), "clear 1.1");
        });
        scope.spawn(|| {
            let stream = socket::dial(&net.client, front());
            socket::send(&stream, b"\x00\x01 something else");
            assert_eq!(socket::read_line(&stream).as_deref(), Some("other"));
        });
    });

    for (protocol, destination) in [
        ("tcp:http", format!("{first}:80")),
        ("tcp:tls", format!("{second}:443")),
        ("tcp:tls", format!("{third}:4433")),
        ("tcp:ssh", format!("{third}:22")),
        ("tcp:socks5", format!("{third}:1080")),
        ("tcp", at(9000).to_string()),
    ] {
        for state in ["start", "finish"] {
            let what = format!("[{state}] {protocol}: 192.0.2.10 -> {destination}");
            daemon
                .process()
                .wait_for(0, &what, |line| {
                    line.contains(&format!("[{state}] {protocol}: 192.0.2.10:"))
                        && line.ends_with(&format!(" -> {destination}"))
                })
                .unwrap();
        }
    }
}

/// Feeds `input` to a program and returns what it writes.
fn through(mut command: Command, input: &[u8]) -> Vec<u8> {
    let directory = owned::directory();
    let file = directory.path().join("input");
    fs::write(&file, input).unwrap();
    let output = command.stdin(Stdio::from(fs::File::open(&file).unwrap())).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    output.stdout
}

#[test]
fn http2_with_prior_knowledge_is_routed_by_authority() {
    let Some(net) = Topology::or_skip() else { return };
    let [first, second, _] = BACKENDS_V4;
    let frontend = |name: &str, ip| {
        format!(
            "frontend {name}\n  bind {ip}:80\n  mode http\n  timeout http-request 10s\n  \
             http-request return status 200 content-type text/plain lf-string \"{name} %[req.ver]\"\n"
        )
    };
    let _web = programs::haproxy(&net.backend, &(frontend("one", first) + &frontend("any", second)), &[80]);
    let mut config = format!("listen_port = {PORT}\n");
    config += &rule("any", "http", (second, 80).into(), "");
    config += &rule("one", "http", (first, 80).into(), "server_names = [\"one.test\"]");
    let _daemon = Daemon::start(&net.gateway, &config);
    for (host, expected) in [("one.test", "one 2.0"), ("two.test", "any 2.0")] {
        let mut command = curl(&net.client);
        command.args(["--http2-prior-knowledge", "--resolve", &format!("{host}:{PORT}:{GATEWAY_V4}")]);
        assert_eq!(programs::text(command.arg(format!("http://{host}:{PORT}/"))), expected);
    }
}
