//! Programs from Debian as servers, each with a small configuration in a temporary directory, and as clients.

use std::{
    fs,
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::Command,
};

use tempfile::TempDir;

use crate::{
    OrFail as _, owned,
    process::{PATIENCE, Process},
    socket,
    topology::Host,
    wait,
    waiting::Waiting,
};

/// A server program and its files.
#[derive(Debug)]
pub struct Program {
    process: Process,
    directory: TempDir,
}

impl Program {
    /// The process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Directory of its files.
    pub fn directory(&self) -> &Path {
        self.directory.path()
    }

    pub(super) fn start(name: &str, command: &mut Command, directory: TempDir, host: &Host, ports: &[u16]) -> Self {
        let mut program = Self { process: Process::spawn(name, command).or_fail(name), directory };
        for port in ports {
            wait::until(&format!("{name} listens on port {port}"), || {
                let running = program.process.is_running();
                assert!(running, "{name} has ended:\n{}", program.process.transcript());
                socket::is_listening(host, *port).then_some(())
            });
        }
        program
    }
}

/// nginx on `host` with `http` inside its `http {}` block and `stream` inside its `stream {}` block. Ready when it
/// listens on all `ports`.
///
/// In both blocks, `DIR` stands for the program's directory.
#[track_caller]
pub fn nginx(host: &Host, http: &str, stream: &str, ports: &[u16]) -> Program {
    let directory = owned::directory();
    let path = directory.path().display().to_string();
    let stream = if stream.is_empty() { String::new() } else { format!("stream {{\n{stream}\n}}\n") };
    let module = "/usr/lib/nginx/modules/ngx_stream_module.so";
    let load = if stream.is_empty() { String::new() } else { format!("load_module {module};\n") };
    // One worker as the same user: the temporary directory is ours alone.
    let config = format!(
        "{load}daemon off;\nuser root;\nworker_processes 1;\npid DIR/pid;\nerror_log stderr;\n\
         events {{ worker_connections 4096; }}\n\
         http {{\naccess_log off;\n\
         client_body_temp_path DIR/body;\nproxy_temp_path DIR/proxy;\nfastcgi_temp_path DIR/fastcgi;\n\
         uwsgi_temp_path DIR/uwsgi;\nscgi_temp_path DIR/scgi;\n{http}\n}}\n{stream}"
    );
    fs::write(directory.path().join("nginx.conf"), config.replace("DIR", &path)).or_fail("nginx.conf");
    let mut command = host.command("nginx");
    command.args(["-e", "stderr", "-p", &path, "-c", "nginx.conf"]);
    Program::start("nginx", &mut command, directory, host, ports)
}

/// HAProxy on `host` with `sections` (frontend, backend, listen). Ready when it listens on all `ports`.
#[track_caller]
pub fn haproxy(host: &Host, sections: &str, ports: &[u16]) -> Program {
    let directory = owned::directory();
    let file = directory.path().join("haproxy.cfg");
    let config = format!(
        "global\n  maxconn 4000\ndefaults\n  mode tcp\n  timeout connect 10s\n  timeout client 60s\n  \
         timeout server 60s\n{sections}\n"
    );
    fs::write(&file, config).or_fail("haproxy.cfg");
    let mut command = host.command("haproxy");
    command.arg("-db").arg("-f").arg(&file);
    Program::start("haproxy", &mut command, directory, host, ports)
}

/// `program` on `host` with `config` in a file, for which `FILE` stands in its arguments, as `DIR` does for the file's
/// directory. Ready when it listens on all `ports`.
#[track_caller]
pub fn configured(host: &Host, program: &str, arguments: &[&str], config: &str, ports: &[u16]) -> Program {
    let directory = owned::directory();
    let file = directory.path().join("config");
    fs::write(&file, config).or_fail("configuration");
    let mut command = host.command(program);
    let (file, path) = (file.display().to_string(), directory.path().display().to_string());
    command.args(arguments.iter().map(|argument| argument.replace("FILE", &file).replace("DIR", &path)));
    Program::start(program, &mut command, directory, host, ports)
}

/// An OpenSSH server that lets the test's own user in by a key made for the occasion.
#[derive(Debug)]
pub struct SshServer {
    program: Program,
}

