//! Client and server of ngtcp2, as Debian packages them.

use std::{fs, net::SocketAddr, path::Path};

use rpxy_l4_tests::{
    OrFail as _, owned,
    peers::{
        programs::{self, Certificate},
        udp,
    },
    process::Process,
    topology::Host,
    wait,
};
use tempfile::TempDir;

/// File on the server.
const FILE: &str = "file";
/// Bytes of the file.
const SIZE: usize = 10_000_000;

/// An HTTP/3 server with one file.
#[derive(Debug)]
pub struct Ngtcp2Server {
    _process: Process,
    directory: TempDir,
}

impl Ngtcp2Server {
    /// Serves `address` on `host`.
    ///
    /// # Panics
    ///
    /// When it does not start.
    #[track_caller]
    pub fn start(host: &Host, address: SocketAddr, certificate: &Certificate) -> Self {
        let directory = owned::directory();
        let content: Vec<u8> = (0..SIZE / 8).flat_map(usize::to_be_bytes).collect();
        fs::write(directory.path().join(FILE), content).or_fail(FILE);
        let mut command = host.command("gtlsserver");
        command.arg("--quiet").arg("--htdocs").arg(directory.path());
        command.args([address.ip().to_string(), address.port().to_string()]);
        command.arg(certificate.key()).arg(certificate.file());
        let process = Process::spawn("gtlsserver", &mut command).or_fail("gtlsserver");
        wait::until("gtlsserver listens", || udp::is_bound(host, address.port()).then_some(()));
        Self { _process: process, directory }
    }

    /// Fetches the file from `to`, with a client that changes its address once under way, and its connection ID with it (RFC
    /// 9000 section 9.5). It asks for the name `localhost`, as
    /// always when it is given an address.
    ///
    /// # Panics
    ///
    /// When that fails or a byte is wrong.
    #[track_caller]
    pub fn fetch(&self, host: &Host, to: SocketAddr) {
        let received = owned::directory();
        let mut command = host.command("gtlsclient");
        command.args(["--quiet", "--exit-on-all-streams-close", "--timeout=20s", "--change-local-addr=20ms"]);
        command.arg("--download").arg(received.path()).args([to.ip().to_string(), to.port().to_string()]);
        command.arg(format!("https://localhost/{FILE}"));
        programs::output(&mut command);
        let read = |directory: &Path| fs::read(directory.join(FILE)).or_fail(FILE);
        assert!(read(received.path()) == read(self.directory.path()), "the file is not what it was");
    }
}
