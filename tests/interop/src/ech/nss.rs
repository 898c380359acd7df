//! TLS client by NSS: its `tstclnt`.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::SocketAddr,
    process::Stdio,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rpxy_l4_tests::{OrFail as _, owned, topology::Host};

use super::tls::Answer;

/// Connects from `host` with a hello encrypted for the `ECHConfigList` and returns the answer; nothing when there is
/// none. NSS ends the handshake when it is not confirmed, and says nothing else, so an answer is one to a hello that was
/// accepted.
pub fn tstclnt(host: &Host, to: SocketAddr, name: &str, list: &[u8]) -> Option<Answer> {
    let directory = owned::directory();
    let database = format!("sql:{}", directory.path().display());
    let made = std::process::Command::new("certutil").args(["-N", "--empty-password", "-d", &database]).status();
    assert!(made.or_fail("certutil").success(), "certutil");
    let mut command = host.command("tstclnt");
    command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string(), "-a", name, "-d", &database]);
    // Certificates are not what is tested.
    command.args(["-o", "-V", "tls1.3:tls1.3", "-N", &STANDARD.encode(list)]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::null());
    let mut child = command.spawn().or_fail("tstclnt");
    // Its input stays open: at the end of that it would poll for ever.
    let mut input = child.stdin.take().or_fail("standard input");
    let _closed_early = input.write_all(b"hello\n");
    let said = BufReader::new(child.stdout.take().or_fail("standard output"));
    let line = said.lines().map_while(Result::ok).find(|line| line.matches('|').count() == 2);
    let _ended = child.kill();
    let _status = child.wait();
    line.map(|line| Answer::parse(&line, true))
}