impl SshServer {
    /// Serves `address` on `host`.
    ///
    /// # Panics
    ///
    /// When sshd does not start.
    #[track_caller]
    pub fn start(host: &Host, address: impl Into<SocketAddr>) -> Self {
        let address = address.into();
        let directory = owned::directory();
        let path = |name: &str| directory.path().join(name);
        for key in ["host", "user"] {
            output(Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f"]).arg(path(key)));
        }
        fs::rename(path("user.pub"), path("authorized_keys")).or_fail("authorized_keys");
        // Where sshd keeps its unprivileged half; packages make it when their service starts.
        fs::create_dir_all("/run/sshd").or_fail("/run/sshd");
        let config = format!(
            "ListenAddress {address}\nHostKey {}\nAuthorizedKeysFile {}\nPidFile none\nUsePAM no\nStrictModes no\n\
             PermitRootLogin prohibit-password\nMaxStartups 100\nUseDNS no\n",
            path("host").display(),
            path("authorized_keys").display()
        );
        fs::write(path("sshd_config"), config).or_fail("sshd_config");
        // sshd runs itself again for every connection, by its absolute path.
        let mut command = host.command("/usr/sbin/sshd");
        command.args(["-D", "-e", "-f"]).arg(path("sshd_config"));
        Self { program: Program::start("sshd", &mut command, directory, host, &[address.port()]) }
    }

    /// A client on `host` that connects to `to` and runs `remote` there.
    pub fn client(&self, host: &Host, to: SocketAddr, remote: &str) -> Command {
        self.client_with(host, &[], to, remote)
    }

    /// The same from an address of its host.
    pub fn client_from(&self, host: &Host, from: Ipv4Addr, to: SocketAddr, remote: &str) -> Command {
        self.client_with(host, &["-b", &from.to_string()], to, remote)
    }

    fn client_with(&self, host: &Host, options: &[&str], to: SocketAddr, remote: &str) -> Command {
        let mut command = host.command("ssh");
        command.args(options);
        command.args(["-F", "none", "-o", "BatchMode=yes", "-o", "StrictHostKeyChecking=no"]);
        command.args(["-o", "UserKnownHostsFile=/dev/null", "-o", "LogLevel=ERROR", "-o", "IdentitiesOnly=yes"]);
        command.arg("-i").arg(self.program.directory().join("user"));
        command.args(["-p", &to.port().to_string(), &format!("root@{}", to.ip()), remote]);
        command
    }
}

/// A self-signed certificate and its key, in files.
#[derive(Debug)]
pub struct Certificate {
    directory: TempDir,
}

impl Certificate {
    /// Makes one for `names`, the first of which is also its subject.
    ///
    /// # Panics
    ///
    /// When openssl fails.
    #[track_caller]
    pub fn new(names: &[&str]) -> Self {
        let certificate = Self { directory: owned::directory() };
        let alternatives: Vec<_> = names.iter().map(|name| format!("DNS:{name}")).collect();
        // Without a configuration of its own openssl would mark it as an authority, which rustls refuses as a server's.
        let config = certificate.directory.path().join("openssl.cnf");
        fs::write(&config, "[req]\ndistinguished_name = subject\n[subject]\n").or_fail("openssl.cnf");
        let mut command = Command::new("openssl");
        command.arg("req").arg("-config").arg(config);
        command.args(["-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]);
        command.arg("-subj").arg(format!("/CN={}", names.first().or_fail("a name")));
        command.arg("-addext").arg(format!("subjectAltName={}", alternatives.join(",")));
        command.arg("-keyout").arg(certificate.key()).arg("-out").arg(certificate.file());
        output(&mut command);
        certificate
    }

    /// The certificate, PEM.
    pub fn file(&self) -> PathBuf {
        self.directory.path().join("certificate.pem")
    }

    /// The private key, PEM.
    pub fn key(&self) -> PathBuf {
        self.directory.path().join("key.pem")
    }
}

/// `openssl s_server` at `address` of `host`, answering as a web server with a page about the session.
#[track_caller]
pub fn openssl_server(
    host: &Host,
    address: impl Into<SocketAddr>,
    certificate: &Certificate,
    more: &[&str],
) -> Program {
    let address = address.into();
    let mut command = host.command("openssl");
    command.args(["s_server", "-www", "-accept", &address.to_string()]).args(more);
    command.arg("-cert").arg(certificate.file()).arg("-key").arg(certificate.key());
    let directory = owned::directory();
    Program::start("openssl s_server", &mut command, directory, host, &[address.port()])
}

/// curl on `host`, quiet but for errors, within a generous time.
pub fn curl(host: &Host) -> Command {
    let mut command = host.command("curl");
    command.args(["--disable", "--silent", "--show-error", "--fail", "--max-time"]).arg(PATIENCE.as_secs().to_string());
    command
}

/// Runs a client program to its end and returns its standard output.
///
/// # Panics
///
/// When it fails; the message holds its standard error.
#[track_caller]
pub fn output(command: &mut Command) -> Vec<u8> {
    let _waiting = Waiting::begin(&format!("{command:?} ends"));
    let output = command.stdin(std::process::Stdio::null()).output().or_fail(format_args!("{command:?}"));
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    output.stdout
}

/// As [`output`], as text without the last line feed.
#[track_caller]
pub fn text(command: &mut Command) -> String {
    String::from_utf8_lossy(&output(command)).trim_end().to_owned()
}
