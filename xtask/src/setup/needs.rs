//! The table of everything that the tasks need besides cargo: how to find it, where to get it, and what it is for.

use std::fmt;
use std::path::Path;

use super::{aioquic, apt, deny};
use crate::ebpf;
use crate::process;
use crate::workspace::Workspace;

/// The use of a need; a task asks only for its own purposes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Purpose {
    /// Compiling the workspace.
    Build,
    /// The lints, and the peers of the end-to-end tests.
    Test,
    /// The tests with foreign software that take longer to prepare, or that nothing else needs.
    Interop,
    /// Those of them with a client in Go, whose library not every Debian has.
    Go,
    /// Licences and sources of the dependencies.
    Dependencies,
    /// `cargo xtask bench`.
    Bench,
    /// `cargo xtask fuzz`.
    Fuzz,
    /// `cargo xtask build-ebpf`.
    Ebpf,
    /// `cargo xtask test-kernel`.
    Kernel,
    /// `cargo xtask dist`.
    Dist,
    /// `cargo xtask test-install`.
    Install,
}

impl Purpose {
    pub(crate) const ALL: [Self; 11] = [
        Self::Build,
        Self::Test,
        Self::Interop,
        Self::Go,
        Self::Dependencies,
        Self::Bench,
        Self::Fuzz,
        Self::Ebpf,
        Self::Kernel,
        Self::Dist,
        Self::Install,
    ];
}

/// One thing that may be missing.
#[derive(Debug)]
pub(crate) struct Need {
    pub(crate) probe: Probe,
    pub(crate) source: Source,
    /// The first purpose that needs it.
    pub(crate) purpose: Purpose,
    /// Its part in that purpose.
    pub(crate) why: &'static str,
}

