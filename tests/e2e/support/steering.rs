//! A daemon with a kernel plane that tests can ask.

use std::net::SocketAddr;

use rpxy_l4_tests::{
    admin::Admin,
    daemon::{Daemon, missing_object},
    owned, privilege,
    topology::Topology,
    wait,
};
use serde_json::{Value, json};
use tempfile::TempDir;

/// The network, if the daemon can be expected to have a kernel plane.
pub(crate) fn with_object() -> Option<Topology> {
    if let Some(missing) = missing_object() {
        privilege::skip(&missing);
        return None;
    }
    Topology::or_skip()
}

/// A configuration with `keys` in its table `[ebpf]`.
pub(crate) fn config(port: u16, target: SocketAddr, keys: &str) -> String {
    format!("listen_port = {port}\nlisten_ipv6 = true\nudp_target = [\"{target}\"]\n[ebpf]\n{keys}\n")
}

/// Returns how TC is attached on this kernel: by links since Linux 6.6, by filters of clsact before.
pub(crate) fn tc_hook() -> &'static str {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap();
    let mut numbers = release.split('.').map(|number| number.parse::<u32>().unwrap_or(0));
    if (numbers.next(), numbers.next()) < (Some(6), Some(6)) { "clsact" } else { "tcx" }
}

/// A daemon with a kernel plane that can be asked.
pub(crate) struct Steering {
    pub(crate) daemon: Daemon,
    directory: TempDir,
}

impl Steering {
    /// Starts one with `keys` in its table `[ebpf]` and `top` at the top of its file.
    pub(crate) fn start(net: &Topology, target: SocketAddr, keys: &str, top: &str) -> Self {
        Self::start_with(net, &format!("{top}\n{}", config(443, target, keys)))
    }

    /// Starts one with a file.
    pub(crate) fn start_with(net: &Topology, config: &str) -> Self {
        let directory = owned::directory();
        let socket = directory.path().join("admin").display().to_string();
        let config = format!("admin_socket = \"{socket}\"\n{config}");
        Self { daemon: Daemon::start(&net.gateway, &config), directory }
    }

    /// Path of its admin socket.
    pub(crate) fn socket(&self) -> String {
        self.directory.path().join("admin").display().to_string()
    }

    pub(crate) fn admin(&self) -> Admin {
        Admin::connect(&self.directory.path().join("admin"))
    }

    /// Returns what `status` tells about the kernel plane.
    pub(crate) fn kernel_plane(&self) -> Value {
        self.admin().ask(&json!({ "command": "status" })).remove(0)["kernel_plane"].clone()
    }

    /// Returns plane and reason of the session of `client`.
    pub(crate) fn session_of(&self, client: SocketAddr) -> (Value, Value) {
        let lines = self.admin().ask(&json!({ "command": "flows" }));
        let line = lines.iter().find(|line| line["client"] == client.to_string());
        let line = line.unwrap_or_else(|| panic!("no session of {client} in {lines:?}"));
        (line["plane"].clone(), line["reason"].clone())
    }

    /// Waits until the kernel steers the session of `client`.
    pub(crate) fn wait_steered(&self, client: SocketAddr) {
        wait::until("the session is steered", || (self.session_of(client).0 == "kernel").then_some(()));
    }

    /// Waits until the session of `client` is in userspace for `reason`.
    pub(crate) fn wait_in_userspace(&self, client: SocketAddr, reason: &str) {
        let expected = (json!("userspace"), json!(reason));
        wait::until(&format!("the session is in userspace: {reason}"), || {
            (self.session_of(client) == expected).then_some(())
        });
    }

    /// Repeats `exchange`, in which packets go both ways, until the kernel forwards all of them: the daemon learns of
    /// the neighbours on the way a moment after it has installed a session.
    pub(crate) fn wait_forwarded(&self, packets: u64, mut exchange: impl FnMut()) {
        wait::until("the kernel forwards both ways", || {
            let before = self.counted("steered");
            exchange();
            (self.counted("steered") >= before + packets).then_some(())
        });
    }

    /// Returns the number of packets with `outcome`.
    pub(crate) fn counted(&self, outcome: &str) -> u64 {
        self.kernel_plane()["counters"][outcome].as_u64().unwrap_or(0)
    }
}
