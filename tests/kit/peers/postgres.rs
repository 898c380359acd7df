//! PostgreSQL from Debian.

use std::{fs, net::SocketAddr, path::PathBuf, process::Command};

use super::programs::{Program, output};
use crate::{OrFail as _, owned, topology::Host};

/// Where Debian keeps the servers, by version.
const VERSIONS: &str = "/usr/lib/postgresql";
/// Whom the server takes itself for, since it refuses to be root: in a user namespace of its own, so that it may have what
/// root may.
const NOBODY: [&str; 3] = ["--user", "--map-user=65534", "--map-group=65534"];

/// A server with a database of its own, which lets everybody in.
#[derive(Debug)]
pub struct Postgres {
    _program: Program,
}

impl Postgres {
    /// Serves `address` on `host`.
    ///
    /// # Panics
    ///
    /// When it is not installed or does not start.
    #[track_caller]
    pub fn start(host: &Host, address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        let directory = owned::directory();
        let data = directory.path().join("data");
        let mut make = Command::new("unshare");
        make.args(NOBODY).arg(program("initdb")).args(["--no-sync", "--auth=trust", "--username=test", "-D"]);
        output(make.arg(&data));
        fs::write(data.join("pg_hba.conf"), "host all all all trust\n").or_fail("pg_hba.conf");
        let mut command = host.command("unshare");
        command.args(NOBODY).arg(program("postgres")).args(["-F", "-D"]).arg(&data);
        command.args(["-h", &address.ip().to_string(), "-p", &address.port().to_string(), "-k"]).arg(directory.path());
        Self { _program: Program::start("postgres", &mut command, directory, host, &[address.port()]) }
    }

    /// A client on `host` that asks `query` at `to`.
    pub fn client(host: &Host, to: SocketAddr, query: &str) -> Command {
        let mut command = host.command("psql");
        command.args(["--no-psqlrc", "--quiet", "--tuples-only", "--no-align", "-U", "test", "-d", "postgres"]);
        command.args(["-h", &to.ip().to_string(), "-p", &to.port().to_string(), "-c", query]);
        command
    }
}

/// A program of the newest version.
#[track_caller]
fn program(name: &str) -> PathBuf {
    let versions = fs::read_dir(VERSIONS).or_fail(VERSIONS).flatten();
    let number = |path: &PathBuf| path.file_name().and_then(|name| name.to_str()?.parse::<u32>().ok());
    let newest = versions.map(|entry| entry.path()).filter(|path| number(path).is_some()).max_by_key(number);
    newest.or_fail("a version of PostgreSQL").join("bin").join(name)
}