/// The sign that something is installed. Never a package name: a program built by hand is as good.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Probe {
    /// A program by its file name.
    Program(&'static str),
    /// A file by its path on Debian, for what is loaded rather than run. Elsewhere it is taken to be there: the path
    /// would be another.
    DebianFile(&'static str),
    /// A cargo subcommand. It must run: rustup leaves a proxy in place of a component that is not installed.
    Cargo(&'static str),
    /// A Rust toolchain that can build core for the eBPF target.
    EbpfToolchain,
    /// bpf-linker in the pinned version.
    EbpfLinker,
    /// A program that bpf-linker is built with; not needed once the linker is there.
    EbpfLinkerNeeds(&'static str),
    /// cargo-deny, ours or on `PATH`.
    CargoDeny,
    /// aioquic, for the `python3` on `PATH`.
    Aioquic,
}

/// The origin of something.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Source {
    /// A Debian package.
    Apt(&'static str),
    /// A component of the Rust toolchain.
    Component(&'static str),
    /// A crate with a program, built by `cargo install`.
    Crate(&'static str),
    /// bpf-linker, built into the target directory when all else is there.
    EbpfLinker,
    /// cargo-deny, installed into the target directory.
    CargoDeny,
    /// aioquic, installed into the target directory by pip.
    Aioquic,
}

/// Everything, in the order in which it is reported.
#[rustfmt::skip]
pub(crate) const NEEDS: &[Need] = &[
    need(Probe::Program("cc"), Source::Apt("gcc"), Purpose::Build, "links every program"),
    need(Probe::DebianFile("/usr/include/stdio.h"), Source::Apt("libc6-dev"), Purpose::Build, "headers for C code in dependencies"),
    need(Probe::Cargo("fmt"), Source::Component("rustfmt"), Purpose::Test, "checks the formatting"),
    need(Probe::Cargo("clippy"), Source::Component("clippy"), Purpose::Test, "lints"),
    need(Probe::Program("git"), Source::Apt("git"), Purpose::Test, "lists the files of the repository for tidy"),
    need(Probe::Program("ip"), Source::Apt("iproute2"), Purpose::Test, "creates network namespaces"),
    need(Probe::Program("ethtool"), Source::Apt("ethtool"), Purpose::Test, "sets checksum offload and GRO of their devices"),
    need(Probe::Program("curl"), Source::Apt("curl"), Purpose::Test, "HTTP, TLS and SOCKS5 client"),
    need(Probe::Program("openssl"), Source::Apt("openssl"), Purpose::Test, "certificates, TLS client and server"),
    need(Probe::Program("ssh"), Source::Apt("openssh-client"), Purpose::Test, "SSH client"),
    need(Probe::Program("sshd"), Source::Apt("openssh-server"), Purpose::Test, "SSH server"),
    need(Probe::Program("haproxy"), Source::Apt("haproxy"), Purpose::Test, "PROXY protocol peer, bench candidate"),
    need(Probe::Program("nginx"), Source::Apt("nginx"), Purpose::Test, "HTTP and TLS server, bench candidate"),
    need(Probe::DebianFile("/usr/lib/nginx/modules/ngx_stream_module.so"), Source::Apt("libnginx-mod-stream"), Purpose::Test,
         "nginx as a layer-4 proxy, bench candidate"),
    need(Probe::Program("sslh-select"), Source::Apt("sslh"), Purpose::Test, "runs the example of docs/migrate, bench candidate"),
    need(Probe::DebianFile("/usr/lib/python3/dist-packages/yaml/__init__.py"), Source::Apt("python3-yaml"), Purpose::Test,
         "reads the manifests for Kubernetes"),
    need(Probe::Program("mandoc"), Source::Apt("mandoc"), Purpose::Test, "checks the manual pages"),
    need(Probe::Program("dnsmasq"), Source::Apt("dnsmasq-base"), Purpose::Test, "name server with SRV records"),
    need(Probe::Program("pg_ctlcluster"), Source::Apt("postgresql"), Purpose::Test, "PostgreSQL server"),
    need(Probe::Program("psql"), Source::Apt("postgresql-client"), Purpose::Test, "its client"),
    need(Probe::Program("unshare"), Source::Apt("util-linux"), Purpose::Test, "runs it as another user than root"),
    need(Probe::Program("prlimit"), Source::Apt("util-linux"), Purpose::Test, "lowers descriptor limits"),
    need(Probe::Program("wireguard-go"), Source::Apt("wireguard-go"), Purpose::Test, "WireGuard server and client"),
    need(Probe::Program("wg"), Source::Apt("wireguard-tools"), Purpose::Test, "configures WireGuard"),
    need(Probe::Program("boringtun-cli"), Source::Crate("boringtun-cli"), Purpose::Test, "WireGuard client"),
    need(Probe::Program("ping"), Source::Apt("iputils-ping"), Purpose::Test, "sends traffic through a tunnel"),
    need(Probe::Program("fail2ban-regex"), Source::Apt("fail2ban"), Purpose::Test, "reads the access log by the filter of the package"),
    need(Probe::Program("promtool"), Source::Apt("prometheus"), Purpose::Test, "checks metrics and alerts"),
    need(Probe::Program("tmux"), Source::Apt("tmux"), Purpose::Test, "a terminal for `rpxy-l4 top`"),
    need(Probe::Program("jq"), Source::Apt("jq"), Purpose::Test, "reads what `rpxy-l4 top --once --json` prints"),
    need(Probe::Program("chromium"), Source::Apt("chromium"), Purpose::Test, "shows the status page"),
    need(Probe::Program("chromedriver"), Source::Apt("chromium-driver"), Purpose::Test, "drives it"),
    need(Probe::Program("unshare"), Source::Apt("util-linux"), Purpose::Test, "ends all of its processes"),
    need(Probe::Program("tstclnt"), Source::Apt("libnss3-tools"), Purpose::Test, "TLS client with Encrypted Client Hello"),
    need(Probe::Program("cmake"), Source::Apt("cmake"), Purpose::Interop, "builds BoringSSL, a peer for Encrypted Client Hello"),
    need(Probe::Program("c++"), Source::Apt("g++"), Purpose::Interop, "compiles BoringSSL"),
    need(Probe::Program("clang"), Source::Apt("clang"), Purpose::Interop, "generates Rust bindings of BoringSSL"),
    need(Probe::Program("gtlsclient"), Source::Apt("ngtcp2-client"), Purpose::Interop, "QUIC client that changes its address"),
    need(Probe::Program("gtlsserver"), Source::Apt("ngtcp2-server"), Purpose::Interop, "its server"),
    need(Probe::Aioquic, Source::Aioquic, Purpose::Interop, "QUIC client; pip installs it"),
    need(Probe::Program("go"), Source::Apt("golang-go"), Purpose::Go, "compiles a client with quic-go"),
    need(Probe::DebianFile("/usr/share/gocode/src/github.com/lucas-clemente/quic-go/client.go"),
         Source::Apt("golang-github-lucas-clemente-quic-go-dev"), Purpose::Go, "QUIC client"),
    need(Probe::CargoDeny, Source::CargoDeny, Purpose::Dependencies, "checks licences and sources of the dependencies"),
    need(Probe::Program("nft"), Source::Apt("nftables"), Purpose::Bench, "kernel NAT as bench candidate"),
    need(Probe::Program("c++"), Source::Apt("g++"), Purpose::Fuzz, "compiles libFuzzer"),
    need(Probe::Cargo("fuzz"), Source::Crate("cargo-fuzz"), Purpose::Fuzz, "drives libFuzzer"),
    // Either the component or the three packages.
    need(Probe::EbpfToolchain, Source::Component("rust-src"), Purpose::Ebpf, "sources of the core library"),
    need(Probe::EbpfToolchain, Source::Apt("rustc-web"), Purpose::Ebpf, "a compiler whose library sources Debian packages"),
    need(Probe::EbpfToolchain, Source::Apt("cargo-web"), Purpose::Ebpf, "cargo for that compiler"),
    need(Probe::EbpfToolchain, Source::Apt("rust-web-src"), Purpose::Ebpf, "sources of its core library"),
    need(Probe::EbpfLinkerNeeds(ebpf::LLVM_CONFIG), Source::Apt("llvm-22-dev"), Purpose::Ebpf, "LLVM for bpf-linker"),
    need(Probe::EbpfLinkerNeeds("c++"), Source::Apt("g++"), Purpose::Ebpf, "links bpf-linker with LLVM"),
    need(Probe::EbpfLinker, Source::EbpfLinker, Purpose::Ebpf, "links the eBPF programs"),
    need(Probe::Program("qemu-system-x86_64"), Source::Apt("qemu-system-x86"), Purpose::Kernel, "runs another kernel"),
    need(Probe::Program("busybox"), Source::Apt("busybox-static"), Purpose::Kernel, "userspace of that kernel"),
    need(Probe::Program("strip"), Source::Apt("binutils"), Purpose::Kernel, "shrinks the test program"),
    need(Probe::Program("dpkg-shlibdeps"), Source::Apt("dpkg-dev"), Purpose::Dist, "finds the packages of libraries"),
    need(Probe::Program("rpmbuild"), Source::Apt("rpm"), Purpose::Dist, "builds the rpm"),
    need(Probe::Program("zstd"), Source::Apt("zstd"), Purpose::Dist, "compresses archives"),
    need(Probe::Program("mmdebstrap"), Source::Apt("mmdebstrap"), Purpose::Install, "makes a clean Debian"),
    need(Probe::Program("lintian"), Source::Apt("lintian"), Purpose::Install, "checks the Debian package"),
    need(Probe::Program("capsh"), Source::Apt("libcap2-bin"), Purpose::Install, "runs the image without a right"),
];

/// Returns the needs of `purposes` that this machine does not meet.
pub(crate) fn missing(workspace: &Workspace, purposes: &[Purpose]) -> Vec<&'static Need> {
    missing_by(purposes, |probe| probe.is_present(workspace))
}

fn missing_by(purposes: &[Purpose], is_present: impl Fn(&Probe) -> bool) -> Vec<&'static Need> {
    NEEDS.iter().filter(|need| need.is_for(purposes) && !is_present(&need.probe)).collect()
}

const fn need(probe: Probe, source: Source, purpose: Purpose, why: &'static str) -> Need {
    Need { probe, source, purpose, why }
}

impl Need {
    /// The benchmarks run in the namespaces and against the peers of the tests.
    fn is_for(&self, purposes: &[Purpose]) -> bool {
        purposes.contains(&self.purpose) || (self.purpose == Purpose::Test && purposes.contains(&Purpose::Bench))
    }
}

impl Probe {
    fn is_present(&self, workspace: &Workspace) -> bool {
        match self {
            Self::Program(name) => process::find(name).is_some(),
            Self::DebianFile(path) => !apt::is_available() || Path::new(path).exists(),
            Self::Cargo(name) => process::read(process::cargo().args([name, "--version"])).is_ok(),
            Self::EbpfToolchain => ebpf::Toolchain::find().is_some(),
            Self::EbpfLinker => ebpf::Linker::find(workspace).is_some(),
            Self::EbpfLinkerNeeds(name) => process::find(name).is_some() || ebpf::Linker::find(workspace).is_some(),
            Self::CargoDeny => deny::find(workspace).is_some(),
            Self::Aioquic => aioquic::is_present(workspace),
        }
    }
}

impl fmt::Display for Probe {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Program(name) | Self::EbpfLinkerNeeds(name) => f.write_str(name),
            Self::DebianFile(path) => f.write_str(path),
            Self::Cargo(name) => write!(f, "cargo {name}"),
            Self::EbpfToolchain => f.write_str("rust-src"),
            Self::EbpfLinker => write!(f, "bpf-linker {}", ebpf::LINKER_VERSION),
            Self::CargoDeny => f.write_str("cargo-deny"),
            Self::Aioquic => f.write_str("aioquic"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_task_asks_only_for_its_own_purposes() {
        let rows: [(&[Purpose], &[&str], &[&str]); 6] = [
            (&[Purpose::Build], &["cc"], &["haproxy", "nft", "cargo fuzz"]),
            (&[Purpose::Test], &["haproxy", "cargo clippy"], &["cc", "nft", "cargo fuzz", "cmake"]),
            (
                &[Purpose::Interop, Purpose::Dependencies],
                &["cmake", "gtlsclient", "aioquic", "cargo-deny"],
                &["haproxy"],
            ),
            (&[Purpose::Bench], &["haproxy", "nft"], &["cc", "cargo fuzz"]),
            (&[Purpose::Fuzz], &["c++", "cargo fuzz"], &["cc", "haproxy", "rust-src"]),
            (&[Purpose::Ebpf], &["c++", "rust-src", "llvm-config-22"], &["cc", "haproxy", "cargo fuzz"]),
        ];
        for (purposes, wanted, unwanted) in rows {
            let names: Vec<String> = missing_by(purposes, |_| false).iter().map(|n| n.probe.to_string()).collect();
            for name in wanted {
                assert!(names.iter().any(|n| n == name), "{purposes:?} wants {name}: {names:?}");
            }
            for name in unwanted {
                assert!(!names.iter().any(|n| n == name), "{purposes:?} does not want {name}: {names:?}");
            }
        }
    }

    #[test]
    fn what_is_there_is_not_missing() {
        assert!(missing_by(&Purpose::ALL, |_| true).is_empty());
        let workspace = Workspace::locate().unwrap();
        let is_present = |probe: Probe| probe.is_present(&workspace);
        assert!(is_present(Probe::Program("sh")) && !is_present(Probe::Program("no-such-program-anywhere")));
        assert!(is_present(Probe::DebianFile("/proc/self")));
        assert_eq!(is_present(Probe::DebianFile("/nonexistent")), !apt::is_available());
        assert!(!is_present(Probe::Cargo("no-such-subcommand-anywhere")));
    }
}
